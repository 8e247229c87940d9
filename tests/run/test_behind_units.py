"""`--barrier each`: what a decision waits for is stamped at once, and the rest behind. No cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from unittest import mock
from unittest.mock import MagicMock

import pytest

import kopf_ha
from kopf_ha._context import entered
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response
from kopf_ha.errors import ConfigurationError, FloorLost, GateClosed, SetAside, Unreached
from kopf_ha.run.barrier import PAUSES, raise_barrier
from kopf_ha.run.behind import HEAD_START, LONGEST, REST, Behind
from kopf_ha.run.deciding import DecidingObject
from kopf_ha.run.kinds import ServedKind
from kopf_ha.run.preparation import Preparation
from kopf_ha.run.sweep import Sweep
from tests.run.support import GROUP

KIND = ServedKind(GROUP, "v1", "roots", namespaced=True, stamped=True, kind="Root")


class Api:
    """Holds objects by name; `refused` are not stamped. A stamp takes a second."""

    def __init__(self, *names: str) -> None:
        self.objects = {name: self.body(name) for name in names}
        self.refused: dict[str, Any] = {}
        self.stamps: list[str] = []
        self.now = 0.0

    def body(self, name: str, uid: str = "") -> dict[str, Any]:
        metadata = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": "1"}
        return {"apiVersion": f"{GROUP}/v1", "kind": "Root", "metadata": metadata}

    def items(self, path: str) -> list[Any]:
        return list(self.objects.values())

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Response:
        assert method == "PATCH"
        name = path.split("/")[-2]
        self.stamps.append(name)
        self.now += 1.0
        if isinstance(refused := self.refused.get(name), Exception):
            raise refused
        if refused:
            return Response(refused, b'{"message": "because"}')
        if name not in self.objects:
            return Response(404, json.dumps({"details": {"name": name}}).encode())
        body = self.objects[name] | {"status": {"stamps": self.stamps.count(name)}}
        return Response(200, json.dumps(body).encode())


class Place:
    """A term whose barrier has listed these objects."""

    def __init__(self, *names: str, kind: ServedKind = KIND) -> None:
        self.api = Api(*names)
        self.grant = Grant(Stamp(7, "me", "ns/op", "uid"), 1000.0)
        self.fence = Fence("ns/op", deciding=[kind.name])
        self.sweep = Sweep(self.api, self.fence, self.grant, [kind])  # type: ignore[arg-type]
        self.waits: list[float] = []

    def raised(self) -> Behind:
        self.up = raise_barrier(self.sweep, self.wait, each=True)
        behind = Behind(self.sweep, self.up.behind, wait=self.wait, clock=lambda: self.api.now)
        self.grant.stamper, self.grant.behind = behind.stamped, True
        return behind

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def place() -> Place:
    return Place("a", "b", "c")


def test_handlers_wait_for_the_list_alone(place: Place) -> None:
    place.raised()
    assert place.api.stamps == []
    assert place.grant.unread == {"uid-a", "uid-b", "uid-c"}
    assert not place.grant.set_aside
    assert [one.target.name for one in place.up.behind] == ["a", "b", "c"]


def test_a_lost_floor_is_found_before_any_handler(place: Place) -> None:
    """I2."""
    place.api.objects["c"]["status"] = {"fencing": Stamp(9, "them", "ns/op", "u").as_status()}
    with pytest.raises(FloorLost):
        place.raised()


def test_a_kind_that_nobody_knows_to_be_stamped_is_stamped_first() -> None:
    unknown = Place("a", kind=ServedKind(GROUP, "v1", "roots", namespaced=True))
    unknown.raised()
    assert unknown.api.stamps == ["a"]
    assert unknown.grant.unread == set()


def test_what_is_asked_for_is_stamped_at_once_and_given_as_it_is_then(place: Place) -> None:
    behind = place.raised()
    with entered(place.grant):
        term = kopf_ha.current_term()
        assert term.stamps_behind
        found = asyncio.run(term.stamped(place.api.body("c")))
    assert found is not None
    assert found["status"] == {"stamps": 1}, "and not what was given"
    assert place.api.stamps == ["c"]
    assert place.grant.unread == {"uid-a", "uid-b"}
    assert behind.run() == []
    assert place.api.stamps == ["c", "a", "b"], "each once"
    assert place.grant.unread == {"uid-a", "uid-b"}, "nobody has read these after their stamps"
    # What was stamped behind has to be read all the same.
    assert behind.stamped({"metadata": {"uid": "uid-a"}}) is not None
    assert place.grant.unread == {"uid-b"}


def test_handlers_that_are_no_coroutines(place: Place) -> None:
    place.raised()
    with entered(place.grant):
        assert kopf_ha.current_term().stamped_sync(place.api.body("a")) is not None
    assert place.grant.unread == {"uid-b", "uid-c"}


def test_the_rest_is_stamped_in_a_small_part_of_the_time_and_within_a_bound(place: Place) -> None:
    """I7."""
    place.raised().run()
    assert place.waits == [HEAD_START, *[LONGEST] * 3], "a stamp took a second"
    assert REST >= 2


def test_one_that_is_younger_than_the_list(place: Place) -> None:
    behind = place.raised()
    place.api.objects["young"] = place.api.body("young")
    assert behind.stamped(place.api.body("young")) is not None
    assert place.api.stamps == ["young"]


def test_one_that_is_gone_or_was_made_again(place: Place) -> None:
    behind = place.raised()
    del place.api.objects["a"]
    place.api.objects["b"] = place.api.body("b", uid="another")
    assert behind.stamped(place.api.body("a")) is None
    assert behind.stamped({"metadata": {"uid": "uid-b"}}) is None
    assert "uid-b" in place.grant.unread


@pytest.mark.parametrize("trouble", [403, 500, Unreached("no answer")])
def test_one_that_cannot_be_stamped_is_not_decided_from_and_the_others_are(place: Place, trouble: Any) -> None:
    """I10."""
    behind = place.raised()
    place.api.refused["a"] = trouble
    with pytest.raises(SetAside, match="cannot be stamped now"):
        behind.stamped(place.api.body("a"))
    assert behind.stamped(place.api.body("b")) is not None
    (left,) = behind.run()
    assert left.target.name == "a"
    assert place.waits[-len(PAUSES) :] == list(PAUSES), "it is tried a few times, as at a barrier"
    place.sweep.finish([left])
    tries = len(place.api.stamps)
    with pytest.raises(SetAside, match="is set aside"):
        behind.stamped(place.api.body("a"))
    assert len(place.api.stamps) == tries, "whoever tries it again is somebody else"


def test_what_failed_behind_is_set_aside_for_the_term_and_told(place: Place) -> None:
    """I4: beside what the barrier set aside already. Nothing is decided from either."""
    behind = place.raised()
    place.api.refused["a"] = 403
    aside = DecidingObject.of(KIND, place.api.body("d"))
    journal, api = MagicMock(), place.api
    given: dict[str, Any] = {"enforcement": MagicMock(), "term": MagicMock(), "api": api, "journal": journal}
    prepared = Preparation(**given, fence=place.fence, policies_first=False, each=True)
    place.grant.close("so that nothing is tried again here")
    with mock.patch("kopf_ha.run.preparation.try_again") as try_again:
        prepared._go_on(place.sweep, behind, [aside])
    assert place.grant.set_aside == {"uid-a", "uid-d"}
    (told,) = journal.set_aside.call_args.args
    assert [one.target.name for one in told] == ["d", "a"]
    assert try_again.call_args.args[1] == told


@pytest.mark.parametrize("over", [True, False])
def test_the_end_of_the_process_is_no_error_in_its_thread(place: Place, over: bool) -> None:
    """The interpreter takes no job of a pool any more. While the term lasts, the same error is a bug."""
    given: dict[str, Any] = {"enforcement": MagicMock(), "term": MagicMock(), "api": place.api, "journal": MagicMock()}
    prepared = Preparation(**given, fence=place.fence, policies_first=False)
    if over:
        place.grant.close("the process ends")
    ended = RuntimeError("cannot schedule new futures after interpreter shutdown")
    ends = contextlib.nullcontext() if over else pytest.raises(RuntimeError, match="cannot schedule")
    with mock.patch("kopf_ha.run.preparation.try_again", side_effect=ended), ends:
        prepared._go_on(place.sweep, Behind(place.sweep, ()), [])


def test_it_ends_with_the_term(place: Place) -> None:
    behind = place.raised()
    place.api.refused["b"] = GateClosed("over")
    with pytest.raises(GateClosed):
        behind.stamped(place.api.body("b"))
    with pytest.raises(GateClosed):
        behind.run()
    assert place.api.stamps == ["b", "a", "b"]


def test_an_object_of_another_kind_is_a_mistake(place: Place) -> None:
    behind = place.raised()
    with pytest.raises(ConfigurationError, match="Thing x is no object of a deciding kind"):
        behind.stamped({"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": "x", "uid": "u"}})


def test_without_a_barrier_it_is_what_was_given() -> None:
    """The fence's other modes, for comparison."""
    with entered(Grant(Stamp(7, "me", "ns/op", "uid"), 1000.0)):
        term = kopf_ha.current_term()
        assert not term.stamps_behind
        assert term.stamped_sync({"metadata": {}}) == {"metadata": {}}
