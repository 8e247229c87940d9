"""Checks that only users change specs (I6), and that writes stop when the faults are over (I7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from judge.finding import Finding, Party
from judge.history import Change, History
from judge.shapes import ANNOTATION, CHILDREN, CLAIMS, GROUP, POOLS, published, section, stamp_of
from judge.writers import Writers

OPERATORS = (ANNOTATION, f"{GROUP}/", "kopf.zalando.org/", "kopf.dev/")  # prefixes of annotations that are not users'


def only_users_change_specs(history: History, writers: Writers) -> Iterator[Finding]:
    """I6: find changes of specs, labels and users' annotations by the operator."""
    for change in history.of(POOLS, CLAIMS):
        entry = writers.entry(change)
        if not change.same or entry is None or not writers.by_operator(entry):
            continue
        for part in changed(change):
            sentence = f"{Party.audited(entry)} changed {part} of {change.key} at revision {change.revision}"
            yield Finding("I6", "user's field", change.revision, str(change.key), (Party.audited(entry),), sentence)


def unknown_editors(history: History, writers: Writers) -> int:
    """Return how many changes of users' fields have no audit entry."""
    return sum(1 for c in history.of(POOLS, CLAIMS) if c.same and writers.entry(c) is None and any(changed(c)))


def changed(change: Change) -> Iterator[str]:
    """Return the users' parts of an object that a change touched."""
    before, after = change.before or {}, change.after or {}
    if before.get("spec") != after.get("spec"):
        yield "the spec"
    was, now = section(before, "metadata"), section(after, "metadata")
    if section(was, "labels") != section(now, "labels"):
        yield "labels"
    if _users(section(was, "annotations")) != _users(section(now, "annotations")):
        yield "annotations"


def _users(annotations: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in annotations.items() if not name.startswith(OPERATORS)}


def writes_stop(history: History, after: int | None) -> Iterator[Finding]:
    """I7: find changes of the operator's objects after a revision."""
    if after is None:
        return
    for change in history.changes:
        obj = change.after or change.before
        child = change.key.resource == CHILDREN and (stamp_of(obj) or published(obj))
        if change.revision > after and (change.key.group == GROUP or child):
            sentence = f"{change.key} still changed at revision {change.revision}, after {after}"
            yield Finding("I7", "writes go on", change.revision, str(change.key), (), sentence)
