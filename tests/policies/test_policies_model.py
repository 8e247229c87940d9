"""The model's API server, and the one of the fence's units, answer as the real one does.

`make model` explores states over `model/server.py`, whose rules are written by hand. So the same requests go to all
three, and what they answer and what the objects are like afterwards is compared: the status code, which of our rules
refused, whether the object has another revision, its stamp, its content, whether it is there.

MODEL_EXAMPLES=1000 tries more lists of requests than the default.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from model.server import is_there, mark_in, version_of
from model.wire import NAMES, Wire
from tests.policies.alike import CHILD, CLAIM, POOL, Alike
from tests.policies.fenced import Fenced

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "40"))

#: A step: what is done, by which pod, with which token, at which revision: the current one, an earlier one, or none.
Step = tuple[Any, ...]

WHICH = st.sampled_from(["now", "now", "earlier", "none"])
MARKS = st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(0, 1)))
STEPS = st.one_of(
    st.tuples(st.just("STATUS"), st.just(POOL), WHICH, MARKS, st.sampled_from([None, True, False])),
    st.tuples(st.just("STATUS"), st.just(CLAIM), WHICH, MARKS, st.none()),
    st.tuples(st.just("STAMP"), st.sampled_from([POOL, CLAIM]), st.sampled_from(["was", "other"]), MARKS),
    st.tuples(st.just("POST"), st.just(CHILD), MARKS, st.booleans()),
    st.tuples(st.just("PATCH"), st.just(CHILD), WHICH, MARKS, st.sampled_from([None, True, False])),
    st.tuples(st.just("DELETE"), st.just(CHILD), WHICH, WHICH),
    st.tuples(st.just("RELEASE"), st.just(CLAIM), WHICH),
    st.tuples(st.just("user"), st.sampled_from(["leave", "edit", "spoil", "remove"])),
)
#: Mostly a pod writes its own stamp, with a token that rises: otherwise nearly all is refused.
LISTS = st.lists(st.tuples(st.integers(0, 1), st.booleans(), STEPS), min_size=4, max_size=12)


def wire_of(alike: Alike, step: Step, writer: int, own: bool) -> Wire | None:
    """Return the model's request for a step, on the objects as they are; None if there can be none."""
    name = step[1]
    one = alike.objects[NAMES.index(name)]
    there = is_there(one)
    version = version_of(name, one) if there else 1

    def at(which: str) -> int | None:
        return {"now": version, "earlier": max(0, version - 1), "none": None}[which]

    def stamp(mark: Any) -> Any:
        if mark is None or not own:
            return mark
        before = mark_in(name, one)
        return (max(mark[0], before[0] + (before[1] != writer) if before else 1), writer)

    match step:
        case ("STATUS", _, which, mark, value):
            return ("STATUS", name, at(which), stamp(mark), value)
        case ("STAMP", _, which, mark):
            before = mark_in(name, one)
            was = before if which == "was" else (4, 0)
            whole = was is None
            return None if mark is None else ("STAMP", name, was, stamp(mark), whole)
        case ("POST", _, mark, right):
            return ("POST", name, stamp(mark), right)
        case ("PATCH", _, which, mark, right):
            return ("PATCH", name, at(which), stamp(mark), right)
        case ("DELETE", _, which, whose):
            uid = one[0] if there else 1
            return ("DELETE", name, at(which), {"now": uid, "earlier": uid + 1, "none": None}[whose])
        case ("RELEASE", _, which):
            return None if alike.released else ("RELEASE", name, at(which))
    raise AssertionError(step)


def compare(alike: Alike, wire: Wire, writer: int) -> None:
    may, real, fake = alike.write(wire, writer)
    assert real in may, f"{wire} by {writer}: the model says {may}, the API server {real}"
    assert fake in (None, real), f"{wire} by {writer}: the units' server says {fake}, the API server {real}"


def run(fenced: Fenced, steps: list[tuple[int, bool, Step]]) -> None:
    alike = Alike(fenced)
    for writer, own, step in steps:
        if step[0] == "user":
            alike.user(step[1])
        elif (wire := wire_of(alike, step, writer, own)) is not None:
            compare(alike, wire, writer)


@settings(
    max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(steps=LISTS)
def test_the_same_requests_have_the_same_answers(fenced: Fenced, steps: list[tuple[int, bool, Step]]) -> None:
    run(fenced, steps)


#: docs/facts.md, and the takeovers that the model explores, one list for each.
STORIES: dict[str, list[tuple[int, bool, Step]]] = {
    "a takeover, and the earlier leader's late write": [
        (0, True, ("STATUS", POOL, "now", (1, 0), True)),
        (1, True, ("STAMP", POOL, "was", (2, 1))),
        (0, True, ("STATUS", POOL, "earlier", (1, 0), False)),
        (0, False, ("STATUS", POOL, "none", (1, 0), False)),
        (0, False, ("STATUS", POOL, "now", (2, 0), False)),
        (1, False, ("STATUS", POOL, "now", (2, 1), False)),
    ],
    "a stamp whose test fails is a 422, also on an object without one": [
        (0, True, ("STAMP", POOL, "other", (1, 0))),
        (0, True, ("STAMP", POOL, "was", (1, 0))),
        (0, True, ("STAMP", POOL, "other", (2, 0))),
        (0, True, ("STAMP", POOL, "was", (1, 0))),  # changes nothing, so it makes no revision
    ],
    "a precondition is judged before the rule and the policies": [
        (0, True, ("STATUS", POOL, "now", (3, 0), None)),
        (0, False, ("STATUS", POOL, "earlier", (1, 0), True)),
        (0, False, ("STATUS", POOL, "now", (1, 0), True)),
    ],
    "a write that changes nothing makes no revision, and is refused all the same": [
        (0, True, ("STATUS", POOL, "now", (1, 0), True)),
        (0, True, ("STATUS", POOL, "now", (1, 0), True)),
        (1, False, ("STATUS", POOL, "none", None, None)),
        (1, False, ("STATUS", POOL, "none", (1, 0), None)),
    ],
    "what exists is made once, and the policy speaks first": [
        (0, True, ("POST", CHILD, (1, 0), True)),
        (0, True, ("POST", CHILD, (1, 0), True)),
        (1, False, ("POST", CHILD, None, True)),
        (0, True, ("PATCH", CHILD, "earlier", (1, 0), False)),
        (0, True, ("PATCH", CHILD, "now", None, False)),
        (0, True, ("PATCH", CHILD, "now", (1, 0), False)),
    ],
    "a deletion names a revision, and the uid counts": [
        (0, True, ("POST", CHILD, (1, 0), True)),
        (0, True, ("DELETE", CHILD, "none", "now")),
        (0, True, ("DELETE", CHILD, "now", "earlier")),
        (0, True, ("DELETE", CHILD, "earlier", "now")),
        (1, True, ("DELETE", CHILD, "now", "now")),
        (0, True, ("DELETE", CHILD, "now", "now")),
        (0, True, ("DELETE", CHILD, "now", "now")),
        (1, True, ("POST", CHILD, (2, 1), True)),
    ],
    "an object that is made again has another uid": [
        (0, True, ("POST", CHILD, (1, 0), True)),
        (0, True, ("user", "remove")),
        (1, True, ("PATCH", CHILD, "none", (2, 1), True)),
        (1, True, ("POST", CHILD, (2, 1), False)),
        (1, True, ("DELETE", CHILD, "now", "earlier")),
    ],
    "the last finalizer of an object that is leaving": [
        (0, True, ("RELEASE", CLAIM, "now")),
        (0, True, ("STATUS", CLAIM, "now", (1, 0), None)),
        (0, True, ("user", "leave")),
        (1, True, ("RELEASE", CLAIM, "now")),
        (0, True, ("RELEASE", CLAIM, "earlier")),
        (0, True, ("RELEASE", CLAIM, "now")),
        (0, True, ("RELEASE", CLAIM, "none")),
    ],
    "a finalizer of an object that stays": [
        (0, True, ("STATUS", CLAIM, "now", (1, 0), None)),
        (0, True, ("RELEASE", CLAIM, "now")),
        (0, True, ("user", "leave")),
    ],
}


@pytest.mark.parametrize("steps", STORIES.values(), ids=STORIES)
def test_what_the_model_rests_on(fenced: Fenced, steps: list[tuple[int, bool, Step]]) -> None:
    run(fenced, steps)


def test_a_difference_would_be_noticed(fenced: Fenced) -> None:
    """With a rule less the model says something else than the API server."""
    alike = Alike(fenced)
    alike.rules = alike.rules._replace(policies=False)
    with pytest.raises(AssertionError, match=r"the model says .*status=200"):
        compare(alike, ("STATUS", POOL, None, None, True), 0)


def test_line_4_is_late_by_nature(fenced: Fenced) -> None:
    """After a takeover the API server answers by the Term before or by the new one, until it has heard."""
    alike = Alike(fenced)
    first = (fenced.lead(fenced.old), 0)
    alike.heard = (first,)
    compare(alike, ("POST", CHILD, first, True), 0)
    compare(alike, ("PATCH", CHILD, None, (1, 1), False), 1)  # who does not lead
    second = (fenced.acquire(fenced.new), 1)
    fenced.write_term(fenced.new, second[0])
    alike.heard = (first, second)
    compare(alike, ("PATCH", CHILD, None, first, False), 0)  # the earlier leader: refused or not
    compare(alike, ("PATCH", CHILD, None, second, True), 1)  # the new one: never, since its token is newer
    fenced.wait_heard(fenced.new, second[0])
    alike.heard = (second,)
    for wire in (("PATCH", CHILD, None, first, False), ("PATCH", CHILD, None, (second[0] + 1, 0), False)):
        compare(alike, wire, 0)
    compare(alike, ("STATUS", POOL, None, second, True), 1)
    compare(alike, ("STATUS", POOL, None, (second[0] - 1, 0), False), 0)
