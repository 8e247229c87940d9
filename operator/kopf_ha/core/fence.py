"""The fence: one decision function for every client, without I/O.

A flow takes a request, yields the requests that have to be sent in its place, takes their answers, and returns the
answer that the client gets. An async client and two blocking ones drive the same code.

The fence has four lines (docs/promises.md):

1. The gate (`gate`): no write leaves without a valid grant of the term that it belongs to (I8).
2. Token and resourceVersion (`write`): a write is a compare-and-swap on a revision whose recorded token is below this
   term's, or is this term's own (I1, I2, I3). The token was read at exactly the revision that the write is conditioned
   on, so nothing can have happened in between.
3. The API server: its refusals are recognised exactly (`refusal`), and no client retries them. The object and the
   Lease, read again, say what a refusal means for the term.
4. The API server knows the current term, some milliseconds late: whoever is of another pod is refused (`hearing`).

What is wrong with one object, such as its annotations, its deletion or its values, concerns that object alone (I10).
Only the Lease, a stamp in `status.fencing`, which only operators write, or the clock ends a term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kopf_ha.core.comparison import optimistic
from kopf_ha.core.gate import Gate
from kopf_ha.core.grant import Grant
from kopf_ha.core.known import Known
from kopf_ha.core.target import Target, parse_path
from kopf_ha.core.wire import WRITES, Flow, Request, is_conflict
from kopf_ha.core.write import write
from kopf_ha.errors import NO_TERM, NoTerm, Refused, Unfenced

#: Records of what happened, or questions. Nothing is decided from them.
EXEMPT_GROUPS = frozenset({"events.k8s.io", "authentication.k8s.io", "authorization.k8s.io"})
EXEMPT_KINDS = frozenset({"events"})


class Fence:
    """The fence of one process.

    Args:
        lease: ``namespace/name`` of the Lease by which this process's tokens count.
        mode: ``full``. Or, for comparison only, ``rv`` (optimistic concurrency: read again and try again) or ``none``
            (what the clients do by themselves).
        deciding: deciding kinds, ``plural.group``: the state of other objects is decided from theirs. The fence never
            sends a change of their status again.
        exempt: kinds that pass unfenced, ``plural[.group][/subresource]``.
    """

    def __init__(
        self, lease: str, mode: str = "full", deciding: Iterable[str] = (), exempt: Iterable[str] = ()
    ) -> None:
        self.known = Known(lease, deciding)
        self.mode = mode
        self.exempt = frozenset(exempt) | EXEMPT_KINDS

    def flow(
        self,
        request: Request,
        grant: Grant | None,
        now: Callable[[], float],
        *,
        saw: bool = False,
        only_reads: bool = False,
        elsewhere: bool = False,
    ) -> Flow:
        """Drive one attempt of one request.

        Args:
            request: what the client wants to send.
            grant: the grant of the term that the caller's context belongs to; None for no term.
            now: this machine's boot-time clock, in seconds.
            saw: whether the caller decided from the revision that a watch showed, as Kopf's handlers do. Then the
                known revision counts as one that the caller named.
            only_reads: whether the caller runs on every replica, and so must write nothing, whatever the mode.
            elsewhere: whether the request goes to another cluster. Tokens mean nothing there, but a term that is over
                is over there, too: only the gate holds.

        Raises:
            Refused: the write must not happen, or the API server refused it. It must never be retried.
        """
        if request.method not in WRITES:
            return (yield request)
        target = parse_path(request.path)
        if target is not None and self._is_exempt(target):
            return (yield from passing(request, target, None if only_reads or elsewhere else grant, now))
        if only_reads:
            raise NoTerm(
                f"{request.method} {target or request.path}: the calling code runs on every replica and in no term, as"
                " webhooks, indices and kopf_ha.everywhere do, so it can only read; move the write into a handler for"
                " changes, a timer or a daemon, which run on the leader"
            )
        if self.mode == "none":
            return (yield request)
        if elsewhere:
            gate = Gate(request, target or request.path, grant, now) if grant is not None else None
            return (yield request) if gate is None else (yield from gate.once(request))
        if self.mode == "rv":
            return (yield from optimistic(request, target))
        if target is None:
            raise Unfenced(f"{request.method} {request.path} is no path of a Kubernetes object")
        if grant is None:
            raise NoTerm(f"{request.method} {target}: the calling code runs in no term: {NO_TERM}")
        gate = Gate(request, target, grant, now)
        try:
            return (yield from write(request, target, self.known, gate, saw=saw))
        except Refused as error:
            error.sent, error.answer = gate.sent, gate.answer
            if error.line == "gate" and gate.answer is not None and is_conflict(request, gate.answer):
                # Its precondition kept the write out. That the term is over was found out only after that.
                error.line = "precondition"
            raise

    def _is_exempt(self, target: Target) -> bool:
        return target.group in EXEMPT_GROUPS or not self.exempt.isdisjoint({target.kind, target.full_kind})


def passing(request: Request, target: Target, grant: Grant | None, now: Callable[[], float]) -> Flow:
    """Send what needs no fence. Line 4 judges it all the same, so an API server may not have heard of the term (I9).

    Raises:
        TermEnded, Denied: it was refused because of another term; see `Gate.send`.
    """
    answer = yield request
    if answer.status != 403 or grant is None or grant.remaining(now()) <= 0:
        return answer
    gate = Gate(request, target, grant, now)
    try:
        return (yield from gate.heard(request, answer))
    except Refused as error:
        error.sent, error.answer = gate.sent or request, gate.answer or answer
        raise
