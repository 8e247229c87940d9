"""The election alone, with clocks that run at one rate: renewals, expiry, late answers, and stopping by choice.

`cluster` lets clocks be anywhere, so there is nothing to say about two leaders at a time. Here there is: while nobody
edits the Lease, and all clocks run at one rate, no two grants are open and unexpired at the same time. That is what the
docstring of `kopf_ha.core.election.machine` promises, and what effects outside of Kubernetes rest on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kopf_ha.core.election import Phase
from kopf_ha.core.election import events as el
from model import scene as scenes
from model.bounds import Bounds
from model.electing import Electing
from model.explorer import Move
from model.promises import Broken, paused
from model.scene import OPEN, Scene

#: A scene, and how many faults, stops, pauses and handovers there were.
State = tuple[int, int, int, int, int]


class Clocks:
    """All moves of an election within bounds.

    Args:
        bounds: its `deletions`, `edits` and `losses` are not used.
        stops: how many replicas stop by choice.
    """

    def __init__(self, bounds: Bounds, stops: int = 1) -> None:
        self.bounds, self.stops = bounds, stops
        self.electing = Electing(
            bounds.replicas, bounds.terms, shared=True, renewals=True, recovers=bounds.recovers, off=bounds.off
        )
        self._scenes = scenes.Numbered()

    def begin(self) -> State:
        """Return the beginning: there is no Lease."""
        return self._scenes.number(scenes.canonical(self.electing.begin())), 0, 0, 0, 0

    def moves(self, state: State) -> Iterator[Move]:
        """Yield what can happen."""
        number, faults, stops, pauses, handovers = state
        scene = self._scenes[number]
        for label, cost, after in self.electing.moves(scene):
            if after is not None and faults + cost <= self.bounds.faults:
                yield self._move(label, scene, after, (faults + cost, stops, pauses, handovers))
        for r, me in enumerate(scene.electors):
            if stops < self.stops and me.state.phase is Phase.LEADING:
                after = self.electing.tell(scene, r, el.Release())
                yield self._move(
                    f"{scenes.NAMES[r]} stops by choice", scene, after, (faults, stops + 1, pauses, handovers)
                )
            if me.state.phase is Phase.LEADING and me.state.retiring and not me.queue:
                after = self.electing.tell(scene, r, el.StepDown("ordered"))
                yield self._move(f"{scenes.NAMES[r]} has drained, as ordered", scene, after, state[1:])
        more = pauses < self.bounds.pauses, handovers < self.bounds.handovers
        for label, (paused_once, handed_once), after in self.electing.orders(scene, *more):
            spent = (faults, stops, pauses + paused_once, handovers + handed_once)
            yield Move(label, (self._scenes.number(after), *spent))

    def _move(self, label: str, before: Scene, after: Scene, spent: tuple[int, int, int, int]) -> Move:
        for r, me in enumerate(after.electors):
            # Nothing is under way in a term here, so it is drained at once.
            if me.state.phase is Phase.LOST and me.pending is None and "resume" not in self.bounds.off:
                after = self.electing.tell(after, r, el.Resume())
        begun = any(
            new.grant is not None
            and new.grant.gate == OPEN
            and (old.grant is None or old.grant.token != new.grant.token)
            for old, new in zip(before.electors, after.electors, strict=True)
        )
        return Move(label, (self._scenes.number(after), *spent), paused(before, after), begun)

    def judge(self, state: State) -> Broken | None:
        """Return whether two grants are open and unexpired at the same time, or one although a pause is in effect."""
        scene = self._scenes[state[0]]
        many = [
            scenes.NAMES[r] for r, me in enumerate(scene.electors) if me.grant is not None and me.grant.gate == OPEN
        ]
        if len(many) > 1:
            return Broken("line 1", f"{' and '.join(many)} may write at the same time")
        if many and scene.lease is not None and scene.lease.paused and scene.lease.holder < 0:
            return Broken("pause", f"the Lease is paused and held by nobody, and {many[0]} may write")
        return None

    def has_a_term_left(self, state: State) -> bool:
        """Return whether the bound still allows a new term, and there is somebody to lead."""
        scene = self._scenes[state[0]]
        if all(me.state.phase is Phase.STOPPED for me in scene.electors):
            return False
        return scenes.highest(scene) < self.bounds.terms

    def parts(self, state: State) -> tuple[Any, ...]:
        """Return a state as parts."""
        return state

    def whole(self, parts: Sequence[Any]) -> State:
        """Return a state from its parts."""
        return parts[0], parts[1], parts[2], parts[3], parts[4]

    def changes(self, before: State, after: State) -> list[str]:
        """Return what a move changed, in sentences."""
        return scenes.changes(self._scenes[before[0]], self._scenes[after[0]])
