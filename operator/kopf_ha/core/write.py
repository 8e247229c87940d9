"""One write, from top to bottom: decide, stamp, send, and after a conflict read again.

Each write is a compare-and-swap on a revision whose recorded stamp was judged. `send` passes it through the gate, and
finds out what a refusal by the API server means.
"""

from __future__ import annotations

from kopf_ha.core import change
from kopf_ha.core.asked import Asked
from kopf_ha.core.definition import is_definition, keep_stamp
from kopf_ha.core.gate import Gate
from kopf_ha.core.known import Known
from kopf_ha.core.notes import as_metadata, section_of
from kopf_ha.core.reading import Found, Gone, Reader
from kopf_ha.core.refusal import Refusal, refusal_of, sentence_of
from kopf_ha.core.schema import is_stamped
from kopf_ha.core.stamping import note_alone, stamp_alone, stamp_revision
from kopf_ha.core.target import Target, api_root
from kopf_ha.core.token import MalformedStamp
from kopf_ha.core.wire import Flow, Request, Response, Steps, Unanswered, is_conflict
from kopf_ha.errors import Denied, Refused, SetAside, StaleLeader, Unfenced

#: How often one change is tried on newer revisions. Each conflict needs another writer.
ATTEMPTS = 5


def write(request: Request, target: Target, known: Known, gate: Gate, *, saw: bool) -> Flow:
    """Write one object in mode `full`, or refuse to.

    Args:
        request: what the client wants to send.
        target: what it writes to.
        known: what this process knows of objects and kinds.
        gate: of this write.
        saw: whether the caller decided from the known revision; see `Fence.flow`.

    Raises:
        Refused: the write must not happen, or the API server refused it.
    """
    gate.check()
    asked = Asked.parse(request, target)
    check_fenceable(asked, known.lease)
    if asked.is_dry_run:
        return (yield from gate.send(request))
    root = api_root(request.path)
    try:
        stamped = yield from is_stamped(target, known, root, gate.send)
        reader = Reader(target, stamped, known, gate, root)
        if stamped and (token := known.confirm(target)):
            yield from reader.check_floor(token)
        if asked.creates:
            return (yield from create(asked, reader))
        if asked.is_only_stamp if stamped else asked.is_only_note:
            return (yield from only_stamp(asked, reader))
        return (yield from update(asked, reader, saw))
    except Unanswered as error:
        return error.answer
    except MalformedStamp as error:
        raise Unfenced(f"{target}: {error}; repair it by hand, the fence does not guess", by_object=True) from error


def check_fenceable(asked: Asked, lease: str) -> None:
    """Refuse a request that no precondition and no stamp could fence.

    Raises:
        Unfenced: it is one.
    """
    target, method = asked.target, asked.request.method
    if target.subresource not in ("", "status"):
        raise Unfenced(
            f"{asked}: the fence does not know this subresource; if its effect needs no fence,"
            f" declare it with --exempt {target.full_kind}"
        )
    if (target.kind, f"{target.namespace}/{asked.name}") == ("leases.coordination.k8s.io", lease):
        raise Unfenced(f"Lease {lease} is written by the election alone")
    if asked.is_dry_run:
        return
    if method == "POST" and target.name:
        raise Unfenced(f"{asked}: a POST creates in a collection, and this path names an object")
    if not target.name and not asked.creates:
        raise Unfenced(f"{asked}: a whole collection cannot be fenced; write its objects one by one")
    if asked.body is None and not asked.deletes:
        raise Unfenced(f"{asked}: the body is empty")
    if method == "PUT" and asked.version is None:
        raise Unfenced(f"{asked}: without metadata.resourceVersion it would overwrite changes that it never saw")


def create(asked: Asked, reader: Reader) -> Flow:
    """Create an object."""
    answer = yield from send(asked, reader, change.creation(asked, reader.mine, stamped=reader.stamped))
    if answer.ok:
        reader.learn(answer)
    return answer


def update(asked: Asked, reader: Reader, saw: bool) -> Flow:
    """Change or delete one object, as compare-and-swap on a revision that this term may write (I1, I2, I3)."""
    deciding = asked.target.kind in reader.known.deciding
    if deciding and asked.writes_status and asked.version is None and not saw:
        raise Unfenced(
            f"{asked}: the status of a deciding kind must carry the resourceVersion that it was decided from"
        )
    defines = is_definition(asked)
    found = yield from (reader.read() if defines else reader.look(asked.version, asked.uid))
    if isinstance(found, Gone):
        if asked.request.is_apply and not asked.version and not asked.uid:
            return (yield from create(asked, reader))
        return found.answer
    uid = asked.uid or found.revision.uid
    for _ in range(ATTEMPTS):
        if deciding and asked.writes_status and found.revision.uid in reader.gate.grant.set_aside:
            raise SetAside(
                f"{asked}: the object is set aside; it could not be stamped in this term, so an"
                " earlier leader could still write it; it is tried again, and the log says why"
            )
        if asked.version not in (None, found.revision.version) and (current := is_already_so(asked, found, saw)):
            return current
        change_ = keep_stamp(asked, found.answer.json) if defines and found.answer else asked
        answer = yield from stamp_and_send(change_, reader, found, uid)
        if answer.ok or not is_conflict(asked.request, answer):
            return answer
        # After a conflict: read again, which ends the term if a later one wrote the object.
        found = yield from reader.read()
        if isinstance(found, Gone):
            return answer if asked.request.is_apply else found.answer
        if current := is_already_so(asked, found, saw):
            return current
        if found.revision.uid != uid or not may_repeat(asked, deciding):
            return answer  # the change was meant for another object (I6), or its caller has to plan it again
    return answer


def stamp_and_send(asked: Asked, reader: Reader, found: Found, uid: str) -> Flow:
    """Try the change once, on the revision found. Return the answer to it, or the conflict that kept the stamp out.

    Raises:
        StampDropped: the API server accepted the write and did not keep its stamp.
        Unanswered: the stamp was refused.
    """
    revision, mine, stamped = found.revision, reader.mine, reader.stamped
    version = asked.version or revision.version
    meant = (version, uid) == (revision.version, revision.uid)  # otherwise the caller's precondition fails anyway
    if meant and not found.mine and must_stamp_first(asked, stamped):
        stamp = stamp_revision(reader.path, asked.target, mine, revision, stamped=stamped, version=version)
        answer = yield from send(asked, reader, stamp)
        if answer.status == 409:
            return answer
        if not answer.ok:
            raise Unanswered(answer)
        latest = reader.learn(answer, must_be_mine=True)
        if latest is None:
            raise Unfenced(
                f"{asked}: the API server's answer to the stamp is no object with a uid and a version", by_object=True
            )
        version = latest.version
    changed = change.fenced(asked, mine, revision, stamped=stamped, version=version, uid=uid)
    answer = yield from send(asked, reader, changed)
    if answer.ok:
        reader.learn(answer, must_be_mine=not asked.deletes and (asked.is_status or not stamped))
    return answer


def must_stamp_first(asked: Asked, stamped: bool) -> bool:
    """Whether an object that this term has not stamped yet has to be stamped by a separate request first (I3)."""
    if asked.request.is_apply:
        return True  # an apply would fight with the last term's over the ownership of the stamp
    if asked.request.is_json_patch:
        return True  # "add" needs an existing parent, and a JSON patch that makes it may remove what others wrote
    if asked.deletes:
        return True  # it carries no stamp, and finalizers or a grace period may keep the object
    if stamped:
        return not asked.is_status
    return asked.is_status and not asked.target.status_takes_annotations  # there the stamp would be dropped silently


def may_repeat(asked: Asked, deciding: bool) -> bool:
    """Whether the fence may send the same change again on a newer revision.

    A precondition that the caller named stays the caller's conflict. For a deciding kind, the status and a deletion
    were decided from what the object said, so they have to be decided again. Annotations and labels are no decisions.
    """
    decision = deciding and (asked.writes_status or asked.deletes)
    return asked.version is None and not decision and asked.fits_any_revision


def is_already_so(asked: Asked, found: Found, saw: bool) -> Response | None:
    """Return the object as just read, if it is as a JSON patch of Kopf's wants it to be.

    The event of our own stamp wakes Kopf, which then asks again for a finalizer that its last patch added already. Kopf
    would keep a conflict in its memory, and not run the handlers.
    """
    answer = found.answer
    return answer if saw and answer is not None and asked.is_met_by(answer.json) else None


def only_stamp(asked: Asked, reader: Reader) -> Flow:
    """Stamp an object and change nothing else, however often others edit it (I4, I10)."""
    found = yield from reader.look(None, None)
    tried: Request | None = None
    answer = Response(0)  # nothing was sent yet
    for _ in range(ATTEMPTS):
        if isinstance(found, Gone):
            return found.answer
        request = only_stamp_of(found, reader)
        if request == tried and answer.status == 422:
            return answer  # the stamp is still the one that was tested, so the 422 has another cause
        tried = request
        answer = yield from send(asked, reader, request)
        if answer.ok:
            reader.learn(answer, must_be_mine=True)
        if not is_conflict(request, answer):
            return answer
        found = yield from reader.read()
    return found.answer if isinstance(found, Gone) else answer


def only_stamp_of(found: Found, reader: Reader) -> Request:
    """Return the request that stamps the object found. If what is known of it was too little, its answer will say."""
    body, stamp = found.answer.json if found.answer else None, found.revision.stamp
    if reader.stamped:
        # A known revision does not say whether an object without a stamp has a status.
        status = body.get("status") if body else {"fencing": stamp.as_status()} if stamp else None
        return stamp_alone(reader.path, status, reader.mine)
    kind = reader.target.kind
    # Nor does it say whether an object without a stamp has annotations. Nearly all do.
    metadata = body["metadata"] if body else {section_of(kind): {}, **as_metadata(list(found.revision.notes))}
    return note_alone(reader.path, metadata, reader.target, reader.mine)


def send(asked: Asked, reader: Reader, request: Request) -> Flow:
    """Send a write through the gate. Raise what it means if one of our rules refused it; pass on all other answers.

    A refusal never ends the term by itself (I10). The write did not happen, and safety needs no more. If the rule is
    about tokens, then the object, read again, or the Lease says whether the term is over.

    Raises:
        TermEnded: it is over.
        Denied: it goes on, and the refusal concerns only this write.
        GateClosed: no time is left.
    """
    answer = yield from reader.gate.send(request)
    if answer.ok:
        return answer
    if answer.status == 404:
        reader.known.objects.forget(asked.target.key)
    refusal = refusal_of(answer, asked.target, reader.mine.lease)
    if refusal is Refusal.NONE:
        return answer
    said = f"the API server refused {asked}: {sentence_of(answer)}"
    try:
        if refusal.about_tokens:
            if asked.target.name:
                yield from judge_again(reader)
            if (yield from reader.leads()) is False:
                raise StaleLeader(said)
    except Refused as error:
        error.line = "server"
        raise
    raise Denied(said)


def judge_again(reader: Reader) -> Steps[None]:
    """Read and judge the object if possible. A failed read must not become an answer that the client retries (I8)."""
    try:
        yield from reader.read()
    except (Unanswered, MalformedStamp, Unfenced):
        pass
