"""Both sorts of clients wait in front of a gate that is held, with real threads and a real event loop.

Nothing here asserts a duration. The grants last for minutes, so whoever goes on was woken.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from devcluster.waiting import until
from kopf_ha._context import boottime, entered
from kopf_ha.adapters import Wiring, _wiring, may_begin, wired
from kopf_ha.adapters._waiting import wait, while_held
from kopf_ha.core.gate import Gate
from kopf_ha.core.grant import Grant
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import GateClosed
from tests.core.fake_api import MINE

ASKED = Request("POST", "/api/v1/namespaces/a/configmaps")
ORIGIN = "https://one"
MINUTES = 600.0


class OnlyGate:
    """A fence of which the gate is left."""

    def flow(self, request: Request, grant: Grant, now: Any, **_: Any) -> Generator[Request, Response, Response]:
        return (yield from Gate(request, "it", grant, now).send(request))


@pytest.fixture
def grant() -> Grant:
    held = Grant(MINE, boottime() + MINUTES, MINUTES)
    held.hold("not renewed")
    return held


class Writers:
    """Clients of one sort that write in the term, each in its own thread or task, and what becomes of it."""

    def __init__(self, grant: Grant, sort: str) -> None:
        self.grant, self.sort = grant, sort
        self.sent: list[str] = []
        self.refused: list[GateClosed] = []
        self.threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        run = self._blocking if self.sort == "blocking" else self._async
        for target, n in ((run, count),) if self.sort == "async" else ((run, 1),) * count:
            self.threads.append(threading.Thread(target=target, args=(n,), daemon=True))
            self.threads[-1].start()
        until("all of them to wait", lambda: len(self.grant._woken) == count)

    def end(self) -> None:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive(), "it waits for ever"
        assert not self.grant._woken

    def _send(self, request: Request) -> Response:
        self.sent.append(request.method)
        return Response(201)

    def _blocking(self, _: int) -> None:
        with entered(self.grant):
            try:
                _wiring.drive("kubernetes", ASKED, self._send, ORIGIN)
            except GateClosed as error:
                self.refused.append(error)

    def _async(self, count: int) -> None:
        async def send(request: Request) -> Response:
            return self._send(request)

        async def one() -> None:
            try:
                await _wiring.adrive("kopf", ASKED, send, ORIGIN)
            except GateClosed as error:
                self.refused.append(error)

        async def all_() -> None:
            await asyncio.gather(*(one() for _ in range(count)))

        with entered(self.grant):
            asyncio.run(all_())


@pytest.mark.parametrize("sort", ["blocking", "async"])
def test_they_go_on_when_it_opens(grant: Grant, sort: str) -> None:
    writers = Writers(grant, sort)
    with wired(Wiring(OnlyGate(), lambda outcome: None)):  # type: ignore[arg-type]
        writers.start(5)
        assert writers.sent == []
        grant.reopen(boottime() + MINUTES)
        writers.end()
    assert (writers.sent, writers.refused) == (["POST"] * 5, [])


@pytest.mark.parametrize("sort", ["blocking", "async"])
@pytest.mark.parametrize("end", [lambda grant: grant.close("lost"), Grant.wait_no_more], ids=["closed", "drained"])
def test_they_are_refused_when_the_term_ends(grant: Grant, sort: str, end: Callable[[Grant], None]) -> None:
    writers = Writers(grant, sort)
    with wired(Wiring(OnlyGate(), lambda outcome: None)):  # type: ignore[arg-type]
        writers.start(5)
        end(grant)
        writers.end()
    assert (writers.sent, len(writers.refused)) == ([], 5)


def test_a_grant_that_changed_before_is_not_waited_for(grant: Grant) -> None:
    grant.reopen(boottime() + MINUTES)
    wait(grant)
    grant.close("lost")
    wait(grant)


async def until_it_waits(grant: Grant) -> None:
    while not grant._woken:  # noqa: ASYNC110  nobody tells when something begins to wait
        await asyncio.sleep(0)


def ends_with(grant: Grant, end: Callable[[Grant], None], waiting: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Let something wait in the term, end that, and wait for it."""

    async def run() -> None:
        with entered(grant):
            task = asyncio.create_task(waiting())
        await until_it_waits(grant)
        assert not task.done()
        end(grant)
        await asyncio.wait_for(task, 30)

    try:
        asyncio.run(run())
    finally:
        assert not grant._woken


ENDS = [lambda grant: grant.close("lost"), Grant.wait_no_more]


@pytest.mark.parametrize("end", [lambda grant: grant.reopen(boottime() + MINUTES), *ENDS])
def test_reads_of_kopf_wait_as_long(grant: Grant, end: Callable[[Grant], None]) -> None:
    ends_with(grant, end, while_held)


def test_handlers_begin_when_it_opens(grant: Grant) -> None:
    ends_with(grant, lambda grant: grant.reopen(boottime() + MINUTES), may_begin)


@pytest.mark.parametrize("end", ENDS)
def test_no_handler_begins_in_a_term_that_ends_meanwhile(grant: Grant, end: Callable[[Grant], None]) -> None:
    with pytest.raises(asyncio.CancelledError):
        ends_with(grant, end, may_begin)


def test_without_a_term_and_with_an_open_gate_nothing_waits(grant: Grant) -> None:
    asyncio.run(while_held())
    asyncio.run(may_begin())
    grant.reopen(boottime() + MINUTES)
    with entered(grant):
        asyncio.run(may_begin())


def test_whoever_is_cancelled_leaves_nothing_behind(grant: Grant) -> None:
    """As Kopf does with handlers that do not end."""

    async def cancelled() -> None:
        with entered(grant):
            task = asyncio.create_task(while_held())
        await until_it_waits(grant)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert not grant._woken


def test_a_loop_that_is_closed_stops_nobody_else(grant: Grant) -> None:
    """The election's thread wakes the waiters, so nothing of theirs may reach it."""
    loop = asyncio.new_event_loop()

    async def begins() -> None:
        with entered(grant):
            asyncio.ensure_future(while_held())  # noqa: RUF006  it is lost with its loop
        await until_it_waits(grant)

    loop.run_until_complete(begins())
    loop.close()
    grant.close("lost")
    assert grant.closed == "lost"
