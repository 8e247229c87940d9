"""The table of a run, and docs/faults.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.runner import HELD, IMPOSSIBLE, Outcome
from faults.table import Fault

BEGIN, END = "<!-- the table: begin -->", "<!-- the table: end -->"
_HEAD = (
    "| fault | where | service back within | takeovers | stale writes, refused by | seconds to service | verdict |\n"
    "|---|---|---|---|---|---|---|"
)


def bound(one: Outcome, lease: float) -> str:
    """Give the bound in words, and what it consists of."""
    fault = one.fault
    parts = [f"{fault.bound:g} lease{'s' if fault.bound != 1 else ''}"] if fault.bound else []
    parts += [f"{fault.seconds:g} s"] if fault.seconds else []
    since = "" if fault.heals else " from its end"
    return f"{' + '.join(parts)} ({one.limit:g} s){since}: {fault.why}"


def row(one: Outcome, lease: float) -> str:
    """Give one row of the table."""
    refused = ", ".join(f"{line} {count}" for line, count in sorted(one.refused.items())) or "–"
    took = "never" if one.seconds is None else f"{max(0.0, one.seconds):.1f}"
    if one.fault.heals and one.after is not None:
        took += f", then {max(0.0, one.after):.1f}"
    verdict = one.verdict if one.verdict == HELD or not one.notes else f"{one.verdict}: {'; '.join(one.notes)[:400]}"
    if one.verdict in (IMPOSSIBLE, "not run yet"):
        took = "–"
    cells = (one.fault.name, one.fault.where.value, bound(one, lease), str(one.takeovers), refused, took, verdict)
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def table(outcomes: Sequence[Outcome], lease: float) -> str:
    """Give the table as Markdown."""
    return "\n".join([_HEAD, *(row(one, lease) for one in outcomes)])


def line(number: int, count: int, one: Outcome) -> str:
    """Give a line of progress."""
    took = "never" if one.seconds is None else f"{max(0.0, one.seconds):.1f} s"
    refused = ", ".join(f"{name} {n}" for name, n in sorted(one.refused.items())) or "none"
    text = f"{number:3}/{count} {one.verdict:6} {one.fault.name} [{one.fault.where.value}]: "
    text += f"back after {took} of {one.limit:g}, {one.takeovers} terms began, stale writes refused: {refused}"
    return "\n".join([text, *(f"        {note[:600]}" for note in one.notes)])


def write(folder: Path, outcomes: Sequence[Outcome], lease: float, about: dict[str, Any]) -> None:
    """Write table.md and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(table(outcomes, lease) + "\n")
    rows = [
        {
            "fault": one.fault.name, "where": one.fault.where.value, "verdict": one.verdict, "bound": one.limit,
            "seconds": one.seconds, "after": one.after, "takeovers": one.takeovers, "refused": dict(one.refused),
            "notes": one.notes,
        }
        for one in outcomes
    ]  # fmt: skip
    (folder / "results.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def update(page: Path, rows: Sequence[Fault], outcomes: Sequence[Outcome], lease: float, sentence: str) -> None:
    """Put the table into the page, between its marks. Rows that were not run now keep what their last run said.

    Args:
        page: the page.
        rows: all, in their order.
        outcomes: of this run.
        lease: the lease duration, in seconds.
        sentence: about the run.
    """
    text = page.read_text()
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    kept = {tuple(line.split(" | ")[:2]): line for line in old.splitlines() if line.startswith("| ")}
    ran = {(one.fault.name, one.fault.where): one for one in outcomes}
    lines = []
    for fault in rows:
        one = ran.get((fault.name, fault.where))
        line = row(one, lease) if one else kept.get((f"| {fault.name}", fault.where.value), "")
        lines.append(line or row(Outcome(fault, fault.limit(lease), verdict="not run yet"), lease))
    page.write_text("\n".join([f"{before}{BEGIN}", "", sentence, "", _HEAD, *lines, "", f"{END}{after}"]))
