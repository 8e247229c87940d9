"""The promises of docs/promises.md, each as a function that says what broke it."""

from __future__ import annotations

from typing import NamedTuple

from kopf_ha.core.election import Phase
from model.flows import Flow, Step
from model.scene import OPEN, Scene
from model.server import Objects, is_there, mark_in
from model.wire import NAMES, Mark, Wire, described


class Broken(NamedTuple):
    """A promise that does not hold, and why, in a sentence."""

    promise: str
    why: str


class Write(NamedTuple):
    """A write that the API server accepted: whose, what, and the objects before and after it."""

    mark: Mark
    wire: Wire
    before: Objects
    after: Objects


def stored(write: Write) -> Broken | None:
    """Return what an accepted write broke of I1, I2 and I3."""
    if write.wire[1] not in NAMES:
        return None
    return i1_tokens_never_go_down(write) or i2_one_process_for_each_token(write) or i3_none_below(write)


def i1_tokens_never_go_down(write: Write) -> Broken | None:
    """I1: an object's recorded token never goes down (per uid), and its stamp is never removed."""
    name = write.wire[1]
    at = NAMES.index(name)
    old, new = write.before[at], write.after[at]
    before, after = mark_in(name, old), mark_in(name, new)
    if before is None or not is_there(new) or (name.startswith("child") and (not is_there(old) or old[0] != new[0])):
        return None
    if after is None or after[0] < before[0]:
        return Broken("I1", f"{name} recorded token {before[0]}, and records {after[0] if after else 'none'} now")
    return None


def i2_one_process_for_each_token(write: Write) -> Broken | None:
    """I2: no two processes' writes are accepted under one token on one object."""
    before = mark_in(write.wire[1], write.before[NAMES.index(write.wire[1])])
    if before is not None and before[0] == write.mark[0] and before[1] != write.mark[1]:
        return Broken("I2", f"two processes wrote {write.wire[1]} under token {before[0]}")
    return None


def i3_none_below(write: Write) -> Broken | None:
    """I3: once a write with token t' was accepted on an object, none with a token below t' is."""
    before = mark_in(write.wire[1], write.before[NAMES.index(write.wire[1])])
    if before is not None and before[0] > write.mark[0]:
        what = described(write.wire)
        return Broken("I3", f"the {what} was accepted with token {write.mark[0]}, after one with token {before[0]}")
    return None


def i4_stamped_before_decided(mark: Mark, objects: Objects) -> Broken | None:
    """I4: no decision of term t' is made from an object that an earlier term could still write."""
    for name, one in zip(NAMES[:2], objects, strict=False):
        recorded = mark_in(name, one)
        if recorded is None or recorded[0] < mark[0]:
            token = f"token {recorded[0]}" if recorded else "no token"
            return Broken("I4", f"term {mark[0]} decides, and {name}, which it decides from, records {token}")
    return None


def i5_one_claim_for_an_address(objects: Objects) -> Broken | None:
    """I5: no address is given to two claims, at any revision in the history."""
    pools, claims, children = objects[:2], objects[2:4], objects[4:]
    if all(is_there(pool) and pool[2] for pool in pools):
        return Broken("I5", "pool1 and pool2 both give the address, each to its claim")
    shown = [is_there(one) and one[3] and is_there(claim) for one, claim in zip(children, claims, strict=True)]
    if all(shown):
        return Broken("I5", "child1 and child2 both publish the address, and both claims exist")
    return None


def outcome(flow: Flow, step: Step, scene: Scene, objects: Objects, r: int) -> Broken | None:
    """Return what the end of an operation broke of I9 and I10."""
    grant = scene.electors[r].grant
    lease = scene.lease
    current = (
        lease is not None
        and (lease.token, lease.holder) == flow.mark
        and grant is not None
        and grant.token == flow.mark[0]
        and grant.gate == OPEN
    )
    return (i9_transparent(flow, step) or i10_exactly(step, flow.mark, objects)) if current else None


def i9_transparent(flow: Flow, step: Step) -> Broken | None:
    """I9: while its term is current, a write has the outcome that it would have had without the fence.

    The operator's own preconditions may fail, and only they: a pool's revision, or the name of a child that exists.
    """
    if step.refused is not None and not step.floor:
        return Broken("I9", f"the current leader's {flow.op[0]} was refused: {step.refused[0]} ({step.refused[1]})")
    if flow.op[0] in ("stamp", "publish", "remove", "release") and step.result in (409, 422, 403, "again"):
        return Broken("I9", f"the current leader's {flow.op[0]} met a conflict that is not its own")
    if flow.op[0] == "give" and step.result[0] == "failed" and step.result[1] != 404:
        return Broken("I9", f"the current leader's write of a pool got {step.result[1]}")
    return None


def i10_exactly(step: Step, mark: Mark, objects: Objects) -> Broken | None:
    """I10: only a token's own rules end a term: a floor was lost only if an object says so."""
    recorded = [mark_in(name, one) for name, one in zip(NAMES, objects, strict=True)]
    if step.ends_term and not any(one is not None and one[0] >= mark[0] for one in recorded):
        return Broken("I10", f"term {mark[0]} is ended ({step.refused}), and no object says that it is over")
    return None


def paused(before: Scene, after: Scene) -> Broken | None:
    """While the Lease is paused, no elector's write begins a term."""
    one, other = before.lease, after.lease
    if one is None or other is None or not one.paused or one.uid != other.uid:
        return None
    if other.token != one.token or other.holder not in (-1, one.holder):
        return Broken("pause", f"the Lease is paused, and a term with token {other.token} began")
    return None


def ended(before: Scene, after: Scene) -> Broken | None:
    """I10: whatever users do, the election ends a term only if the Lease is not its own, or its time is over."""
    lease = before.lease
    for r, (old, new) in enumerate(zip(before.electors, after.electors, strict=True)):
        if old.grant is None or old.grant.closed or old.grant.gate != OPEN:
            continue
        closed = new.grant is None or new.grant.closed
        leads = lease is not None and lease.token == old.grant.token and lease.holder == r
        if closed and leads and old.state.phase is Phase.LEADING:
            return Broken("I10", f"term {old.grant.token} ended although the Lease names it")
    return None
