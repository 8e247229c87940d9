"""Line 4: the API server knows the current term by a Term object, and refuses the writes of other pods (`-term`).

Each API server learns of a Term from a watch, some milliseconds late, and a fault can keep the news from it. So line 4
proves nothing. For a moment it refuses the new leader, too, where a write shows no token: a creation, a kind without
stamps. Such a write did not happen and nothing is decided from it, so it waits and goes again (I9), until

- the API server has heard;
- the Lease says that the term is over, or the Term that its token was given before;
- `LAG` seconds went by, or what the client waits: then a sentence says that this API server does not hear.

Whoever answers to a proxied request can make up such a refusal. It makes its own caller wait, and ends no term (I10).
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from kopf_ha.core.lease import lease_path
from kopf_ha.core.refusal import Leader, leader_in, sentence_of
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Flow, Request, Response, Steps
from kopf_ha.errors import Denied, FloorLost, Refused, StaleLeader

#: Seconds for which a write of the current leader is sent again to an API server that has not heard of its term.
LAG = 5.0
#: Seconds before it is sent again: the first time, and the longest. Each time twice as long as before.
PAUSES = (0.005, 0.25)

#: Group and version of the kind Term.
API = "kopf-ha.dev/v1"
#: Its ``plural.group``.
TERMS = "terms.kopf-ha.dev"


def term_path(namespace: str, name: str = "") -> str:
    """Return the API path of the Term of a Lease; without a name, that of the Terms in the namespace."""
    path = f"/apis/{API}/namespaces/{quote(namespace, safe='')}/terms"
    return f"{path}/{quote(name, safe='')}" if name else path


class Hearing:
    """What becomes of the refusals of one client's write.

    Args:
        what: is written, for messages.
        mine: the writer's term.
        now: this machine's boot-time clock, in seconds.
        until: when the client waits no longer, on that clock; None if it does not say.
    """

    def __init__(self, what: str, mine: Stamp, now: Callable[[], float], until: float | None) -> None:
        self._what = what
        self._mine = mine
        self._now = now
        self._until = until
        self._since: float | None = None  #: when the API server refused first
        self._pause = PAUSES[0]

    def postpone(self, seconds: float) -> None:
        """Do not count so many seconds, in which nothing could be sent."""
        self._since = None if self._since is None else self._since + seconds
        self._until = None if self._until is None else self._until + seconds

    def refused(self, answer: Response) -> Leader | None:
        """Return who leads for an API server that refused by line 4; None if it did not."""
        other = leader_in(answer, self._mine.lease)
        if other is None:
            self._since, self._pause = None, PAUSES[0]
        return other

    def wait(self, send: Callable[[Request], Flow], root: str, other: Leader, answer: Response) -> Steps[None]:
        """Wait a moment, if the API server may just not have heard of this term yet.

        Args:
            send: sends a read.
            root: what the API server's paths begin with, when it is behind a proxy.
            other: who leads for the API server.
            answer: by which it refused.

        Raises:
            StaleLeader: the Lease says that this term is over.
            FloorLost: the Lease says that it is the current one, and the Term has a token that is not below its own.
            Denied: the API server has not heard of this term for too long. Or it has, and it was another pod's write.
        """
        now = self._now()
        self._since = now if self._since is None else self._since
        pause, self._pause = self._pause, min(2 * self._pause, PAUSES[1])
        last = self._since + LAG if self._until is None else min(self._since + LAG, self._until)
        late = now + pause >= last
        said = f"the API server refused {self._what}: {sentence_of(answer)}"
        try:
            current = yield from leads(send, root, self._mine, 0.0 if late else pause)
            if current is False:
                raise StaleLeader(said)
            if other == (self._mine.token, self._mine.pod_uid):
                raise Denied(f"{said}; that is this term, so the client's credentials are not those of this pod")
            if other.token >= self._mine.token:
                yield from self._check_floor(send, root)
            if late:
                raise Denied(
                    f"{said}; this term has token {self._mine.token}, and for {now - self._since:.1f} s this API server"
                    " has not heard of it: its informer of Terms lags or hangs"
                )
        except Refused as error:
            error.line = "term"
            raise

    def _check_floor(self, send: Callable[[Request], Flow], root: str) -> Steps[None]:
        """Read the Term: what a refusal says about it, a proxied server may have made up."""
        namespace, name = self._mine.lease.split("/", 1)
        answer = yield from send(Request("GET", root + term_path(namespace, name)))
        spec = answer.json.get("spec") if answer.ok and isinstance(answer.json, dict) else None
        check_floor(spec, self._mine)


def check_floor(spec: object, mine: Stamp) -> None:
    """Check that a Term's token was not given before a term got it.

    Args:
        spec: of the Term, as read. Nothing follows from one that is not whole.
        mine: the term.

    Raises:
        FloorLost: it was: the Lease was edited or recreated (I2).
    """
    if not isinstance(spec, dict):
        return
    token, holder = spec.get("token"), spec.get("holder")
    if isinstance(token, bool) or not isinstance(token, int) or token < mine.token or holder == mine.holder:
        return
    raise FloorLost(
        f"the Term of Lease {mine.lease} has token {token}, mine is {mine.token}: the Lease lost its count", token
    )


def leads(send: Callable[[Request], Flow], root: str, mine: Stamp, after: float = 0.0) -> Steps[bool | None]:
    """Read the Lease from a quorum: whether a term is the current one; None when the answer does not say.

    Args:
        send: sends the read.
        root: what the API server's paths begin with.
        mine: the term.
        after: seconds to wait before that.
    """
    namespace, name = mine.lease.split("/", 1)
    answer = yield from send(Request("GET", root + lease_path(namespace, name), after=after))
    spec = answer.json.get("spec") if answer.ok and isinstance(answer.json, dict) else None
    if not isinstance(spec, dict):
        return False if answer.status == 404 else None
    return (spec.get("holderIdentity"), spec.get("leaseTransitions")) == (mine.holder, mine.token)
