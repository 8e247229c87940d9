"""What Kopf's features do when the leader changes: docs/terms.md says it, and these runs show it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import datetime

from devcluster.waiting import until
from tests.kit.client import MERGE
from tests.run.support import LONG, Replica, World
from tests.terms.support import Trace

Start = Callable[..., Replica]

OPERATOR = """
@kopf.on.startup()
def begin(memo, **_):
    trace("startup", memo=dict(memo))
    memo.left_by_a_term = kopf_ha.current_term().token

@kopf.on.cleanup()
def end(**_):
    trace("cleanup")

@kopf.index(GROUP, "v1", "things")
def sizes(name, spec, **_):
    return {name: spec["size"]}

@kopf.on.event(GROUP, "v1", "things")
def event(name, type, sizes, **_):
    trace("event", name=name, type=type, indexed=sorted(sizes))

@kopf.on.resume(GROUP, "v1", "things")
def resumed(name, memo, **_):
    trace("resume", name=name, memo=dict(memo))
    memo.resumed = True

@kopf.on.create(GROUP, "v1", "things")
def created(name, **_):
    trace("create", name=name)

@kopf.on.update(GROUP, "v1", "things", field="spec.size")
def updated(name, old, new, **_):
    trace("update", name=name, old=old, new=new)

@kopf.on.delete(GROUP, "v1", "things")
def deleted(name, **_):
    trace("delete", name=name)

@kopf.on.create(GROUP, "v1", "things", field="spec.flaky")
def flaky(name, retry, started, **_):
    trace("flaky", retry=retry, started=started.isoformat())
    if kopf_ha.current_term().token == 1:
        raise kopf.TemporaryError("not yet", delay=0.3)

@kopf.timer(GROUP, "v1", "things", interval=3600, field="spec.timed")
def rarely(retry, **_):
    trace("timer", retry=retry)

@kopf.daemon(GROUP, "v1", "things", field="spec.daemon", cancellation_backoff=5)
async def coroutine(stopped, **_):
    trace("begins", daemon="coroutine")
    await stopped.wait(3600)
    trace("ends", daemon="coroutine")

@kopf.daemon(GROUP, "v1", "things", field="spec.daemon", cancellation_backoff=5)
def thread(stopped, **_):
    trace("begins", daemon="thread")
    stopped.wait(3600)
    trace("ends", daemon="thread")

@kopf.daemon(GROUP, "v1", "things", field="spec.daemon", cancellation_timeout=5)
async def cancelled(stopped, **_):
    trace("begins", daemon="cancelled")
    try:
        await asyncio.sleep(3600)
    finally:
        trace("ends", daemon="cancelled")

@kopf.daemon(GROUP, "v1", "things", field="spec.daemon")
async def deaf(**_):
    if kopf_ha.current_term().token == 1:
        trace("deaf begins")
        try:
            await asyncio.sleep(3600)
        finally:
            trace("deaf ends")
"""
DAEMONS = ("coroutine", "thread", "cancelled")


def test_takeover(traced: Start, trace: Trace, world: World) -> None:
    def edit(name: str, **spec: object) -> None:
        world.ask("PATCH", world.path("things", name), {"spec": spec}, MERGE)

    world.create("Thing", "a", size=1, timed=True, daemon=True)
    world.create("Thing", "b", size=1, flaky=True)
    world.create("Thing", "d", size=1)
    one = traced("one", OPERATOR)
    trace.wait("timer", token=1)
    for daemon in DAEMONS:
        trace.wait("begins", token=1, daemon=daemon)
    for name in "abd":
        trace.wait("create", name=name)
    trace.wait("flaky", 3)
    trace.wait("deaf begins")
    one.signal(signal.SIGTERM)
    assert one.wait() == 0, one.log

    # Nobody leads. What users do now waits for the next leader.
    edit("a", size=2)
    edit("a", size=3)
    world.create("Thing", "c", size=1)
    world.ask("DELETE", world.path("things", "d"))
    two = traced("two", OPERATOR)
    trace.wait("update", name="a")
    trace.wait("create", name="c")
    trace.wait("delete", name="d")
    trace.wait("timer", token=2)
    until("the flaky handler's progress to be cleared", lambda: not annotated(world, "b"), LONG)
    for daemon in DAEMONS:
        trace.wait("begins", daemon=daemon, token=2)

    # A follower takes over while the leader stops: nothing of two terms runs at once.
    three = traced("three", OPERATOR)
    three.see("new leader")
    edit("c", size=2)
    trace.wait("update", name="c")
    two.signal(signal.SIGTERM)
    for daemon in DAEMONS:
        trace.wait("begins", daemon=daemon, token=3)
    assert two.wait() == 0, two.log
    for name in "abc":
        trace.wait("resume", name=name, token=3)
    three.signal(signal.SIGTERM)
    assert three.wait() == 0, three.log
    check(trace)


def annotated(world: World, name: str) -> bool:
    annotations = world.get("things", name)["metadata"]["annotations"]
    return any("flaky" in key for key in annotations)


def check(trace: Trace) -> None:
    for token in (1, 2, 3):
        of_term = [line for line in trace.all(token=token) if line["what"] != "deaf ends"]
        # startup first, cleanup last and with the gate open, each once in a term; the memo is new
        assert [of_term[0]["what"], of_term[-1]["what"]] == ["startup", "cleanup"]
        assert len(trace.all("startup", token=token)) == len(trace.all("cleanup", token=token)) == 1
        assert of_term[0]["memo"] == {}
        assert all(line["open"] for line in of_term)
        # terms do not overlap in a takeover by choice
        assert of_term == trace.all()[of_term[0]["at"] : of_term[-1]["at"] + 1]
        # no handler runs before the indices have everything that was there
        assert {"a", "b"} <= set(trace.all("event", token=token)[0]["indexed"])

    # What an earlier term finished with is resumed, once in each term, with a memo of its own. Not what is created or
    # deleted in this one, and b's creation was not finished before.
    resumed = {t: sorted(r["name"] for r in trace.all("resume", token=t)) for t in (1, 2, 3)}
    assert resumed == {1: [], 2: ["a"], 3: ["a", "b", "c"]}
    assert all(r["memo"] == {"left_by_a_term": r["token"]} for r in trace.all("resume"))

    # what changed while nobody led is one update with both ends, one creation, one deletion
    assert [(u["name"], u["old"], u["new"], u["token"]) for u in trace.all("update")] == [
        ("a", 1, 3, 2),
        ("c", 1, 2, 2),
    ]
    assert [c["token"] for c in trace.all("create", name="c")] == [2]
    assert [d["token"] for d in trace.all("delete")] == [2]

    # retries count on, from the same start
    flaky = trace.all("flaky")
    assert [f["retry"] for f in flaky] == list(range(len(flaky)))
    assert [f["token"] for f in flaky].count(2) == 1
    assert len({datetime.fromisoformat(f["started"]) for f in flaky}) == 1

    # a timer fires as soon as a term begins, however long its interval is
    assert [(t["token"], t["retry"]) for t in trace.all("timer")] == [(1, 0), (2, 0), (3, 0)]

    # each daemon once in a term, ended before the next one's begins
    for daemon in DAEMONS:
        spans = [(d["what"], d["token"]) for d in trace.all(daemon=daemon)]
        assert spans == [(what, token) for token in (1, 2, 3) for what in ("begins", "ends")]

    # One that Kopf was not told to wait for outlives even cleanup, but not its term.
    (end,) = trace.all("deaf ends")
    assert end["open"]
    assert trace.all("cleanup", token=1)[0]["at"] < end["at"] < trace.all("startup", token=2)[0]["at"]
