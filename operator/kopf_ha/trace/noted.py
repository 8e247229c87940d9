"""What one write of the fence reads besides requests and answers: clock, grant, and what the process knows. No I/O.

Other threads change all three at any time. So each read is handed to a `Note`, which returns what the fence gets. While
the operator runs, a note writes the value down and returns it. In a replay it returns what was written down, so that
the same code decides from the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from kopf_ha.core.grant import Grant
from kopf_ha.core.known import Known, Objects, Revision, Told
from kopf_ha.core.notes import Note as Entry
from kopf_ha.core.target import Key, Target
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response


class Note(Protocol):
    """Takes one read, and returns its value.

    Args:
        what: was read.
        value: as it is in this process.
    """

    def __call__(self, what: str, value: Any) -> Any:
        """Return what the fence gets."""


def clock(note: Note, now: Callable[[], float]) -> Callable[[], float]:
    """Return a clock whose reads are noted."""

    def read() -> float:
        value: float = note("now", now())
        return value

    return read


class NotedGrant(Grant):
    """A grant whose reads are noted."""

    def __init__(self, grant: Grant, note: Note) -> None:
        super().__init__(grant.stamp, grant.deadline)
        self._grant, self._note = grant, note
        self.unread = _Unread(grant, note)

    def remaining(self, now: float) -> float:
        """Return the seconds that are left to write, by a deadline that is noted."""
        self.closed = self._note("closed", self._grant.closed)
        self.held = self._note("held", self._grant.held)
        self.deadline = self._note("deadline", self._grant.deadline)
        return super().remaining(now)

    def may_reopen(self, now: float) -> bool:
        """Whether a write waits."""
        return bool(self._note("may reopen", self._grant.may_reopen(now)))

    def sets_aside(self, uid: str, namespace: str) -> bool:
        """Whether nothing may be decided from a deciding object."""
        return bool(self._note("set aside", self._grant.sets_aside(uid, namespace)))


class _Unread(set[str]):
    def __init__(self, grant: Grant, note: Note) -> None:
        super().__init__()
        self._grant, self._note = grant, note

    def __contains__(self, uid: object) -> bool:
        return bool(self._note("unread", uid in self._grant.unread))


class NotedKnown(Known):
    """What the process knows: this reads and writes it, and its reads are noted."""

    def __init__(self, known: Known, note: Note) -> None:
        super().__init__(known.lease, known.deciding)
        self._known, self._note = known, note
        self.objects = _Objects(known.objects, note)
        self.told = _Told(known.told, note)
        self.schemas = _Entries(known.schemas, note, "schema")
        self.custom = _Entries(known.custom, note, "custom")
        self.unfit = _Entries(known.unfit, note, "unfit")
        self.blind_puts = _Members(known.blind_puts, note)

    def learn(self, target: Target, body: Any) -> None:
        """Note an object that was listed."""
        self._known.learn(target, body)

    def keep(self, key: Key, revision: Revision, *, stamped: bool) -> None:
        """Keep a revision, and raise the floor to its token."""
        self._known.keep(key, revision, stamped=stamped)

    def confirm(self, target: Target) -> int:
        """Raise the floor to what the watch saw of a kind."""
        return int(self._note("confirm", self._known.confirm(target)))


class _Objects(Objects):
    def __init__(self, objects: Objects, note: Note) -> None:
        super().__init__()
        self._objects, self._note = objects, note

    def get(self, key: Key) -> Revision | None:
        found: Revision | None = self._note("object", self._objects.get(key))
        return found

    def learn(self, key: Key, revision: Revision) -> None:
        self._objects.learn(key, revision)

    def forget(self, key: Key) -> None:
        self._objects.forget(key)


class _Told(Told):
    def __init__(self, told: Told, note: Note) -> None:
        super().__init__()
        self._told, self._note = told, note

    def keep(self, key: Key, version: str, answer: Response) -> None:
        self._told.keep(key, version, answer)

    def get(self, key: Key, version: str | None) -> Response | None:
        found: Response | None = self._note("told", self._told.get(key, version))
        return found


class _Entries(dict[Any, Any]):
    def __init__(self, entries: dict[Any, Any], note: Note, what: str) -> None:
        super().__init__()
        self._entries, self._note, self._what = entries, note, what

    def get(self, key: Any, default: Any = None) -> Any:
        return self._note(self._what, self._entries.get(key, default))

    def __contains__(self, key: object) -> bool:
        return bool(self._note(f"has {self._what}", key in self._entries))

    def __getitem__(self, key: Any) -> Any:
        return self.get(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._entries[key] = value


class _Members(set[tuple[str, ...]]):
    def __init__(self, members: set[tuple[str, ...]], note: Note) -> None:
        super().__init__()
        self._members, self._note = members, note

    def __contains__(self, one: object) -> bool:
        return bool(self._note("blind put", one in self._members))

    def add(self, one: tuple[str, ...]) -> None:
        self._members.add(one)


def revision_as_json(revision: Revision | None) -> Any:
    """Return a revision as the trace has it."""
    if revision is None:
        return None
    stamp = revision.stamp
    return {
        "uid": revision.uid,
        "version": revision.version,
        "stamp": None if stamp is None else stamp.as_status(),
        "notes": [list(note) for note in revision.notes],
    }


def revision_from(data: Mapping[str, Any] | None) -> Revision | None:
    """Return the revision that `revision_as_json` made this of."""
    if data is None:
        return None
    notes = tuple(Entry(*note) for note in data["notes"])
    return Revision(data["uid"], data["version"], stamp_from(data["stamp"]), notes)


def stamp_from(data: Mapping[str, Any] | None) -> Stamp | None:
    """Return the stamp that `Stamp.as_status` made this of."""
    return None if data is None else Stamp(data["token"], data["holder"], data["lease"], data["podUID"])
