"""Finds out who made a change: by its stamp, by the audit log, or by its field managers, in this order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from judge.audit import AuditEntry
from judge.finding import NOBODY, Party
from judge.history import Change, History
from judge.shapes import section, stamp_of

_Name = tuple[str, str, str]


class Writers:
    """Matches the changes of a history with the requests of an audit log.

    The resourceVersion in an answer is the revision of the change. A write that changed nothing is answered with an
    older revision, so the first answer with a revision counts. A deletecollection is answered with the revision of a
    list, so the name must match, too. Answers without a revision (deletions, or a log without answers) are matched by
    their order with the remaining changes, if their numbers are equal. Deletions that may have been dry runs are
    included if that makes the numbers equal.
    """

    def __init__(self, history: History, audit: Iterable[AuditEntry], operator_user: str | None = None):
        self.operator_user = operator_user
        self._known: dict[tuple[int, _Name], AuditEntry] = {}
        requests: dict[_Name, list[AuditEntry]] = defaultdict(list)
        for entry in audit:
            if (entry.write or entry.doubtful) and entry.accepted:
                name = entry.resource, entry.namespace, entry.name
                if entry.revision is not None and not entry.doubtful:
                    self._known.setdefault((entry.revision, name), entry)
                else:
                    requests[name].append(entry)
        changes: dict[_Name, list[Change]] = defaultdict(list)
        for change in history.changes:
            changes[_name(change)].append(change)
        for name, entries in requests.items():
            left = [(c.revision, name) for c in changes[name] if (c.revision, name) not in self._known]
            for these in ([e for e in entries if not e.doubtful], entries):
                if len(these) == len(left):
                    self._known.update(zip(left, these, strict=True))
                    break

    def entry(self, change: Change) -> AuditEntry | None:
        """Return the request that made the change, or None if it is unknown."""
        return self._known.get((change.revision, _name(change)))

    def by_operator(self, entry: AuditEntry) -> bool:
        """Return whether the operator sent the request: by its user name, or by any pod if that is not known."""
        return entry.user == self.operator_user if self.operator_user else bool(entry.pod_uid)

    def party(self, change: Change) -> Party:
        """Return the party that made the change, for a sentence."""
        entry = self.entry(change)
        stamp = stamp_of(change.after or change.before)
        if stamp and (entry is None or entry.pod_uid == stamp.pod_uid):
            return Party.stamped(stamp)
        if entry:
            return Party.audited(entry)
        managers = section(change.after, "metadata").get("managedFields") or ()
        newest = max(managers, key=lambda m: m.get("time", ""), default=None)
        return Party(str(newest.get("manager")), source="managedFields") if newest else NOBODY


def _name(change: Change) -> _Name:
    return change.key.resource, change.key.namespace, change.key.name
