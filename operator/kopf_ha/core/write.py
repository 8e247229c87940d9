"""One write, from top to bottom: decide, stamp, send, and after a conflict read again.

Each write is a compare-and-swap on a revision whose recorded stamp was judged. `send` passes it through the gate, and
finds out what a refusal by the API server means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from kopf_ha.core import change, clearing, trial
from kopf_ha.core.asked import Asked, delete_options
from kopf_ha.core.definition import is_definition, keep_stamp
from kopf_ha.core.gate import Gate
from kopf_ha.core.grant import Grant
from kopf_ha.core.hearing import TERMS
from kopf_ha.core.known import Known, Revision
from kopf_ha.core.notes import as_metadata, section_of
from kopf_ha.core.reading import Found, Gone, Reader
from kopf_ha.core.refusal import Refusal, refusal_of, sentence_of
from kopf_ha.core.schema import is_stamped
from kopf_ha.core.stamping import note_alone, stamp_alone, stamp_revision
from kopf_ha.core.subresource import Part, part_of
from kopf_ha.core.target import Target, api_root
from kopf_ha.core.token import MalformedStamp
from kopf_ha.core.wire import Flow, OwnRequestRefused, Request, Response, Steps, is_conflict
from kopf_ha.errors import Denied, NotStamped, Refused, SetAside, StaleLeader, TermEnded, Unfenced

#: How often one change is tried on newer revisions. Each conflict needs another writer that was faster, so a few are
#: enough, unless somebody writes the object as fast as the API server allows. The bound keeps such a writer from making
#: the fence ask and write without a pause until the grant ends.
ATTEMPTS = 100
#: How often a bare stamp is tried. It is conditioned on the stamp alone, so only operators can keep it out.
STAMPS = 5


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
    yield from gate.check()
    if part_of(target) is Part.PASSES:
        return (yield from gate.send(request))
    if target.kind == "bindings" and request.method == "POST" and not target.name:
        request, target = as_subresource(request, target)
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
        if not target.name:
            return (yield from delete_collection(asked, reader, saw))
        if asked.is_only_stamp if stamped else asked.is_only_note:
            return (yield from only_stamp(asked, reader))
        return (yield from update(asked, reader, saw))
    except OwnRequestRefused as error:
        return error.answer
    except MalformedStamp as error:
        raise malformed(target, error) from error


def check_fenceable(asked: Asked, lease: str) -> None:
    """Refuse a request that no precondition and no stamp could fence.

    Raises:
        Unfenced: it is one.
    """
    target, method = asked.target, asked.request.method
    if asked.part is None:
        raise Unfenced(
            f"{asked}: the fence does not know this subresource; if its effect needs no fence,"
            f" declare it with --exempt {target.full_kind}"
        )
    if (target.kind, f"{target.namespace}/{asked.name}") == ("leases.coordination.k8s.io", lease):
        raise Unfenced(f"Lease {lease} is written by the election alone")
    if target.kind == TERMS:
        raise Unfenced(f"{asked}: a Term is written by kopf-ha alone")
    if asked.is_dry_run:
        return
    if method == "POST" and target.name and asked.part not in (Part.EVICTION, Part.BINDING):
        raise Unfenced(f"{asked}: a POST creates in a collection, and this path names an object")
    if not target.name and not asked.creates and not asked.deletes:
        raise Unfenced(f"{asked}: a whole collection cannot be written, only created in or deleted")
    if asked.body is None and not asked.deletes:
        raise Unfenced(f"{asked}: the body is empty")


def as_subresource(request: Request, target: Target) -> tuple[Request, Target]:
    """Return the POST of a Binding to the collection, which only Pods have, as one to the Pod that it names."""
    name = Asked.parse(request, target).name
    pod = replace(target, resource="pods", name=name, subresource="binding")
    return replace(request, path=f"{api_root(request.path)}{pod.path}/binding"), pod


def create(asked: Asked, reader: Reader) -> Flow:
    """Create an object. A conflict with one that is there already is the caller's."""
    answer = yield from send(asked, reader, change.creation(asked, reader.mine, stamped=reader.stamped))
    if answer.ok:
        reader.learn(answer)
    return answer


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt at a change.

    Args:
        answer: of the API server.
        final: whether that is the client's; otherwise the object has to be read again to know whose conflict it is.
        at: the revision that the request was conditioned on; None if it was to create an object.
        own: whether it answers the change itself, and not the stamp that has to come first.
    """

    answer: Response
    final: bool = True
    at: Revision | None = None
    own: bool = True


def update(asked: Asked, reader: Reader, saw: bool) -> Flow:
    """Change or delete one object, as compare-and-swap on a revision that this term may write (I1, I2, I3).

    A precondition that the fence added never surfaces (I9): after a conflict the object is read and judged, and the
    same goes again on the new revision, as long as the grant lasts.
    """
    deciding, clears = asked.target.kind in reader.known.deciding, clearing.is_clearing(asked, reader.stamped)
    if deciding and asked.writes_status and asked.version is None and (clears or not saw):
        raise Unfenced(
            f"{asked}: the status of a deciding kind must carry the resourceVersion that it was decided from"
        )
    if saw and (told := told_before(asked, reader)):
        return told
    # What the object has is put into some writes, so it is read each time.
    found = yield from (reader.read() if clears or is_definition(asked) else reader.look(asked.version, asked.uid))
    first = "" if isinstance(found, Gone) else found.revision.uid
    for _ in range(ATTEMPTS):
        if isinstance(found, Gone):
            tried = yield from create_missing(asked, reader, found)
        else:
            tried = yield from change_found(asked, reader, found, saw)
        if tried.final:
            break
        # After a conflict: read again, which ends the term if a later one wrote the object.
        found = yield from reader.read()
        if isinstance(found, Found):
            if current := is_already_so(asked, found, saw):
                return current
            if saw and found.revision.uid != first:
                break  # Kopf's handlers decided about the object that they saw
            # No revision is given twice; the uid in `at` may be another object's, as the caller named it.
            if tried.at and found.revision.version == tried.at.version:
                break  # our precondition held, so the conflict is the caller's
            if not may_repeat(asked, deciding):
                if asked.version is not None and not tried.own:
                    # Only the stamp was answered so far. Now the caller's own precondition fails, in its own words.
                    tried = yield from stamp_and_send(asked, reader, found, saw)
                break  # its caller has to plan it again
    return tried.answer


def create_missing(asked: Asked, reader: Reader, absent: Gone) -> Steps[Tried]:
    """Answer a write to an object that does not exist: an apply makes it, and so does a PUT of some kinds.

    It is made in a way that cannot change an object that comes in between (I3).
    """
    if asked.request.is_apply and not asked.target.subresource and not asked.version and not asked.uid:
        answer = yield from create(asked, reader)
        return Tried(answer, final=answer.status != 409)
    if asked.replaces and not asked.target.subresource and (yield from trial.can_be_tried(reader)):
        answer = yield from send(asked, reader, change.dry(asked, reader.mine, stamped=reader.stamped))
        if answer.status == 201:
            answer = yield from create(asked, reader)
            return Tried(answer, final=answer.status != 409)
        return Tried(absent.answer, final=False) if answer.ok else Tried(answer)
    return Tried(absent.answer)


def change_found(asked: Asked, reader: Reader, found: Found, saw: bool) -> Steps[Tried]:
    """Try the change once, on the revision found, unless nothing has to be sent.

    Raises:
        SetAside: the object could not be stamped in this term.
        NotStamped: the caller did not wait for its stamp.
    """
    if asked.writes_status and asked.target.kind in reader.known.deciding:
        check_barrier(asked, reader.gate.grant, found.revision.uid)
    if asked.version not in (None, found.revision.version) and (current := is_already_so(asked, found, saw)):
        return Tried(current)
    blind = asked.replaces and asked.version is None
    if blind and (refused := (yield from trial.refusal_of_blind_put(asked, reader))):
        return Tried(refused)
    if is_definition(asked) and found.answer is not None:
        asked = keep_stamp(asked, found.answer.json)
    if clearing.is_clearing(asked, reader.stamped) and found.answer is not None:
        asked = clearing.keep_stamp(asked, found.answer.json, reader.stamped)
    return (yield from stamp_and_send(asked, reader, found, saw))


def check_barrier(asked: Asked, grant: Grant, uid: str) -> None:
    """Refuse to record a decision in a deciding object that may have changed since the decider read it (I4).

    The resourceVersion of the write is not enough. A caller that keeps its own memory of the object, and reads no more
    than a new revision after a conflict, would lose what an earlier leader wrote between the list and the stamp. So it
    does not count that the object has its stamp by now: the caller must have got the object after it.

    Raises:
        SetAside: the object could not be stamped in this term.
        NotStamped: the caller did not wait for its stamp.
    """
    if grant.sets_aside(uid, asked.target.namespace):
        raise SetAside(
            f"{asked}: the object is set aside; it could not be stamped in this term, so an"
            " earlier leader could still write it; it is tried again, and the log says why"
        )
    if uid in grant.unread:
        raise NotStamped(
            f"{asked}: with --barrier each, decide from what `await kopf_ha.current_term().stamped(body)` returns for"
            " this object; what was read before may be an earlier leader's past"
        )


def stamp_and_send(asked: Asked, reader: Reader, found: Found, saw: bool) -> Steps[Tried]:
    """Try the change once, on the revision found, unless the object's stamp meets a 404 or a 409.

    Raises:
        StampDropped: the API server accepted the write and did not keep its stamp.
        OwnRequestRefused: the stamp was refused.
    """
    mine, stamped = reader.mine, reader.stamped
    at = replace(found.revision, version=asked.version or found.revision.version, uid=asked.uid or found.revision.uid)
    meant = at == found.revision  # otherwise the caller's precondition fails anyway
    own_stamp: str | None = None  # the revision that a stamp of its own made
    if meant and not found.mine and must_stamp_first(asked, stamped):
        answer = yield from send(asked, reader, stamp_revision(reader.path, asked.target, mine, at, stamped=stamped))
        if answer.status in (404, 409):
            return Tried(answer, not may_be_ours(asked, stamped, answer), at, own=False)
        if not answer.ok:
            raise OwnRequestRefused(answer)
        latest = reader.learn(answer, must_be_mine=True)
        if latest is None:
            raise Unfenced(
                f"{asked}: the API server's answer to the stamp is no object with a uid and a version", by_object=True
            )
        at, own_stamp = latest, latest.version
    request = change.fenced(asked, mine, at, stamped=stamped, meant=meant)
    answer = yield from send(asked, reader, request)
    if answer.ok and asked.part is Part.SCALE:
        reader.learn_scale(answer, at)
    elif answer.ok:
        carries = change.carries_stamp(asked) and (asked.is_status or not stamped)
        now = reader.learn(answer, must_be_mine=carries)
        if saw and own_stamp is not None and now is not None and now.version != own_stamp:
            reader.known.told.keep(reader.target.key, own_stamp, answer)
    return Tried(answer, answer.ok or not may_be_ours(asked, stamped, answer), at)


def delete_collection(asked: Asked, reader: Reader, saw: bool) -> Flow:
    """Delete each object of a collection that the caller's selectors name, each as compare-and-swap.

    A dry run of the same request comes first, since some kinds know no deletion of collections, and the caller may have
    no right to it. The answer is that of the API server: the list of what was deleted.
    """
    if not (yield from trial.can_be_tried(reader)):
        raise Unfenced(
            f"{asked}: nobody can tell whether this API server knows of dry runs, so a collection of it is not fenced;"
            " delete its objects one by one"
        )
    if refusal := (yield from trial.refusal(asked, reader)):
        return refusal
    answer = yield from reader.gate.send(Request("GET", asked.request.path, query=asked.request.query))
    if not answer.ok:
        return answer
    items = answer.json.get("items") if isinstance(answer.json, dict) else None
    if not isinstance(items, list):
        raise Unfenced(f"{asked}: the API server's answer is no list")
    options = delete_options(asked.request, asked.body)
    refused: Refused | None = None
    for item in items:
        target = replace(asked.target, name=str(item["metadata"]["name"]))
        try:
            deleted = yield from delete_one(target, item, options, reader, saw)
        except TermEnded:
            raise
        except Refused as error:
            refused = refused or error  # that of one object concerns no other (I10)
            continue
        if not deleted.ok and deleted.status != 404:
            return deleted
    if refused is not None:
        raise refused
    return answer


def delete_one(target: Target, item: Any, options: Any, collection: Reader, saw: bool) -> Flow:
    """Delete one object of a collection, at the revision that was listed or a newer one.

    Raises:
        Refused: this term may not.
    """
    reader = Reader(target, collection.stamped, collection.known, collection.gate, collection.root)
    request = change.with_body(Request("DELETE", reader.path), options)
    asked = Asked.parse(request, target)
    check_fenceable(asked, reader.known.lease)
    reader.known.learn(target, item)
    try:
        return (yield from update(asked, reader, saw))
    except MalformedStamp as error:
        raise malformed(target, error) from error


def malformed(target: Target, error: MalformedStamp) -> Unfenced:
    """Return the error for an object whose stamp cannot be read."""
    return Unfenced(f"{target}: {error}; repair it by hand, the fence does not guess", by_object=True)


def must_stamp_first(asked: Asked, stamped: bool) -> bool:
    """Whether an object that this term has not stamped yet has to be stamped by a separate request first (I3)."""
    if asked.request.is_apply:
        return True  # an apply would fight with the last term's over the ownership of the stamp
    if asked.request.is_json_patch:
        return True  # "add" needs an existing parent, and a JSON patch that makes it may remove what others wrote
    if not change.carries_stamp(asked):
        return True  # and finalizers or a grace period may keep an object that is deleted
    # Of what is written to a subresource, some kinds keep the annotations and others do not.
    return bool(asked.target.subresource) is not stamped


def may_be_ours(asked: Asked, stamped: bool, answer: Response) -> bool:
    """Whether a request of the fence's own, or a part of the write that it added or replaced, may be what failed.

    If the object, read again, is still at the revision that the write named, nothing of the fence's can have failed.
    """
    if answer.status == 422 and asked.request.is_json_patch:
        # Without a stamp in it, the fence's part is a precondition at its end, which fails with a 409.
        bare = asked.part is Part.SCALE or (stamped and not asked.target.subresource)
        return not bare or asked.version is not None or asked.rewrites_metadata
    if answer.status == 404:
        return asked.request.is_apply or asked.replaces  # it went while it was stamped, and these may make it again
    return answer.status == 409


def may_repeat(asked: Asked, deciding: bool) -> bool:
    """Whether the fence may send the same change again on a newer revision.

    What the fence adds loses nobody's change: each attempt is conditioned on the revision that was judged (I6). A
    precondition that the caller named stays the caller's conflict. For a deciding kind, the status and a deletion
    were decided from what the object said, so they have to be decided again. Annotations and labels are no decisions.
    """
    decision = deciding and (asked.writes_status or asked.deletes)
    return asked.version is None and not decision


def told_before(asked: Asked, reader: Reader) -> Response | None:
    """Return the answer to the same JSON patch of Kopf's, sent when the object had no stamp of this term.

    The stamp that came first made a revision of its own. If Kopf handles that, it lacks what its patch added, and Kopf
    asks again. It gets the answer that it has got already, without a request. If the object was changed since, an event
    will say so.
    """
    answer = reader.known.told.get(reader.target.key, asked.version)
    return answer if answer is not None and asked.is_met_by(answer.json) else None


def is_already_so(asked: Asked, found: Found, saw: bool) -> Response | None:
    """Return the object as just read, if it is as a JSON patch of Kopf's wants it to be.

    Kopf asks again for a finalizer that its last patch added already, if an event shows a revision before that. Kopf
    would keep a conflict in its memory, and not run the handlers.
    """
    answer = found.answer
    return answer if saw and answer is not None and asked.is_met_by(answer.json) else None


def only_stamp(asked: Asked, reader: Reader) -> Flow:
    """Stamp an object and change nothing else, however often others edit it (I4, I10)."""
    found = yield from reader.look(None, None)
    tried: Request | None = None
    answer = Response(0)  # nothing was sent yet
    for _ in range(STAMPS):
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
    except (OwnRequestRefused, MalformedStamp, Unfenced):
        pass
