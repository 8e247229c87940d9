"""Every error of kopf-ha, in one tree.

::

    KopfHAError
    ├── ConfigurationError      an option or a duration that cannot be meant so
    ├── ApiError                a request to the API server did not get what it asked for
    │   ├── Unreached           there was no answer, or none of an API server
    │   └── ApiRefused          the answer was an error status
    ├── ElectionError           the Lease cannot be understood
    │   └── MalformedLease      a Lease whose number of transitions is missing or no number
    └── Refused                 a write that did not happen; never retried
        ├── NoTerm              the caller has no term: a thread, an executor, code outside of a handler
        ├── Unfenced            the fence does not know how to fence this write
        ├── ForeignStamp        the object's tokens count by another Lease; the others are not touched by it
        ├── Denied              line 3 refused this write, for a reason that does not end the term
        ├── SetAside            this deciding object could not be stamped in this term, so nothing is decided from it
        └── TermEnded           the writer's term is over, or must end
            ├── GateClosed      line 1: no valid grant in this process
            ├── StaleLeader     line 2 or 3: a newer leader wrote the object, or holds the Lease
            ├── FloorLost       a higher token than mine, although I hold the Lease
            └── StampDropped    the API server answered 200 and dropped the stamp

`Refused` is on purpose no `OSError`, `TimeoutError` or client error: Kopf, urllib3 and requests retry
those, and a refused write must never be sent again (I8).
"""

from __future__ import annotations

from typing import Any


class KopfHAError(Exception):
    """The root of the errors of kopf-ha."""


class ConfigurationError(KopfHAError):
    """An option, a duration or a name that cannot be meant so; the message says what would be right."""


class ApiError(KopfHAError):
    """A request to the API server did not get what it asked for; the message says why, and what to do about it.

    Attributes:
        status: the HTTP status; 0 without an answer.
        definite: the request certainly changed nothing: it never left, or was refused. Otherwise it may have been
            done, or be done later: an API server goes on for up to 34 s after its client gave up.
    """

    def __init__(self, cause: str, *, status: int = 0, definite: bool = False) -> None:
        super().__init__(cause)
        self.status = status
        self.definite = definite


class Unreached(ApiError):
    """There was no answer in time, or what answered is no API server.

    Args:
        cause: a sentence.
        definite: the request never left.
    """

    def __init__(self, cause: str, *, definite: bool = False) -> None:
        super().__init__(cause, definite=definite)


class ApiRefused(ApiError):
    """The API server answered with an error status.

    Args:
        cause: a sentence.
        status: the HTTP status.
        reason: the `reason` of the `Status` object in the answer, such as ``Forbidden``; empty without one.
        message: its `message`, which may quote what users wrote: nothing is recognised by it.
        body: the answer's bytes.
    """

    def __init__(self, cause: str, status: int, *, reason: str = "", message: str = "", body: bytes = b"") -> None:
        super().__init__(cause, status=status, definite=400 <= status < 500 and status != 408)
        self.reason = reason
        self.message = message
        self.body = body


class ElectionError(KopfHAError):
    """The Lease cannot be understood."""


class MalformedLease(ElectionError):
    """The Lease holds no usable `leaseTransitions`; taking it for 0 would reuse tokens (I2)."""


class Refused(KopfHAError):
    """A write that was not done, or was answered with a refusal. Nothing retries it.

    Attributes:
        line: which line of the fence refused: ``gate``, ``precondition`` or ``server``.
        sent: what was asked of the API server last, None when nothing left the process.
        answer: what it answered, None when nothing left the process.
    """

    line: str = "gate"
    sent: Any = None
    answer: Any = None


class NoTerm(Refused):
    """The caller runs in no term: a thread of its own, an executor, `async_req`, no handler, `kopf_ha.everywhere`."""


class Unfenced(Refused):
    """A write that the fence cannot fence; the message says how to declare it."""


class TermEnded(Refused):
    """The writer's term is over or has to end now. Nothing that a user may write raises it (I10)."""


class GateClosed(TermEnded):
    """Line 1: the term's grant expired or was closed before the request left."""


class StaleLeader(TermEnded):
    """Line 2 or 3: the object carries the stamp of a newer term.

    Or the API server refused the token, and the Lease is not this term's any more.
    """

    line = "precondition"


class ForeignStamp(Refused):
    """The object is stamped by the term of another Lease: two operators on one kind."""

    line = "precondition"


class Denied(Refused):
    """Line 3: the API server refused this write by a rule of ours, and the term goes on (I10).

    The rule is not about tokens (the object is being deleted, a child lacks its label), or it is, while the
    object, read again, and the Lease both say that the term is current.
    """

    line = "server"


class SetAside(Refused):
    """A write of the status of a deciding object that could not be stamped in this term (I4).

    An earlier leader could still write it, so nothing is decided from it. Its stamp is tried again; other objects
    are not touched by it (I10).
    """


class FloorLost(TermEnded):
    """An object records a token at or above mine although my Lease says that I lead.

    Attributes:
        floor: the recorded token; the Lease has to be raised above it.
    """

    line = "precondition"

    def __init__(self, message: str, floor: int) -> None:
        super().__init__(message)
        self.floor = floor


class StampDropped(TermEnded):
    """The API server accepted a stamped write and kept no stamp: the kind's schema has no `status.fencing`."""

    line = "precondition"
