"""The adapter for Kopf: a middleware in its aiohttp session, whatever credentials the operator logs in with."""

from __future__ import annotations

import aiohttp

from kopf_ha._kopf import PreparedVault
from kopf_ha.adapters._sessions import FenceMiddleware, fence_session
from kopf_ha.adapters._wiring import note_own

#: In each session that Kopf writes with.
fence_middleware = FenceMiddleware("kopf", saw=True)
#: In those of an operator beside the fenced one. The fence does not know what its watch shows.
nested_middleware = FenceMiddleware("kopf")


def fenced_vault(*, nested: bool = False) -> PreparedVault:
    """Return a store of credentials for Kopf that fences each session before Kopf uses it (I8).

    Args:
        nested: for an operator beside the fenced one.
    """
    return PreparedVault(fence_nested if nested else fence_kopf)


def fence_kopf(session: aiohttp.ClientSession, server: str) -> None:
    """Fence a session of the fenced operator's Kopf. Its server is the cluster that the tokens are for."""
    note_own(server)
    fence_session(session, fence_middleware)


def fence_nested(session: aiohttp.ClientSession, server: str) -> None:
    """Fence a session of an operator beside the fenced one."""
    fence_session(session, nested_middleware)
