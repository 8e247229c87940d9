"""What the model's operator does with the API server: each operation on the core that ships.

An operation is a generator like the fence's: it yields requests and takes their answers. Writes go through
`Fence.flow`, so stamps, preconditions, repetitions and errors are those of `kopf_ha.core`. The operator around it is
small and follows the reference operator's order of writes (`kopf_ha_ipam.claims`): pool, then child; back: child, then
the claim's finalizer, then the pool once a quorum read says that the claim is gone.

Two claims want one address, and each has a pool that offers it. Each decision reads both pools: that is why they are
deciding objects, and why a term has to stamp both before it decides (I4).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from kopf_ha.core.asked import ONLY_STAMP
from kopf_ha.core.fence import Fence
from kopf_ha.core.floor import check_listed
from kopf_ha.core.grant import Grant
from kopf_ha.core.hearing import check_floor
from kopf_ha.core.target import parse_path
from kopf_ha.core.wire import MERGE_PATCH, Request, Response
from model.wire import ADDRESS, GROUP, NAMES, PATHS, POOLS, TERM_PATH, body_of, patch

#: What an operation is and what it needs to know: its name, the objects' number, the version it was decided from.
Op = tuple[Any, ...]
Steps = Generator[Request, Response, Any]


@dataclass(eq=False)
class Writer:
    """One writer of one term: the fence that ships, the term's grant, and a clock in the explorer's hand."""

    fence: Fence
    grant: Grant
    now: float = 0.0
    off: frozenset[str] = field(default_factory=frozenset)

    def write(self, request: Request) -> Generator[Request, Response, Response]:
        """Write through the fence."""
        return self.fence.flow(request, self.grant, lambda: self.now)


def begin(writer: Writer, op: Op) -> Steps:
    """Begin an operation."""
    return OPERATIONS[op[0]](writer, *op[1:])


def write_term(writer: Writer) -> Steps:
    """Write the Term. Its token only rises; a higher one that is another's means that the Lease lost its count (I2)."""
    mine = writer.grant.stamp
    spec = {"token": mine.token, "holder": mine.holder, "podUID": mine.pod_uid}
    answer = yield patch("term", {"spec": spec})
    if answer.status == 422:
        answer = yield Request("GET", TERM_PATH)
        check_floor(answer.json["spec"], mine)


def list_pools(writer: Writer) -> Steps:
    """List the deciding objects, as the barrier does: they may say that the Lease lost its count (I2)."""
    answer = yield Request("GET", PATHS["pools"])
    bodies = answer.json["items"]
    if "floor" not in writer.off:
        check_listed(bodies, POOLS, writer.grant.stamp, stamped=True)
    for body in bodies:
        target = parse_path(PATHS[body["metadata"]["name"]])
        assert target is not None  # noqa: S101  a path of ours
        writer.fence.known.learn(target, body)


def stamp_pool(writer: Writer, number: int) -> Steps:
    """Stamp a deciding object, as the barrier does (I4)."""
    path = PATHS[NAMES[number]] + "/status"
    body = patch(NAMES[number], ONLY_STAMP, status=True).body
    answer = yield from writer.write(Request("PATCH", path, content_type=MERGE_PATCH, body=body))
    return answer.status


def load(writer: Writer) -> Steps:
    """Read all pools, behind the barrier: the memory that this term decides from."""
    answer = yield Request("GET", PATHS["pools"])
    return tuple((_version(body), _gives(body)) for body in answer.json["items"])


def look_at_claims(writer: Writer) -> Steps:
    """Read all claims: which of them are there, and which are leaving."""
    answer = yield Request("GET", PATHS["claims"])
    seen = {body["metadata"]["name"]: "deletionTimestamp" in body["metadata"] for body in answer.json["items"]}
    return tuple((1 if seen[name] else 2) if name in seen else 0 for name in NAMES[2:4])


def give(writer: Writer, number: int, version: int, gives: bool) -> Steps:
    """Record in a pool that its claim has the address, or no longer. The decision was made from memory.

    After a conflict the pool's revision is read again, and planned again from memory: the fence promises that nobody
    else wrote another record.
    """
    name = NAMES[number]
    record = {ADDRESS: NAMES[2 + number]} if gives else {}
    asked = {"metadata": {"resourceVersion": str(version)}, "status": {"allocations": record}}
    answer = yield from writer.write(patch(name, asked, status=True))
    if answer.status == 409:
        again = yield Request("GET", PATHS[name])
        return ("again", _version(again.json))
    return ("done", _version(answer.json)) if answer.ok else ("failed", answer.status)


def publish(writer: Writer, number: int, fresh: bool) -> Steps:
    """Create or correct the child that publishes the address. Returns whether it is right."""
    name = NAMES[4 + number]
    if not fresh:
        found = yield Request("GET", PATHS[name])
        if found.ok:
            if found.json["data"] == {"ADDRESS": ADDRESS}:
                return "done"
            answer = yield from writer.write(patch(name, {"data": {"ADDRESS": ADDRESS}}))
            return "done" if answer.ok else "gone" if answer.status == 404 else "again"
    wish = body_of(name, (0, 0, None, True))
    del wish["metadata"]["uid"], wish["metadata"]["resourceVersion"]
    collection = PATHS[name].rpartition("/")[0]
    answer = yield from writer.write(Request("POST", collection, body=patch(name, wish).body))
    return "done" if answer.ok else "exists" if answer.status == 409 else "again"


def remove(writer: Writer, number: int) -> Steps:
    """Delete the child of a claim that is leaving. Returns whether it is gone."""
    name = NAMES[4 + number]
    found = yield Request("GET", PATHS[name])
    if found.status == 404:
        return "done"
    options = {"preconditions": {"uid": found.json["metadata"]["uid"]}}
    answer = yield from writer.write(Request("DELETE", PATHS[name], body=patch(name, options).body))
    return "done" if answer.ok or answer.status == 404 else "again"


def release(writer: Writer, number: int) -> Steps:
    """Remove the claim's finalizer, as Kopf does once the handler is done."""
    name = NAMES[2 + number]
    answer = yield from writer.write(patch(name, [{"op": "remove", "path": "/metadata/finalizers"}]))
    return "done" if answer.ok or answer.status == 404 else "again"


def ask_for(writer: Writer, number: int) -> Steps:
    """Ask the API server, from a quorum, whether the claim is gone: only then its address is free (I5)."""
    answer = yield Request("GET", PATHS[NAMES[2 + number]])
    return answer.status == 404


OPERATIONS: dict[str, Callable[..., Steps]] = {
    "term": write_term,
    "list": list_pools,
    "stamp": stamp_pool,
    "load": load,
    "claims": look_at_claims,
    "give": give,
    "publish": publish,
    "remove": remove,
    "release": release,
    "ask": ask_for,
}
#: The kinds whose schema has `status.fencing`, as the fence knows them after a look at their definitions.
SCHEMAS = {(GROUP, "v1", "pools"): True, (GROUP, "v1", "claims"): True}


def _version(body: Any) -> int:
    return int(body["metadata"]["resourceVersion"])


def _gives(body: Any) -> bool:
    return bool((body.get("status") or {}).get("allocations"))
