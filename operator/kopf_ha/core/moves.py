"""The words of the election, and its table: which event may come in which phase, and where it may lead.

Events come in, actions go out; `kopf_ha.core.election` has the rules that say when.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.errors import KopfHAError


class IllegalMove(KopfHAError):
    """An event that cannot happen in this phase; the state is as it was."""


class Phase(enum.Enum):
    """Where one elector stands."""

    FOLLOWING = "following"  #: somebody else leads, or nobody yet; watches the Lease
    ACQUIRING = "acquiring"  #: a PUT that would make me the leader is under way
    LEADING = "leading"  #: a grant is open
    RENEWING = "renewing"  #: the same, and a PUT or the GET after its conflict is under way
    RELEASING = "releasing"  #: the grant is closed, the Lease is being given back
    LOST = "lost"  #: the term ended; waits for the run layer to drain it
    STOPPED = "stopped"  #: the end


# --- events


@dataclass(frozen=True, slots=True)
class Seen:
    """The Lease was seen.

    Args:
        record: what it holds; None when there is no Lease.
        version: resourceVersion of the news; empty when unknown (a GET answered 404).
        read: it answers a GET of ours, so it is never older than what is known. News of the watch may be.
    """

    record: LeaseRecord | None
    version: str = ""
    read: bool = False


@dataclass(frozen=True, slots=True)
class Unusable:
    """The Lease was seen, and cannot be understood."""

    cause: str
    version: str = ""
    read: bool = False


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """A GET had no answer, or a refusal."""

    cause: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The timer rang. `beat` is when the term's event loop last gave a sign of life."""

    beat: float = -math.inf


@dataclass(frozen=True, slots=True)
class Written:
    """The server accepted the PUT or POST and answered with this."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Conflict:
    """The server did not accept it: 409, or 404 for a PUT. The Lease is not what it was thought to be."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer to a write: it may have been done, or be done later."""

    cause: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The write was certainly not done: it never left, or was refused."""

    cause: str


@dataclass(frozen=True, slots=True)
class RaiseFloor:
    """An object records this token: any term that begins from now on must be above it."""

    floor: int


@dataclass(frozen=True, slots=True)
class HolderGone:
    """The process of this holder identity was seen to be dead, or its Pod to be gone: nobody need wait for expiry.

    For good, since an identity is one process's alone. It may come late, twice, or about anybody.
    """

    holder: str


@dataclass(frozen=True, slots=True)
class HeadStart:
    """Others are better suited: leave them a Lease that can be had for so many seconds before I take it; 0 ends it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class StepDown:
    """End the term now and give the Lease back; acquire again only after `Resume`."""

    cause: str


@dataclass(frozen=True, slots=True)
class Resume:
    """The old term is drained."""


@dataclass(frozen=True, slots=True)
class Release:
    """Give the Lease back if it is mine, and stop."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop without giving the Lease back, as a crash would."""


Event = (
    Seen | Unusable | ReadFailed | Tick | Written | Conflict | Failed | Denied
    | RaiseFloor | HolderGone | HeadStart | StepDown | Resume | Release | Stop
)  # fmt: skip


# --- actions


@dataclass(frozen=True, slots=True)
class Put:
    """Write the record on its resourceVersion; create it if that is empty. Give up at `until`."""

    record: LeaseRecord
    until: float


@dataclass(frozen=True, slots=True)
class Read:
    """GET the Lease. Give up at `until`."""

    until: float


@dataclass(frozen=True, slots=True)
class Timer:
    """Send a `Tick` at `at`, at the earliest, and within `spread` seconds of it. It replaces the timer."""

    at: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Open:
    """Open a grant for a new term."""

    token: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Extend:
    """Extend the open grant."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Close:
    """Close the open grant."""

    cause: str


@dataclass(frozen=True, slots=True)
class NewLeader:
    """The Lease names another leader, or another term of one."""

    holder: str
    token: int


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that keeps the election from going on."""

    cause: str


Action = Put | Read | Timer | Open | Extend | Close | NewLeader | Warn


# --- the table

F, A, L, R, G, D, S = (
    Phase.FOLLOWING, Phase.ACQUIRING, Phase.LEADING, Phase.RENEWING, Phase.RELEASING, Phase.LOST, Phase.STOPPED,
)  # fmt: skip

#: phase → event → where it may lead. One request is under way at a time, so in ACQUIRING, RENEWING and
#: RELEASING nothing comes but its answer. ACQUIRING leads to itself when the answer came too late to use.
TABLE: Mapping[Phase, Mapping[type[Event], frozenset[Phase]]] = {
    F: {
        Seen: frozenset({F, A, L}),  # L: the PUT whose answer was lost was done
        Unusable: frozenset({F}),
        ReadFailed: frozenset({F}),
        Tick: frozenset({F, A}),
        RaiseFloor: frozenset({F}),
        HolderGone: frozenset({F, A}),
        HeadStart: frozenset({F, A}),
        StepDown: frozenset({F}),
        Release: frozenset({G, S}),
        Stop: frozenset({S}),
    },
    A: {
        Written: frozenset({L, A, F}),
        Conflict: frozenset({F}),
        Failed: frozenset({F}),
        Denied: frozenset({F}),
    },
    L: {
        Seen: frozenset({L, D}),
        Unusable: frozenset({L, D}),
        Tick: frozenset({L, R, D}),
        RaiseFloor: frozenset({L, D}),
        HolderGone: frozenset({L}),  # about a holder before me, or wrong
        HeadStart: frozenset({L}),
        StepDown: frozenset({G}),
        Release: frozenset({G}),
        Stop: frozenset({S}),
    },
    R: {
        Written: frozenset({L, D}),
        Conflict: frozenset({R, D}),
        Failed: frozenset({L, D}),
        Denied: frozenset({L, D}),
        Seen: frozenset({L, R, D}),
        Unusable: frozenset({D}),
        ReadFailed: frozenset({L, D}),
    },
    G: {
        Written: frozenset({F, D, S}),
        Conflict: frozenset({G}),
        Failed: frozenset({F, D, S}),
        Denied: frozenset({F, D, S}),
        Seen: frozenset({G, F, D, S}),
        Unusable: frozenset({F, D, S}),
        ReadFailed: frozenset({F, D, S}),
    },
    D: {
        Seen: frozenset({D}),
        Unusable: frozenset({D}),
        Tick: frozenset({D}),
        RaiseFloor: frozenset({D}),
        HolderGone: frozenset({D}),
        HeadStart: frozenset({D}),
        StepDown: frozenset({D}),
        Resume: frozenset({F, A, G}),
        Release: frozenset({G, S}),
        Stop: frozenset({S}),
    },
    S: {},
}


# --- state


@dataclass(frozen=True, slots=True)
class Attempt:
    """A PUT to acquire whose outcome is open, and when it was first sent."""

    record: LeaseRecord
    started: float


@dataclass(frozen=True, slots=True)
class State:
    """All that one elector knows. Times are seconds on its own boot-time clock.

    Args:
        known: whether `seen` can be believed; not before the first look, nor while the Lease is malformed.
        seen: the Lease; None when there is none.
        version: the highest resourceVersion that was seen, to tell late news of the watch.
        changed: when the Lease's *spec* was last seen to change.
        floor: the highest token seen or told of.
        attempt: the PUT to acquire whose outcome is open.
        sent: start of the write under way: a grant counts from it, not from the answer.
        token: of my present or last term; 0 before the first.
        uid: of the Lease that I acquired.
        renewed: start of the last PUT that is known to have been done in this term.
        beat: last sign of life of the term's loop; at first the term's begin.
        failure: why the last renewal failed; empty after one that did not.
        raised: the term ended to be raised above a floor, so the Lease is kept for the next.
        not_before: no attempt to acquire before this.
        reread: when to GET again after a failure; infinite if no GET is owed.
        conflicts: since the last accepted write.
        then: the phase after RELEASING.
        announced: holder and token of the last `NewLeader`.
        gone: holder identities whose processes cannot lead any more, and when that was told.
        head_start: seconds for which a Lease that can be had is left to others.
    """

    phase: Phase = Phase.FOLLOWING
    known: bool = False
    seen: LeaseRecord | None = None
    version: str = ""
    changed: float = -math.inf
    floor: int = 0
    attempt: Attempt | None = None
    sent: float = -math.inf
    token: int = 0
    uid: str = ""
    renewed: float = -math.inf
    beat: float = -math.inf
    failure: str = ""
    raised: bool = False
    not_before: float = -math.inf
    reread: float = math.inf
    conflicts: int = 0
    then: Phase = Phase.STOPPED
    announced: tuple[str, int] = ("", 0)
    gone: Mapping[str, float] = field(default_factory=dict)
    head_start: float = 0.0


Step = tuple[State, list[Action]]


def with_first(first: list[Action], step: Step) -> Step:
    """Put actions in front, but nothing in front of a `Close`."""
    state, actions = step
    closing = [a for a in actions if isinstance(a, Close)]
    return state, [*closing, *first, *(a for a in actions if not isinstance(a, Close))]
