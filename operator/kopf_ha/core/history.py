"""The history of an operator's terms, as its Term keeps it: for people, so no promise rests on it.

Only the present leader may write it: policies compare the writer's pod with the Term, in the transaction (I10). It
writes its own term, and how the one before it ended. A leader that gives the Lease back says in the Lease why
(`ENDED`), in the same request, so neither a release nor a takeover waits for the history. If it could not, the next
leader says what it saw: the Lease expired, or its holder's process was gone.

An entry is one line of JSON, in the Term as in the Lease. As objects, twenty entries make the write of the Term take
half as long again, since the API server compares and converts every field of them for each policy; as lines, a sixth.

Times are of the clock of whoever led. `gap` is the time between two of them, unless the clocks disagree.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kopf_ha.core.lease import ENDED, LeaseRecord
from kopf_ha.core.token import TOKEN_MAX

#: How many terms are kept.
KEPT = 20
#: The greatest length of a text that is kept; a holder identity has no more.
LONGEST = 320

#: Seconds that no term lasts.
_ENDLESS = 1e12

#: Why a term ended, for programs. Stable.
STOPPED = "stopped"  #: its process was asked to stop
FAILED = "failed"  #: it could not go on, and gave the Lease back
LOST = "lost"  #: it found out that it was over, or had to end it
FLOOR = "floor"  #: an object recorded a token that was not below its own, so it began again with a higher one
EXPIRED = "expired"  #: nobody renewed the Lease
GONE = "gone"  #: its Pod was deleted, or its container ended
PAUSED = "paused"  #: people ordered that nobody leads
HANDOVER = "handover"  #: people ordered that another replica leads
MENDED = "mended"  #: a kind got its `status.fencing`, which the next term uses
RELEASED = "released"  #: the Lease was given back without a cause
DELETED = "deleted"  #: the Lease was deleted

#: Seconds that the news of a release may take. What the clocks of two machines show beyond is that they disagree.
NEWS = 5.0

_CAUSES = {
    EXPIRED: "it did not renew the Lease any more, until that expired",
    GONE: "its process was gone: its Pod was deleted, or its container ended",
    RELEASED: "the Lease was given back, and nobody noted why",
    DELETED: "the Lease was deleted",
}


@dataclass(frozen=True, slots=True)
class Past:
    """One term.

    Args:
        token: its number.
        holder: the holder identity; empty if that is unknown.
        began: when the Lease was acquired, RFC 3339; empty if that is unknown.
        barrier: seconds that its barrier took; None if it was not up, or if that is unknown.
        ended: when the Lease was given back, or renewed last; empty while the term lasts, or if that is unknown.
        reason: why it ended, in a word; empty while it lasts, or if that is unknown.
        cause: the same in a sentence.
        gap: seconds from `ended` until the next term began, in which nobody led; None if that is unknown. A release
            that is under way counts, and after an expiry the time in which the Lease was still held.
    """

    token: int
    holder: str = ""
    began: str = ""
    barrier: float | None = None
    ended: str = ""
    reason: str = ""
    cause: str = ""
    gap: float | None = None

    @classmethod
    def parse(cls, text: object) -> Past | None:
        """Read an entry, which is JSON; None for what is none."""
        try:
            entry = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(entry, Mapping):
            return None
        token = entry.get("token")
        if isinstance(token, bool) or not isinstance(token, int) or not 1 <= token <= TOKEN_MAX:
            return None

        def line(name: str) -> str:
            found = entry.get(name)
            # Whoever may write the Lease may have written it.
            return shortened(found) if isinstance(found, str) else ""

        def seconds(name: str) -> float | None:
            found = entry.get(name)
            if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < _ENDLESS:
                return None  # also for NaN and Infinity, which Python's JSON has
            return float(found)

        return cls(
            token=token,
            holder=line("holder"),
            began=line("began"),
            barrier=seconds("barrierSeconds"),
            ended=line("ended"),
            reason=line("reason"),
            cause=line("cause"),
            gap=seconds("gapSeconds"),
        )

    def as_text(self) -> str:
        """Return the entry, without what is unknown: one line of JSON."""
        found = {
            "token": self.token,
            "holder": self.holder,
            "began": self.began,
            "barrierSeconds": _rounded(self.barrier),
            "ended": self.ended,
            "reason": self.reason,
            "cause": shortened(self.cause),
            "gapSeconds": _rounded(self.gap),
        }
        known = {name: value for name, value in found.items() if value not in ("", None)}
        return json.dumps(known, separators=(",", ":"), ensure_ascii=False)

    def over(self, newer: Past) -> Past:
        """Return what is known of a term from two sources; of two values that of `newer` counts."""
        known = {name: value for name in _NAMES if (value := getattr(newer, name)) not in ("", None)}
        return replace(self, **known)

    def ended_by(self, reason: str, cause: str = "", ended: str = "") -> Past:
        """Return it with its end."""
        return replace(self, reason=reason, cause=shortened(cause or _CAUSES.get(reason, "")), ended=ended)


_NAMES = ("holder", "began", "barrier", "ended", "reason", "cause", "gap")


@dataclass(frozen=True, slots=True)
class Taken:
    """The Lease as it was when it was acquired.

    Args:
        record: the revision that was replaced; None if there was no Lease.
        gone: whether its holder's process was known to be gone.
        silent: seconds since its spec was seen to change, on this machine's clock; None if that was never seen.
        acquired: the `acquireTime` that was written.
    """

    record: LeaseRecord | None
    gone: bool
    silent: float | None
    acquired: str


def before(taken: Taken) -> Past | None:
    """Return how the term before ended, as far as the Lease showed it; None if there was none."""
    record = taken.record
    if record is None or not record.transitions:
        return None
    past = Past(record.transitions, holder=record.holder)
    if record.holder:
        past = replace(past, began=record.acquire_time or "")
        past = past.ended_by(GONE if taken.gone else EXPIRED, ended=record.renew_time or "")
    else:
        past = past.ended_by(RELEASED).over(noted_in(record) or past)
        past = replace(past, ended=record.renew_time or past.ended)
    return replace(past, gap=_gap(between(past.ended, taken.acquired), taken.silent))


def _gap(shown: float | None, silent: float | None) -> float | None:
    """Return how long nobody led, in seconds.

    Nobody leads from the moment at which a release is written down. To store it and to bring the news of it takes time,
    so `silent` begins too late. But it is of one clock, and so tells when the two clocks cannot both be right.

    Args:
        shown: by the clocks of both leaders; None if that is unknown.
        silent: since the next leader saw the end; None if it did not.
    """
    if silent is None or (shown is not None and silent <= shown <= silent + NEWS):
        return shown
    return silent


def noted_in(record: LeaseRecord) -> Past | None:
    """Return what the last holder noted about its term when it gave the Lease back; None if it did not."""
    past = Past.parse(((record.raw.get("metadata") or {}).get("annotations") or {}).get(ENDED))
    # Releases that do not know it leave it where it is, in a later term.
    return past if past is not None and past.token == record.transitions and not record.holder else None


def terms(history: object) -> list[Past]:
    """Read a history, the oldest term first. What is no entry is left out."""
    found = {past.token: past for entry in _entries(history) if (past := Past.parse(entry)) is not None}
    return [found[token] for token in sorted(found)]


def continued(history: object, previous: Past | None, mine: Past) -> list[str]:
    """Return the history with a new term.

    Args:
        history: as read.
        previous: how the term before mine ended; None if there was no Lease.
        mine: my term.
    """
    known = {past.token: past for past in terms(history) if past.token < mine.token}
    if previous is not None and previous.token < mine.token:
        known[previous.token] = known.get(previous.token, previous).over(previous)
    elif known and not (last := known[max(known)]).reason:
        gap = between(last.ended, mine.began)
        known[last.token] = replace(last.ended_by(DELETED), gap=gap)
    kept = [known[token] for token in sorted(known)][-(KEPT - 1) :]
    return [past.as_text() for past in (*kept, mine)]


def between(since: str, until: str) -> float | None:
    """Return the seconds between two times; None if one is unknown, or if they are not in this order."""
    try:
        found = datetime.datetime.fromisoformat(until) - datetime.datetime.fromisoformat(since)
    except (ValueError, TypeError):
        return None
    return found.total_seconds() if found >= datetime.timedelta(0) else None


def shortened(cause: str) -> str:
    """Return a cause in one line that is not too long."""
    line = "".join(c if c.isprintable() else " " for c in cause)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _entries(history: object) -> Iterable[object]:
    return history if isinstance(history, list) else ()


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
