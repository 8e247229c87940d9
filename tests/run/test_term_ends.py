"""How a term ends when its parts do not behave: the barrier, Kopf itself, the API server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kopf
import pytest
import urllib3

import kopf_ha
from devcluster.waiting import until
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response
from kopf_ha.errors import ConfigurationError, StaleLeader, Unfenced
from kopf_ha.run import barrier
from kopf_ha.run.barrier import Kind, raise_barrier, stamp_one
from kopf_ha.run.term import KopfOptions, Term, in_thread
from tests.run.support import GROUP, LONG, Marks, Running, World, registry

KIND = Kind(GROUP, "v1", "roots", namespaced=True)
BODY = {"metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "1"}}


def grant() -> Grant:
    return Grant(Stamp(7, "me", "ns/op", "uid"), deadline=1e9)


def term(before: Callable[[], None], ends: list[Any]) -> Term:
    options = KopfOptions(registry=registry(), clusterwide=True)
    return Term(grant(), options, before=before, beat=lambda: None, ended=lambda _, error: ends.append(error))


def test_a_barrier_that_hangs_is_not_waited_for() -> None:
    """Nothing of the operator ran: there is nothing to drain, and its writes meet a closed gate."""
    hangs, ends = threading.Event(), list[Any]()
    one = term(lambda: hangs.wait(LONG) and None, ends)
    one.start()
    one.stop()
    assert one.join(LONG)
    assert ends == [None]
    assert one.grant.closed or not one.kopf_ran
    hangs.set()


def test_a_barrier_that_fails_lets_no_handler_run() -> None:
    ends: list[Any] = []

    def fail() -> None:
        raise LookupError("no answer")

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
    assert term._loop is not None
    task = next(t for t in asyncio.all_tasks(term._loop) if t.get_name() == "namespace observer")
    term._loop.call_soon_threadsafe(task.cancel)
    try:
        until("the Lease to be free", lambda: not world.lease().get("holderIdentity"), LONG)
        assert not hangs.is_set()
        assert running.runner.term is term
    finally:
        hangs.set()
    assert "Kopf stopped by itself" in caplog.text


class Answers:
    """An API that gives these answers to the stamps, one after the other, and any read its object."""

    def __init__(self, *answers: Any) -> None:
        self.answers: Iterator[Any] = iter(answers)
        self.stamps = 0

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Response:
        if method == "GET":
            return Response(200, b'{"metadata": {"resourceVersion": "2"}}')
        self.stamps += 1
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return Response(answer, b'{"message": "because"}')


@pytest.fixture
def fence(monkeypatch: pytest.MonkeyPatch) -> Fence:
    monkeypatch.setattr(barrier, "PAUSE", 0.0)
    made = Fence("ns/op", deciding=[f"roots.{GROUP}"])
    made.schemas[GROUP, "v1", "roots"] = True
    return made


NO_ANSWER = urllib3.exceptions.ReadTimeoutError(None, "/", "slow")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "trouble"),
    [
        ((200,), ""),
        ((404,), ""),
        ((409, 409, 200), ""),
        ((500, 429, NO_ANSWER, 200), ""),
        ((403,), "403 because"),
        ((422,), "422 because"),
        ((Unfenced("malformed"),), "malformed"),
    ],
)
def test_what_becomes_of_one_stamp(fence: Fence, answers: tuple[Any, ...], trouble: str) -> None:
    api: Any = Answers(*answers)
    assert stamp_one(api, fence, KIND, BODY) == trouble
    assert api.stamps == len(answers)


@pytest.mark.parametrize("answer", [500, 503, 429, 409, NO_ANSWER])
def test_trouble_that_will_pass_sets_nothing_aside(fence: Fence, answer: Any) -> None:
    """I7: set aside, an object would wait for as long as this leader lives."""
    api: Any = Answers(*[answer] * 20)
    with pytest.raises(LookupError, match=f"cannot stamp roots.{GROUP} ns/a: "):
        stamp_one(api, fence, KIND, BODY)
    assert api.stamps == barrier.ATTEMPTS


def test_a_kind_without_a_stamp_is_no_deciding_kind(fence: Fence) -> None:
    fence.schemas[GROUP, "v1", "roots"] = False
    with pytest.raises(ConfigurationError, match=r"has no status\.fencing"):
        stamp_one(Answers(200), fence, KIND, BODY)  # type: ignore[arg-type]


def test_one_refusal_ends_the_barrier(fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are not refused one by one, each with its lines in the log."""
    asked: list[str] = []

    def refused(api: Any, fence: Fence, kind: Kind, body: Any) -> str:
        asked.append(body["metadata"]["name"])
        time.sleep(0.01)
        raise StaleLeader("newer")

    monkeypatch.setattr(barrier, "stamp_one", refused)
    monkeypatch.setattr(barrier, "find_kind", lambda api, kind: KIND)
    many = [{"metadata": BODY["metadata"] | {"name": str(n)}} for n in range(500)]

    class Api:
        def items(self, path: str) -> list[Any]:
            return many

    with pytest.raises(StaleLeader):
        raise_barrier(Api(), fence, grant())  # type: ignore[arg-type]
    assert len(asked) < 100
