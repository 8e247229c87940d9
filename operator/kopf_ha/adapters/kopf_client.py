"""The adapter for Kopf: a middleware in its aiohttp session, whatever credentials the operator logs in with."""

from __future__ import annotations

import aiohttp

from kopf_ha._kopf import PreparedVault
from kopf_ha.adapters._sessions import FenceMiddleware, fence_session

#: In each session that Kopf writes with.
fence_middleware = FenceMiddleware("kopf", saw=True)


def fenced_vault() -> PreparedVault:
    """Return a store of credentials for Kopf that fences each session before Kopf uses it (I8)."""
    return PreparedVault(_fence)


def _fence(session: aiohttp.ClientSession) -> None:
    fence_session(session, fence_middleware)
