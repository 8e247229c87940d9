"""Random mutations that no test notices, and why: `judged.txt`. Whoever edits such a line has to judge it again.

Each entry has the module below the core, the line, the line with the change, and a reason. One that begins with
``equivalent`` says that nothing can come out differently, so no test can notice it. The others are ``accepted``: they
cost something small, and the reason says what.
"""

from __future__ import annotations

from pathlib import Path

_CORE = "operator/kopf_ha/core/"


def _read(text: str) -> dict[tuple[str, str, str], str]:
    found = {}
    for entry in text.strip().split("\n\n"):
        module, before, after, reason = entry.splitlines()
        found[(_CORE + module, before.removeprefix("- "), after.removeprefix("+ "))] = reason
    return found


JUDGED = _read(Path(__file__).with_suffix(".txt").read_text())
