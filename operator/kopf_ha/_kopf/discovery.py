"""What Kopf finds out about the cluster: kinds and namespaces."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from typing import Any

import aiohttp
import kopf
from kopf._cogs.clients import api, scanning
from kopf._cogs.structs import references
from kopf._core.reactor import observation

from kopf_ha._kopf.logs import running_log

#: Seconds before each further question to a server that was down; the last goes on for ever.
AGAIN: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 60)

_DISCOVERY_TASK = "kopf-ha discovery"
_NAMESPACES = re.compile(r"/api/v1/namespaces$")
_GROUP_VERSION = re.compile(r"/apis/([^/]+)/[^/]+$")
#: What the API server says in place of an aggregated API whose server is down. Its own kinds' 503 is a JSON object.
_DOWN = ("service unavailable", "error trying to reach service")


class Discovery:
    """Lets Kopf begin with what it may know at once. What was refused is found out behind, as soon as it can be.

    Kopf repeats a refused request for 54 s by default, and goes on only then: at the start of each term.

    - If it may not list namespaces, it takes those that it was given by name. Here it takes them at the first refusal.
      It still repeats its request.
    - If the server of an aggregated API is down, Kopf ends after these 54 s, even if no handler needs that API. Here
      the API has no kinds until its server answers.

    It is a middleware of the session.
    """

    def __init__(
        self,
        settings: kopf.OperatorSettings,
        registry: kopf.OperatorRegistry,
        insights: references.Insights,
        namespaces: Collection[str],
    ) -> None:
        self.insights = insights
        self._settings, self._registry = settings, registry
        self._named = references.select_specific_namespaces(namespaces)
        self._down: set[str] = set()  #: paths that are asked for again

    def watch(self, session: aiohttp.ClientSession, server: str) -> None:
        """See the answers to what this session sends."""
        session._middlewares = (self._ask, *session._middlewares)

    async def _ask(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(request)
        path = request.url.path
        if request.method != "GET" or response.status not in (403, 503):
            return response
        if response.status == 403 and self._named and _NAMESPACES.search(path):
            await self._assume_namespaces()
        found = _GROUP_VERSION.search(path) if response.status == 503 else None
        if found and (await response.text()).startswith(_DOWN):
            response.status = 404  # for Kopf it has no kinds
            if found[0] not in self._down:
                self._down.add(found[0])
                running_log.warning("Nothing serves %s at the moment; going on without its kinds.", found[0])
                self._later(found[1], found[0], AGAIN)
        return response

    async def _assume_namespaces(self) -> None:
        if self.insights.ready_namespaces.is_set():
            return
        async with self.insights.revised:
            self.insights.namespaces.update(self._named)
            self.insights.revised.notify_all()
        self.insights.ready_namespaces.set()

    def _later(self, group: str, path: str, pauses: tuple[float, ...]) -> None:
        loop = asyncio.get_running_loop()
        # A callback and not a sleeping task: Kopf would wait for a task when it stops.
        loop.call_later(
            pauses[0], lambda: loop.create_task(self._again(group, path, pauses[1:] or pauses), name=_DISCOVERY_TASK)
        )

    async def _again(self, group: str, path: str, pauses: tuple[float, ...]) -> None:
        """Ask for a version's kinds again, and let Kopf look at the whole group once there is an answer."""
        try:
            await api.get(path, settings=self._settings, logger=observation.logger)
            changed: Any = {"type": "MODIFIED", "object": {"spec": {"group": group}}}
            await observation.process_discovered_resource_event(
                raw_event=changed, settings=self._settings, registry=self._registry, insights=self.insights
            )
            self._down.discard(path)
            running_log.info("%s is served again.", path)
        except Exception as error:  # noqa: BLE001  whatever it is, it must not end Kopf
            running_log.debug("%s is not served yet: %r", path, error)
            self._later(group, path, pauses)


def exact_namespaces(patterns: Collection[str]) -> tuple[str, ...]:
    """Return those of the patterns of `-n` that are the name of one namespace, which Kopf serves without asking."""
    return tuple(sorted(references.select_specific_namespaces(patterns)))


def serves(name: str, patterns: Collection[str]) -> bool:
    """Return whether Kopf serves the namespace for one of the patterns of `-n`."""
    return any(references.match_namespace(references.NamespaceName(name), pattern) for pattern in patterns)


def discovers(task: asyncio.Task[Any]) -> bool:
    """Return whether the task is the discovery of kinds, which a stopping Kopf does not cancel but waits 5 s for."""
    code = getattr(task.get_coro(), "cr_code", None)
    return task.get_name() == _DISCOVERY_TASK or (code is not None and code.co_filename == scanning.__file__)
