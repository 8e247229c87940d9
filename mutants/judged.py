"""Random mutations that no test notices, and why. Whoever edits such a line has to judge it again.

A reason that begins with ``equivalent`` says that nothing can come out differently, so no test can notice it. The
others are accepted: they cost something small, and the reason says what.
"""

from __future__ import annotations

_CORE = "operator/kopf_ha/core/"

#: By module below the core, the line, and the line with the change.
_REASONS: dict[str, dict[tuple[str, str], str]] = {
    "siblings.py": {
        ('uid=str(meta.get("uid") or ""),', "uid=str((meta.get('uid'))),"): (
            "equivalent: each Pod that an API server shows has a uid"
        ),
    },
    "known.py": {
        (
            "return a.isdecimal() and b.isdecimal() and int(a) < int(b)",
            "return a.isdecimal() and b.isdecimal() and (int(a) <= int(b))",
        ): "equivalent: one revision of an object has one stamp, whichever reading of it is kept",
    },
    "election/timing.py": {
        ("@dataclass(frozen=True, slots=True)", "@dataclass(frozen=True, slots=False)"): (
            "equivalent: slots only save memory"
        ),
    },
    "election/legacy.py": {
        (
            "[c for c in self.rivals(view, now) if now < self._until(view, c)]"
            " if self.lock.is_peering and ours else []",
            "[c for c in self.rivals(view, now) if now < self._until(view, c)]"
            " if (self.lock.is_peering or ours) else []",
        ): "accepted: only which old replicas the message names, when the lock is lost in any case",
    },
}

JUDGED: dict[tuple[str, str, str], str] = {
    (_CORE + module, before, after): reason
    for module, reasons in _REASONS.items()
    for (before, after), reason in reasons.items()
}
