"""The history of a run: every change of every object in order, with the object before and after it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Object = dict[str, Any]

PREFIX = "/registry/"
FORMAT = "kopf-ha judge history 1"


class HistoryError(Exception):
    """The history cannot be judged, because it is incomplete or unreadable."""


@dataclass(frozen=True, order=True)
class Key:
    """The place of an object in etcd. Built-in kinds have no group here."""

    group: str
    resource: str
    namespace: str
    name: str

    @classmethod
    def parse(cls, path: str) -> Key:
        """Read `/registry/[group/]resource/[namespace/]name`."""
        parts = path.removeprefix(PREFIX).split("/")
        group = parts.pop(0) if "." in parts[0] and len(parts) > 1 else ""
        resource, *rest = parts
        name = rest.pop() if rest else ""
        return cls(group, resource, rest[-1] if rest else "", name)

    @property
    def path(self) -> str:
        """The key in etcd."""
        return PREFIX + "/".join(p for p in (self.group, self.resource, self.namespace, self.name) if p)

    @property
    def title(self) -> str:
        """`namespace/name`, or the name alone."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def __str__(self) -> str:
        return f"{self.resource} {self.title}"


@dataclass(frozen=True)
class Change:
    """A change of one object at one revision. `before` is None at its creation, `after` at its deletion."""

    revision: int
    key: Key
    before: Object | None
    after: Object | None

    @property
    def uid(self) -> str:
        """The uid of the object that changed."""
        return uid_of(self.after or self.before)

    @property
    def uids(self) -> set[str]:
        """The uids of the objects before and after it: two if an object was replaced by one of the same name."""
        return {uid_of(self.before), uid_of(self.after)} - {""}

    @property
    def same(self) -> bool:
        """Whether `before` and `after` are the same object (by uid)."""
        return self.before is not None and self.after is not None and uid_of(self.before) == uid_of(self.after)


@dataclass(frozen=True)
class History:
    """All changes up to a revision."""

    revision: int
    changes: tuple[Change, ...]

    def of(self, *resources: str) -> Iterator[Change]:
        """Return the changes of these resources, in order."""
        return (change for change in self.changes if change.key.resource in resources)

    @cached_property
    def end(self) -> Mapping[Key, Object]:
        """The objects that exist at the last revision."""
        living: dict[Key, Object] = {}
        for change in self.changes:
            living.pop(change.key, None)
            if change.after is not None:
                living[change.key] = change.after
        return living


def uid_of(obj: Object | None) -> str:
    """Return `metadata.uid`, or an empty string."""
    return str((obj or {}).get("metadata", {}).get("uid", ""))


def replay(revision: int, writes: Iterable[tuple[int, Key, Object | None]], known: History | None = None) -> History:
    """Build a history from writes in order, or go on with one that is known. None stands for a deletion."""
    living = dict(known.end) if known else {}
    changes = list(known.changes) if known else []
    for at, key, after in writes:
        if changes and at < changes[-1].revision:
            raise HistoryError(f"revision {at} comes after revision {changes[-1].revision}")
        before = living.pop(key, None)
        if after is not None:
            living[key] = after
        changes.append(Change(at, key, before, after))
    return History(revision, tuple(changes))


def dump(history: History, path: str | Path) -> None:
    """Write a history to a file as JSON lines, for a bug report."""
    with Path(path).open("w", encoding="utf-8") as file:
        file.write(json.dumps({"format": FORMAT, "revision": history.revision}) + "\n")
        for change in history.changes:
            line = {"revision": change.revision, "key": change.key.path, "value": change.after}
            file.write(json.dumps(line, separators=(",", ":")) + "\n")


def load(path: str | Path) -> History:
    """Read a history that `dump` wrote.

    Raises:
        HistoryError: the file is not such a history.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            head = json.loads(file.readline())
            if head["format"] != FORMAT:
                raise HistoryError(f"{path} is of format {head['format']!r}, not {FORMAT!r}")
            lines = map(json.loads, file)
            return replay(head["revision"], ((x["revision"], Key.parse(x["key"]), x["value"]) for x in lines))
    except (ValueError, KeyError, TypeError) as error:
        raise HistoryError(f"{path} is not a history that the judge wrote: {error!r}") from error
