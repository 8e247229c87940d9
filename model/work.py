"""One term's writer: how far it has come, what it remembers, and what it may do next.

It is small, and nothing of the core: the order in which a term does things, as in `run/` and the reference operator. A
term first writes the Term (where line 4 is), lists the deciding objects and stamps each of them: the barrier. Then it
reads them again, and what it decides from then on it decides from memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from model.flows import Flow, Known, Step
from model.operations import Op
from model.scene import OPEN
from model.wire import Answer, Mark

#: The stages of a term before it serves.
TERM, LIST, STAMP_1, STAMP_2, LOAD, CLAIMS, SERVE = range(7)
#: What a term knows of a claim: it is gone; leaving; there; its child is removed; its finalizer, too.
GONE, LEAVING, THERE, BARE, FREED = range(5)
#: What a term knows of a child: nothing, since it has just given the address; that it is right; that it has to look.
FRESH, RIGHT, LOOK = range(3)


class Work(NamedTuple):
    """The writer of one term.

    Args:
        mark: the term's token and its replica.
        stage: how far it has come.
        known: what the fence knows of each object.
        memory: of each pool: its revision and whether it gives its address, as this term remembers.
        claims: what it knows of each claim.
        children: what it knows of each child.
        flow: the operation that is under way.
        held: the answer to its request, if the API server has given it and the network still has it.
        floor: the highest token that the fence saw.
    """

    mark: Mark
    stage: int
    known: tuple[Known, ...] = (None,) * 6
    memory: tuple[Any, ...] = ((0, False), (0, False))
    claims: tuple[int, int] = (THERE, THERE)
    children: tuple[int, int] = (LOOK, LOOK)
    flow: Flow | None = None
    held: Answer | None = None
    floor: int = 0


def begun(work: Work, gate: int) -> Work:
    """Return the term with its next operation under way, as long as there is only one that can be next."""
    if gate != OPEN or work.stage == SERVE:
        return work._replace(flow=None)
    return work._replace(flow=Flow(_STAGES[work.stage], work.mark, work.known))


#: What a term does in each stage.
_STAGES: dict[int, Op] = {
    TERM: ("term",),
    LIST: ("list",),
    STAMP_1: ("stamp", 0),
    STAMP_2: ("stamp", 1),
    LOAD: ("load",),
    CLAIMS: ("claims",),
}


def choices(work: Work, *, early: bool) -> Iterator[tuple[str, Op]]:
    """Yield what the operator may do next, in words and as an operation; which comes first is open.

    Args:
        work: the term.
        early: whether an address is freed before its claim is gone, which is wrong.
    """
    if work.stage != SERVE:
        return
    for i, ((version, gives), claim, child) in enumerate(zip(work.memory, work.claims, work.children, strict=True)):
        taken = any(given is not False for _, given in work.memory)
        if claim == THERE and (gives is None or not taken):
            yield f"that claim{i + 1} gets the address", ("give", i, version, True)
        if claim == THERE and gives and child != RIGHT:
            yield f"to publish child{i + 1}", ("publish", i, child == FRESH)
        if claim == LEAVING:
            yield f"to remove child{i + 1}", ("remove", i)
        if claim == BARE:
            yield f"to let claim{i + 1} go", ("release", i)
        if claim == FREED:
            yield f"to ask whether claim{i + 1} is gone", ("ask", i)
        if gives is not False and (claim == GONE or (early and claim == BARE)):
            yield f"to free the address of claim{i + 1}", ("give", i, version, False)


def after_operation(work: Work, op: tuple[Any, ...], step: Step) -> tuple[Work, bool]:
    """Return what a term knows after an operation, and whether a claim is served now."""
    result, what = step.result, op[0]
    if result == "unanswered":
        if what == "publish":
            return work._replace(children=put(work.children, op[1], LOOK)), False
        if what == "give":
            # It may have been stored, or may be yet. Until a later write of the pool is answered, it counts as given.
            return work._replace(memory=put(work.memory, op[1], (op[2], None))), False
        return work, False
    match what:
        case "term" | "list":
            return work._replace(stage=work.stage + 1), False
        case "stamp":
            return work._replace(stage=work.stage + (result in (200, 404))), False
        case "load":
            return work._replace(stage=CLAIMS, memory=result), False
        case "claims":
            return work._replace(stage=SERVE, claims=result), False
        case "give":
            i, gives = op[1], op[3]
            said, number = result
            if said == "failed":
                return work, False
            kept = gives if said == "done" else work.memory[i][1]
            work = work._replace(memory=put(work.memory, i, (number, kept)))
            return work._replace(children=put(work.children, i, FRESH if said == "done" else LOOK)), False
        case "publish":
            right = result == "done"
            return work._replace(children=put(work.children, op[1], RIGHT if right else LOOK)), right
        case "remove":
            return work._replace(claims=put(work.claims, op[1], BARE if result == "done" else LEAVING)), False
        case "release":
            return work._replace(claims=put(work.claims, op[1], FREED if result == "done" else BARE)), False
        case "ask":
            return work._replace(claims=put(work.claims, op[1], GONE if result else BARE)), False
    raise AssertionError(op)


def put(given: tuple[Any, ...], i: int, value: Any) -> Any:
    """Return a tuple with another value in one place."""
    return (*given[:i], value, *given[i + 1 :])
