"""The events that the runner deals with: of the election, of terms, and requests to stop."""

from __future__ import annotations

import queue
from concurrent.futures import Future
from dataclasses import dataclass

from kopf_ha.core.grant import Grant
from kopf_ha.core.orders import ByChoice
from kopf_ha.run.term import Term


@dataclass(frozen=True, slots=True)
class Started:
    """The election gave a grant."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Stopped:
    """The election closed a grant."""

    grant: Grant
    cause: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """People ordered the end of this grant's term. The grant is still open."""

    grant: Grant
    cause: ByChoice


@dataclass(frozen=True, slots=True)
class Held:
    """The election holds a grant: nothing leaves for now, and the term goes on."""

    grant: Grant
    cause: str


@dataclass(frozen=True, slots=True)
class Reopened:
    """The election opened a held grant again."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Ended:
    """A term ended by itself, or its thread ended."""

    term: Term
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Load:
    """The barrier of a term is up, and the operator's code is not loaded yet. The term waits for `done`."""

    grant: Grant
    done: Future[None]


@dataclass(frozen=True, slots=True)
class Quit:
    """The process was asked to stop, or has to; `status` is the exit status."""

    cause: str
    status: int = 0


Event = Started | Stopped | Ordered | Held | Reopened | Ended | Load | Quit
#: A `SimpleQueue`, since signal handlers may put into it while the runner's thread waits on it.
Inbox = queue.SimpleQueue[Event]
