"""A small API server: compare-and-swap, `/status`, finalizers, the CRD's transition rule, and the policies' rules.

One request is one step, as in etcd's transaction. Preconditions are judged first, then the schema's rule, then the
policies (docs/facts.md). The rules are written here by hand, from docs/fencing.md and `kopf_ha.manifests`, and not
derived: the model has to be wrong in another way than what ships.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from kopf_ha.core.refusal import about_term, about_tokens
from model.wire import CHILDREN, LEASE, NAMES, Answer, Mark, Wire, pod_uid

#: An object as `wire` describes it. Where there is none, the number of revisions so far: none of them comes back.
Object: TypeAlias = Any
#: All objects, in the order of `wire.NAMES`.
Objects = tuple[Object, ...]

CONFLICT: Answer = (409,)
INVALID: Answer = (422,)


class World(NamedTuple):
    """What the API server knows besides the objects.

    Args:
        lease: ``(holder, token)`` of the Lease; None if there is none.
        term: of the Term; None if there is none.
        heard: what its informer of Terms has; None for nothing.
    """

    lease: tuple[int, int] | None
    term: Mark | None
    heard: Mark | None


class Rules(NamedTuple):
    """Which rules the API server enforces."""

    transition: bool = True  #: the CRD's, for `status.fencing`
    policies: bool = True  #: those about stamps
    term: bool = True  #: line 4
    one_sided: bool = True  #: line 4 lets pass what carries a newer token than the Term


def mark_in(name: str, one: Object) -> Mark | None:
    """Return an object's stamp."""
    if isinstance(one, int):
        return None
    mark: Mark | None = one[2] if name.startswith("child") else one[1]
    return mark


def is_there(one: Object) -> bool:
    """Return whether there is an object."""
    return not isinstance(one, int)


def version_of(name: str, one: tuple[Any, ...]) -> int:
    """Return an object's resourceVersion."""
    return int(one[1] if name.startswith("child") else one[0])


def serve(objects: Objects, world: World, wire: Wire, writer: int, rules: Rules) -> tuple[Objects, World, Answer]:
    """Take one request.

    Args:
        objects: all of them.
        world: what else there is.
        wire: the request.
        writer: the replica whose pod sends it.
        rules: what is enforced.

    Returns:
        The objects and the world after it, and the answer.
    """
    verb, name = wire[0], wire[1]
    if name == "term":
        return objects, *_serve_term(world, wire)
    if name == "lease":
        return objects, world, (200, "lease", *world.lease) if world.lease else (404, "absent", "op")
    if name in ("pools", "claims"):
        some = range(2) if name == "pools" else range(2, 4)
        return objects, world, (200, "list", tuple((NAMES[i], objects[i]) for i in some if is_there(objects[i])))
    at = NAMES.index(name)
    old = objects[at]
    if verb != "POST" and isinstance(old, int):
        return objects, world, (404, "absent", name)
    if verb == "GET":
        return objects, world, (200, "object", name, old)
    new, refused = _changed(name, old, wire)
    refused = refused or _refusal(name, old, new, wire, writer, world.heard, rules)
    if refused:
        return objects, world, refused
    if verb == "POST" and is_there(old):
        return objects, world, CONFLICT
    if new != old:
        # A write that changes nothing makes no revision.
        objects = (*objects[:at], new, *objects[at + 1 :])
        if verb == "POST" and not is_there(objects[at - 2]):  # its owner does not exist, so it is collected
            objects = (*objects[:at], version_of(name, new), *objects[at + 1 :])
        if verb == "RELEASE":  # the claim is gone, and the garbage collector takes its child
            child = objects[at + 2]
            objects = (*objects[: at + 2], child if isinstance(child, int) else child[1], *objects[at + 3 :])
    return objects, world, (200 if verb != "POST" else 201, "object", name, new if is_there(new) else old)


def _serve_term(world: World, wire: Wire) -> tuple[World, Answer]:
    if wire[0] == "GET":
        return world, (200, "term", *world.term) if world.term else (404, "absent", "op")
    mark: Mark = wire[2]
    if world.term is not None and mark != world.term and mark[0] <= world.term[0]:
        return world, INVALID
    return world._replace(term=mark), (200, "term", *mark)


def _changed(name: str, old: Object, wire: Wire) -> tuple[Object, Answer | None]:
    """Return the object after a request whose preconditions hold, or the answer to one whose do not."""
    match wire:
        case ("POST", _, mark, right):
            last = old if isinstance(old, int) else old[1]
            return (last + 1, last + 1, mark, right), None
        case ("STAMP", _, was, mark, whole):
            assert not isinstance(old, int)  # noqa: S101  `serve` has looked
            version, recorded, value = old
            # What a pool gives stands in its status; whether a claim is leaving does not.
            is_empty = recorded is None and not (value and name.startswith("pool"))
            holds = is_empty if whole else recorded == was
            return ((version + 1, mark, value) if mark != recorded else old), None if holds else INVALID
    assert not isinstance(old, int)  # noqa: S101  `serve` has looked
    if wire[2] not in (None, version_of(name, old)):
        return old, CONFLICT
    match wire:
        case ("STATUS", _, _, mark, value):
            new = (old[0], mark or old[1], old[2] if value is None else value)
            return (old if new == old else (old[0] + 1, *new[1:])), None
        case ("PATCH", _, _, mark, right):
            new = (*old[:2], mark or old[2], old[3] if right is None else right)
            return (old if new == old else (old[0], old[1] + 1, *new[2:])), None
        case ("DELETE", _, _, uid):
            return (old[1], None) if uid in (None, old[0]) else (old, CONFLICT)
        case ("RELEASE", *_):
            return (old[0] if old[2] else (old[0] + 1, *old[1:])), None
    raise ValueError(wire)


def _refusal(
    name: str, old: Object, new: Object, wire: Wire, writer: int, heard: Mark | None, rules: Rules
) -> Answer | None:
    """Return the answer of the rule that refuses a write of the operator's account; None if none does."""
    before, after = mark_in(name, old), mark_in(name, new)
    stamped = not name.startswith("child")
    verb, stale = wire[0], about_tokens(LEASE)
    if rules.transition and stamped and before and is_there(new) and (after is None or after[0] < before[0]):
        return (422, "rule")
    if rules.term and heard is not None:
        carried = before if verb == "DELETE" else after
        token = carried[0] if carried is not None and carried[1] == writer else 0
        if writer != heard[1] and not (rules.one_sided and token >= heard[0]):
            who = f"token {heard[0]} leads, in pod {pod_uid(heard[1])}, and this write is of pod {pod_uid(writer)}"
            return (403, "policy", "term", about_term(LEASE) + who)
    if not rules.policies:
        return None
    policy = "stamped" if stamped else f"child-{CHILDREN}"
    if verb in ("STAMP", "STATUS") or (not stamped and verb != "DELETE"):
        sent = wire[3] if verb == "STAMP" else after
        if sent is None:
            return (403, "policy", policy, "fencing: a write must carry its writer's fencing stamp")
        if verb != "POST" and before is not None and sent != before and sent[0] <= before[0]:
            return (403, "policy", policy, f"{stale}the stamp's token is stale")
        if sent[1] != writer:
            return (403, "policy", policy, f"{stale}a write must carry the stamp of its own writer")
    elif before is None or before[1] != writer:
        return (403, "policy", policy, f"{stale}the object is not stamped by this writer")
    if verb == "DELETE" and wire[2] is None:
        return (403, "policy", policy, "fencing: an object is deleted only with preconditions.resourceVersion")
    return None
