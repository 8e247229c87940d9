"""Whether answers fit an order in time: the search alone, and what the judge makes of the audit log."""

from __future__ import annotations

import json
import math
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from judge import History, judge, read_audit
from judge.answers import HELD, Call, lock, register
from judge.history import replay
from judge.linear import Operation, search
from judge.verdict import Expectations
from tests.judge.judge_stories import USER, ZERO, Story

NOTHING = (0, False)


def did(begin: float, end: float, did: str, made: int = 0, asked: int = 0) -> Operation[Call]:
    return Operation(begin, end, Call(did, made, asked))


def fits(*operations: Operation[Call]) -> bool:
    return search(operations, NOTHING, register).ok


def test_overlapping_requests_may_have_happened_in_either_order() -> None:
    made = did(0, 1, "created", 5)
    assert fits(made, did(2, 6, "wrote", 9), did(3, 4, "read", 5), did(5, 7, "read", 9))
    assert fits(made, did(2, 6, "wrote", 9), did(3, 4, "read", 9))
    assert fits(made, did(2, 6, "deleted"), did(3, 5, "missed"), did(4, 7, "read", 5))


def test_a_stale_read_after_a_write() -> None:
    made, wrote = did(0, 1, "created", 5), did(2, 3, "wrote", 9, 5)
    assert fits(made, wrote, did(3, 5, "read", 5))  # both at the same moment
    assert not fits(made, wrote, did(4, 5, "read", 5))
    assert not fits(made, did(2, 3, "deleted"), did(4, 5, "read", 5))
    assert not fits(made, did(2, 6, "wrote", 9), did(3, 4, "read", 9), did(5, 7, "read", 5))


def test_a_lost_update() -> None:
    """Two compare-and-swaps on one revision cannot both succeed, at whatever times."""
    assert not fits(did(0, 1, "created", 5), did(2, 9, "wrote", 8, 5), did(2, 9, "wrote", 9, 5))
    assert fits(did(0, 1, "created", 5), did(2, 9, "wrote", 8, 5), did(2, 9, "collided", 0, 5))
    assert not fits(did(0, 1, "created", 5), did(2, 3, "collided", 0, 5)), "nothing had changed"
    assert not fits(did(0, 1, "created", 5), did(2, 3, "created", 8)), "it was there"


def test_what_was_not_answered_may_have_happened_at_any_later_time_or_never() -> None:
    made, lost = did(0, 1, "created", 5), did(2, math.inf, "lost", 8, 5)
    assert fits(made, lost, did(90, 91, "read", 5))
    assert fits(made, lost, did(80, 81, "read", 5), did(90, 91, "read", 8))
    assert not fits(made, lost, did(80, 81, "read", 8), did(90, 91, "read", 5))
    assert not fits(did(0, 1, "created", 5), did(3, 4, "read", 8), did(5, math.inf, "lost", 8, 5))


def test_an_address_that_two_claims_hold_at_one_moment() -> None:
    def held(*calls: tuple[float, float, str, str]) -> bool:
        return search([Operation(b, e, (did, uid)) for b, e, did, uid in calls], "", lock).ok

    assert held((0, 1, "taken", "a"), (2, 3, "gone", "a"), (4, 5, "taken", "b"))
    assert held((0, 1, "taken", "a"), (2, 6, "gone", "a"), (3, 4, "taken", "b"))
    assert not held((0, 1, "taken", "a"), (4, 5, "taken", "b"), (6, 7, "gone", "a"))
    assert not held((0, 9, "taken", "a"), (0, 9, "taken", "b"))


def test_a_search_that_takes_too_long_is_given_up() -> None:
    many = [did(0, 1, "wrote", n) for n in range(2, 40)]
    outcome = search([did(0, 0, "created", 1), *many, did(0, 1, "read", 99)], NOTHING, register, steps=500)
    assert not outcome.decided
    assert not outcome.ok


@st.composite
def sequential(draw: st.DrawFn) -> list[Call]:
    """What an object answers, one request after the other."""
    numbers, state, calls = count(1), NOTHING, []
    for _ in range(draw(st.integers(2, 12))):
        revision, exists = state
        stale = revision - 1 if revision > 1 else 999
        may = [Call("missed"), Call("created", next(numbers))] if not exists else [
            Call("read", revision), Call("wrote", next(numbers), revision), Call("wrote", next(numbers)),
            Call("wrote", revision), Call("collided", 0, stale), Call("refused"), Call("deleted"),
        ]  # fmt: skip
        calls.append(draw(st.sampled_from(may)))
        (state,) = register(state, calls[-1])
    return calls


@given(sequential(), st.data())
def test_whatever_happened_one_after_the_other_fits_with_any_delays(calls: list[Call], data: st.DataObject) -> None:
    delays = st.floats(0, 5)
    made = [Operation(at - data.draw(delays), at + data.draw(delays), call) for at, call in enumerate(calls)]
    assert search(data.draw(st.permutations(made)), NOTHING, register).ok
    unanswered = data.draw(st.integers(0, len(made) - 1))
    some = [Operation(o.begin, math.inf if i == unanswered else o.end, o.call) for i, o in enumerate(made)]
    assert search(some, NOTHING, register).ok, "no answer leaves more possible, not less"


@given(st.integers(1, 9), st.data())
def test_swapped_answers_are_noticed(writes: int, data: st.DataObject) -> None:
    """A write and a read in turns; two answers change places."""
    made = [Call("created", 1), *(Call("wrote", 2 + n) for n in range(writes))]
    story = [one for call in made for one in (call, Call("read", call.made))]
    one, other = data.draw(st.lists(st.integers(0, len(story) - 1), min_size=2, max_size=2, unique=True))
    assert search(in_turns(story), NOTHING, register).ok
    a, b = story[one], story[other]
    story[one], story[other] = Call(a.did, b.made), Call(b.did, a.made)
    assert search(in_turns(story), NOTHING, register).ok == (a.made == b.made)


def in_turns(calls: list[Call]) -> list[Operation[Call]]:
    return [Operation(at, at + 0.5, call) for at, call in enumerate(calls)]


def event(at: int, verb: str, version: int = 0, code: int = 200, body: Any = None, until: int = 0) -> dict[str, Any]:
    """An audit event about claim a, that lasts half a second, or until another second."""
    meta = {"resourceVersion": str(version), "uid": "a"}
    answer = {"kind": "AddressClaim", "metadata": meta} if version else {"kind": "Status"}
    return {
        "stage": "ResponseComplete",
        "requestURI": "/apis/ipam.kopf-ha.dev/v1/namespaces/default/addressclaims/a",
        "verb": verb,
        "user": {"username": "alice"},
        "objectRef": {"resource": "addressclaims", "namespace": "default", "name": "a"},
        "responseStatus": {"code": code, "message": "not found" if code == 404 else ""},
        "requestObject": body,
        "responseObject": answer,
        "requestReceivedTimestamp": f"2030-01-01T00:00:{at:02}.000000Z",
        "stageTimestamp": f"2030-01-01T00:00:{until or at:02}.5Z",
    }


def found(tmp_path: Path, history: History, *events: dict[str, Any]) -> list[str]:
    log = tmp_path / "audit.log"
    log.write_text("".join(json.dumps(e) + "\n" for e in events))
    verdict = judge(history, read_audit([log]), Expectations(fenced=False, min_terms=0, min_bound_claims=0))
    return [f.kind for f in verdict.findings]


def edited(*gone: int) -> History:
    """Claim a is created at revision 2, written at 3 and 4, and deleted at 5 if that is asked for."""
    key = Story.claim_key("a")
    body = {"metadata": {"uid": "a"}, "spec": {"poolName": "blue"}}
    writes: list[Any] = [(r, key, body | {"status": {"at": r}}) for r in (2, 3, 4)]
    return replay(9, [*writes, *((r, key, None) for r in gone)])


def test_answers_in_the_audit_log(tmp_path: Path) -> None:
    on_3 = {"metadata": {"resourceVersion": "3"}}
    test_3 = [{"op": "test", "path": "/metadata/resourceVersion", "value": "3"}]
    made, first, second = event(1, "create", 2, 201), event(2, "patch", 3), event(3, "update", 4, body=on_3)
    assert found(tmp_path, edited(), made, first, second, event(4, "get", 4)) == []
    stale, cached = event(4, "get", 3), event(4, "get", 3)
    cached["requestURI"] += "?resourceVersion=0"
    assert found(tmp_path, edited(), made, first, second, stale) == ["answers disagree"]
    assert found(tmp_path, edited(), made, first, second, cached) == []
    assert found(tmp_path, edited(), made, first, event(3, "patch", 4, body=test_3)) == []
    lost_update = event(3, "patch", 4, body={"metadata": {"resourceVersion": "2"}})
    assert found(tmp_path, edited(), made, first, lost_update) == ["answers disagree"]
    conflict = event(4, "update", code=409, body=on_3)
    assert found(tmp_path, edited(), made, first, second, conflict) == []
    conflict = event(4, "update", code=409, body={"metadata": {"resourceVersion": "4"}})
    assert found(tmp_path, edited(), made, first, second, conflict) == ["answers disagree"]
    assert found(tmp_path, edited(), made, second, event(4, "get", 4)) == [], "the write of 3 was not answered"
    assert found(tmp_path, edited(), first, second, stale) == [], "its creation is not in the log"


def test_answers_after_the_end_of_the_history_say_nothing(tmp_path: Path) -> None:
    """A change may be missing there whose request had no answer."""
    made, first, second = event(1, "create", 2, 201), event(2, "patch", 3), event(3, "update", 4)
    conflict = event(6, "update", code=409, body={"metadata": {"resourceVersion": "4"}})
    assert found(tmp_path, edited(), made, first, second, conflict) == ["answers disagree"]
    later = event(5, "patch", 10)
    assert found(tmp_path, edited(), made, first, second, later, conflict) == []
    before = event(4, "update", code=409, body={"metadata": {"resourceVersion": "4"}})
    assert found(tmp_path, edited(), made, first, second, before, later) == ["answers disagree"]


def test_the_end_of_an_object_in_the_audit_log(tmp_path: Path) -> None:
    made, first, second = event(1, "create", 2, 201), event(2, "patch", 3), event(3, "patch", 4)
    end, missed = event(5, "delete"), event(6, "get", code=404)
    assert found(tmp_path, edited(5), made, first, second, end, missed) == []
    assert found(tmp_path, edited(5), made, first, second, end, event(6, "get", 4)) == ["answers disagree"]
    assert found(tmp_path, edited(5), made, first, second, event(4, "get", code=404), event(5, "get", 4)) == [
        "answers disagree"
    ]
    last = event(5, "patch", 4)
    last["responseObject"]["metadata"] |= {"deletionTimestamp": "2030-01-01T00:00:05Z", "finalizers": []}
    assert found(tmp_path, edited(5), made, first, second, last, missed) == []
    later = event(7, "create", 6, 201)
    assert found(tmp_path, edited(5), made, first, second, last, missed, later) == ["answers disagree"]


def test_an_address_whose_new_claim_was_told_of_it_before_the_old_one_was_gone(tmp_path: Path) -> None:
    """In etcd's order the old one goes first; by the times of the requests it cannot have."""
    story = Story()
    for name in "ab":
        story.claim(name)
        story.asked("alice", verb="create")
    for name in "ab":
        if name == "b":
            story.gone(story.claim_key("a"))
            story.asked(
                "alice", verb="delete", revision=None, begun="2030-01-01T00:00:08", finished="2030-01-01T00:00:09"
            )
        story.pool({"10.20.0.7": name})
        begun, finished = (f"2030-01-01T00:00:0{2 if name == 'a' else 4}.{n}" for n in (0, 5))
        story.asked(ZERO, begun=begun, finished=finished)
        story.claim(name, "10.20.0.7")
        story.asked(ZERO, begun=begun, finished=finished)
    expected = Expectations(USER, fenced=False, min_terms=0)
    assert HELD in [f.kind for f in judge(story.history, story.audit, expected).findings]
    story.audit = [e for e in story.audit if e.verb != "delete"]
    assert HELD not in [f.kind for f in judge(story.history, story.audit, expected).findings]
