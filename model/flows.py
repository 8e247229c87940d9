"""Runs operations on the core, and remembers each local step.

A generator cannot be copied. So a running operation is kept as what went in: what the fence knew of its object, and the
answers so far. To go on, a new one is fed with the same. The core has no I/O and no clock, so the same comes out, once:
`Flows.run` remembers it. States of the model stay plain data.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple
from unittest import mock

from kopf_ha.core import reading
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.known import Revision
from kopf_ha.core.notes import notes_of
from kopf_ha.core.target import parse_path
from kopf_ha.core.token import Stamp, Verdict, judge
from kopf_ha.core.wire import AT_GATE, WAITED, Request
from kopf_ha.errors import FloorLost, Refused, TermEnded
from model.operations import SCHEMAS, Op, Writer, begin
from model.scene import CLOSED, EXPIRED, HELD, OPEN
from model.wire import (
    CHILDREN,
    LEASE,
    NAMES,
    PATHS,
    POOLS,
    Answer,
    Mark,
    Wire,
    replica_of,
    response,
    stamp_of,
    wire_of,
)

#: What the fence knows of one object: uid, version, stamp; None for nothing.
Known = tuple[int, int, Mark | None] | None
#: One answer that went in, and how the gate was then. An answer of None means that there was none.
Entry = tuple[Answer | None, int]
#: Seconds until the grant's deadline. A grant that has run out did so at this very moment.
_LEFT = 100.0
#: Seconds for which the grant may open again after that, where terms recover: the election says when they do not.
_RECOVERS = 1e6
#: What a write does in front of a gate that is held, and how it goes on.
WAITS: Wire = ("WAITS",)
WENT_ON: Answer = (0, "at the gate")
#: Seconds after which the fence no longer waits for an API server to hear of the term (`core.hearing.LAG`).
_LAG = 6.0


class Flow(NamedTuple):
    """A running operation: all that went into it."""

    op: Op
    mark: Mark
    known: tuple[Known, ...]  #: of each object of `wire.NAMES`, when it began
    log: tuple[Entry, ...] = ()
    begun: int = OPEN  #: how the gate was when it began


class Step(NamedTuple):
    """Where a running operation stands.

    Args:
        wire: the request that waits for its answer; None at the end.
        result: what the operation returned.
        refused: the class of the error by which the fence ended it, and its line; None if none did.
        floor: the floor that it says was lost; 0 for none.
        known: what the fence knows of each object now.
        ends_term: whether that error ends the term.
    """

    wire: Wire | None
    result: Any = None
    refused: tuple[str, str] | None = None
    floor: int = 0
    known: tuple[Known, ...] = ()
    ends_term: bool = False


class Flows:
    """The local steps of all writers, under the defences that are switched off."""

    def __init__(self, off: frozenset[str] = frozenset(), *, recovers: bool = False) -> None:
        self._off = off
        self._recovers = _RECOVERS if recovers else 0.0
        self._steps: dict[Flow, Step] = {}

    def run(self, flow: Flow) -> Step:
        """Return where an operation stands."""
        step = self._steps.get(flow)
        if step is None:
            with mock.patch.object(reading, "judge", _lenient) if "owner" in self._off else nullcontext():
                step = self._steps[flow] = self._run(flow)
        return step

    def _run(self, flow: Flow) -> Step:
        fence = Fence(LEASE, deciding=[POOLS])
        fence.known.schemas.update(SCHEMAS)
        for name, known in zip(NAMES, flow.known, strict=True):
            if known is not None:
                fence.known.objects.learn(_key(name), _revision(name, known))
        writer = Writer(fence, Grant(stamp_of(flow.mark), _LEFT, self._recovers), off=self._off)
        steps = begin(writer, flow.op)
        if flow.begun == HELD:
            writer.grant.hold("not renewed")
        try:
            request, waited = next(steps), 0.0
            for answer, gate in flow.log:
                if gate == CLOSED:
                    writer.grant.close("lost")
                elif gate == EXPIRED:
                    writer.now = max(writer.now, writer.grant.deadline)
                elif gate == HELD:
                    writer.grant.hold("not renewed")
                elif writer.grant.held or writer.now >= writer.grant.deadline:
                    writer.grant.reopen(writer.now + _LEFT)
                if request is AT_GATE:
                    request = steps.send(WAITED)
                    continue
                if answer is None:
                    return Step(None, "unanswered", known=_known(fence))
                if answer[:3] == (403, "policy", "term"):
                    # The first time the fence waits; by the second time it has waited for as long as it does.
                    writer.now, waited = writer.now + waited, _LAG
                request = steps.send(response(answer))
            return Step(WAITS if request is AT_GATE else self._sent(request), known=_known(fence))
        except StopIteration as end:
            return Step(None, end.value, known=_known(fence))
        except Refused as error:
            floor = error.floor if isinstance(error, FloorLost) else 0
            named = (type(error).__name__, error.line)
            ends = isinstance(error, TermEnded)
            return Step(None, "refused", named, floor, _known(fence), ends)

    def _sent(self, request: Request) -> Wire:
        wire = wire_of(request)
        if "version" in self._off and wire[0] in ("STATUS", "PATCH", "DELETE", "RELEASE"):
            wire = (*wire[:2], None, *wire[3:])
        if "stamps" in self._off and wire[0] in ("STATUS", "PATCH"):
            wire = (*wire[:3], None, *wire[4:])
        return wire


def _lenient(recorded: Stamp | None, mine: Stamp) -> Verdict:
    """Judge as the core would if it did not look at the holder."""
    equal = recorded is not None and recorded.token == mine.token
    return Verdict.MINE if equal else judge(recorded, mine)


def _key(name: str) -> Any:
    target = parse_path(PATHS[name])
    assert target is not None  # noqa: S101  a path of ours
    return target.key


def _revision(name: str, known: tuple[int, int, Mark | None]) -> Revision:
    uid, version, mark = known
    child = name.startswith("child")
    stamp = stamp_of(mark) if mark else None
    notes = tuple(notes_of(stamp, CHILDREN)) if stamp and child else ()
    return Revision(f"u-{name}-{uid}" if child else f"u-{name}", str(version), stamp, notes)


def _known(fence: Fence) -> tuple[Known, ...]:
    made: list[Known] = []
    for name in NAMES:
        revision = fence.known.objects.get(_key(name))
        if revision is None:
            made.append(None)
            continue
        stamp = revision.stamp
        mark = (stamp.token, replica_of(stamp.holder)) if stamp else None
        uid = int(revision.uid.rpartition("-")[2]) if name.startswith("child") else 0
        made.append((uid, int(revision.version), mark))
    return tuple(made)
