"""The fence: one decision function for every client, without I/O.

A flow takes a request, yields the requests that have to be sent in its place, takes their answers, and
returns the answer that the client gets. An async and two blocking clients drive the same code.

The three lines (docs/promises.md):

1. gate: no write leaves without a valid grant of *its own* term (I8);
2. token and resourceVersion: a write is compare-and-swap on a revision whose recorded token is below mine,
   or mine (I1, I2, I3). That token was read at exactly the revision that the write is conditioned on, so
   nothing can have happened in between;
3. the API server: its refusals are recognised exactly (`refusal`), and reach no client's retries. What they mean
   for the term is read from the object and the Lease.

What one object does wrong, its annotations, its deletion, its values, concerns that object alone (I10): a term ends
by the Lease, by a stamp in `status.fencing`, which only operators write, or by the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kopf_ha.core import change
from kopf_ha.core.grant import Grant
from kopf_ha.core.known import Known, Seen, seen_of
from kopf_ha.core.target import Target, api_root, parse_path
from kopf_ha.core.token import MalformedStamp
from kopf_ha.core.wire import WRITES, Request
from kopf_ha.core.write import ATTEMPTS, Flow, Write
from kopf_ha.errors import NoTerm, Refused, Unfenced

#: Records of what happened, or questions: nothing is decided from them.
EXEMPT_GROUPS = frozenset({"events.k8s.io", "authentication.k8s.io", "authorization.k8s.io"})
EXEMPT_KINDS = frozenset({"events"})

#: Group, version and plural of a kind.
Version = tuple[str, str, str]


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
        self.schemas: dict[Version, bool] = {}
        self._suspected: dict[Version, int] = {}  #: the highest token seen of kinds whose schema is not known yet
        self.unfit: dict[str, str] = {}  #: kinds whose definition lost the stamp in this term, and how it is put right

    def new_term(self) -> None:
        """Forget what an earlier term knew; the floor stays."""
        self.known.clear()
        self.schemas.clear()
        self.unfit.clear()
        self._suspected.clear()

    def learn(self, target: Target, body: Any) -> None:
        """Take note of an object that a watch gave. Never raises: a handler must still see it."""
        if not isinstance(body, dict):
            return
        version = (target.group, target.version, target.resource)
        schema = False if target.built_in else self.schemas.get(version)
        try:
            seen = seen_of(body, stamped=schema is not False)
        except MalformedStamp:
            self.known.forget(target.key)  # the next write reads it again and names the trouble
            return
        if seen is None:
            return
        if schema is not None:
            self.note_floor(seen, schema)
            self.known.learn(target.key, seen)
        elif seen.stamp is not None and seen.stamp.lease == self.lease:
            # Of a kind without the stamp in its schema the field may be anybody's to write (I10).
            self._suspected[version] = max(self._suspected.get(version, 0), seen.stamp.token)

    def know_schema(self, target: Target, stamped: bool) -> int:
        """Note whether a kind carries the stamp; give the highest token that a watch saw of it before, 0 for none."""
        version = (target.group, target.version, target.resource)
        self.schemas[version] = stamped
        seen = self._suspected.pop(version, 0) if stamped else 0
        self.floor = max(self.floor, seen)
        return seen

    def note_floor(self, seen: Seen, stamped: bool) -> None:
        """Raise the floor to a stamp seen. An annotation does not count: anybody may write one."""
        if stamped and seen.stamp is not None and seen.stamp.lease == self.lease:
            self.floor = max(self.floor, seen.stamp.token)

    def flow(
        self,
        request: Request,
        grant: Grant | None,
        now: Callable[[], float],
        *,
        saw: bool = False,
        only_reads: bool = False,
    ) -> Flow:
        """Drive one attempt of one request.

        Args:
            request: what the client wants to send.
            grant: the grant of the term that the caller's context belongs to; None for none.
            now: the machine's boot-time clock, in seconds.
            saw: whether the caller decided from the revision that a watch gave us (Kopf's handlers do), so
                that the revision known stands for one that it would name itself.
            only_reads: whether the caller runs on every replica, and so writes nothing, whatever the mode.

        Raises:
            Refused: the write must not happen, or the API server refused it. Never to be retried.
        """
        if request.method not in WRITES:
            return (yield request)
        target = parse_path(request.path)
        if target is not None and self._is_exempt(target):
            return (yield request)
        if only_reads:
            raise NoTerm(
                f"{request.method} {target or request.path}: the calling code belongs to kopf_ha.everywhere, which runs"
                " on every replica and in no term, so it can only read; move the write into a handler of Kopf's own"
                " registry, which runs on the leader"
            )
        if self.mode == "none":
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
        write = Write(self, request, target, grant, now, saw)
        try:
            return (yield from write.run())
        except Refused as error:
            error.sent, error.answer = write.sent, write.answer
            if error.line == "gate" and write.answer is not None and write.is_conflict(write.answer):
                # What kept the write out was its precondition; that the term is over was found out after that.
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
        read = Request("GET", api_root(request.path) + target.path)
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
