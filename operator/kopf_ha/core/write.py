"""One write, as compare-and-swap: lines 1 and 2 of the fence, and what line 3 answers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kopf_ha.core import change
from kopf_ha.core.grant import Grant
from kopf_ha.core.known import Seen, seen_of
from kopf_ha.core.refusal import Refusal, refusal_of, sentence_of
from kopf_ha.core.schema import Unanswered, ask_schema
from kopf_ha.core.stamping import asks_for_stamp_alone, stamp_alone
from kopf_ha.core.target import Target, api_root
from kopf_ha.core.token import ANNOTATIONS, MalformedStamp, Verdict, judge
from kopf_ha.core.wire import WRITES, Request, Response
from kopf_ha.errors import (
    Denied,
    FloorLost,
    ForeignStamp,
    GateClosed,
    Refused,
    SetAside,
    StaleLeader,
    StampDropped,
    TermEnded,
    Unfenced,
)

if TYPE_CHECKING:
    from kopf_ha.core.fence import Fence

Flow = Generator[Request, Response, Response]

#: How often one change is tried on newer revisions. A conflict needs another writer each time.
ATTEMPTS = 5

_MERGE_PATCH = change.MERGE[0]
_REPAIR = (
    f"remove these annotations ({', '.join(ANNOTATIONS)}), by an administrator where a policy protects them, or raise"
    " leaseTransitions above the token if the Lease lost its count"
)


class Write:
    """One attempt of one write in mode `full`."""

    def __init__(
        self,
        fence: Fence,
        request: Request,
        target: Target,
        grant: Grant,
        now: Callable[[], float],
        saw: bool,
    ) -> None:
        self.fence = fence
        self.request = request
        self.target = target
        self.grant = grant
        self.mine = grant.stamp
        self.now = now
        self.saw = saw
        self.root = api_root(request.path)
        self.stamped = False
        self.sent: Request | None = None
        self.answer: Response | None = None

    # --- the ways to write

    def run(self) -> Flow:
        """Send the request the way that fits it, or refuse."""
        target, method = self.target, self.request.method
        self.gate()
        if target.subresource not in ("", "status"):
            raise Unfenced(
                f"{method} {target}: the fence does not know this subresource; if its effect needs no fence,"
                f" declare it with --exempt {target.full_kind}"
            )
        body = change.parse_body(self.request)
        name = target.name or (isinstance(body, dict) and (body.get("metadata") or {}).get("name"))
        if (target.kind, f"{target.namespace}/{name}") == ("leases.coordination.k8s.io", self.mine.lease):
            raise Unfenced(f"Lease {self.mine.lease} is written by the election alone")
        if change.is_dry_run(self.request, body):
            return (yield from self.send(self.request))
        creates = method == "POST" and not target.name
        if method == "POST" and target.name:
            raise Unfenced(f"POST {target}: an object that has a name already is no collection to create in")
        if not target.name and not creates:
            raise Unfenced(f"{method} {target}: a whole collection cannot be fenced; write its objects one by one")
        if method != "DELETE" and body is None:
            raise Unfenced(f"{method} {target}: the body is empty")
        try:
            self.stamped = yield from self.is_stamped()
            return (yield from (self.create(body) if creates else self.update(body)))
        except _HandBack as back:
            return back.answer
        except MalformedStamp as error:
            raise Unfenced(f"{target}: {error}; repair it by hand, the fence does not guess") from error

    def create(self, body: Any) -> Flow:
        """A new object: a child carries its stamp from the start; a stamped kind has no status yet."""
        if not self.stamped:
            body = change.with_annotations(self.request, body, self.mine)
        answer = yield from self.send(change.with_body(self.request, body))
        if answer.ok:
            self.learn(answer)
        else:
            yield from self.heed(answer)
        return answer

    def update(self, body: Any) -> Flow:
        """A change of one object, as compare-and-swap."""
        request, target = self.request, self.target
        own, uid = change.caller_version(request, body), change.caller_uid(request, body)
        deciding = target.kind in self.fence.deciding
        if self.stamped and target.subresource == "status" and asks_for_stamp_alone(request, body):
            return (yield from self.only_stamp())
        if own is None and request.method == "PUT":
            raise Unfenced(f"PUT {target}: without metadata.resourceVersion it would overwrite what it never saw")
        if own is None and deciding and target.subresource == "status" and not self.saw:
            raise Unfenced(
                f"{request.method} {target}: the status of a deciding kind must carry the resourceVersion that it"
                " was decided from"
            )
        # What is decided is the status, and whether the object is; its annotations and labels are not.
        decision = deciding and (target.subresource == "status" or request.method == "DELETE")
        repeat = own is None and not decision and change.may_repeat(request, body)
        for _ in range(ATTEMPTS):
            seen = yield from self.look(own, uid)
            if seen is None:
                # Gone. Only an apply creates what is not there, and only if it is still not there then.
                if not change.is_apply(request) or own or uid:
                    return self.last
                return (yield from self.create(change.only_create(body)))
            if self.answer is not None and seen.uid != uid:
                return self.answer  # another object of that name: the change was not meant for it (I6)
            if deciding and target.subresource == "status" and seen.uid in self.grant.set_aside:
                raise SetAside(
                    f"{request.method} {target}: the object is set aside; it could not be stamped in this term, so an"
                    " earlier leader could still write it; it is tried again, and the log says why"
                )
            uid = uid or seen.uid
            version = own or seen.version
            if version != seen.version and self.is_done(body):
                return self.last
            if (version, uid) == (seen.version, seen.uid) and self.stamp_first(seen):
                stamped = yield from self.stamp(seen)
                if stamped is None:
                    if not repeat:
                        break
                    continue
                seen, version = stamped, stamped.version
            answer = yield from self.send(change.with_body(request, self.fenced(body, version=version, uid=uid)))
            if answer.ok:
                stamp_sent = request.method != "DELETE" and (target.subresource == "status" or not self.stamped)
                self.learn(answer, must_be_mine=stamp_sent)
                return answer
            yield from self.heed(answer)
            if not self.is_conflict(answer):
                if answer.status == 404:
                    self.fence.known.forget(target.key)
                return answer
            fresh = yield from self.look_again()
            if fresh is not None and self.is_done(body):
                return self.last
            if fresh is None and not change.is_apply(request):
                return self.last  # a 404, as the client would have got without us
            if fresh is None or not repeat:
                return answer
        return self.answer or self.last  # the conflict

    def is_done(self, body: Any) -> bool:
        """Say whether the object, just read, is as a JSON patch of Kopf's wants it.

        Kopf, woken by our stamp's event, asks again for a finalizer that its last patch brought. A conflict
        would stay in its memory and keep the handlers from running.
        """
        return self.saw and change.already_so(self.request, body, self.last.json)

    def fenced(self, body: Any, *, version: str, uid: str) -> Any:
        """Give the body with its precondition and its stamp."""
        body = change.conditional(self.request, body, version=version, uid=uid)
        if self.request.method == "DELETE":
            return body
        if not self.stamped:
            # On /status, too: for most built-in kinds it sets annotations, and a PUT without them removes the stamp.
            return change.with_annotations(self.request, body, self.mine)
        return change.with_stamp(self.request, body, self.mine) if self.target.subresource else body

    # --- stamps

    def stamp_first(self, seen: Seen) -> bool:
        """Whether the object has to be stamped by a write of its own before this one (I3)."""
        if judge(seen.stamp, self.mine) is Verdict.MINE:
            return False
        request = self.request
        if change.is_apply(request):
            return True  # an apply would fight over the stamp's ownership with the last term's
        if change.is_json_patch(request):
            # "add" needs the parent to be there, and a JSON patch cannot make it without removing others'.
            return True
        # A delete carries no stamp, and finalizers or grace may keep the object.
        return request.method == "DELETE" or self.stamped == (self.target.subresource == "")

    def stamp(self, seen: Seen) -> Generator[Request, Response, Seen | None]:
        """Stamp the object at the revision seen; None when somebody else was faster."""
        path = self.root + self.target.path
        body: dict[str, Any] = {"metadata": {"resourceVersion": seen.version}}
        if self.stamped:
            path += "/status"
            body["status"] = {"fencing": self.mine.as_status()}
        else:
            body["metadata"]["annotations"] = self.mine.as_annotations()
        request = change.with_body(Request("PATCH", path, content_type=_MERGE_PATCH), body)
        answer = yield from self.send(request)
        if answer.ok:
            return self.learn(answer, must_be_mine=True)
        yield from self.heed(answer)
        if answer.status == 409:
            yield from self.look_again()
            return None
        raise _HandBack(answer)

    def only_stamp(self) -> Flow:
        """Bring the stamp and nothing else, whatever others edit meanwhile (I4, I10)."""
        path = f"{self.root}{self.target.path}/status"
        seen = yield from self.look(None, None)
        tried: Request | None = None
        for _ in range(ATTEMPTS):
            if seen is None:
                break
            # Of one without a stamp it is not noted whether it has a status; if it has, the answer will tell.
            noted = {"fencing": seen.stamp.as_status()} if seen.stamp else None
            request = stamp_alone(path, self.last.json.get("status") if self.last.ok else noted, self.mine)
            if request == tried and self.answer is not None and self.answer.status == 422:
                return self.answer  # no test failed: something else is refused
            tried = request
            answer = yield from self.send(request)
            if answer.ok:
                self.learn(answer, must_be_mine=True)
                return answer
            yield from self.heed(answer)
            if answer.status not in (409, 422):
                return answer
            seen = yield from self.look_again()
        return self.last if seen is None else self.answer or self.last

    # --- reading and judging

    def look(self, own: str | None, uid: str | None) -> Generator[Request, Response, Seen | None]:
        """Give the object as known, or read it, and judge it; None when it is gone."""
        seen = self.fence.known.get(self.target.key)
        if seen is None or own not in (None, seen.version) or uid not in (None, seen.uid):
            # The token has to be judged at the very revision that the write is conditioned on.
            return (yield from self.look_again())
        yield from self.check(seen)
        return seen

    def look_again(self) -> Generator[Request, Response, Seen | None]:
        """Read the object from a quorum and judge it; None when it is gone.

        Raises:
            TermEnded: a later term wrote it.
            Unfenced: the answer is no object; taking that for "gone" would report a write that never was.
        """
        self.fence.known.forget(self.target.key)
        self.last = yield from self.send(Request("GET", self.root + self.target.path))
        if self.last.status == 404:
            return None
        if not self.last.ok:
            raise _HandBack(self.last)
        seen = self.learn(self.last)
        if seen is None:
            raise Unfenced(f"{self.target}: the API server's answer to a read is no object with a uid and a version")
        yield from self.check(seen)
        return seen

    def check(self, seen: Seen) -> Generator[Request, Response, None]:
        """Judge the recorded stamp.

        Of a stamp in annotations the Lease alone tells what it is worth: whoever may edit the object may write
        them, where no policy protects them. They refuse the write (I2, I3), and end no term (I10).

        Raises:
            TermEnded: this term may not write the object any more.
            ForeignStamp: its tokens count by another Lease.
            Unfenced: its annotations say that it is a newer term's, and the Lease does not.
        """
        verdict, recorded, mine = judge(seen.stamp, self.mine), seen.stamp, self.mine
        if recorded is None or verdict in (Verdict.FREE, Verdict.MINE):
            return
        if verdict is Verdict.FOREIGN:
            where = "status.fencing" if self.stamped else "its annotations kopf-ha.dev/…"
            raise ForeignStamp(
                f"{self.target} is fenced by Lease {recorded.lease} (token {recorded.token}, {recorded.holder}), not"
                f" by {mine.lease}: two operators must not write one kind; stop one of them, and remove"
                f" {where} by the break-glass of the documentation if the other is gone for good"
            )
        what = (
            f"{self.target} records token {recorded.token} of {recorded.holder},"
            f" this term's is {mine.token} of {mine.holder}"
        )
        # Before 'stale' is declared the Lease is asked: an edited or recreated one may have lost the floor.
        leads = yield from self.leads()
        if not self.stamped and leads is not False:
            says = "says that this process leads" if leads else "cannot be read"
            raise Unfenced(f"{what}, although Lease {mine.lease} {says}: {_REPAIR}")
        raise self.overtaken(what, recorded.token, bool(leads))

    def overtaken(self, what: str, floor: int, leads: bool) -> TermEnded:
        """Make the error of who met a token in `status.fencing` that is not below its own."""
        if leads:
            return FloorLost(f"{what}, although Lease {self.mine.lease} says that this process leads", floor)
        return StaleLeader(f"stale leader: {what}")

    def leads(self) -> Generator[Request, Response, bool | None]:
        """Ask the Lease, from a quorum, whether this term is the current one; None when it does not tell."""
        namespace, name = self.mine.lease.split("/", 1)
        path = f"{self.root}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        answer = yield from self.send(Request("GET", path))
        spec = answer.json.get("spec") if answer.ok and isinstance(answer.json, dict) else None
        if not isinstance(spec, dict):
            return False if answer.status == 404 else None
        return (spec.get("holderIdentity"), spec.get("leaseTransitions")) == (self.mine.holder, self.mine.token)

    def learn(self, answer: Response, *, must_be_mine: bool = False) -> Seen | None:
        """Take note of the object in an answer.

        Raises:
            StampDropped: it has to carry this term's stamp and does not.
        """
        body = answer.json
        dropped = StampDropped(
            f"{self.target}: the API server accepted the write and did not keep the stamp;"
            " does the kind's schema have status.fencing with lease, token, holder and podUID?"
        )
        try:
            seen = seen_of(body, stamped=self.stamped) if isinstance(body, dict) else None
        except MalformedStamp:
            if must_be_mine:
                raise dropped from None
            raise
        if seen is None:
            self.fence.known.forget(self.target.key)
            return None
        if must_be_mine and seen.stamp != self.mine:
            raise dropped
        self.fence.note_floor(seen, self.stamped)
        key = self.target.key
        if not self.target.name:
            key = (key[0], key[1], str(body["metadata"].get("name", "")))
        self.fence.known.learn(key, seen)
        return seen

    def is_stamped(self) -> Generator[Request, Response, bool]:
        """Find out from the schema whether the kind carries `status.fencing`.

        Raises:
            Unfenced: nothing tells, or a served version lacks it (I1, I2), as seen now or by the leader's look since.
        """
        target = self.target
        if target.built_in:
            return False
        if unfit := self.fence.unfit.get(target.kind):
            raise Unfenced(unfit)
        known = self.fence.schemas.get((target.group, target.version, target.resource))
        if known is not None:
            return known
        found = yield from self.ask_schema()
        if found is None:
            raise Unfenced(
                f"{self.request.method} {target}: cannot find out whether the kind has status.fencing; allow this"
                " service account to get customresourcedefinitions"
            )
        seen = self.fence.know_schema(target, found)
        if seen > self.mine.token:
            what = f"an object of {target.kind} records token {seen}, this term's is {self.mine.token}"
            raise self.overtaken(what, seen, bool((yield from self.leads())))
        return found

    def ask_schema(self) -> Generator[Request, Response, bool | None]:
        """Ask the definition, or the published schema; None when neither tells."""
        try:
            return (yield from ask_schema(self.target, self.root, self.send))
        except Unanswered as error:
            raise _HandBack(error.answer) from error

    # --- sending

    def gate(self) -> float:
        """Line 1: give the seconds that are left.

        Raises:
            GateClosed: none are.
        """
        left = self.grant.remaining(self.now())
        if left <= 0:
            raise GateClosed(
                f"{self.request.method} {self.target}: term {self.mine.token} is over"
                f" ({self.grant.closed or 'its lease ran out on this machine'})"
            )
        return left

    def send(self, request: Request) -> Flow:
        """Send through the gate; no request's timeout reaches past the grant."""
        left = self.gate()
        given = request.timeout if request.timeout is not None else self.request.timeout
        request = replace(request, timeout=left if given is None else min(given, left))
        if request.method in WRITES:
            self.sent = request
        answer = yield request
        if request.method in WRITES:
            self.answer = answer
        return answer

    last: Response = Response(404)

    def is_conflict(self, answer: Response) -> bool:
        """Whether a precondition failed. The failed `test` of a JSON patch is a 422."""
        return answer.status == 409 or (answer.status == 422 and change.is_json_patch(self.request))

    def heed(self, answer: Response) -> Generator[Request, Response, None]:
        """Raise what line 3's refusal means, if the answer is one. The client's own answers pass.

        A refusal never ends the term by itself (I10): the write did not happen, which is all that safety needs.
        If it is about tokens the object, read again, tells whether this term is over, or the Lease does.

        Raises:
            TermEnded: it is, or a floor was lost.
            Denied: it is not; the refusal concerns this write.
        """
        refusal = refusal_of(answer, self.target, self.mine.lease)
        if refusal is Refusal.NONE:
            return
        said = f"the API server refused {self.request.method} {self.target}: {sentence_of(answer)}"
        try:
            if refusal.about_tokens:
                if self.target.name:
                    yield from self.judge_again()
                if (yield from self.leads()) is False:
                    raise StaleLeader(said)
        except Refused as error:
            error.line = "server"
            raise
        raise Denied(said)

    def judge_again(self) -> Generator[Request, Response, None]:
        """Read the object and judge it, if it can be: a failed read must not become something to retry (I8)."""
        try:
            yield from self.look_again()
        except (_HandBack, MalformedStamp, Unfenced):
            pass


class _HandBack(Exception):
    """An answer to one of the fence's own requests that the client has to deal with (5xx, 403, 429)."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer
