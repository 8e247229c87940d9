"""Runs the checks on facts, and shows what they found."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kopf_ha.oncall.checks.facts import Case, Facts, NotRead, Operator, SaidElsewhere
from kopf_ha.oncall.checks.finding import Check, Finding, Mark, When, unknown
from kopf_ha.oncall.checks.table import CHECKS, SECTIONS
from kopf_ha.oncall.cluster import BAD, UNKNOWN, WELL
from kopf_ha.oncall.output import FORMAT, printable


@dataclass(frozen=True, slots=True)
class Result:
    """One check, and what it found.

    Args:
        check: which.
        operator: ``namespace/name`` of the Lease of the operator that it is about; empty for none.
        findings: empty if all is well.
        from_files: it is about manifests in files, and not about what is installed.
    """

    check: Check
    operator: str
    findings: tuple[Finding, ...]
    from_files: bool = False

    @property
    def well(self) -> str:
        """What holds if nothing is found."""
        return _well(self.check, from_files=self.from_files)

    @property
    def title(self) -> str:
        """Of the section in which people see it."""
        if self.from_files and not self.operator:
            return "files"
        about = [word for word in (self.operator, "in the files" if self.from_files else "") if word]
        return SECTIONS[self.check.section] + (f" ({', '.join(about)})" if about else "")

    @property
    def mark(self) -> Mark:
        """The worst mark of its findings."""
        marks = {finding.mark for finding in self.findings}
        return next((m for m in (Mark.ERROR, Mark.UNKNOWN, Mark.WARNING) if m in marks), Mark.OK)


def run(facts: Facts, operators: Sequence[Operator], when: When) -> list[Result]:
    """Run all checks that can say something.

    Args:
        facts: what was read.
        operators: those that are meant.
        when: what the facts are about.
    """
    chosen = [check for check in CHECKS if check.when & when]
    cases = [(check, Case(facts)) for check in chosen if check.about_server]
    cases += [(check, Case(facts, operator)) for operator in operators for check in chosen if not check.about_server]
    return [found for check, case in cases if (found := _one(check, case)) is not None]


def status_of(results: Iterable[Result]) -> int:
    """Return the exit status: 1 if anything is an error, 2 if something could not be found out, 0 otherwise."""
    marks = {result.mark for result in results}
    return BAD if Mark.ERROR in marks else UNKNOWN if Mark.UNKNOWN in marks else WELL


def as_data(results: Sequence[Result]) -> dict[str, Any]:
    """Return plain data; docs/oncall.md describes it."""
    words = {WELL: "well", BAD: "bad", UNKNOWN: "unknown"}
    return {
        "format": FORMAT,
        "status": words[status_of(results)],
        "checks": [
            {
                "name": r.check.name,
                "operator": r.operator or None,
                "result": r.mark.value,
                "well": r.well,
                "findings": [
                    {"result": f.mark.value, "text": f.text, "hint": f.hint or None, "command": f.command or None}
                    for f in r.findings
                ],
            }
            for r in results
        ],
    }


def as_text(results: Sequence[Result]) -> str:
    """Return what people read: sections, and below each finding its hint."""
    lines: list[str] = []
    before = ""
    for result in results:
        title = result.title
        if title != before:
            lines += ["", title, "-" * len(title)]
            before = title
        lines += _shown(result)
    lines += ["", _summary(results)]
    return "\n".join(lines[1:])


def _one(check: Check, case: Case) -> Result | None:
    """Run one check; None if it can say nothing, for a reason that another check names."""
    try:
        found = tuple(check.run(case))
    except SaidElsewhere:
        return None
    except NotRead as reason:
        well = _well(check, from_files=case.facts.from_files)
        found = (unknown(f"could not find out whether {well}: {reason}"),)
    return Result(check, case.operator.lease if case.operator else "", found, case.facts.from_files)


def _well(check: Check, *, from_files: bool) -> str:
    return (check.well_in_files if from_files else "") or check.well


def _shown(result: Result) -> Iterator[str]:
    if not result.findings:
        yield f"{Mark.OK.sign} {result.well}"
    for finding in result.findings:
        yield f"{finding.mark.sign} {printable(finding.text)} ({result.check.name})"
        if finding.hint:
            yield textwrap.fill(
                printable(finding.hint) + (":" if finding.command else ""), 110, initial_indent="    ",
                subsequent_indent="    ", break_on_hyphens=False, break_long_words=False,
            )  # fmt: skip
        if finding.command:
            yield f"      {printable(finding.command)}"


def _summary(results: Sequence[Result]) -> str:
    counted = {mark: sum(f.mark is mark for r in results for f in r.findings) for mark in Mark}
    parts = [
        f"{counted[mark]} {word if counted[mark] == 1 else words}"
        for mark, word, words in (
            (Mark.ERROR, "error", "errors"),
            (Mark.WARNING, "warning", "warnings"),
            (Mark.UNKNOWN, "question open", "questions open"),
        )
        if counted[mark]
    ]
    return f"{len(results)} checks: " + (", ".join(parts) or "all is well")
