"""Random mutations that no test notices, and why. Whoever edits such a line has to judge it again.

A reason that begins with ``equivalent`` says that nothing can come out differently, so no test can notice it. The
others are accepted: they cost something small, and the reason says what.
"""

from __future__ import annotations

_CORE = "operator/kopf_ha/core/"

#: By module below the core, the line, and the line with the change.
_REASONS: dict[str, dict[tuple[str, str], str]] = {}

JUDGED: dict[tuple[str, str, str], str] = {
    (_CORE + module, before, after): reason
    for module, reasons in _REASONS.items()
    for (before, after), reason in reasons.items()
}
