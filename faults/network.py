"""What happens between one replica and its API server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from faults import answers
from faults.link import Match, Request
from faults.table import EVERY, Fault, Scene, Where, is_kopfs_watch, is_lease, is_other, is_write

RETRIES = "clients try again after 1, 1, 2, 3, 5 s"
#: After that Kopf gives up a watch that brings nothing (`settings.watching.inactivity_timeout`), and begins anew.
INACTIVITY = 70.0


def heal(s: Scene) -> None:
    """Have the leader's link do nothing."""
    s.leader.link.heal()


def heal_and_cut(s: Scene) -> None:
    """Have the leader's link do nothing, and close the connections of before."""
    s.leader.link.heal()
    s.leader.link.cut()


def set_link(**attributes: object) -> Callable[[Scene], None]:
    """Set attributes of the leader's link."""

    def put(s: Scene) -> None:
        for name, value in attributes.items():
            setattr(s.leader.link, name, value)

    return put


def slow(leases: float) -> Callable[[Scene], None]:
    """Have each request and each piece of an answer take longer."""
    return lambda s: set_link(delay=leases * s.lease)(s)


def answered(code: int, reason: str, match: Match, *headers: str) -> Callable[[Scene], None]:
    """Have requests answered in the API server's place."""
    told = answers.status(code, reason, f"{reason}, by the fault matrix", *headers)

    def answer(request: Request) -> bytes | None:
        return told if match(request) and not request.is_watch else None

    return set_link(answers=answer)


def watches_expire(s: Scene) -> None:
    """End Kopf's watches, and answer 410 to those that begin where they ended."""
    told = answers.ended_watch(410, "Expired", "too old resource version")
    s.leader.link.answers = lambda request: told if is_kopfs_watch(request) else None
    s.leader.link.cut(is_kopfs_watch)


def watches_end(s: Scene) -> None:
    """Close Kopf's watches."""
    s.leader.link.cut(is_kopfs_watch)


def watches_hang(s: Scene) -> None:
    """Kopf's watches stay open and bring nothing, while new ones do, and the Lease is renewed."""
    s.leader.link.silence(is_kopfs_watch)


def lease_unseen(s: Scene) -> None:
    """The followers' watches of the Lease bring nothing; then the leader is killed for good."""
    for seat in s.others:
        seat.link.silence(is_lease)
    s.leader.kill(again=False)


def seen_again(s: Scene) -> None:
    """Start the leader again."""
    s.leader.revive()


_BOTH = Fault("leader cut off, both ways", set_link(hears=False, tells=False), heal, taken=True)

ROWS = [
    *(replace(_BOTH, where=where, quick=where is Where.AFTER) for where in EVERY),
    Fault("leader cut off: its requests do not arrive", set_link(hears=False), heal, taken=True),
    Fault("leader cut off: answers do not arrive", set_link(tells=False), heal, taken=True),
    Fault("leader cut off, and connections end with it", set_link(hears=False, tells=False), heal_and_cut, taken=True),
    Fault("only the Lease's requests do not arrive", set_link(holds=is_lease), heal, taken=True),
    Fault("only the Lease's answers are lost", set_link(loses=is_lease), heal, hold=2.0, taken=True),
    Fault(
        "a write held in the network, released after the takeover",
        set_link(holds=is_lease),
        heal,
        taken=True,
        where=Where.BEFORE,
        quick=True,
    ),
    Fault(
        "latency of a tenth of a lease, each way",
        slow(0.1),
        heal,
        hold=2.0,
        bound=3.0,
        raw=False,
        why="each of the five writes of an allocation takes that longer",
    ),
    Fault("latency of a whole lease, each way", slow(1.0), heal, hold=2.0, taken=True),
    Fault("bandwidth of 2 kB a second", set_link(rate=2000.0), heal, hold=2.0, heals=False),
    Fault(
        "answers to writes lost after they were stored",
        set_link(loses=is_write),
        heal,
        heals=False,
        hold=1.0,
        seconds=12.0,
        why=RETRIES,
    ),
    Fault(
        "the answer to one write lost after it was stored",
        set_link(loses=is_write),
        heal,
        heals=False,
        hold=0.0,
        where=Where.AFTER,
        deliver=False,
        seconds=2.0,
        why=RETRIES,
        quick=True,
    ),
    Fault(
        "429 to all but the Lease",
        answered(429, "TooManyRequests", is_other, "Retry-After: 1"),
        heal,
        heals=False,
        seconds=12.0,
        why=RETRIES,
    ),
    Fault("429 to the Lease", answered(429, "TooManyRequests", is_lease, "Retry-After: 1"), heal, taken=True),
    Fault(
        "500 to all but the Lease",
        answered(500, "InternalError", is_other),
        heal,
        heals=False,
        seconds=12.0,
        why=RETRIES,
    ),
    Fault("503 to everything", answered(503, "ServiceUnavailable", lambda _: True), heal, taken=True),
    Fault("Kopf's watches end", watches_end, bound=1.0, raw=False, why="they begin anew", quick=True),
    Fault(
        "Kopf's watches expire (410) for a lease",
        watches_expire,
        heal,
        heals=False,
        bound=1.0,
        seconds=5.0,
        raw=False,
        why="Kopf lists anew, after a growing pause",
    ),
    Fault(
        "only Kopf's watches hang, while the Lease is renewed",
        watches_hang,
        heal,
        bound=1.0,
        seconds=INACTIVITY,
        raw=False,
        why="Kopf's inactivity timeout, 70 s",
    ),
    Fault("the followers' watches of the Lease hang, and the leader is gone", lease_unseen, seen_again, taken=True),
]
