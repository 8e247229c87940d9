"""The adapter for Kopf: a middleware in its aiohttp session, whatever credentials the operator logs in with."""

from __future__ import annotations

import functools

import aiohttp
import kopf

from kopf_ha._kopf import WrappedVault, with_session
from kopf_ha.adapters._sessions import FenceMiddleware, fence_session
from kopf_ha.adapters._wiring import note_own

#: In each session that Kopf writes with.
fence_middleware = FenceMiddleware("kopf", saw=True)
#: In those of an operator beside the fenced one. The fence does not know what its watch shows.
nested_middleware = FenceMiddleware("kopf")


def fenced_vault(*, nested: bool = False) -> WrappedVault:
    """Return a store of credentials for Kopf that fences what the operator's login handlers return.

    Args:
        nested: for an operator beside the fenced one.
    """
    return WrappedVault(
        functools.partial(fenced_credentials, middleware=nested_middleware if nested else fence_middleware)
    )


def fenced_credentials(info: object, middleware: FenceMiddleware = fence_middleware) -> object:
    """Return credentials whose session is fenced. Anything else is returned as it is, and Kopf reports it."""
    if middleware.saw and isinstance(info, kopf.ConnectionInfo | kopf.AiohttpSession):
        note_own(info.server)
    if isinstance(info, kopf.ConnectionInfo):
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
        )
        fence_session(session, middleware)
        return with_session(info, session)
    if isinstance(info, kopf.AiohttpSession):
        fence_session(info.aiohttp_session, middleware)
    return info
