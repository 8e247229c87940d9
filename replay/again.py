"""Does again what a trace says: each step of the election's machine, and each step of each write of the fence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kopf_ha.core.election import Election, IllegalMove, State
from kopf_ha.core.election.timing import Timing
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.legacy_lock import LegacyLock
from kopf_ha.core.wire import Flow, Response
from kopf_ha.errors import Refused
from kopf_ha.trace.noted import NotedGrant, NotedKnown, clock, revision_from, stamp_from
from kopf_ha.trace.shown import Unmarked, answer_of, request_of
from kopf_ha.trace.steps import as_json, event_of
from replay.tracefile import Line, Run

#: Characters of a value in a message.
_WIDTH = 600


@dataclass(frozen=True)
class Difference:
    """Where a trace and the core differ, in a sentence."""

    where: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.where}: {self.sentence}"


def redo(run: Run) -> Iterator[Difference]:
    """Do again what one process did; yield where the core does something else.

    Of the election that is the first difference only: its state is another one from there on. Each write stands for
    itself.
    """
    yield from _election(run)
    yield from _writes(run)


# --- the election


def _election(run: Run) -> Iterator[Difference]:
    head = run.head
    legacy = LegacyLock(**head["legacy"]) if head["legacy"] else None
    rules = Election(head["holder"], head["lease"], Timing(**head["timing"]), legacy, head["operator"])
    state = State()
    for count, line in enumerate(run.of("step"), 1):
        data, before = line.data, state
        try:
            event = event_of(data["event"])
        except (ValueError, KeyError, TypeError) as error:
            yield Difference(run.at(line), f"step {count} of the election cannot be read: {error}")
            return
        try:
            state, actions = rules.step(state, event, data["now"], data["wall"])
            gave = [as_json(action) for action in actions]
        except IllegalMove:
            gave = None
        if gave != data["actions"]:
            name = type(event).__name__
            sentence = f"step {count} of the election, {name} while {before.phase.value}: the trace has "
            yield Difference(run.at(line), sentence + _unequal(data["actions"], gave, "actions"))
            return


# --- the fence


class _Unread(Exception):
    """The core reads something else than the trace says that it read."""


class _Write:
    """One write, which is done again line by line.

    Args:
        head: of the trace.
        line: with which the write begins.
    """

    def __init__(self, head: dict[str, Any], line: Line) -> None:
        data = line.data
        fence = Fence(head["lease"], head["fence"], exempt=head["exempt"])
        fence.known.deciding = frozenset(head["deciding"])
        fence.known = NotedKnown(fence.known, self._note)
        stamp = stamp_from(data["stamp"])
        grant = None if stamp is None else NotedGrant(Grant(stamp, 0.0), self._note)
        more = {name: data[name] for name in ("saw", "only_reads", "elsewhere")}
        self.what = f"{data['request']['method']} {data['request']['path']} of {data['client']}"
        self.over = False
        self._reads: list[list[Any]] = []
        self._answer: Response | None = None
        self._flow: Flow = fence.flow(request_of(data["request"]), grant, clock(self._note, float), **more)

    def answered(self, line: Line) -> None:
        """Take in the answer to the last request."""
        self._answer = answer_of(line.data["answer"])

    def moved(self, line: Line) -> str:
        """Go on to the next request or to the end; return what is different then, empty for nothing."""
        data = line.data
        self._reads = list(data["reads"])
        got: dict[str, Any]
        try:
            out = next(self._flow) if self._answer is None else self._flow.send(self._answer)
            got = {"request": _AGAIN.request(out)}
        except StopIteration as end:
            got = {"status": end.value.status}
        except Refused as error:
            got = {"refused": type(error).__name__, "line": error.line}
        except _Unread as error:
            self.over = True
            return f"the core {error}"
        wrote = {name: data[name] for name in ("request", "status", "refused", "line") if name in data}
        self.over = "request" not in got
        if got != wrote:
            self.over = True
            return f"the trace has {_unequal(wrote, got, 'outcome')}"
        if self._reads:
            self.over = True
            return f"the core does not read {self._reads[0][0]}, as the trace says"
        return ""

    def _note(self, what: str, value: Any) -> Any:
        if not self._reads or self._reads[0][0] != what:
            said = repr(self._reads[0][0]) if self._reads else "nothing more"
            raise _Unread(f"reads {what!r}, where the trace has {said}")
        shown = self._reads.pop(0)[1]
        if what == "object":
            return revision_from(shown)
        return answer_of(shown) if what == "told" and shown is not None else shown


_AGAIN = Unmarked()


def _writes(run: Run) -> Iterator[Difference]:
    under_way: dict[int, _Write] = {}
    for line in run.of("asked", "sent", "answered", "ended"):
        number = line.data["write"]
        write = under_way.get(number)
        try:
            if line.what == "asked":
                under_way[number] = _Write(run.head, line)
                continue
            if write is None:
                continue  # it differed before, or its beginning is in no trace
            if line.what == "answered":
                write.answered(line)
                continue
            said = write.moved(line)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"the line cannot be read: {error!r}"
        if said:
            what = write.what if write else "a write"
            yield Difference(run.at(line), f"write {number}, {what}: {said}")
        if write is None or write.over or said:
            under_way.pop(number, None)


def _unequal(wrote: Any, gave: Any, what: str) -> str:
    return f"{_short(wrote)}, and the core gives the {what} {_short(gave)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
