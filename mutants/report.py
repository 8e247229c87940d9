"""Writes what random mutations showed into docs/mutants.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mutants.judged import JUDGED
from mutants.random_ones import Result
from mutants.tree import ROOT

PAGE = ROOT / "docs" / "mutants.md"
#: What is between these lines in the page is written by `python -m mutants --random N --write`.
BEGIN, END = "<!-- random: begin -->", "<!-- random: end -->"


def equivalent(result: Result) -> bool:
    """Whether somebody has found that a change that no test notices changes nothing."""
    return JUDGED.get(result.key, "").startswith("equivalent")


def share(results: Sequence[Result]) -> float:
    """Return how many of the changes that change behaviour are noticed, in percent."""
    changing = [one for one in results if one.noticed or not equivalent(one)]
    return 100 * sum(bool(one.noticed) for one in changing) / max(1, len(changing))


def table(results: Sequence[Result], seed: int) -> str:
    """Return the part of the page about these results."""
    missed = sorted((one for one in results if not one.noticed), key=lambda one: (one.path, one.line))
    same = sum(map(equivalent, missed))
    by = Counter(one.noticed.partition("::")[0] for one in results if one.noticed)
    lines = [
        f"`python -m mutants --random {len(results)} --seed {seed}`: {len(results)} mutations, of which"
        f" {len(results) - len(missed)} were noticed. Of the {len(missed)} others, {same} change nothing. So"
        f" {share(results):.1f} % of those that change behaviour are noticed."
        f" That took {sum(one.cpu for one in results) / 60:.0f} minutes of CPU time.",
        "",
        "| noticed first by | mutations |",
        "|---|---|",
        *(f"| `{file}` | {many} |" for file, many in by.most_common()),
        "",
        "| survivor | reason |",
        "|---|---|",
        *(f"| {_change(one)} | {JUDGED.get(one.key, 'nobody has judged this one')} |" for one in missed),
    ]
    return "\n".join(lines)


def write(results: Sequence[Result], seed: int) -> None:
    """Replace that part of the page."""
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n{table(results, seed)}\n{END}{tail}")


def _change(result: Result) -> str:
    module = result.path.removeprefix("operator/kopf_ha/core/")
    before, after = (text.replace("|", "\\|") for text in (result.before, result.after))
    return f"`{module}`: `{before}` → `{after}`"
