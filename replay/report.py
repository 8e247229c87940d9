"""Checks traces, and says how that went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from judge.history import History
from replay.again import Difference, redo
from replay.joined import join
from replay.tracefile import Run

#: How many differences are printed.
SHOWN = 20


@dataclass(frozen=True)
class Found:
    """What came out: where the core or the history differ, and how much was looked at."""

    differences: list[Difference]
    processes: int
    lines: Counter[str]
    joined: bool


def check(runs: list[Run], history: History | None = None, *, tampered: bool = False, some: bool = False) -> Found:
    """Put the traces of processes through the core again, and join them with the history if there is one.

    Args:
        runs: of all processes.
        history: of etcd.
        tampered: see `join`.
        some: see `join`.
    """
    differences = [found for run in runs for found in redo(run)]
    if history is not None:
        differences += join(runs, history, tampered=tampered, some=some)
    lines = Counter(line.what for run in runs for line in run.lines)
    return Found(differences, len(runs), lines, history is not None)


def text(found: Found) -> str:
    """Return the report."""
    lines = [str(one) for one in found.differences[:SHOWN]]
    if len(found.differences) > SHOWN:
        lines.append(f"… and {len(found.differences) - SHOWN} more")
    return "\n".join([*lines, summary(found)])


def summary(found: Found) -> str:
    """Return the last line of the report."""
    counted = found.lines
    seen = f"{found.processes} processes, {counted['step']} steps of elections, {counted['asked']} writes"
    seen = f"replay: {seen}, {counted['sent']} requests"
    beside = " and the history" if found.joined else ""
    if found.differences:
        return f"{seen}: {len(found.differences)} are not as the core{beside} would have it"
    return f"{seen}: all as the core{beside} would have it"
