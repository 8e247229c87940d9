"""The adapter for kubernetes_asyncio and kubernetes.aio: a middleware in the session of each client.

Both are one client, as a package of its own and in `kubernetes` from version 37 on.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from kopf_ha.adapters._imported import when_imported
from kopf_ha.adapters._sessions import FenceMiddleware, fence_session

CLIENTS = ("kubernetes_asyncio", "kubernetes.aio")


def install() -> None:
    """Fence every `ApiClient` of both, also those that exist already, as soon as the operator imports them."""
    for name in CLIENTS:
        when_imported(f"{name}.client.rest", functools.partial(fence, FenceMiddleware(name)))


def fence(middleware: FenceMiddleware, rest: ModuleType) -> None:
    """Fence the clients of a module. A second call has no effect."""
    made, sent = rest.RESTClientObject.__init__, rest.RESTClientObject.request
    if getattr(sent, "kopf_ha", False):
        return

    def fenced(rest_client: Any) -> None:
        if rest_client.pool_manager is not None:  # kubernetes.aio makes it with the first request
            fence_session(rest_client.pool_manager, middleware)

    @functools.wraps(made)
    def init(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        fenced(self)

    @functools.wraps(sent)
    async def request(self: Any, *args: Any, **options: Any) -> Any:
        if self.pool_manager is None:
            self.pool_manager = self._create_pool_manager()
        fenced(self)
        return await sent(self, *args, **options)

    request.kopf_ha = True  # type: ignore[attr-defined]
    rest.RESTClientObject.__init__, rest.RESTClientObject.request = init, request
