"""Writes the trace of one process: a file with a JSON object in each line.

Each line is one write to a file that is opened for appending. So a process that is killed leaves whole lines and at
most one broken one at the end, and a later process that gets the same file begins a line of its own. The file grows
without a bound: a few hundred bytes for each renewal of the Lease, some kilobytes for each write of the operator.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import logging
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from kopf_ha.core.election.events import Action, Event
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.wire import Flow, Request
from kopf_ha.errors import ConfigurationError, Refused
from kopf_ha.settings import Settings
from kopf_ha.trace.noted import NotedGrant, NotedKnown, clock, revision_as_json
from kopf_ha.trace.shown import Shown
from kopf_ha.trace.steps import as_json

logger = logging.getLogger("kopf_ha.trace")

#: Of the lines; another one whenever their meaning changes.
FORMAT = "kopf-ha trace 2"


class Trace:
    """One process's trace. Any thread may write.

    If the file cannot be written any more, the log says so, nothing more is written, and the operator goes on.

    Args:
        path: of the file; lines are appended.
        settings: of the replica. Those on which the core decides stand in the first line.
        version: of kopf-ha.

    Raises:
        ConfigurationError: the file cannot be opened.
    """

    def __init__(self, path: str, settings: Settings, version: str) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"--trace: {path} cannot be opened: {error.strerror}") from None
        # Not before nobody can write any more: the number may be another file's then.
        weakref.finalize(self, os.close, self._file)
        self._failed = False
        self._writes = itertools.count(1)
        self._shown = Shown(os.urandom(16))
        self._end_line()
        self._line("begin", format=FORMAT, version=version, wall=_wall(), pid=os.getpid(), **_head(settings))

    def step(self, event: Event, now: float, wall: str, actions: list[Action] | None) -> None:
        """Write one step of the election's machine.

        Args:
            event: that it took.
            now: the boot-time clock, in seconds.
            wall: the wall clock, as MicroTime.
            actions: that it gave; None if the event could not come in its phase.
        """
        gave = None if actions is None else [as_json(action) for action in actions]
        self._line("step", event=as_json(event), now=now, wall=wall, actions=gave)

    def flow(
        self,
        fence: Fence,
        request: Request,
        grant: Grant | None,
        now: Callable[[], float],
        client: str,
        *,
        saw: bool = False,
        only_reads: bool = False,
        elsewhere: bool = False,
    ) -> Flow:
        """Drive one attempt of one request as `fence.flow` does, and write down what it took in and did.

        Each request is written before it is sent. If no answer follows it in the trace, none came, or the process
        ended before.

        Args:
            fence: of this process.
            request: see `Fence.flow`, as for all others but
            grant: see there.
            now: see there.
            client: the name of the client that sends it.
            saw: see there.
            only_reads: see there.
            elsewhere: see there.
        """
        number = next(self._writes)
        reads: list[list[Any]] = []

        def note(what: str, value: Any) -> Any:
            shown = value
            if what == "object":
                shown = revision_as_json(value)
            elif what == "told" and value is not None:
                shown = self._shown.answer(value, request)
            reads.append([what, shown])
            return value

        def line(what: str, **fields: Any) -> None:
            self._line(what, write=number, reads=reads, **fields)
            reads.clear()

        noted = Fence(fence.known.lease, fence.mode, exempt=fence.exempt)
        noted.known = NotedKnown(fence.known, note)
        more = {"saw": saw, "only_reads": only_reads, "elsewhere": elsewhere}
        stamp = None if grant is None else grant.stamp.as_status()
        line("asked", client=client, stamp=stamp, request=self._shown.request(request), **more)
        held = None if grant is None else NotedGrant(grant, note)
        flow = noted.flow(request, held, clock(note, now), **more)
        try:
            out = next(flow)
            while True:
                line("sent", request=self._shown.request(out))
                answer = yield out
                line("answered", answer=self._shown.answer(answer, out))
                out = flow.send(answer)
        except StopIteration as end:
            line("ended", status=end.value.status)
            returned = end.value
        except Refused as error:
            line("ended", refused=type(error).__name__, line=error.line)
            raise
        return returned  # type: ignore[no-any-return]

    def _line(self, what: str, **fields: Any) -> None:
        if self._failed:
            return
        try:
            text = json.dumps({"is": what, **fields}, separators=(",", ":")).encode() + b"\n"
            written = os.write(self._file, text)
            if written < len(text):
                raise OSError(f"only {written} of {len(text)} bytes")
        except (OSError, ValueError, TypeError) as error:
            # A trace is for people who look into something. It must not cost the operator its term.
            self._failed = True
            logger.error("the trace ends here, since it cannot be written: %s", error)

    def _end_line(self) -> None:
        """End the broken line that a killed process may have left."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")


def _head(settings: Settings) -> Mapping[str, Any]:
    legacy = settings.legacy
    return {
        "holder": settings.identity,
        "lease": settings.lease,
        "operator": settings.operator,
        "timing": dataclasses.asdict(settings.timing),
        "legacy": None if legacy is None else dataclasses.asdict(legacy),
        "fence": settings.fence,
        "deciding": list(settings.deciding),
        "exempt": list(settings.exempt),
    }


def _wall() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
