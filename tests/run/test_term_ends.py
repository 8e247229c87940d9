"""How a term ends when its parts do not behave: the barrier, Kopf itself, the API server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import kopf
import pytest

import kopf_ha
from devcluster.waiting import until
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.errors import Unreached
from kopf_ha.run.kopf_thread import KopfOptions
from kopf_ha.run.term import Term
from kopf_ha.run.threads import in_thread
from tests.run.support import GROUP, LONG, Marks, Running, World, registry


def grant() -> Grant:
    return Grant(Stamp(7, "me", "ns/op", "uid"), deadline=1e9)


def term(before: Callable[[], None], ends: list[Any]) -> Term:
    options = KopfOptions(registry=registry(), clusterwide=True)
    return Term(grant(), options, before=before, beat=lambda: None, ended=lambda _, error: ends.append(error))


def test_a_barrier_that_hangs_is_not_waited_for() -> None:
    """Nothing of the operator ran: there is nothing to drain, and what the barrier still writes meets a closed gate."""
    hangs, runs, ends = threading.Event(), threading.Event(), list[Any]()

    def hang() -> None:
        runs.set()
        hangs.wait(LONG)

    one = term(hang, ends)
    one.start()
    try:
        assert runs.wait(LONG)
        one.stop()
        assert one.join(LONG)
        assert ends == [None]
        assert one.grant.closed
        assert not one.kopf_ran
    finally:
        hangs.set()


def test_a_term_that_is_stopped_before_its_barrier_begins_runs_nothing() -> None:
    ends, before = list[Any](), list[str]()
    one = term(lambda: before.append("barrier"), ends)
    one.stop()
    one.start()
    assert one.join(LONG)
    assert ends == [None]
    assert before == []
    assert not one.kopf_ran


def test_a_barrier_that_fails_lets_no_handler_run() -> None:
    ends: list[Any] = []

    def fail() -> None:
        raise Unreached("no answer")

    one = term(fail, ends)
    one.start()
    assert one.join(LONG)
    assert [str(e) for e in ends] == ["no answer"]
    assert not one.kopf_ran


def test_a_grant_that_closes_while_the_barrier_goes_up_lets_no_handler_run() -> None:
    ends: list[Any] = []
    one = term(lambda: one.grant.close("lost"), ends)
    one.start()
    assert one.join(LONG)
    assert not one.kopf_ran


def test_in_thread_hands_over_results_errors_and_context() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def main() -> None:
        with kopf_ha._context.entered(grant()):
            assert await in_thread(lambda: kopf_ha.current_term().token, "t") == 7
        with pytest.raises(ValueError, match="no"):
            await in_thread(fail, "t")
        hangs = threading.Event()
        future = in_thread(lambda: hangs.wait(LONG), "t")
        future.cancel()
        hangs.set()

    asyncio.run(main())


def test_kopf_that_ends_by_itself_gives_the_lease_back_while_a_handler_hangs(
    run: Callable[..., Running], world: World, marks: Marks, caplog: pytest.LogCaptureFixture
) -> None:
    """Kopf waits for its handlers; meanwhile the Lease must not be renewed by a leader that handles nothing."""
    handlers, hangs = registry(), threading.Event()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(**_: Any) -> None:
        if marks.all("handling"):
            return
        marks.put("handling")
        hangs.wait(LONG)

    world.create("Thing", "a")
    running = run(handlers, world.settings(drain_timeout=LONG))
    marks.wait("handling")
    term = running.runner.term
    assert term is not None
    assert term.thread.loop is not None
    task = next(t for t in asyncio.all_tasks(term.thread.loop) if t.get_name() == "namespace observer")
    term.thread.loop.call_soon_threadsafe(task.cancel)
    try:
        until("the Lease to be free", lambda: not world.lease().get("holderIdentity"), LONG)
        assert not hangs.is_set()
        assert running.runner.term is term
    finally:
        hangs.set()
    assert "Kopf stopped by itself" in caplog.text
