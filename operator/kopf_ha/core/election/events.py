"""The words of the election: phases, events, actions, and the state of one elector.

Events come in and actions go out; the table in `machine` says by which rule.
All times are seconds on this machine's boot-time clock.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kopf_ha.core.election.legacy import LegacyView
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.legacy_lock import LegacyRecord
from kopf_ha.core.orders import ByChoice


class Phase(enum.Enum):
    """Where one elector stands.

    Only one request is under way at a time. So ACQUIRING, RENEWING, REGAINING and RELEASING take nothing but its
    answer.
    """

    FOLLOWING = "following"  #: somebody else leads, or nobody yet; the Lease is watched
    ACQUIRING = "acquiring"  #: a PUT that would begin a term is under way
    LEADING = "leading"  #: a grant is open
    RENEWING = "renewing"  #: a grant is open, and a PUT, or a GET after its conflict, is under way
    RECOVERING = "recovering"  #: the grant is held, since the Lease could not be renewed; the term may go on
    REGAINING = "regaining"  #: the grant is held, and a GET or a PUT that may reopen it is under way
    RELEASING = "releasing"  #: the grant is closed, and the Lease is being given back
    LOST = "lost"  #: the term ended, and the run layer drains it
    STOPPED = "stopped"  #: the end


# --- events


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """The Lease was seen.

    Args:
        record: what it contains; None when there is no Lease.
        version: resourceVersion of the news; empty if unknown, as after a 404.
        read: this is the answer to a GET, so it is never older than what is known. News from the watch may be older.
    """

    record: LeaseRecord | None
    version: str = ""
    read: bool = False


@dataclass(frozen=True, slots=True)
class LeaseUnusable:
    """The Lease was seen, but its content is invalid. `version` and `read` are as in `LeaseSeen`."""

    cause: str
    version: str = ""
    read: bool = False


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """A GET was refused or got no answer."""

    cause: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The timer fired. `beat` is the last sign of life of the term's event loop."""

    beat: float = -math.inf


@dataclass(frozen=True, slots=True)
class Written:
    """The API server accepted the PUT or POST; `record` is its answer."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Conflict:
    """The write was not done, because the Lease is not what it was thought to be: 409, or 404 for a PUT."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A write got no answer: it may have been done, or may still be done later."""

    cause: str


@dataclass(frozen=True, slots=True)
class NotWritten:
    """A write was certainly not done: it was refused, or never sent."""

    cause: str


@dataclass(frozen=True, slots=True)
class LegacySeen:
    """The legacy lock was seen: by its watch, or with `read` by a GET after a conflict, when my write was not done.

    Args:
        record: what it contains; None when there is no such object.
        version: resourceVersion of the news; empty if unknown, as after a 404.
        read: this is the answer to a GET.
    """

    record: LegacyRecord | None
    version: str = ""
    read: bool = False


@dataclass(frozen=True, slots=True)
class LegacyWritten:
    """The API server accepted the write of the legacy lock; `record` is its answer."""

    record: LegacyRecord


@dataclass(frozen=True, slots=True)
class LegacyFailed:
    """A write of the legacy lock was refused or got no answer. At worst it holds the lock for this Lease."""

    cause: str


@dataclass(frozen=True, slots=True)
class RaiseFloor:
    """An object records this token: every term that begins from now on must be above it."""

    floor: int


@dataclass(frozen=True, slots=True)
class HolderGone:
    """The process with this holder identity is dead or its Pod is gone, so its Lease need not expire first.

    This is final, since an identity belongs to one process only. It may come late, twice, or about anybody.
    """

    holder: str


@dataclass(frozen=True, slots=True)
class HeadStart:
    """Leave a free Lease to better suited replicas for this many seconds before acquiring it; 0 for no longer."""

    seconds: float


@dataclass(frozen=True, slots=True)
class StepDown:
    """End the term now and give the Lease back; acquire again only after `Resume`."""

    cause: str


@dataclass(frozen=True, slots=True)
class Resume:
    """The lost term is drained."""


@dataclass(frozen=True, slots=True)
class Release:
    """Give the Lease back if this process holds it, and stop."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop without giving the Lease back, as a crash would."""


Event = (
    LeaseSeen | LeaseUnusable | ReadFailed | Tick | Written | Conflict | Failed | NotWritten
    | LegacySeen | LegacyWritten | LegacyFailed
    | RaiseFloor | HolderGone | HeadStart | StepDown | Resume | Release | Stop
)  # fmt: skip


# --- actions


@dataclass(frozen=True, slots=True)
class Put:
    """Write the record, conditioned on its resourceVersion; create the Lease if that is empty. Give up at `until`."""

    record: LeaseRecord
    until: float


@dataclass(frozen=True, slots=True)
class Read:
    """GET the Lease. Give up at `until`."""

    until: float


@dataclass(frozen=True, slots=True)
class PutLegacy:
    """Write the legacy lock, conditioned on its resourceVersion; create it if there is none. Give up at `until`."""

    body: Mapping[str, Any]
    until: float


@dataclass(frozen=True, slots=True)
class Timer:
    """Send a `Tick` between `at` and `at + spread`. This replaces the timer that was set before."""

    at: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Open:
    """Open the grant of a new term."""

    token: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Extend:
    """Extend the open grant."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold the open grant: nothing leaves until `Reopen` or `Close`."""

    cause: str


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the held grant again, of the same term."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Close:
    """Close the open grant."""

    cause: str


@dataclass(frozen=True, slots=True)
class Retire:
    """People ordered the end of the present term. Drain it with the grant open, then `StepDown` with this cause."""

    cause: ByChoice


@dataclass(frozen=True, slots=True)
class NewLeader:
    """The Lease names another leader, or another term of the same one."""

    holder: str
    token: int


@dataclass(frozen=True, slots=True)
class Warn:
    """Something keeps the election from working."""

    cause: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Something that people want to know; no trouble."""

    text: str


Action = (
    Put | Read | PutLegacy | Timer | Open | Extend | Hold | Reopen | Close | Retire | NewLeader | Warn | Tell
)  # fmt: skip


# --- state


@dataclass(frozen=True, slots=True)
class Attempt:
    """A PUT to acquire that may have been done, and when it was first sent."""

    record: LeaseRecord
    started: float


@dataclass(frozen=True, slots=True)
class State:
    """Everything that one elector knows.

    Args:
        phase: where it stands.
        known: whether `seen` is true; not before the first look, nor while the Lease is invalid.
        seen: the Lease; None when there is none.
        version: the highest resourceVersion seen, to recognise late news from the watch.
        changed: when the Lease's *spec* was last seen to change.
        floor: the highest token seen or told of.
        attempt: a PUT to acquire whose outcome is open.
        sent: when the write that is under way was sent. A grant counts from there, not from the answer.
        token: of the present or last term; 0 before the first.
        uid: of the Lease that was acquired last.
        renewed: when the last successful PUT of this term was sent.
        beat: the last sign of life of the term's event loop; at first the begin of the term.
        failure: why the last renewal failed; empty if it succeeded.
        raised: the term ended because of a floor, so the Lease is kept for the next one.
        not_before: no attempt to acquire before this.
        reread: when to repeat a GET that failed; infinite if none did.
        conflicts: how many in a row.
        then: the phase after RELEASING.
        announced: holder and token of the last `NewLeader`.
        gone: holder identities whose processes are gone, and when that was told.
        head_start: for how many seconds a free Lease is left to others.
        legacy: the legacy lock; not known if there is none.
        resumed: when a pause was last seen to end.
        retiring: why the run layer was asked to end the present term by choice; empty if it was not.
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
    legacy: LegacyView = field(default_factory=LegacyView)
    resumed: float = -math.inf
    retiring: str = ""
