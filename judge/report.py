"""Writes a verdict as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from judge.verdict import Verdict

MANY = 20


def report(verdict: Verdict) -> str:
    """Return the report. Long lists are shortened, and say so."""
    return "\n".join(_lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    s = verdict.summary
    yield f"read      {s.revisions} revisions, {s.changes} changes of {s.objects} objects"
    yield f"claims    {s.claims_bound} bound, {s.claims_waiting} waiting; {s.addresses_given} addresses given"
    yield f"refused   {_counts(s.refused)}"
    yield f"stamped   {_counts(s.writes_per_token, 'token ')}; {s.late_but_harmless} late but harmless"
    yield f"terms     {len(s.terms)}"
    for term in s.terms:
        until = f"to {term.until}" if term.until else "on"
        yield f"  token {term.token} of {term.lease}: {term.holder}, from revision {term.since} {until}"
    yield from _listed("notes", verdict.notes)
    yield from _listed("findings", tuple(map(str, verdict.findings)))
    yield ""
    yield "BROKEN: a promise did not hold" if verdict.findings else "ok: every promise held"


def _listed(title: str, texts: tuple[str, ...]) -> Iterator[str]:
    if texts:
        yield f"\n{title}"
    for text in texts[:MANY]:
        yield f"  {text}"
    if len(texts) > MANY:
        yield f"  … and {len(texts) - MANY} more"


def _counts(counts: Mapping[int, int], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{key}: {count}" for key, count in counts.items()) or "none"
