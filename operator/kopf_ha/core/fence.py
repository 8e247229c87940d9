"""The fence: one decision function for every client, without I/O.

A flow takes a request, yields the requests that have to be sent in its place, takes their answers, and
returns the answer that the client gets. An async and two blocking clients drive the same code.

The three lines (docs/promises.md):

1. gate: no write leaves without a valid grant of *its own* term (I8);
2. token and resourceVersion: a write is compare-and-swap on a revision whose recorded token is below mine,
   or mine (I1, I2, I3). That token was read at exactly the revision that the write is conditioned on, so
   nothing can have happened in between;
3. the API server: its refusals are recognised here, end the term, and reach no client's retries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from typing import Any

from kopf_ha.core import change
from kopf_ha.core.grant import Grant
from kopf_ha.core.known import Known, Seen, seen_of
from kopf_ha.core.target import Target, api_root, object_path, parse_path
from kopf_ha.core.token import MalformedStamp, Verdict, judge, stamp_of
from kopf_ha.core.wire import WRITES, Request, Response
from kopf_ha.errors import (
    FloorLost,
    ForeignStamp,
    GateClosed,
    NoTerm,
    Refused,
    StaleLeader,
    StampDropped,
    TermEnded,
    Unfenced,
)

Flow = Generator[Request, Response, Response]

#: How often one change is tried on newer revisions. A conflict needs another writer each time.
ATTEMPTS = 5

#: Records of what happened, or questions: nothing is decided from them.
EXEMPT_GROUPS = frozenset({"events.k8s.io", "authentication.k8s.io", "authorization.k8s.io"})
EXEMPT_KINDS = frozenset({"events"})

_MERGE_PATCH = change.MERGE[0]


class Fence:
    """The fence of one process.

    Args:
        lease: ``namespace/name`` of the Lease by which this process's tokens count.
        mode: ``full``, or for comparison only ``rv`` (optimistic concurrency: read again and try again) and
            ``none`` (what the clients do by themselves).
        deciding: kinds that others are decided from, ``plural.group``: their status is never sent again.
        exempt: kinds that pass unfenced, ``plural[.group][/subresource]``.
    """

    def __init__(
        self, lease: str, mode: str = "full", deciding: Iterable[str] = (), exempt: Iterable[str] = ()
    ) -> None:
        self.lease = lease
        self.mode = mode
        self.deciding = frozenset(deciding)
        self.exempt = frozenset(exempt) | EXEMPT_KINDS
        self.known = Known()
        self.floor = 0  #: the highest token seen on any stamped object of our Lease; it outlives the Lease
        self.schemas: dict[tuple[str, str, str], bool] = {}

    def new_term(self) -> None:
        """Forget what an earlier term knew; the floor stays."""
        self.known.clear()
        self.schemas.clear()

    def learn(self, target: Target, body: Any) -> None:
        """Take note of an object that a watch or a list gave. Never raises: a handler must still see it."""
        stamped = self.schemas.get((target.group, target.version, target.resource))
        if stamped is None or not isinstance(body, dict):
            return
        try:
            seen = seen_of(body, stamped=stamped)
        except MalformedStamp:
            self.known.forget(target.key)  # the next write reads it again and names the trouble
            return
        if seen is not None:
            self.note_floor(seen, stamped)
            self.known.learn(target.key, seen)

    def note_floor(self, seen: Seen, stamped: bool) -> None:
        """Raise the floor to a stamp seen. An annotation does not count: anybody may write one."""
        if stamped and seen.stamp is not None and seen.stamp.lease == self.lease:
            self.floor = max(self.floor, seen.stamp.token)

    def flow(self, request: Request, grant: Grant | None, now: Callable[[], float], *, saw: bool = False) -> Flow:
        """Drive one attempt of one request.

        Args:
            request: what the client wants to send.
            grant: the grant of the term that the caller's context belongs to; None for none.
            now: the machine's boot-time clock, in seconds.
            saw: whether the caller decided from the revision that a watch gave us (Kopf's handlers do), so
                that the revision known stands for one that it would name itself.

        Raises:
            Refused: the write must not happen, or the API server refused it. Never to be retried.
        """
        if request.method not in WRITES or self.mode == "none":
            return (yield request)
        target = parse_path(request.path)
        if target is not None and self._is_exempt(target):
            return (yield request)
        if self.mode == "rv":
            return (yield from self._optimistic(request, target))
        if target is None:
            raise Unfenced(f"{request.method} {request.path} is no path of a Kubernetes object")
        if grant is None:
            raise NoTerm(
                f"{request.method} {target}: the calling code runs in no term (a thread of its own, an executor,"
                " async_req, or no handler); wrap it with kopf_ha.current_term().bind(...) inside of a handler"
            )
        write = _Write(self, request, target, grant, now, saw)
        try:
            return (yield from write.run())
        except Refused as error:
            error.sent, error.answer = write.sent, write.answer
            if write.answer is not None and write.is_conflict(write.answer):
                # What kept the write out was its precondition, whatever was found out about the term after that.
                error.line = "precondition"
            raise

    def _is_exempt(self, target: Target) -> bool:
        return target.group in EXEMPT_GROUPS or not self.exempt.isdisjoint({target.kind, target.full_kind})

    def _optimistic(self, request: Request, target: Target | None) -> Flow:
        """What most operators do: on a conflict read again and try again, whoever wrote in between."""
        if target is None or not target.name or not change.is_merge(request):
            return (yield request)
        body = change.parse_body(request)
        version = change.caller_version(request, body)
        read = Request("GET", object_path(request.path, target))
        for _ in range(ATTEMPTS):
            if version is None:
                answer = yield read
                version = str(((answer.json or {}).get("metadata") or {}).get("resourceVersion") or "")
                if not answer.ok or not version:
                    return answer
            answer = yield change.with_body(request, change.conditional(request, body, version=version, uid=""))
            if answer.status != 409:
                return answer
            version = None
        return answer


class _Write:
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
        self.stamped = False
        self.sent: Request | None = None
        self.answer: Response | None = None

    # --- the ways to write

    def run(self) -> Flow:
        target, method = self.target, self.request.method
        self.gate()
        if target.key == ("leases.coordination.k8s.io", *self.mine.lease.split("/", 1)):
            raise Unfenced(f"Lease {self.mine.lease} is written by the election alone")
        if "dryRun" in self.request.query:
            return (yield from self.send(self.request))
        if target.subresource not in ("", "status"):
            raise Unfenced(
                f"{method} {target}: the fence does not know this subresource; if its effect needs no fence,"
                f" declare it with --exempt {target.full_kind}"
            )
        creates = method == "POST" and not target.name
        if not creates and (not target.name or method == "POST"):
            raise Unfenced(f"{method} {target}: a whole collection cannot be fenced; write its objects one by one")
        body = change.parse_body(self.request)
        if method != "DELETE" and not isinstance(body, dict | list):
            raise Unfenced(f"{method} {target}: the body is no object")
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
        elif _is_refusal(answer):
            raise self.by_server(answer)
        return answer

    def update(self, body: Any) -> Flow:
        """A change of one object, as compare-and-swap."""
        request, target = self.request, self.target
        own = change.caller_version(request, body)
        deciding = target.kind in self.fence.deciding
        if own is None and request.method == "PUT":
            raise Unfenced(f"PUT {target}: without metadata.resourceVersion it would overwrite what it never saw")
        if own is None and deciding and target.subresource == "status" and not self.saw:
            raise Unfenced(
                f"{request.method} {target}: the status of a deciding kind must carry the resourceVersion that it"
                " was decided from"
            )
        repeat = own is None and not deciding and change.may_repeat(request, body)
        for _ in range(ATTEMPTS):
            seen = yield from self.look(own)
            if seen is None:
                # Gone. Only an apply creates what is not there.
                return (yield from self.create(body)) if change.is_apply(request) else self.last
            version = own or seen.version
            if version != seen.version and self.is_done(body):
                return self.last
            if version == seen.version and self.stamp_first(seen):
                stamped = yield from self.stamp(seen)
                if stamped is None:
                    if own is None and not repeat:
                        return self.last
                    continue
                seen, version = stamped, stamped.version
            answer = yield from self.send(change.with_body(request, self.fenced(body, version=version, uid=seen.uid)))
            if answer.ok:
                self.learn(answer, must_be_mine=target.subresource == "status" or not self.stamped)
                return answer
            if _is_refusal(answer):
                yield from self.look_again()
                raise self.by_server(answer)
            if not self.is_conflict(answer):
                if answer.status == 404:
                    self.fence.known.forget(target.key)
                return answer
            fresh = yield from self.look_again()
            if fresh is not None and self.is_done(body):
                return self.last
            if fresh is None or not repeat:
                return answer
        return answer

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
            return body if self.target.subresource else change.with_annotations(self.request, body, self.mine)
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
        if self.stamped:
            return self.target.subresource == "" or request.method == "DELETE"
        return self.target.subresource == "status"

    def stamp(self, seen: Seen) -> Generator[Request, Response, Seen | None]:
        """Stamp the object at the revision seen; None when somebody else was faster."""
        path = object_path(self.request.path, self.target)
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
        if _is_refusal(answer):
            yield from self.look_again()
            raise self.by_server(answer)
        if answer.status == 409:
            yield from self.look_again()
            return None
        raise _HandBack(answer)

    # --- reading and judging

    def look(self, own: str | None) -> Generator[Request, Response, Seen | None]:
        """Give the object as known, or read it, and judge it; None when it is gone."""
        seen = self.fence.known.get(self.target.key)
        if seen is None or (own is not None and own != seen.version):
            # The token has to be judged at the very revision that the write is conditioned on.
            return (yield from self.look_again())
        yield from self.check(seen)
        return seen

    def look_again(self) -> Generator[Request, Response, Seen | None]:
        """Read the object from a quorum and judge it; None when it is gone.

        Raises:
            TermEnded: a later term wrote it.
        """
        self.fence.known.forget(self.target.key)
        self.last = yield from self.send(Request("GET", object_path(self.request.path, self.target)))
        if self.last.status == 404:
            return None
        if not self.last.ok:
            raise _HandBack(self.last)
        seen = self.learn(self.last)
        if seen is not None:
            yield from self.check(seen)
        return seen

    def check(self, seen: Seen) -> Generator[Request, Response, None]:
        """Judge the recorded stamp.

        Raises:
            TermEnded: this term may not write the object any more.
        """
        verdict, recorded, mine = judge(seen.stamp, self.mine), seen.stamp, self.mine
        if recorded is None or verdict in (Verdict.FREE, Verdict.MINE):
            return
        if verdict is Verdict.FOREIGN:
            raise ForeignStamp(
                f"{self.target} is fenced by Lease {recorded.lease} (token {recorded.token}, {recorded.holder}), not"
                f" by {mine.lease}: two operators must not write one kind; stop one of them, and remove"
                " status.fencing by the break-glass of the documentation if the other is gone for good"
            )
        what = (
            f"{self.target} records token {recorded.token} of {recorded.holder},"
            f" this term's is {mine.token} of {mine.holder}"
        )
        # Before 'stale' is declared the Lease is asked: an edited or recreated one may have lost the floor.
        namespace, name = mine.lease.split("/", 1)
        path = f"{api_root(self.request.path)}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        spec = ((yield from self.send(Request("GET", path))).json or {}).get("spec") or {}
        if spec.get("holderIdentity") == mine.holder and spec.get("leaseTransitions") == mine.token:
            raise FloorLost(f"{what}, although Lease {mine.lease} says that this process leads", recorded.token)
        raise StaleLeader(f"stale leader: {what}")

    def learn(self, answer: Response, *, must_be_mine: bool = False) -> Seen | None:
        """Take note of the object in an answer.

        Raises:
            StampDropped: it has to carry this term's stamp and does not.
        """
        body = answer.json
        seen = seen_of(body, stamped=self.stamped) if isinstance(body, dict) else None
        if seen is None:
            self.fence.known.forget(self.target.key)
            return None
        if must_be_mine and self.request.method != "DELETE" and stamp_of(body, stamped=self.stamped) != self.mine:
            raise StampDropped(
                f"{self.target}: the API server accepted the write and kept no stamp;"
                " does the kind's schema have status.fencing with lease, token, holder and podUID?"
            )
        self.fence.note_floor(seen, self.stamped)
        key = self.target.key
        if not self.target.name:
            key = (key[0], key[1], str(body["metadata"].get("name", "")))
        self.fence.known.learn(key, seen)
        return seen

    def is_stamped(self) -> Generator[Request, Response, bool]:
        """Find out from the schema whether the kind carries `status.fencing`."""
        target, schemas = self.target, self.fence.schemas
        if target.built_in:
            return False
        key = (target.group, target.version, target.resource)
        if key not in schemas:
            found = yield from self.ask_schema()
            if found is None:
                raise Unfenced(
                    f"{self.request.method} {target}: cannot find out whether the kind has status.fencing; allow this"
                    " service account to get customresourcedefinitions"
                )
            schemas[key] = found
        return schemas[key]

    def ask_schema(self) -> Generator[Request, Response, bool | None]:
        root, target = api_root(self.request.path), self.target
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
        answer = yield from self.send(Request("GET", f"{root}{crds}{target.kind}"))
        if answer.ok:
            return crd_is_stamped(answer.json, target.version)
        if answer.status not in (403, 404):
            raise _HandBack(answer)
        # An aggregated API, or no permission on CRDs: everybody may read the published schema.
        answer = yield from self.send(Request("GET", f"{root}/openapi/v3/apis/{target.group}/{target.version}"))
        if answer.ok:
            return openapi_is_stamped(answer.json, target)
        if answer.status not in (403, 404):
            raise _HandBack(answer)
        return None

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
        # The failed `test` of a JSON patch is a 422.
        return answer.status == 409 or (answer.status == 422 and change.is_json_patch(self.request))

    def by_server(self, answer: Response) -> TermEnded:
        """Make the error of line 3."""
        error = StaleLeader(f"the API server refused {self.request.method} {self.target}: {answer.message}")
        error.line = "server"
        return error


class _HandBack(Exception):
    """An answer to one of the fence's own requests that the client has to deal with (5xx, 403, 429)."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer


def _is_refusal(answer: Response) -> bool:
    """Whether the API server refused for the token's sake: our CRD rule, or one of our policies."""
    return answer.status in (403, 422) and (
        "fencing" in answer.message or "ValidatingAdmissionPolicy 'kopf-ha" in answer.message
    )


def crd_is_stamped(crd: Any, version: str) -> bool:
    """Say whether a CustomResourceDefinition has `status.fencing` in a version."""
    for served in ((crd or {}).get("spec") or {}).get("versions") or ():
        if served.get("name") == version:
            return _has_fencing((served.get("schema") or {}).get("openAPIV3Schema") or {})
    return False


def openapi_is_stamped(document: Any, target: Target) -> bool | None:
    """Say the same from a published OpenAPI document; None when the kind is not in it (yet)."""
    middle = "/namespaces/{namespace}" if target.namespace else ""
    path = f"/apis/{target.group}/{target.version}{middle}/{target.resource}/{{name}}"
    item = (document.get("paths") or {}).get(path)
    if item is None:
        return None
    kind = next(
        (
            op["x-kubernetes-group-version-kind"]
            for op in item.values()
            if isinstance(op, dict) and "x-kubernetes-group-version-kind" in op
        ),
        None,
    )
    for schema in ((document.get("components") or {}).get("schemas") or {}).values():
        if kind in (schema.get("x-kubernetes-group-version-kind") or ()):
            return _has_fencing(schema)
    return None


def _has_fencing(schema: Any) -> bool:
    status = (schema.get("properties") or {}).get("status") or {}
    return "fencing" in (status.get("properties") or {})
