"""The judge's findings, with the parties that they name."""

from __future__ import annotations

from dataclasses import dataclass

from judge.audit import AuditEntry
from judge.shapes import Stamp


@dataclass(frozen=True)
class Party:
    """Who sent a write, and how that is known."""

    name: str
    pod_uid: str = ""
    token: int | None = None
    source: str = "stamp"

    @classmethod
    def stamped(cls, stamp: Stamp) -> Party:
        """Return the party that a stamp names."""
        return cls(f"pod {stamp.holder.split('_', 1)[0]}", stamp.pod_uid, stamp.token)

    @classmethod
    def audited(cls, entry: AuditEntry) -> Party:
        """Return the party that the audit log names."""
        name = f"pod {entry.pod}" if entry.pod else f"{entry.user} ({entry.agent.split(' ', 1)[0]})"
        return cls(name, entry.pod_uid, None, "audit log")

    def __str__(self) -> str:
        if self.token is not None:
            return f"{self.name} (token {self.token})"
        return f"{self.name} (no token; from {self.source})" if self.source else self.name


NOBODY = Party("somebody unknown", source="")


@dataclass(frozen=True)
class Finding:
    """One broken promise: at which revision, on which object, between which parties."""

    promise: str
    kind: str
    revision: int
    object: str
    parties: tuple[Party, ...]
    sentence: str

    def __str__(self) -> str:
        return f"{self.promise} {self.kind}: {self.sentence}"
