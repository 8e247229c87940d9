"""What this process knows of the objects whose tokens count by one Lease.

The fence and each write share it. Because of it a write needs no extra request in the steady state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kopf_ha.core.notes import Note, noted, stamp_in
from kopf_ha.core.revisions import newer
from kopf_ha.core.target import Key, KindVersion, Target
from kopf_ha.core.token import MalformedStamp, Stamp, stamp_of
from kopf_ha.core.wire import Response


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of one object.

    Args:
        uid: of the object.
        version: its resourceVersion.
        stamp: the stamp of this process's Lease that it records. Of a stamped kind, the stamp of whichever Lease.
        notes: all stamps in its metadata, where its kind carries no `status.fencing`.
    """

    uid: str
    version: str
    stamp: Stamp | None
    notes: tuple[Note, ...] = ()


def revision_of(body: Mapping[str, Any], *, stamped: bool, lease: str, kind: str) -> Revision | None:
    """Read the revision of an object; None when the body is no object (a `Status`, an empty answer).

    Args:
        body: the whole object.
        stamped: whether its kind carries `status.fencing`; otherwise its metadata counts.
        lease: ``namespace/name`` of this process's Lease.
        kind: ``plural.group``.

    Raises:
        MalformedStamp: there is a stamp, but it is incomplete or invalid.
    """
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or not metadata.get("resourceVersion") or not metadata.get("uid"):
        return None
    uid, version = str(metadata["uid"]), str(metadata["resourceVersion"])
    if stamped:
        return Revision(uid, version, stamp_of(body))
    notes = noted(body, kind)
    return Revision(uid, version, stamp_in(notes, lease, kind), notes)


class Objects:
    """The newest known revision of each object.

    An outdated revision costs a conflict and a read, never safety: it only becomes the precondition of a write, and
    the API server compares. Values are immutable and each call is one step on a dict, so threads may share this.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._revisions: OrderedDict[Key, Revision] = OrderedDict()

    def get(self, key: Key) -> Revision | None:
        """Return the known revision of an object."""
        return self._revisions.get(key)

    def learn(self, key: Key, revision: Revision) -> None:
        """Keep a revision, unless a newer one is known: a watch lags behind our own writes."""
        old = self._revisions.get(key)
        if old is not None and old.uid == revision.uid and not newer(revision.version, old.version):
            return
        self._revisions[key] = revision
        if len(self._revisions) > self._limit:
            self._revisions.popitem(last=False)

    def forget(self, key: Key) -> None:
        """Drop what is known of an object, so that the next write reads it first."""
        self._revisions.pop(key, None)

    def clear(self) -> None:
        """Drop everything."""
        self._revisions.clear()

    def __len__(self) -> int:
        return len(self._revisions)


class Told:
    """The newest answer to a patch of Kopf's before which an object had to be stamped, by the stamp's revision.

    The answer shows a later revision than the stamp's, so an event of that one will come. Few are needed at a time:
    each only until Kopf's watch has shown the revision of its stamp.
    """

    def __init__(self, limit: int = 500) -> None:
        self._limit = limit
        self._answers: OrderedDict[Key, tuple[str, Response]] = OrderedDict()

    def keep(self, key: Key, version: str, answer: Response) -> None:
        """Keep the answer to the patch that was sent right after the stamp, which made the revision `version`."""
        self._answers.pop(key, None)
        self._answers[key] = (version, answer)
        if len(self._answers) > self._limit:
            self._answers.popitem(last=False)

    def get(self, key: Key, version: str | None) -> Response | None:
        """Return the answer, if the stamp of this object made the revision `version`."""
        kept = self._answers.get(key)
        return kept[1] if kept is not None and kept[0] == version else None

    def clear(self) -> None:
        """Drop everything."""
        self._answers.clear()


class Known:
    """What the fence and its writes know.

    Args:
        lease: ``namespace/name`` of the Lease by which the tokens count.
        deciding: deciding kinds, ``plural.group``: the state of other objects is decided from theirs.
    """

    def __init__(self, lease: str, deciding: Iterable[str] = ()) -> None:
        self.lease = lease
        self.deciding = frozenset(deciding)
        self.objects = Objects()
        self.told = Told()
        self.schemas: dict[KindVersion, bool] = {}  #: whether a kind carries `status.fencing`
        self.custom: dict[str, bool] = {}  #: whether a kind has a definition that could be read
        self.blind_puts: set[tuple[str, ...]] = set()  #: kinds that accept a PUT without a resourceVersion
        self.unfit: dict[str, str] = {}  #: kinds whose definition lost the stamp in this term, and how to repair it
        #: The highest token seen in `status.fencing` of any object. It survives the Lease, and each term.
        self.floor = 0
        self._suspected: dict[KindVersion, int] = {}  #: the highest token seen of kinds whose schema is not known yet

    def new_term(self) -> None:
        """Forget what was learnt in an earlier term, but not the floor."""
        self.objects.clear()
        self.told.clear()
        self.schemas.clear()
        self.custom.clear()
        self.blind_puts.clear()
        self.unfit.clear()
        self._suspected.clear()

    def learn(self, target: Target, body: Any) -> None:
        """Note an object that a watch showed. This never raises, since handlers must see the object all the same."""
        if not isinstance(body, dict):
            return
        schema = False if target.built_in else self.schemas.get(target.kind_version)
        try:
            revision = revision_of(body, stamped=schema is not False, lease=self.lease, kind=target.kind)
        except MalformedStamp:
            self.objects.forget(target.key)  # the next write reads it again and reports what is wrong
            return
        if revision is None:
            return
        if schema is not None:
            self.keep(target.key, revision, stamped=schema)
        elif (stamp := revision.stamp) is not None and stamp.lease == self.lease:
            # If the schema turns out to lack the stamp, users may write this field, so it is no floor yet (I10).
            self._suspected[target.kind_version] = max(self._suspected.get(target.kind_version, 0), stamp.token)

    def keep(self, key: Key, revision: Revision, *, stamped: bool) -> None:
        """Keep a revision, and raise the floor to its token. Anybody may write annotations, so they do not count."""
        if stamped and revision.stamp is not None and revision.stamp.lease == self.lease:
            self.floor = max(self.floor, revision.stamp.token)
        self.objects.learn(key, revision)

    def stamped_kinds(self) -> set[str]:
        """Return the kinds, ``plural.group``, that are known to carry `status.fencing`."""
        return self._kinds(stamped=True)

    def unstamped_kinds(self) -> set[str]:
        """Return the custom kinds, ``plural.group``, that are known to carry no `status.fencing`."""
        return self._kinds(stamped=False)

    def _kinds(self, *, stamped: bool) -> set[str]:
        return {f"{plural}.{group}" for (group, _, plural), found in [*self.schemas.items()] if found is stamped}

    def confirm(self, target: Target) -> int:
        """Raise the floor to what the watch saw of a kind before it was known that the kind is stamped.

        Returns:
            The highest token seen then, the first time; 0 for none.
        """
        token = self._suspected.pop(target.kind_version, 0)
        self.floor = max(self.floor, token)
        return token
