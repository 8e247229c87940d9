"""The stamp of an object without `status.fencing`: a note in its metadata, one for each Lease.

A token orders only the writers of its own Lease. So operators with different Leases may write one object (a Namespace,
a Secret), and none of them looks at the other's note. The note's name is made of the Lease and the kind, because
controllers copy annotations to objects of other kinds: what a ReplicaSet has from its Deployment is no stamp of the
ReplicaSet.

The note is an annotation. Only Deployments have a label: `kubectl rollout undo` replaces a Deployment's annotations by
those that it had in an earlier revision, and would put an old stamp back (I1). It leaves labels alone, and nothing
copies a Deployment's labels.

Releases before this form had four annotations instead, one set for each object. They still count, and they are
still written where no other Lease has them, to Deployments only if they are there. So a stale leader of such a release
is refused, and one can take over again (docs/rolling-update.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from kopf_ha.core.token import MalformedStamp, Stamp, as_token, checked

#: The names of all notes begin with this.
PREFIX = "kopf-ha.dev/stamp-"

#: The annotations of earlier releases.
ANNOTATION_TOKEN = "kopf-ha.dev/token"  # noqa: S105  a name, no secret
ANNOTATION_HOLDER = "kopf-ha.dev/holder"
ANNOTATION_LEASE = "kopf-ha.dev/lease"
ANNOTATION_POD_UID = "kopf-ha.dev/pod-uid"
EARLIER = (ANNOTATION_TOKEN, ANNOTATION_HOLDER, ANNOTATION_LEASE, ANNOTATION_POD_UID)

#: Kinds whose note is a label.
LABELLED = frozenset({"deployments.apps"})
#: Kinds whose annotations are copies of their owner's. There the annotations of earlier releases are no stamp.
COPIES = frozenset({"replicasets.apps", "controllerrevisions.apps"})


class Note(NamedTuple):
    """One entry of an object's metadata that belongs to a stamp.

    Args:
        section: ``annotations`` or ``labels``.
        name: of the entry.
        text: its value.
    """

    section: str
    name: str
    text: str


def section_of(kind: str) -> str:
    """Return which part of the metadata has the notes of a kind, ``plural.group``."""
    return "labels" if kind in LABELLED else "annotations"


def note_name(lease: str, kind: str) -> str:
    """Return the name of a note.

    Args:
        lease: ``namespace/name``.
        kind: ``plural.group``.
    """
    return PREFIX + sha256(f"{lease} {kind}".encode()).hexdigest()[:16]


def is_stamp(name: str) -> bool:
    """Whether an annotation or a label belongs to a stamp, of whichever Lease."""
    return name.startswith(PREFIX) or name in EARLIER


def noted(body: Mapping[str, Any], kind: str) -> tuple[Note, ...]:
    """Return the notes of an object, those of other Leases included.

    Args:
        body: the whole object.
        kind: ``plural.group``.
    """
    metadata = body.get("metadata") or {}
    section = section_of(kind)
    found = [Note(section, k, v) for k, v in (metadata.get(section) or {}).items() if k.startswith(PREFIX)]
    if kind not in COPIES:
        notes = metadata.get("annotations") or {}
        found += [Note("annotations", name, notes[name]) for name in EARLIER if name in notes]
    return tuple(found)


def stamp_in(notes: tuple[Note, ...], lease: str, kind: str) -> Stamp | None:
    """Return the stamp of one Lease; None when there is none. Of two forms the higher token counts.

    Args:
        notes: of the object.
        lease: ``namespace/name`` of the Lease.
        kind: ``plural.group``.

    Raises:
        MalformedStamp: one is incomplete or invalid.
    """
    name = note_name(lease, kind)
    found = [_parsed(note, lease) for note in notes if note.name == name]
    earlier = {note.name: note.text for note in notes if note.name in EARLIER}
    if earlier and not _is_anothers(earlier, lease):
        holder, pod = earlier.get(ANNOTATION_HOLDER), earlier.get(ANNOTATION_POD_UID)
        found.append(checked(as_token(earlier.get(ANNOTATION_TOKEN)), holder, earlier.get(ANNOTATION_LEASE), pod))
    return max(found, key=lambda stamp: stamp.token, default=None)


def others_in(notes: tuple[Note, ...], lease: str, kind: str) -> tuple[Note, ...]:
    """Return the notes that belong to other Leases. A write that replaces the object has to keep them (I1)."""
    own = {note_name(lease, kind)}
    if not _is_anothers({note.name: note.text for note in notes}, lease):
        own.update(EARLIER)
    return tuple(note for note in notes if note.name not in own)


def notes_of(mine: Stamp, kind: str, recorded: tuple[Note, ...] = ()) -> list[Note]:
    """Return the notes that stamp an object.

    A Deployment gets the annotations of earlier releases only if it has them. Without policies they are all that keeps
    out a stale leader of such a release. But its controller copies them to its ReplicaSets.

    Args:
        mine: the stamp.
        kind: ``plural.group``.
        recorded: all notes on the object. The annotations of earlier releases may be another Lease's.
    """
    section = section_of(kind)
    text = f"{mine.token}.{mine.pod_uid}.{mine.digest}" if section == "labels" else _text(mine)
    notes = [Note(section, note_name(mine.lease, kind), text)]
    has = any(note.name in EARLIER for note in recorded)
    free = all(note.name not in EARLIER for note in others_in(recorded, mine.lease, kind))
    if free and kind not in COPIES and (has or kind not in LABELLED):
        texts = (str(mine.token), mine.holder, mine.lease, mine.pod_uid)
        notes += [Note("annotations", name, text) for name, text in zip(EARLIER, texts, strict=True)]
    return notes


def as_metadata(notes: list[Note]) -> dict[str, dict[str, str]]:
    """Return notes as they stand in an object's `metadata`."""
    made: dict[str, dict[str, str]] = {}
    for section, name, text in notes:
        made.setdefault(section, {})[name] = text
    return made


def pointer(note: Note) -> str:
    """Return the JSON pointer of a note."""
    return f"/metadata/{note.section}/{escaped(note.name)}"


def escaped(name: str) -> str:
    """Return a name as part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _text(mine: Stamp) -> str:
    # The holder comes last: it is the only part that may contain a space.
    return f"{mine.token} {mine.lease} {mine.pod_uid} {mine.holder}"


def _parsed(note: Note, lease: str) -> Stamp:
    """Read a note of this Lease."""
    text = note.text if isinstance(note.text, str) else ""
    if note.section == "labels":
        token, _, rest = text.partition(".")
        pod, _, holder = rest.rpartition(".")
        return checked(as_token(token), holder, lease, pod)
    token, named, pod, holder = (*text.split(" ", 3), "", "", "")[:4]
    if named != lease:
        raise MalformedStamp(f"the stamp {note.name} does not name Lease {lease}")
    return checked(as_token(token), holder, named, pod)


def _is_anothers(notes: Mapping[str, Any], lease: str) -> bool:
    """Whether the annotations of earlier releases name another Lease."""
    named = notes.get(ANNOTATION_LEASE)
    return bool(named) and isinstance(named, str) and named != lease
