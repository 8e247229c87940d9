"""Every error of kopf-ha, in one tree.

::

    KopfHAError
    ├── ConfigurationError      an option, a duration or a name that cannot work
    ├── ApiError                a request to the API server did not get what it asked for
    │   ├── Unreached           there was no answer, or none of an API server
    │   └── ApiRefused          the answer was an error status
    ├── ElectionError           the Lease cannot be understood
    │   └── MalformedLease      a Lease whose `leaseTransitions` is missing or no number
    └── Refused                 a write that was refused; never retried
        ├── NoTerm              the caller runs in no term: it was not started by a handler
        ├── Unfenced            the fence does not know how to fence this write
        ├── ForeignStamp        the object is stamped by a term of another Lease; other objects can be written
        ├── Denied              the API server refused this write by a rule of ours; the term goes on
        ├── SetAside            this deciding object could not be stamped in this term
        ├── NotStamped          the code did not wait for this deciding object's stamp (`--barrier each`)
        └── TermEnded           the writer's term is over, or has to end
            ├── GateClosed      this process has no valid grant (line 1)
            ├── StaleLeader     a newer leader wrote the object, or holds the Lease (line 2 or 3)
            ├── FloorLost       an object records a token at or above mine, although I hold the Lease
            └── StampDropped    the API server accepted the write and dropped the stamp

`Refused` is deliberately no `OSError`, `TimeoutError` or client error: Kopf, urllib3 and requests retry those, and a
refused write must never be sent again (I8).
"""

from __future__ import annotations

from typing import Any

#: How code comes to run in no term, and what to do about it.
NO_TERM = (
    "it was started while its module was imported, or elsewhere outside of a handler; start it in an on.startup handler"
    " or in the handler that needs it, or hand it functions wrapped with kopf_ha.current_term().bind(...)"
)


class KopfHAError(Exception):
    """The root of the errors of kopf-ha.

    Attributes:
        exit_status: of a process that ends with it; docs/runbook.md tells what each means.
    """

    exit_status: int = 1


class ConfigurationError(KopfHAError):
    """An option, a duration or a name that cannot work; the message says what would be right."""


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
    """The Lease has no usable `leaseTransitions`. To take it for 0 would give tokens a second time (I2)."""


class Refused(KopfHAError):
    """A write that was refused, in this process or by the API server. Nothing retries it.

    Attributes:
        line: which line of the fence refused: ``gate``, ``precondition``, ``server`` or ``term``.
        sent: the last request to the API server; None if none left the process.
        answer: the answer to it; None if none left the process.
        never: no later term would change it: the code that writes has to change.
    """

    line: str = "gate"
    never: bool = False
    sent: Any = None
    answer: Any = None


class NoTerm(Refused):
    """The caller runs in no term: it was started at import or in a child process, or is of `kopf_ha.everywhere`."""

    never = True


class Unfenced(Refused):
    """A write that the fence does not know how to fence; the message says how to declare it.

    Args:
        message: for people.
        by_object: the object is the reason and not the code: what it records cannot be judged. Users may have written
            it, so nothing but this write may depend on it (I10).
    """

    def __init__(self, message: str, *, by_object: bool = False) -> None:
        super().__init__(message)
        self.never = not by_object


class TermEnded(Refused):
    """The writer's term is over or has to end now. No object that a user may edit can cause it (I10)."""

    @property
    def cause(self) -> str:
        """Why it is over, for the writes that are refused after this one."""
        return str(self)


class GateClosed(TermEnded):
    """The term's grant expired or was closed before the request left (line 1).

    Args:
        message: for people.
        cause: why the grant expired or was closed, without the write that met it; by default the message.
    """

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self._cause = cause

    @property
    def cause(self) -> str:
        """Why the grant expired or was closed."""
        return self._cause or str(self)


class StaleLeader(TermEnded):
    """A newer term wrote the object (line 2), or the API server refused the token (line 3) or the pod (line 4).

    In the other cases the Lease, read again, is not this term's any more.
    """

    line = "precondition"


class ForeignStamp(Refused):
    """The object is stamped by a term of another Lease: two operators write one kind. Others can be written."""

    line = "precondition"


class Denied(Refused):
    """The API server refused this write by a rule of ours (line 3 or 4), and the term goes on (I10).

    Line 4: the API server has not heard of this term for too long. Line 3: the rule is not about tokens (the object is
    being deleted, or a child lacks its label), or it is, while the object, read again, and the Lease both show that the
    term is current.
    """

    line = "server"


class SetAside(Refused):
    """A write of the status of a deciding object that could not be stamped in this term (I4).

    An earlier leader could still write the object, so nothing is decided from it. Its stamp is tried again; other
    objects can be written meanwhile (I10).
    """


class NotStamped(Refused):
    """A write of the status of a deciding object whose stamp the code did not wait for (I4).

    Only with `--barrier each`, where handlers run before all deciding objects are stamped. An earlier leader may have
    written the object since it was read. The remedy is in the code that decides: `await
    kopf_ha.current_term().stamped(body)`.
    """

    never = True


class FloorLost(TermEnded):
    """An object, or the Term, records a token at or above mine, although the Lease says that I lead.

    Attributes:
        floor: the recorded token; the next term needs one above it.
    """

    line = "precondition"

    def __init__(self, message: str, floor: int) -> None:
        super().__init__(message)
        self.floor = floor


class StampDropped(TermEnded):
    """The API server accepted a stamped write and dropped the stamp: the kind's schema has no `status.fencing`."""

    line = "precondition"
