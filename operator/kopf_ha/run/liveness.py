"""Kopf's liveness endpoint, ``--liveness=http://0.0.0.0:8080/healthz``, on every replica.

Kopf serves it from its own event loop, so only a leader would, and the kubelet would kill followers. Here the process
serves it. While it leads, the answer is what Kopf's would be: the results of the operator's probes in JSON. A follower
has nothing to probe and answers ``{}``, as Kopf does without probes. What fails ``/livez`` fails it, too, with 503.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from kopf_ha.errors import ConfigurationError
from kopf_ha.run.health import Health
from kopf_ha.run.serving import Answer, Server, answering, path_of
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: Seconds for which results of probes are given again, as by Kopf.
FRESH = 10.0
#: Seconds for a whole request. Probes may take long, and the kubelet can be told to wait for them.
PATIENCE = 60.0
#: Hosts that stand for all addresses.
_ALL = ("0.0.0.0", "::")  # noqa: S104  whoever runs the operator chooses


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where it is served."""

    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read it as Kopf does: without a host it is localhost, without a port 80.

        Raises:
            ConfigurationError: it is no such URL.
        """
        try:
            parts = urlsplit(url)
            if parts.scheme == "http" and parts.netloc:
                return cls(parts.hostname or "localhost", parts.port or 80, parts.path or "/")
        except ValueError:
            pass  # the port is no number, or the address is none
        raise ConfigurationError(f"--liveness must be a URL like http://0.0.0.0:8080/healthz, not {url!r}")

    def check(self, settings: Settings) -> None:
        """Check that it can be served beside what else is served.

        Raises:
            ConfigurationError: it cannot; the message says what to change.
        """
        if self.port == settings.metrics_port:
            raise ConfigurationError(f"--liveness and --metrics-port are both at port {self.port}; choose two ports")
        if self.port != settings.health_port:
            return
        if self.host not in _ALL:
            raise ConfigurationError(
                f"--liveness is at port {self.port} of {self.host}, and --health-port is that port of all addresses;"
                f" choose two ports, or write http://0.0.0.0:{self.port}{self.path}"
            )
        if self.path in ("/readyz", "/livez"):
            raise ConfigurationError(
                f"--liveness and --health-port both serve {self.path} at port {self.port}; leave --liveness out, or"
                " choose another path or port"
            )


class Probes:
    """The results of one term's probes. All of it runs in the term's event loop.

    Args:
        run: runs the probes of Kopf's registry.
        clock: in seconds.
    """

    def __init__(
        self, run: Callable[[], Awaitable[Mapping[str, Any]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run = run
        self._clock = clock
        self._found: Mapping[str, Any] = {}
        self._until = float("-inf")
        self._lock = asyncio.Lock()

    async def results(self) -> Mapping[str, Any]:
        """Return the results, at most `FRESH` seconds old. Several callers wait for one run.

        Raises:
            Exception: a probe failed.
        """
        async with self._lock:
            if self._clock() >= self._until:
                self._found = await self._run()
                self._until = self._clock() + FRESH
        return self._found


@dataclass(eq=False, kw_only=True)
class Liveness:
    """Answers requests to the endpoint.

    Args:
        endpoint: where it is served.
        health: of the process.
        probe: starts the probes, in the present term; None if Kopf does not run. From any thread.
    """

    endpoint: Endpoint
    health: Health
    probe: Callable[[], Future[Mapping[str, Any]] | None]
    _answer: Answer = field(default=Answer(200, "{}", "application/json"), init=False)

    async def collect(self, path: str) -> None:
        """Prepare the answer to the next request; awaited right before it."""
        if path == self.endpoint.path:
            self._answer = await self._collected()

    async def _collected(self) -> Answer:
        wrong = [sentence for _, sentence in self.health.checks("/livez") or () if sentence]
        if wrong:
            return Answer(503, "".join(f"{sentence}\n" for sentence in wrong))
        running = self.probe()
        try:
            # Shielded: others may wait for the same run, and this client may go away.
            results = {} if running is None else await asyncio.shield(asyncio.wrap_future(running))
            return Answer(200, json.dumps(results), "application/json; charset=utf-8")
        except asyncio.CancelledError:
            if running is None or not running.cancelled():
                raise
            return Answer(200, "{}", "application/json; charset=utf-8")  # the term ended meanwhile
        except Exception as error:
            logger.error("a probe failed: %s", error, exc_info=True)
            return Answer(500, f"a probe failed: {type(error).__name__}: {error}\n")

    def answer(self, target: str) -> Answer:
        """Answer a request with this path and query."""
        if path_of(target) != self.endpoint.path:
            return Answer(404, f"not found: ask {self.endpoint.path}\n")
        return self._answer

    def serve(self) -> Server:
        """Serve it at a port of its own.

        Raises:
            ConfigurationError: the port is not available.
        """
        at = self.endpoint
        return Server("liveness", at.port, answering(self.answer), host=at.host, before=self.collect, patience=PATIENCE)

    def serve_beside(self, health: Health) -> Server:
        """Serve it at the port of `health`.

        Raises:
            ConfigurationError: the port is not available.
        """

        def answer(target: str) -> Answer:
            return self.answer(target) if path_of(target) == self.endpoint.path else health.answer(target)

        return Server("health", self.endpoint.port, answering(answer), before=self.collect, patience=PATIENCE)


def servers(health: Health, liveness: Liveness | None, health_port: int) -> Iterator[Callable[[], Server | None]]:
    """Yield what serves the probes of the kubelet, at one port or at two."""
    if liveness is None:
        yield health.serve
    elif liveness.endpoint.port == health_port:
        yield partial(liveness.serve_beside, health)
    else:
        yield health.serve
        yield liveness.serve
