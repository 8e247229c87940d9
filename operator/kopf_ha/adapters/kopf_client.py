"""The adapter for Kopf: a middleware in its aiohttp session, whatever credentials the operator logs in with."""

from __future__ import annotations

import aiohttp
import kopf

from kopf_ha._kopf import WrappedVault, with_session
from kopf_ha.adapters._sessions import FenceMiddleware, fence_session

#: In each session that Kopf writes with.
fence_middleware = FenceMiddleware("kopf", saw=True)


def fenced_vault() -> WrappedVault:
    """Return a store of credentials for Kopf that fences what the operator's login handlers return."""
    return WrappedVault(fenced_credentials)


def fenced_credentials(info: object) -> object:
    """Return credentials whose session is fenced. Anything else is returned as it is, and Kopf reports it."""
    if isinstance(info, kopf.ConnectionInfo):
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
        )
        fence_session(session, fence_middleware)
        return with_session(info, session)
    if isinstance(info, kopf.AiohttpSession):
        fence_session(info.aiohttp_session, fence_middleware)
    return info
