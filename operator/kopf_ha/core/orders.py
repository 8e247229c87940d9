"""What people order by annotations of the Lease: a pause, and a handover.

A leader that reads an order ends its term by choice. The cause of such an end is put into words here and nowhere else:
the log, the events, the metrics and the history of terms all get the `ByChoice` that `order` returns.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from kopf_ha.core import history
from kopf_ha.core.lease import PAUSED, LeaseRecord

#: The value of `HANDOVER` that leaves the choice to the replicas: the newest revision goes first.
ANY = "any"
#: The most characters of a value that are shown, since anybody who may write the Lease chooses them.
SHOWN = 200


class ByChoice(str):
    """Why a term ends by choice, in a sentence.

    Attributes:
        reason: the same in one word, as `core.history` has them.
    """

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, sentence: str, reason: str = "") -> ByChoice:
        """Make one."""
        made = super().__new__(cls, sentence)
        made.reason = reason
        return made


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nobody leads: what the annotation `PAUSED` says.

    Args:
        by: who paused.
        reason: why.
        since: when, in RFC 3339. It is for people, and nothing is derived from it.
        malformed: the annotation's value, if it is not what `kopf-ha pause` writes. It pauses all the same.
    """

    by: str = ""
    reason: str = ""
    since: str = ""
    malformed: str | None = None

    @classmethod
    def parse(cls, value: str) -> Pause:
        """Read the annotation's value. Any value pauses: whoever set it by hand meant that."""
        try:
            said = json.loads(value)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or not all(isinstance(said.get(k, ""), str) for k in ("by", "reason", "since")):
            return cls(malformed=value)
        return cls(said.get("by", ""), said.get("reason", ""), said.get("since", ""))

    def as_annotation(self) -> str:
        """Return the value that `parse` reads."""
        return json.dumps({k: v for k, v in asdict(self).items() if k != "malformed"}, ensure_ascii=False)

    def __str__(self) -> str:
        if self.malformed is not None:
            return (
                f"paused by the annotation {PAUSED}={shown(self.malformed)}, which does not say by whom and why"
                " (any value pauses, and only without the annotation somebody leads)"
            )
        since = f" since {shown(self.since)}" if self.since else ""
        return f"paused by {shown(self.by) or 'somebody'}{since}: {shown(self.reason) or 'no reason was given'}"


def pause_of(record: LeaseRecord | None) -> Pause | None:
    """Return the pause that a Lease shows; None if it is not paused."""
    return None if record is None or record.paused is None else Pause.parse(record.paused)


def order(record: LeaseRecord, pod: str) -> ByChoice | None:
    """Return why the leader has to end its term by choice; None if nobody ordered that.

    Args:
        record: the Lease as the leader sees it.
        pod: the leader's. To hand over to it changes nothing.
    """
    if (pause := pause_of(record)) is not None:
        return ByChoice(str(pause), history.PAUSED)
    if successor(record, pod):
        return ByChoice(f"handed over to {named(record.handover)}", history.HANDOVER)
    return None


def reason_of(cause: str, otherwise: str) -> str:
    """Return in one word why a term ended.

    Args:
        cause: as the election told it.
        otherwise: the word for a term that nobody ended by choice.
    """
    return cause.reason if isinstance(cause, ByChoice) else otherwise


def successor(record: LeaseRecord, pod: str) -> str:
    """Return to whom the leader in this pod has to hand over: a pod's name, or `ANY`; empty for to nobody."""
    return "" if record.handover == pod else record.handover


def named(to: str) -> str:
    """Return for people to whom a Lease is handed over."""
    return "any other replica" if to == ANY else f"pod {shown(to)}"


def shown(text: str) -> str:
    """Return a value that somebody else wrote, as part of one line of text."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
