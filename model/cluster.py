"""The whole: replicas with their electors and writers, the API server, the network, and users.

Each move is one request, one thing that a replica notices, or one thing that its clock does. Everything in between is
the core's and takes no time. So a paused process is one that makes no move.

A writer has one request under way. What its term has sent when it ends stays in the network: the client gives up, and
the API server may still get the request at any later time, or never.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kopf_ha.core.election import Phase
from kopf_ha.core.election import events as el
from model import scene as scenes
from model.bounds import Bounds
from model.electing import Electing
from model.explorer import Move
from model.flows import WAITS, WENT_ON, Flow, Flows
from model.promises import (
    Broken,
    Write,
    ended,
    i4_stamped_before_decided,
    i5_one_claim_for_an_address,
    outcome,
    paused,
    stored,
)
from model.scene import CLOSED, HELD, OPEN, Scene
from model.server import Objects, Rules, World, is_there, mark_in, serve, version_of
from model.wire import NAMES, Answer, Mark, Wire, described
from model.work import FREED, LEAVING, LIST, LOAD, TERM, THERE, Work, after_operation, begun, choices, put


class State(NamedTuple):
    """One state of everything."""

    scene: int  #: the election, as `Cluster.scene` numbers it
    works: tuple[Work | None, ...]
    objects: Objects
    term: Mark | None
    heard: Mark | None
    network: tuple[tuple[Mark, Wire], ...]  #: what nobody waits for any more
    spent: tuple[int, ...]  #: faults, edits, deletions, losses, pauses, handovers


class Cluster:
    """All moves, within bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.flows = Flows(bounds.off, recovers=bounds.recovers)
        self.electing = Electing(
            bounds.replicas,
            bounds.terms,
            shared=False,
            renewals=False,
            asleep=bounds.losses > 0,
            recovers=bounds.recovers,
            off=bounds.off,
        )
        rules = "rules" not in bounds.off
        self.rules = Rules(rules, rules, bounds.term, "one-sided" not in bounds.off)
        self._scenes = scenes.Numbered()
        self._moves: dict[int, list[tuple[str, int, int | None]]] = {}
        self._told: dict[tuple[int, int, tuple[el.Event, ...]], int] = {}

    def begin(self) -> State:
        """Return the beginning: two pools, two claims, no child, no leader."""
        pool, claim = (1, None, False), (1, None, False)
        scene = self._scenes.number(self.electing.quiet(self.electing.begin()))
        works = (None,) * self.bounds.replicas
        return State(scene, works, (pool, pool, claim, claim, 0, 0), None, None, (), (0,) * 6)

    def judge(self, state: State) -> Broken | None:
        """Return what is broken in a state."""
        return i5_one_claim_for_an_address(state.objects)

    def has_a_term_left(self, state: State) -> bool:
        """Return whether the bound still allows a new term."""
        marks = [mark_in(name, one) for name, one in zip(NAMES, state.objects, strict=True)]
        tokens = [mark[0] for mark in marks if mark is not None]
        return max([scenes.highest(self._scenes[state.scene]), *tokens]) < self.bounds.terms

    def parts(self, state: State) -> tuple[Any, ...]:
        """Return a state as parts; of each kind there are few different ones."""
        return (state.scene, *state.works, state.objects, state.term, state.heard, state.network, state.spent)

    def whole(self, parts: Sequence[Any]) -> State:
        """Return a state from its parts."""
        n = self.bounds.replicas + 1
        return State(parts[0], tuple(parts[1:n]), *parts[n:])

    def scene(self, number: int) -> Scene:
        """Return the election of a state."""
        return self._scenes[number]

    def changes(self, before: State, after: State) -> list[str]:
        """Return what a move changed, in sentences."""
        said = scenes.changes(self._scenes[before.scene], self._scenes[after.scene])
        for name, old, new in zip(NAMES, before.objects, after.objects, strict=True):
            if old != new:
                said.append(_shown(name, new))
        return said

    # --- all moves

    def moves(self, state: State) -> Iterator[Move]:
        """Yield what can happen."""
        yield from self._elections(state)
        for r, work in enumerate(state.works):
            if work is None:
                continue
            gate = self.gate(state, r)
            if work.flow is None:
                if gate == OPEN and self._scenes[state.scene].electors[r].state.retiring:
                    yield self._drained(state, r)
                elif gate == OPEN or (gate == HELD and self.bounds.recovers):
                    yield from self._choices(state, r, work, gate)
            else:
                yield from self._answers(state, r, work, work.flow, gate)
        yield from self._network(state)
        yield from self._users(state)
        yield from self._orders(state)

    def gate(self, state: State, r: int) -> int:
        """Return how a replica's gate is."""
        grant = self._scenes[state.scene].electors[r].grant
        return CLOSED if grant is None else grant.gate

    def _elections(self, state: State) -> Iterator[Move]:
        found = self._moves.get(state.scene)
        if found is None:
            found = []
            for label, cost, after in self.electing.moves(self._scenes[state.scene]):
                found.append((label, cost, None if after is None else self._scenes.number(after)))
            self._moves[state.scene] = found
        for label, cost, number in found:
            if number is None or state.spent[0] + cost > self.bounds.faults:
                continue
            one, other = self._scenes[state.scene], self._scenes[number]
            broken = ended(one, other) or paused(one, other)
            there = state._replace(scene=number, spent=_spent(state, 0, cost))
            yield Move(label, self.settled(there), broken)

    def settled(self, state: State) -> State:
        """Begin terms whose grants are open, and end those that are drained. Nobody else can notice when."""
        for r in range(self.bounds.replicas):
            me = self._scenes[state.scene].electors[r]
            work = state.works[r]
            if (
                "resume" not in self.bounds.off
                and me.state.phase is Phase.LOST
                and (work is None or work.flow is None)
                and me.pending is None
            ):
                events: tuple[el.Event, ...] = (el.Resume(),)
                if work is not None and work.floor > me.state.floor:
                    events = (el.RaiseFloor(work.floor), el.Resume())
                state = state._replace(scene=self._tell(state.scene, r, *events), works=put(state.works, r, None))
            elif me.grant is not None and me.grant.gate == OPEN and (work is None or work.mark[0] != me.grant.token):
                first = TERM if self.bounds.term else LIST
                if "barrier" in self.bounds.off:
                    first = LOAD
                work = begun(Work((me.grant.token, r), first), OPEN)
                state = state._replace(works=put(state.works, r, work))
            elif (
                self.bounds.recovers
                and me.grant is not None
                and me.grant.gate == OPEN
                and work is not None
                and work.flow is None
            ):
                state = state._replace(works=put(state.works, r, begun(work, OPEN)))  # its gate was held meanwhile
        return state

    def _tell(self, scene: int, r: int, *events: el.Event) -> int:
        key = (scene, r, events)
        number = self._told.get(key)
        if number is None:
            after = self._scenes[scene]
            for event in events:
                after = self.electing.tell(after, r, event)
            number = self._told[key] = self._scenes.number(after)
        return number

    # --- a writer

    def _choices(self, state: State, r: int, work: Work, gate: int) -> Iterator[Move]:
        """Yield what the operator can do next; which comes first is open. While the gate is held, it waits there."""
        for what, op in choices(work, early="order" in self.bounds.off):
            flow = Flow(op, work.mark, work.known, begun=gate)
            broken = i4_stamped_before_decided(work.mark, state.objects) if op[0] == "give" else None
            yield Move(f"{scenes.NAMES[r]} decides {what}", _with(state, r, work._replace(flow=flow)), broken)
        for i, claim in enumerate(work.claims):
            there = state.objects[2 + i]
            if self.bounds.deletions and claim == THERE and (not is_there(there) or there[2]):
                knows = LEAVING if is_there(there) else FREED
                after = work._replace(claims=put(work.claims, i, knows))
                yield Move(f"{scenes.NAMES[r]} hears that claim{i + 1} is deleted", _with(state, r, after))

    def _answers(self, state: State, r: int, work: Work, flow: Flow, gate: int) -> Iterator[Move]:
        """Yield what can become of the request that is under way."""
        name, wire = scenes.NAMES[r], self.flows.run(flow).wire
        assert wire is not None  # noqa: S101  a flow that has ended is not kept
        if wire == WAITS:
            if gate in (OPEN, CLOSED):
                yield self._deliver(state, r, work, WENT_ON, f"{name}'s write waits no more", None)
            return
        if work.held is not None:
            if gate != OPEN:
                yield self._deliver(state, r, work, work.held, f"{name} gets its late answer", None)
            return
        reads, may_fail = wire[0] == "GET", state.spent[0] < self.bounds.faults
        which = f"{name}'s {described(wire)}"
        after, answer, broken = self._serve(state, work.mark, wire)
        yield self._deliver(after, r, work, answer, f"{which} is answered", broken)
        if gate != OPEN:
            late = state if reads else self._late(state, work.mark, wire)
            yield self._deliver(
                late, r, work, None, f"{name} gives up its {described(wire)}, and the network has it", None
            )
        elif may_fail:
            late = state if reads else self._late(state, work.mark, wire)
            late = late._replace(spent=_spent(state, 0, 1))
            yield self._deliver(late, r, work, None, f"{which} gets no answer, and the network has it", None)
        if may_fail and not reads and answer[0] < 300 and gate == OPEN:
            after = after._replace(spent=_spent(state, 0, 1))
            held = _with(after, r, work._replace(held=answer))
            yield Move(f"{which} is stored, and its answer is late", held, broken)
            yield self._deliver(after, r, work, None, f"{which} is stored, and its answer is lost", broken)

    def _serve(self, state: State, mark: Mark, wire: Wire) -> tuple[State, Answer, Broken | None]:
        lease = self._scenes[state.scene].lease
        world = World((lease.holder, lease.token) if lease is not None else None, state.term, state.heard)
        objects, world, answer = serve(state.objects, world, wire, mark[1], self.rules)
        if objects is state.objects and world.term == state.term:
            return state, answer, None
        broken = stored(Write(mark, wire, state.objects, objects))
        after = state._replace(objects=objects, term=world.term)
        return (
            after._replace(network=tuple(one for one in state.network if not _is_dead(one[1], after))),
            answer,
            broken,
        )

    def _late(self, state: State, mark: Mark, wire: Wire) -> State:
        if _is_dead(wire, state):
            return state
        return state._replace(network=tuple(sorted({*state.network, (mark, wire)}, key=repr)))

    def _drained(self, state: State, r: int) -> Move:
        """End a term by choice, as was ordered. Nothing is under way, and no further operation begins."""
        after = state._replace(scene=self._tell(state.scene, r, el.StepDown("ordered")))
        return Move(f"{scenes.NAMES[r]} has drained, as ordered", self.settled(after))

    def _deliver(
        self, state: State, r: int, work: Work, answer: Answer | None, label: str, broken: Broken | None
    ) -> Move:
        """Give an operation its answer, and begin what comes next."""
        flow = work.flow
        assert flow is not None  # noqa: S101  the callers have just looked
        gate = OPEN if "gate" in self.bounds.off else self.gate(state, r)
        flow = flow._replace(log=(*flow.log, (answer, gate)))
        step = self.flows.run(flow)
        if step.wire is not None:
            return Move(label, _with(state, r, work._replace(flow=flow, held=None)), broken)
        work = work._replace(flow=None, held=None, known=step.known, floor=max(work.floor, step.floor))
        scene = self._scenes[state.scene]
        broken = broken or outcome(flow, step, scene, state.objects, r)
        served = False
        if step.refused is None:
            work, served = after_operation(work, flow.op, step)
        elif step.ends_term and step.refused[0] != "GateClosed" and gate == OPEN:
            event = el.RaiseFloor(step.floor) if step.floor else el.StepDown("over")
            state = state._replace(scene=self._tell(state.scene, r, event))
        work = begun(work, self.gate(state, r))
        served = served and scene.lease is not None and (scene.lease.token, scene.lease.holder) == work.mark
        return Move(label, self.settled(_with(state, r, work)), broken, served)

    # --- the network, and users

    def _network(self, state: State) -> Iterator[Move]:
        for i, (mark, wire) in enumerate(state.network):
            rest = state._replace(network=(*state.network[:i], *state.network[i + 1 :]))
            after, _, broken = self._serve(rest, mark, wire)
            label = f"the network delivers {scenes.NAMES[mark[1]]}'s late {described(wire)}"
            yield Move(label, after, broken)
        if state.term != state.heard:
            yield Move("the API server hears of the Term", state._replace(heard=state.term))

    def _users(self, state: State) -> Iterator[Move]:
        _, edits, deletions, losses, _, _ = state.spent
        scene = self._scenes[state.scene]
        if losses < self.bounds.losses and scene.lease is not None:
            lost = self._scenes.number(self.electing.quiet(scene._replace(lease=None)))
            yield Move("the Lease is deleted", self.settled(state._replace(scene=lost, spent=_spent(state, 3, 1))))
        for i, name in enumerate(NAMES):
            one = state.objects[i]
            if not is_there(one):
                continue
            if edits < self.bounds.edits and not name.startswith("claim"):
                spent = _spent(state, 1, 1)
                new = (one[0] + 1, *one[1:]) if name.startswith("pool") else (one[0], one[1] + 1, one[2], False)
                yield Move(f"a user edits {name}", _object(state, i, new)._replace(spent=spent))
                if name.startswith("child"):
                    yield Move(f"a user deletes {name}", _object(state, i, one[1])._replace(spent=spent))
            if deletions < self.bounds.deletions and name.startswith("claim") and not one[2]:
                gone = _object(state, i, (one[0] + 1, one[1], True))
                yield Move(f"a user deletes {name}", gone._replace(spent=_spent(state, 2, 1)))

    def _orders(self, state: State) -> Iterator[Move]:
        *_, pauses, handovers = state.spent
        more = pauses < self.bounds.pauses, handovers < self.bounds.handovers
        for label, cost, after in self.electing.orders(self._scenes[state.scene], *more):
            there = state._replace(scene=self._scenes.number(after), spent=_spent(state, 4, cost[0]))
            yield Move(label, self.settled(there._replace(spent=_spent(there, 5, cost[1]))))


def _is_dead(wire: Wire, state: State) -> bool:
    """Whether a request can change nothing any more, whenever it arrives: revisions and stamps do not come back."""
    if wire[0] == "TERM":
        return state.term is not None and wire[2][0] <= state.term[0]
    at = NAMES.index(wire[1])
    one = state.objects[at]
    if wire[0] == "POST":
        return False
    if not is_there(one):
        return not wire[1].startswith("child") or wire[2] is not None
    if wire[0] == "STAMP":
        recorded = mark_in(wire[1], one)
        return recorded != wire[2] and recorded is not None
    return wire[2] is not None and wire[2] < version_of(wire[1], one)


def _shown(name: str, one: Any) -> str:
    if not is_there(one):
        return f"{name} is gone"
    mark, value = mark_in(name, one), one[3] if name.startswith("child") else one[2]
    words = {"pool": "gives its address", "chil": "publishes the address", "clai": "is leaving"}
    stamp = f"has token {mark[0]} of {scenes.NAMES[mark[1]]}" if mark is not None else "has no stamp"
    return f"{name} {stamp}" + (f" and {words[name[:4]]}" if value else "")


def _with(state: State, r: int, work: Work) -> State:
    return state._replace(works=put(state.works, r, work))


def _object(state: State, i: int, one: Any) -> State:
    return state._replace(objects=put(state.objects, i, one))


def _spent(state: State, which: int, cost: int) -> tuple[int, ...]:
    return put(state.spent, which, state.spent[which] + cost) if cost else state.spent
