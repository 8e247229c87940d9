"""The adapter for kubernetes_asyncio and kubernetes.aio: a middleware in the session of each client.

Both are one client, as a package of its own and in `kubernetes` from version 37 on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from kopf_ha.adapters._changed import change
from kopf_ha.adapters._imported import when_imported
from kopf_ha.adapters._sessions import FenceMiddleware, fence_session

CLIENTS = ("kubernetes_asyncio", "kubernetes.aio")


def install() -> None:
    """Fence every `ApiClient` of both, also those that exist already, as soon as the operator imports them."""
    for name in CLIENTS:
        when_imported(f"{name}.client.rest", functools.partial(fence, FenceMiddleware(name)))


def fence(middleware: FenceMiddleware, rest: ModuleType) -> None:
    """Fence the clients of a module. A second call has no effect."""

    def fenced(rest_client: Any) -> None:
        if rest_client.pool_manager is not None:  # kubernetes.aio makes it with the first request
            fence_session(rest_client.pool_manager, middleware)

    def making(init: Callable[..., Any]) -> Callable[..., Any]:
        def made(self: Any, *args: Any, **options: Any) -> None:
            init(self, *args, **options)
            fenced(self)

        return made

    def sending(send: Callable[..., Any]) -> Callable[..., Any]:
        async def request(self: Any, *args: Any, **options: Any) -> Any:
            if self.pool_manager is None:
                self.pool_manager = self._create_pool_manager()
            fenced(self)
            return await send(self, *args, **options)

        return request

    change(rest.RESTClientObject, "__init__", making)
    change(rest.RESTClientObject, "request", sending)
