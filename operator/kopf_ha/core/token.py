"""The stamp, which carries the fencing token on an object."""

from __future__ import annotations

import enum
import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from reprlib import repr as shortened
from typing import Any

#: The highest token. `leaseTransitions` is an int32; the API server answers 400 above that. The rest is for repairs.
TOKEN_MAX = 2_000_000_000

_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
#: The longest name of a holder or a Lease in a stamp; the CRD's schema has the same limit.
_LONGEST = 320


class Verdict(enum.Enum):
    """What a recorded stamp means for a writer."""

    FREE = "free"  #: there is none, or an earlier term's: the writer may stamp the object
    MINE = "mine"  #: it is the writer's own
    STALE = "stale"  #: it is a later term's, or another process's with the writer's token
    FOREIGN = "foreign"  #: its token counts by another Lease, so it cannot be compared with the writer's


class MalformedStamp(ValueError):
    """A stamp with missing or invalid fields. It is never treated as no stamp."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The newest term that wrote an object.

    Args:
        token: the term's number, 1 to `TOKEN_MAX`.
        holder: the holder identity, unique per process.
        lease: ``namespace/name`` of the Lease by which the token counts.
        pod_uid: uid of the writer's Pod, which the API server can compare with the writer's credentials.
    """

    token: int
    holder: str
    lease: str
    pod_uid: str

    def as_status(self) -> dict[str, Any]:
        """Return the value of `status.fencing`."""
        return {"lease": self.lease, "token": self.token, "holder": self.holder, "podUID": self.pod_uid}

    @property
    def digest(self) -> str:
        """The holder in few characters, for a label."""
        return hashlib.sha256(self.holder.encode()).hexdigest()[:12]

    def is_read_as(self, recorded: Stamp) -> bool:
        """Whether `recorded` is this very stamp. A label has only the digest of the holder."""
        return recorded == self or recorded == replace(self, holder=self.digest)


def stamp_of(body: Mapping[str, Any]) -> Stamp | None:
    """Read `status.fencing` of an object; None when it has none. `notes.stamp_in` reads the stamps of other kinds.

    Args:
        body: the whole object.

    Raises:
        MalformedStamp: the stamp is incomplete or invalid. Treating it as absent would let a token go down (I1).
    """
    status = body.get("status")
    raw = status.get("fencing") if isinstance(status, Mapping) else None
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raise MalformedStamp(f"status.fencing is no object but {shortened(raw)}")
    token, holder, lease, pod = (raw.get(k) for k in ("token", "holder", "lease", "podUID"))
    return checked(token, holder, lease, pod)


def as_token(text: Any) -> Any:
    """Return a token that is written as text as a number, and anything else as it is."""
    return int(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else text


def checked(token: Any, holder: Any, lease: Any, pod: Any) -> Stamp:
    """Return a stamp of what was read.

    Raises:
        MalformedStamp: that is incomplete or invalid.
    """
    if isinstance(token, bool) or not isinstance(token, int) or not 1 <= token <= TOKEN_MAX:
        raise MalformedStamp(f"the recorded token is {shortened(token)}, not a number from 1 to {TOKEN_MAX}")
    if not (holder and lease and all(map(_is_name, (holder, lease, pod)))):
        holder, lease, pod = map(shortened, (holder, lease, pod))
        raise MalformedStamp(f"the stamp of token {token} names holder {holder}, Lease {lease}, pod {pod}")
    return _one(token, str(holder), str(lease), str(pod))


@functools.lru_cache(maxsize=256)
def _one(token: int, holder: str, lease: str, pod: str) -> Stamp:
    """Return the same stamp for the same fields: thousands of objects have it, and what is known of them is kept."""
    return Stamp(token=token, holder=holder, lease=lease, pod_uid=pod)


def _is_name(value: Any) -> bool:
    # Whoever may edit a child may write its metadata, and logs show it.
    return isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()


def judge(recorded: Stamp | None, mine: Stamp) -> Verdict:
    """Return what a recorded stamp means for the writer `mine`.

    An equal token of another holder is stale, not mine. After a lost floor two processes may have got the same token,
    and only one of them may go on (I2).
    """
    if recorded is None:
        return Verdict.FREE
    if recorded.lease != mine.lease:
        return Verdict.FOREIGN
    if recorded.token < mine.token:
        return Verdict.FREE
    if mine.is_read_as(recorded):
        return Verdict.MINE
    return Verdict.STALE
