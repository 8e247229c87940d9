"""Line 1 of the fence: no request leaves without a valid grant (I3, I8).

While the grant is held, or has run out and may open again, a write waits in front of the gate instead of failing. Its
revisions were judged before. They are still its preconditions, and the API server compares them (line 2).

Each write of the fence's passes here, so what line 4 refuses is dealt with here, too (`hearing`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kopf_ha.core.grant import Grant
from kopf_ha.core.hearing import Hearing
from kopf_ha.core.target import Target, api_root
from kopf_ha.core.wire import AT_GATE, WRITES, Flow, Request, Response, Steps
from kopf_ha.errors import GateClosed


class Gate:
    """Sends all requests of one write, and remembers the last write among them for the log.

    Args:
        request: what the client wants to send. Its timeout is the limit of all that the fence sends for it (I9). The
            time in front of the gate does not count.
        target: what it writes to, for messages.
        grant: of the term that the caller belongs to.
        now: this machine's boot-time clock, in seconds.
    """

    def __init__(self, request: Request, target: Target | str, grant: Grant, now: Callable[[], float]) -> None:
        self.grant = grant
        self.sent: Request | None = None  #: the last write that left the process
        self.answer: Response | None = None  #: the answer to the last write that got one
        self._request = request
        self._target = target
        self._now = now
        self._until = None if request.timeout is None else now() + request.timeout
        self._hearing = Hearing(f"{request.method} {target}", grant.stamp, now, self._until)

    def check(self) -> Steps[float]:
        """Return the seconds that are left to write. If there may be some later, wait for that.

        Raises:
            GateClosed: none are left.
        """
        now = came = self._now()
        while (left := self.grant.remaining(now)) <= 0:
            if not self.grant.may_reopen(now):
                cause = self.grant.closed or self.grant.held or "its lease ran out on this machine"
                raise GateClosed(
                    f"{self._request.method} {self._target}: term {self.grant.stamp.token} is over ({cause})", cause
                )
            yield AT_GATE
            now = self._now()
        if now > came:
            self._hearing.postpone(now - came)
            if self._until is not None:
                self._until += now - came
        return left

    def send(self, request: Request) -> Flow:
        """Send a request. A write that an API server refuses since it has not heard of this term goes again (I9).

        Raises:
            GateClosed: no time is left to write.
            TermEnded: the API server refused the write because of another term, which is true.
            Denied: it still does so, although this term is the current one.
        """
        answer = yield from self.once(request)
        return (yield from self.heard(request, answer)) if request.method in WRITES else answer

    def heard(self, request: Request, answer: Response) -> Flow:
        """Return the answer to a write that was sent, or to the same one, sent again once the API server has heard.

        Raises:
            TermEnded, Denied: see `send`.
        """
        while (other := self._hearing.refused(answer)) is not None:
            yield from self._hearing.wait(self.once, api_root(request.path), other, answer)
            answer = yield from self.once(request)
        return answer

    def once(self, request: Request) -> Flow:
        """Send a request once. Its time limit ends with the grant at the latest, or when the client waits no longer.

        Raises:
            GateClosed: no time is left to write.
        """
        left = yield from self.check()
        request = replace(request, timeout=left if self._until is None else min(left, self._until - self._now()))
        if request.method in WRITES:
            self.sent = request
        answer = yield request
        if request.method in WRITES:
            self.answer = answer
        return answer
