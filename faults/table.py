"""What a row of the matrix is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from faults.link import Request, Trap
from faults.seat import Seat
from faults.stand import Stand


class Where(Enum):
    """At which moment a fault hits."""

    STEADY = "steady"
    BEFORE = "before a write"  #: it has left the replica, and has not reached the API server
    AFTER = "after a write"  #: it is stored, and the answer has not reached the replica


@dataclass
class Scene:
    """One fault while it happens: who leads, and what has to be remembered to take the fault away."""

    stand: Stand
    leader: Seat
    token: int  #: of the Lease, before
    trap: Trap | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def lease(self) -> float:
        """The lease duration, in seconds."""
        return float(self.stand.lease_duration)

    @property
    def others(self) -> list[Seat]:
        """The other replicas."""
        return self.stand.others(self.leader)


def nothing(_: Scene) -> None:
    """Take away what went by itself."""


def possible(_: Stand) -> str:
    """Say nothing against a fault."""
    return ""


@dataclass(frozen=True)
class Fault:
    """A row.

    Args:
        name: what happens.
        put: has it happen.
        lift: takes it away.
        bound: lease durations within which service is back.
        seconds: added to the bound, where something counts in seconds whatever the Lease is; `why` says what.
        why: what the bound consists of.
        where: when it hits.
        heals: whether service has to be back while the fault lasts. Then the bound counts from when it was put,
            otherwise from when it was taken away.
        hold: lease durations for which it stays, at least.
        taken: whether it stays until somebody else leads.
        nth: which write of an allocation is bitten; 0 for the one that decides, of the pool's status.
        deliver: whether the bitten write or answer is passed on in the end.
        large: whether it needs three members of etcd and two API servers.
        quick: whether the tests try it.
        tampers: whether the Lease is edited, so that the judge must not trust it.
        raw: whether writes with the old leader's credentials are tried after a takeover.
        cannot: says why this machine cannot do it.
    """

    name: str
    put: Callable[[Scene], None]
    lift: Callable[[Scene], None] = nothing
    bound: float = 2.0
    seconds: float = 0.0
    why: str = "the Lease expires, and a term begins"
    where: Where = Where.STEADY
    heals: bool = True
    hold: float = 1.0
    taken: bool = False
    nth: int = 0
    deliver: bool = True
    large: bool = False
    quick: bool = False
    tampers: bool = False
    raw: bool = True
    cannot: Callable[[Stand], str] = possible

    def limit(self, lease: float) -> float:
        """Give the bound in seconds."""
        return self.bound * lease + self.seconds


def is_lease(request: Request) -> bool:
    """Whether a request is about the Lease."""
    return "/leases" in request.target


def is_other(request: Request) -> bool:
    """Whether a request is not about the Lease."""
    return not is_lease(request)


def is_write(request: Request) -> bool:
    """Whether a request writes something of ours."""
    return request.is_write


def is_kopfs_watch(request: Request) -> bool:
    """Whether it is a watch of Kopf, not of the election."""
    return request.is_watch and "/leases" not in request.target and "/pods" not in request.target


EVERY = tuple(Where)
