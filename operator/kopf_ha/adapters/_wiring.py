"""What all adapters share: the fence of this process, and how a blocking and an async client run its steps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from kopf_ha._context import boottime, current_grant, only_reads, runs_again
from kopf_ha.adapters._clusters import Clusters
from kopf_ha.adapters._waiting import wait, wait_in_loop
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.target import parse_path
from kopf_ha.core.wire import AT_GATE, WAITED, Flow, Request, Response
from kopf_ha.errors import GateClosed, NoTerm, Refused, TermEnded, Unfenced
from kopf_ha.trace import Trace

logger = logging.getLogger("kopf_ha.fence")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt of one write ended. `refused` is None if the client got an answer."""

    client: str
    request: Request
    grant: Grant | None
    refused: Refused | None
    status: int = 0

    @property
    def result(self) -> str:
        """The status class of the answer (``2xx``), or the line of the fence that refused. Metrics count by it."""
        return f"{self.status // 100}xx" if self.refused is None else self.refused.line


@dataclass(frozen=True, slots=True)
class Wiring:
    """The fence of this process, and a callback for the outcome of each write.

    `report` is called in the writer's thread, before a refusal is raised. It has to close the grant, since handlers may
    catch every exception. It must neither block nor raise.
    """

    fence: Fence
    report: Callable[[Outcome], None]
    now: Callable[[], float] = boottime
    clusters: Clusters | None = None  #: None if all servers are this cluster's
    trace: Trace | None = None  #: None if nothing is written down

    def flow(self, client: str, request: Request, grant: Grant | None, *, saw: bool = False, elsewhere: bool) -> Flow:
        """Drive one attempt of one request; see `Fence.flow`."""
        how = {"saw": saw, "only_reads": only_reads(), "elsewhere": elsewhere}
        if self.trace is None:
            return self.fence.flow(request, grant, self.now, **how)
        return self.trace.flow(self.fence, request, grant, self.now, client, **how)


def media_type(headers: Mapping[str, str]) -> str:
    """Return the content type without its parameters; empty for none. The headers' names have no case."""
    return headers.get("Content-Type", "").partition(";")[0].strip()


def headers_for(out: Request, asked: Request, given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of a request that the fence sends in place of the client's.

    The fence needs the whole object in JSON. A client may ask for `PartialObjectMetadata` or protobuf, in which the
    fence would see no stamp.
    """
    framing = ("content-length", "transfer-encoding")
    headers = {k: v for k, v in given if k.lower() not in framing}
    if out is asked:
        return headers
    headers = {k: v for k, v in headers.items() if k.lower() not in ("accept", "content-type")}
    headers["Accept"] = "application/json"
    return headers | ({"Content-Type": out.content_type} if out.content_type else {})


_current: Wiring | None = None
_is_child = False  #: this process is a child of a fenced one
#: writes that were refused while no operator ran
_before: deque[Outcome] = deque(maxlen=100)
_reads: tuple[int, list[str]] | None = None  #: whose reads are noted, by the thread's ident, and where


def enter_child() -> None:
    """Make this process, a child of a fenced one, refuse to write, unless it starts its own operator (I8).

    A forked child loses its parent's wiring, because nobody renews or closes the parent's grants here.
    """
    global _current, _is_child
    _current, _is_child = None, True


os.register_at_fork(after_in_child=enter_child)


def wiring() -> Wiring:
    """Return the wiring of this process.

    Raises:
        NoTerm: the adapters are installed but no operator runs. The write comes from code that is being loaded, or from
            a child process.
    """
    if _current is None and _is_child:
        raise NoTerm(
            "a write in a child process, which runs in no term: return the result and write it in the handler, or"
            " run the job in a thread"
        )
    if _current is None:
        raise NoTerm(
            "a write while no operator runs: move it from the module's top level into an on.startup handler, or into"
            " the handler that needs it, since every replica imports the module, but only the leader writes"
        )
    return _current


def is_wired() -> bool:
    """Return whether a fenced operator runs in this process."""
    return _current is not None


def note_own(url: str) -> None:
    """Note a URL of the API server whose objects this process's operator handles."""
    if _current is not None and _current.clusters is not None:
        _current.clusters.add_own(url)


@contextlib.contextmanager
def noting_reads() -> Iterator[list[str]]:
    """Collect the kinds of the objects that this thread reads through fenced clients in the body."""
    global _reads
    found: list[str] = []
    _reads = (threading.get_ident(), found)
    try:
        yield found
    finally:
        _reads = None


def note_read(path: str) -> None:
    """Note a read. Each adapter calls it, so it must be cheap. Discovery and ``/version`` are no objects."""
    if _reads is not None and _reads[0] == threading.get_ident() and (target := parse_path(path)) is not None:
        _reads[1].append(target.kind)


def refused_before() -> list[Outcome]:
    """Return the writes that were refused before the operator ran, once: the code may have caught the errors."""
    found = list(_before)
    _before.clear()
    return found


def _wiring_for(client: str, request: Request) -> Wiring:
    try:
        return wiring()
    except NoTerm as error:
        if _is_child:
            # Nobody collects it here, and the code may catch it.
            logger.error("%s: %s: %s", client, type(error).__name__, error)
        else:
            _before.append(Outcome(client, request, None, error))
        raise


@contextlib.contextmanager
def wired(new: Wiring) -> Iterator[None]:
    """Make `new` the wiring of this process in the body of the `with` statement."""
    global _current
    if _current is not None:
        raise RuntimeError("one process runs one fenced operator at a time")
    _current = new
    try:
        yield
    finally:
        _current = None


def drive(client: str, request: Request, send: Callable[[Request], Response], origin: str) -> Response:
    """Send one attempt of a blocking client through the fence, unless it goes to another cluster.

    Args:
        client: its name in metrics and the log.
        request: what it wants to send.
        send: sends a request of the fence's.
        origin: scheme, host and port of the server.

    Raises:
        Refused: the write did not happen, or was refused.
    """
    use, grant = _wiring_for(client, request), current_grant()
    elsewhere = False
    if use.clusters is not None and (question := use.clusters.question(origin, request.path)) is not None:
        said: Response | None = None
        with contextlib.suppress(Exception):  # the client's own; then the write is fenced, and meets it, too
            said = send(question)
        elsewhere = use.clusters.is_other(origin, request.path, said)
    try:
        flow = use.flow(client, request, grant, elsewhere=elsewhere)
        out = next(flow)
        while True:
            if out is AT_GATE and grant is not None:
                wait(grant)
                out = flow.send(WAITED)
                continue
            if out.after:
                time.sleep(out.after)
            out = flow.send(send(out))
    except StopIteration as end:
        answer: Response = end.value
        if not elsewhere:
            use.report(Outcome(client, request, grant, None, answer.status))
        return answer
    except Refused as error:
        told = _reported(use, Outcome(client, request, grant, error), error, origin)
        if told is error:
            raise
        raise told from error


async def adrive(
    client: str, request: Request, send: Callable[[Request], Awaitable[Response]], origin: str, *, saw: bool = False
) -> Response:
    """Send one attempt of an async client through the fence, unless it goes to another cluster.

    Args:
        client: its name in metrics and the log.
        request: what it wants to send.
        send: sends a request of the fence's.
        origin: scheme, host and port of the server.
        saw: it is Kopf, whose handlers decide from the revision that Kopf's watch showed.

    Raises:
        Refused: the write did not happen, or was refused.
    """
    use, grant = _wiring_for(client, request), current_grant()
    asked, elsewhere = use.clusters, False
    # What the fenced operator's own Kopf handles is this cluster's, whatever it is called.
    if asked is not None and not saw and (question := asked.question(origin, request.path)) is not None:
        said: Response | None = None
        with contextlib.suppress(Exception):  # the client's own; then the write is fenced, and meets it, too
            said = await send(question)
        elsewhere = await asyncio.to_thread(asked.is_other, origin, request.path, said)
    try:
        flow = use.flow(client, request, grant, saw=saw, elsewhere=elsewhere)
        answer: Response | None = None
        while True:
            try:  # some flows end without a request; a coroutine must not let their end pass
                out = next(flow) if answer is None else flow.send(answer)
            except StopIteration as end:
                final: Response = end.value
                if not elsewhere:
                    use.report(Outcome(client, request, grant, None, final.status))
                return final
            if out is AT_GATE and grant is not None:
                await wait_in_loop(grant)
                answer = WAITED
                continue
            if out.after:
                await asyncio.sleep(out.after)
            answer = await send(out)
    except Refused as error:
        told = _reported(use, Outcome(client, request, grant, error), error, origin)
        if told is error:
            raise
        raise told from error


def _reported(use: Wiring, outcome: Outcome, error: Refused, origin: str) -> Refused:
    """Report a refused write, and return the error for its caller."""
    if runs_again():
        error.never = False  # the same code may write in each term
    ends = isinstance(error, TermEnded) and not isinstance(error, GateClosed)
    # Another cluster's server may have said that the term is over, from a Lease of its own.
    if ends and use.clusters is not None and not use.clusters.is_mine(origin, outcome.request.path):
        told = Unfenced(f"{error}; but {origin} may be another cluster's, so the term goes on", by_object=True)
        told.line, told.sent, told.answer = error.line, error.sent, error.answer
        error, outcome = told, replace(outcome, refused=told)
    use.report(outcome)
    return error
