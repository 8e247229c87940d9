"""What the runner makes of a fault, beside a stand that only pretends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest

from devcluster import DevclusterError
from faults import report
from faults.link import Request, Trap
from faults.runner import BROKEN, FAILED, HELD, IMPOSSIBLE, LATE, Runner
from faults.table import Fault, Scene, Where

LEASE = 1


class Link:
    """Holds what the runner asks for, at once if the write is one that decides."""

    def __init__(self) -> None:
        self.released: list[bool] = []
        self.trap: Trap | None = None
        self._trap = None

    def arm(self, match: Any, *, after: bool = False, nth: int = 1) -> Trap:
        self.trap = Trap(match, after, nth)
        return self.trap

    def sees(self, name: str) -> None:
        for method, target in (("PATCH", f"/claims/{name}"), ("PATCH", "/addresspools/p/status")):
            request = Request(method, target, name.encode())
            if self.trap is not None and self.trap.takes(request, after=self.trap.after):
                self.trap.request = request
                self.trap.hit.set()

    def release(self, trap: Trap, *, deliver: bool = True) -> None:
        self.released.append(deliver)

    def heal(self) -> None:
        pass

    def turn(self, upstream: str) -> None:
        pass


class Seat:
    def __init__(self, name: str) -> None:
        self.name, self.link, self.log, self.size = name, Link(), "", 0
        self.replica = self.clock = Idle()

    def said(self, since: int) -> str:
        return self.log[since:]

    def refused(self, since: int) -> Counter[str]:
        return Counter(word for word in ("gate", "precondition") if f"refused by {word}, token" in self.said(since))

    def revive(self) -> None:
        pass


class Idle:
    running = True

    def resume(self) -> None:
        pass

    def heal(self) -> None:
        pass


class Users:
    def __init__(self, stand: Stand) -> None:
        self._stand = stand

    def claim(self, name: str = "") -> str:
        self._stand.one.link.sees(name)
        return name

    def served(self, names: list[str]) -> float | None:
        return time.monotonic() - 5  # long ago

    def forget(self) -> None:
        pass


class Plane:
    servers = ("https://one",)
    _apiservers = ()

    def etcd(self, number: int) -> Any:
        return Server()


class Server(Idle):
    def wait_ready(self) -> None:
        pass


class Stand:
    """Service takes as long as `serving` says, and the judge finds what is in `found`."""

    lease_duration, large, tampered = LEASE, False, False

    def __init__(self) -> None:
        self.one, self.two = Seat("one"), Seat("two")
        self.seats, self.users, self.plane = [self.one, self.two], Users(self), Plane()
        self.holder, self.token = "one", 1
        self.serving, self.found, self.answer = 0.0, list[str](), 403

    def calm(self) -> None:
        pass

    def leader(self) -> Seat:
        return self.one

    def lease(self) -> tuple[str, int]:
        return f"{self.holder}_x_1", self.token

    def others(self, seat: Seat) -> list[Seat]:
        return [self.two]

    def serves(self) -> float:
        return time.monotonic() + self.serving

    def steal(self, seat: Seat, token: int) -> list[tuple[int, str]]:
        return [(self.answer, "no")] * 2

    def findings(self) -> list[str]:
        return self.found

    def taken_over(self, _: Scene) -> None:
        self.holder, self.token = "two", 2
        self.two.log += "leading: token 2, Lease n/l\n"
        self.one.log += "lost: token 1\nrefused by precondition, token 1, kopf: StaleLeader: …\n"


@pytest.fixture
def stand() -> Stand:
    return Stand()


def run(stand: Stand, **about: Any) -> Any:
    fault = Fault("a fault", about.pop("put", stand.taken_over), **{"hold": 0.0, "why": "it is", **about})
    return Runner(stand, lambda _: None).once(fault)  # type: ignore[arg-type]


def test_what_comes_back_in_time_holds(stand: Stand) -> None:
    one = run(stand, taken=True)
    assert (one.verdict, one.ok, one.takeovers) == (HELD, True, 1)
    assert one.refused == Counter({"precondition": 1, "API server, raw": 2})
    cells = (
        "a fault",
        "steady",
        "2 leases (2 s): it is",
        "1",
        "API server, raw 2, precondition 1",
        "0.0, then 0.0",
        "held",
    )
    assert report.row(one, LEASE) == f"| {' | '.join(cells)} |"


def test_what_comes_back_late_does_not(stand: Stand) -> None:
    stand.serving = 2.5
    assert run(stand).verdict == LATE
    assert run(stand, seconds=1.0).verdict == HELD


def test_what_the_judge_finds_is_broken(stand: Stand) -> None:
    stand.found = ["I5: 10.0.0.1 was given twice"]
    one = run(stand)
    assert (one.verdict, one.ok, one.notes) == (BROKEN, False, stand.found)


def test_a_raw_write_that_is_accepted_is_broken(stand: Stand) -> None:
    stand.answer = 200
    assert run(stand).verdict == BROKEN
    assert run(stand, raw=False).verdict == HELD


def test_a_fault_that_cannot_be_put_fails_and_is_taken_away(stand: Stand) -> None:
    lifted = threading.Event()

    def put(_: Scene) -> None:
        raise DevclusterError("waited in vain")

    one = run(stand, put=put, lift=lambda _: lifted.set())
    assert (one.verdict, one.ok, one.seconds) == (FAILED, False, None)
    assert lifted.is_set()


def test_what_this_machine_cannot_do_is_no_failure(stand: Stand) -> None:
    one = run(stand, cannot=lambda _: "there is no compiler")
    assert (one.verdict, one.ok, one.notes) == (IMPOSSIBLE, True, ["there is no compiler"])


@pytest.mark.parametrize("deliver", [True, False])
def test_the_write_that_decides_is_bitten_while_the_fault_is_put(stand: Stand, deliver: bool) -> None:
    seen: list[Any] = []

    def put(scene: Scene) -> None:
        assert scene.trap is not None
        seen.append((scene.trap.request, list(stand.one.link.released)))

    one = run(stand, put=put, where=Where.BEFORE, deliver=deliver)
    assert one.verdict == HELD
    ((request, released),) = seen
    assert request.target == "/addresspools/p/status"
    assert released == []
    assert stand.one.link.released == [deliver]


def test_the_nth_write_is_any(stand: Stand) -> None:
    seen: list[str] = []
    run(stand, put=lambda scene: seen.append(scene.trap.request.target), where=Where.AFTER, nth=1)
    assert seen[0].startswith("/claims/")


def test_an_allocation_may_have_fewer_writes(stand: Stand) -> None:
    assert run(stand, where=Where.AFTER, nth=9).verdict == IMPOSSIBLE
