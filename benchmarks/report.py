"""Writes what was measured: JSON that keeps every value, a Markdown table and SVGs, and the tables in docs/.

The JSON is the source of the rest. `docs/performance.md` has blocks between `<!-- bench:NAME -->` and
`<!-- /bench -->`, which `fill` replaces, so that no number there is typed by hand.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plot import shown, svg
from benchmarks.result import Row

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
_BLOCK = re.compile(r"(?s)(<!-- bench:([\w-]+) -->\n).*?(<!-- /bench -->)")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one benchmark ended.

    Args:
        name: of the benchmark.
        state: `done`, `failed`, or `left out`.
        reason: why it has no rows; empty if it has.
        rows: what was measured.
        date: when it began.
        seconds: that it took.
        load: of the machine when it began.
    """

    name: str
    state: str
    reason: str = ""
    rows: Sequence[Row] = ()
    date: str = ""
    seconds: float = 0.0
    load: float = 0.0

    def missed(self) -> list[str]:
        """Give the goals that were not reached, in words."""
        return [
            f"{self.name}: {row.what}: {goal}, was {shown(row.statistic(goal.split()[0]))}"
            for row in self.rows
            for goal in row.missed()
        ]


def save(folder: Path, machine: Mapping[str, str], outcomes: Sequence[Outcome]) -> None:
    """Write results.json, results.md and an SVG for each benchmark that has rows."""
    folder.mkdir(parents=True, exist_ok=True)
    body = {"machine": dict(machine), "benchmarks": [dataclasses.asdict(one) for one in outcomes]}
    (folder / "results.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    (folder / "results.md").write_text(page(machine, outcomes))
    for one in outcomes:
        if one.rows:
            (folder / f"{one.name}.svg").write_text(svg(one.name, one.rows))


def read(folder: Path) -> tuple[dict[str, str], list[Outcome]]:
    """Give the machine and the outcomes that `save` wrote; nothing if there are none."""
    if not (folder / "results.json").exists():
        return {}, []
    body: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return body["machine"], [outcome(one) for one in body["benchmarks"]]


def outcome(given: Mapping[str, Any]) -> Outcome:
    """Give the outcome that was written as JSON."""
    return Outcome(**{**given, "rows": [Row(**row) for row in given["rows"]]})


def page(machine: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """Give all of it as Markdown."""
    parts = ["# Results of `make bench`", names(machine)]
    for one in outcomes:
        parts += [f"## {one.name}", table(one)]
    return "\n\n".join(parts) + "\n"


def names(machine: Mapping[str, str]) -> str:
    """Name the machine in one line."""
    return ", ".join(f"{key}: {value}" for key, value in machine.items()) + "."


def table(one: Outcome) -> str:
    """Give one benchmark's rows as a table, or why there are none."""
    if not one.rows:
        return f"{one.state}: {one.reason}"
    return "\n".join(_lines(one))


def _lines(one: Outcome) -> Iterator[str]:
    yield f"{one.date}, load {one.load:g} at the start, {one.seconds:.0f} s. Medians (least–most) of so many rounds."
    yield ""
    yield "| what | measured | peer | of the peer | ÷ peer | goals |"
    yield "|---|---|---|---|---|---|"
    for row in one.rows:
        ratio = "" if row.ratio is None else shown(row.ratio)
        goals = "; ".join(goal + (" **missed**" if goal in row.missed() else "") for goal in row.goals)
        what = row.what if row.subject == "kopf-ha" else f"{row.what}: {row.subject}"
        cells = (what, values(row.values, row.unit), row.peer, values(row.peer_values, row.unit), ratio, goals)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    notes = {row.what: row.note for row in one.rows if row.note}
    if notes:
        yield ""
    yield from (f"- {what}: {note}" for what, note in notes.items())


def values(given: Sequence[float], unit: str) -> str:
    """Give median, spread and number of some values."""
    if not given:
        return ""
    spread = f" ({shown(min(given))}–{shown(max(given))})" if min(given) < max(given) else ""
    return f"{shown(statistics.median(given))} {unit}{spread}, {len(given)}×"


def fill(text: str, machine: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """Give a page with its blocks replaced by what was measured.

    `bench:machine` names the machine, and `bench:missed` the goals that were not reached.
    """
    known = {one.name: one for one in outcomes}

    def block(found: re.Match[str]) -> str:
        name = found[2]
        if name == "machine":
            made = names(machine) if machine else "Not measured yet: `make bench`."
        elif name == "missed":
            made = "\n".join(f"- {sentence}" for one in outcomes for sentence in one.missed()) or "None."
        elif name in known:
            picture = f"![{name}: medians, from the least to the most](../benchmarks/results/{name}.svg)\n\n"
            made = (picture if known[name].rows else "") + table(known[name])
        else:
            made = f"Not measured yet: `make bench BENCH={name}`."
        return f"{found[1]}\n{made}\n\n{found[3]}"

    return _BLOCK.sub(block, text)
