"""What becomes of one deciding object, and of all that are set aside, whatever an API server answers. No cluster."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest

from kopf_ha.core.asked import ONLY_NOTE
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.notes import as_metadata, notes_of
from kopf_ha.core.target import Target
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response
from kopf_ha.errors import ConfigurationError, FloorLost, ForeignStamp, StaleLeader, Unfenced, Unreached
from kopf_ha.run.aside import DELAYS, delays, try_again
from kopf_ha.run.barrier import PAUSES, raise_barrier
from kopf_ha.run.deciding import DecidingObject, stamp_one
from kopf_ha.run.journal import SHOWN, Journal
from kopf_ha.run.kinds import ServedKind
from kopf_ha.run.sweep import Sweep
from kopf_ha.settings import Settings
from tests.run.support import GROUP

KIND = ServedKind(GROUP, "v1", "roots", namespaced=True, stamped=True)


def target(name: str) -> Target:
    return Target(GROUP, "v1", "roots", "ns", name)


NAME = f"roots.{GROUP}"
NO_ANSWER = Unreached("the API server gave no answer")
OK = 200
GONE = Response(404, b'{"message": "not found", "details": {"name": "a"}}')
NOT_SERVED = Response(404, b"404 page not found")
FOREIGN = ForeignStamp("fenced by Lease elsewhere/other")


class Api:
    """Holds objects by name; `answers` has what is said to each one's stamps in turn, and the last one from then on."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {name: list(a) if isinstance(a, list) else [a] for name, a in answers.items()}
        self.status: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}
        self.sent: list[tuple[str, Any]] = []
        self.stamps: list[str] = []
        self.reads: list[str] = []
        self.away = False
        self._lock = threading.Lock()

    def items(self, path: str) -> list[Any]:
        return [self.body(name) for name in self.answers]

    def body(self, name: str) -> Any:
        made = {"metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": "1"}}
        made["metadata"] |= self.notes.get(name, {})
        return made | ({"status": self.status[name]} if name in self.status else {})

    def request(self, method: str, path: str, body: Any = None, *_: Any, **__: Any) -> Response:
        name = path.removesuffix("/status").rpartition("/")[2]
        if method == "GET":
            if self.away:
                raise NO_ANSWER
            self.reads.append(name)
            return Response(200, json.dumps(self.body(name) if name in self.answers else {}).encode())
        with self._lock:
            self.stamps.append(name)
            self.sent.append((path, body))
            turns = self.answers[name]
            answer = turns.pop(0) if len(turns) > 1 else turns[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Response) else Response(answer, b'{"message": "because"}')


@pytest.fixture
def fence() -> Fence:
    return Fence("ns/op", deciding=[NAME])


@pytest.fixture
def grant() -> Grant:
    return Grant(Stamp(7, "me", "ns/op", "uid"), 1000.0)


def raised(api: Any, fence: Fence, grant: Grant, kind: ServedKind = KIND) -> tuple[int, dict[str, str], list[float]]:
    """How many were stamped, what is set aside and why, and the pauses that it took."""
    pauses: list[float] = []
    up = raise_barrier(Sweep(api, fence, grant, [kind]), pauses.append)
    assert grant.set_aside == {one.uid for one in up.aside}
    return up.stamped, {one.target.name: one.trouble for one in up.aside}, pauses


@pytest.mark.parametrize("passing", [401, 403, NOT_SERVED, 409, 422, 429, 500, 503, NO_ANSWER, Unfenced("no schema")])
def test_trouble_that_passes_sets_nothing_aside(fence: Fence, grant: Grant, passing: Any) -> None:
    """I7: a role that is missing for a moment, an expired token."""
    api = Api(a=[passing, passing, 200], b=OK)
    assert raised(api, fence, grant) == (2, {}, list(PAUSES[:2]))


@pytest.mark.parametrize("answer", [200, GONE])
def test_nothing_is_left_to_do(fence: Fence, grant: Grant, answer: Any) -> None:
    api = Api(a=answer)
    assert raised(api, fence, grant) == (1, {}, [])
    assert api.stamps == ["a"]


@pytest.mark.parametrize(
    ("lasting", "trouble"),
    [
        (403, "403"),
        (409, "409"),
        (500, "500"),
        (NOT_SERVED, "404"),
        (NO_ANSWER, f"no answer: {NO_ANSWER}"),
        (Unfenced("malformed"), "malformed"),
    ],
)
@pytest.mark.parametrize("others", [{}, {"b": OK, "c": OK}], ids=["alone", "with others"])
def test_one_object_never_costs_the_term(
    fence: Fence, grant: Grant, lasting: Any, trouble: str, others: dict[str, Any]
) -> None:
    """I10."""
    api = Api(a=lasting, **others)
    assert raised(api, fence, grant) == (len(others), {"a": trouble}, list(PAUSES))
    assert api.stamps.count("b") <= 1


def test_many_cost_no_more_pauses_than_one(fence: Fence, grant: Grant) -> None:
    """What cannot be stamped must not keep handlers waiting for each object anew."""
    api = Api(**{f"x{n}": 403 for n in range(50)})
    stamped, aside, pauses = raised(api, fence, grant)
    assert (stamped, len(aside), pauses) == (0, 50, list(PAUSES))


def test_without_a_way_to_the_api_server_another_replica_may_do_better(fence: Fence, grant: Grant) -> None:
    api = Api(a=NO_ANSWER, b=NO_ANSWER)
    api.away = True
    with pytest.raises(Unreached, match="no answer"):
        raise_barrier(Sweep(api, fence, grant, [KIND]), lambda _: None)  # type: ignore[arg-type]


def test_what_another_lease_stamped_is_refused_once(fence: Fence, grant: Grant) -> None:
    """Each refusal is a line in the log."""
    api = Api(a=FOREIGN)
    api.status["a"] = {"fencing": Stamp(9, "them", "elsewhere/other", "u").as_status()}
    assert raised(api, fence, grant)[:2] == (0, {"a": str(FOREIGN)})
    assert api.stamps == ["a"]
    # Somebody mended it: it is stamped again.
    api.answers["a"], api.status["a"] = [OK], {}
    aside = DecidingObject(KIND, target("a"), "uid-a", str(FOREIGN), refused=True)
    assert stamp_one(api, fence, aside, grant.stamp) is None  # type: ignore[arg-type]


def test_a_kind_that_turns_out_to_have_no_stamp_is_no_deciding_kind(fence: Fence, grant: Grant) -> None:
    """Its definition could not be read, so nobody looked for a policy that protects its annotations."""
    fence.known.schemas[GROUP, "v1", "roots"] = False
    unknown = ServedKind(GROUP, "v1", "roots", namespaced=True)
    for answer in (200, Unfenced("no resourceVersion")):
        with pytest.raises(ConfigurationError, match=r"has no status\.fencing"):
            raise_barrier(Sweep(Api(a=answer), fence, grant, [unknown]))  # type: ignore[arg-type]


NOTED = ServedKind(GROUP, "v1", "roots", namespaced=True, stamped=False)


def test_a_kind_without_status_fencing_is_stamped_in_its_metadata(fence: Fence, grant: Grant) -> None:
    api = Api(a=OK, b=OK)
    assert raised(api, fence, grant, NOTED) == (2, {}, [])
    paths = {(path.rpartition("/")[2], str(body)) for path, body in api.sent}
    assert paths == {("a", str(ONLY_NOTE)), ("b", str(ONLY_NOTE))}
    target = NOTED.any
    assert fence.known.schemas == {target.kind_version: False}
    assert fence.known.objects.get((target.kind, "ns", "a")) is not None, "so that the fence need not read it"


@pytest.mark.parametrize(("lease", "lost"), [("ns/op", True), ("ns/other", False)])
def test_a_later_token_in_metadata_means_a_lost_floor(fence: Fence, grant: Grant, lease: str, lost: bool) -> None:
    """Only the operator can have written it: such a kind decides only where a policy protects it."""
    api = Api(a=OK)
    api.notes["a"] = as_metadata(notes_of(Stamp(9, "them", lease, "u"), NAME))
    if lost:
        with pytest.raises(FloorLost) as told:
            raised(api, fence, grant, NOTED)
        assert told.value.floor == 9
    else:
        assert raised(api, fence, grant, NOTED) == (1, {}, [])


def test_one_refusal_for_the_token_s_sake_ends_the_barrier(fence: Fence, grant: Grant) -> None:
    """The others are not refused one by one, each with its lines in the log."""
    api = Api(**{f"x{n}": StaleLeader("newer") for n in range(5000)})
    with pytest.raises(StaleLeader):
        raise_barrier(Sweep(api, fence, grant, [KIND]))  # type: ignore[arg-type]
    assert len(api.stamps) < 5000


# --- later tries


def aside(*names: str) -> list[DecidingObject]:
    return [DecidingObject(KIND, target(name), f"uid-{name}", "403") for name in names]


def listed(api: Api, fence: Fence, grant: Grant) -> Sweep:
    """What a barrier leaves that listed everything."""
    return Sweep(api, fence, grant, [KIND])  # type: ignore[arg-type]


def test_delays_grow() -> None:
    made = delays()
    assert [next(made) for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]
    assert DELAYS == (2.0, 60.0)


def test_what_was_set_aside_comes_back(fence: Fence, grant: Grant) -> None:
    api, told, waited = Api(a=[403, 403, 200], b=[403, 200]), [], []
    grant.set_aside = frozenset({"uid-a", "uid-b"})

    def wait(seconds: float) -> None:
        waited.append((seconds, grant.set_aside))

    def tell(left: Any) -> None:
        told.append([one.target.name for one in left])

    try_again(listed(api, fence, grant), aside("a", "b"), tell, wait=wait)
    both, one = {"uid-a", "uid-b"}, {"uid-a"}
    assert waited == [(2, both), (4, both), (8, one)]
    assert told == [["a"], []]
    assert grant.set_aside == frozenset()


def test_it_ends_with_the_term(fence: Fence, grant: Grant) -> None:
    api = Api(a=403)
    tries: list[float] = []

    def wait(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            grant.close("lost")

    try_again(listed(api, fence, grant), aside("a"), lambda left: None, wait=wait)
    assert len(api.stamps) == 2


@pytest.mark.parametrize("end", [StaleLeader("newer"), ConfigurationError("none")])
def test_a_refusal_ends_it(fence: Fence, grant: Grant, end: Exception) -> None:
    try_again(listed(Api(a=end), fence, grant), aside("a"), lambda left: None, wait=lambda _: None)


# --- what is told


@pytest.fixture
def journal(grant: Grant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Journal:
    def no_client() -> Any:
        raise Unreached("none")

    caplog.set_level(logging.INFO)
    made = Journal(Settings(lease_namespace="ns", lease_name="op"), no_client)
    made.began(grant, "uid")
    return made


def posted(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    events: list[tuple[Any, ...]] = []
    monkeypatch.setattr(journal.events, "post", lambda *args, **more: events.append((args[1], args[2], more)))
    return events


def test_one_clear_line_whatever_their_number(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events, names = posted(journal, monkeypatch), [f"x{n}" for n in range(SHOWN + 5)]
    caplog.clear()
    journal.set_aside(aside(*names))
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("15 deciding objects are set aside; nothing is decided from them until they are stamped: ")
    assert f"{NAME} ns/x0 (403); " in line
    assert line.endswith("; and 5 more")
    assert len(line) < 4000
    assert [(reason, more["warning"]) for reason, _, more in events] == [("SetAside", True)]
    # Fewer: a line, and no event more. None: it is over.
    journal.set_aside(aside("x0"))
    journal.set_aside([])
    lines = [r.getMessage() for r in caplog.records]
    assert lines[1].startswith("1 deciding objects are set aside")
    assert lines[2] == "all deciding objects that were set aside are stamped now"
    assert len(events) == 1
