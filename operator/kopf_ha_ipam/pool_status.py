"""What a pool's status should say, and how that differs from what it says. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kopf_ha_ipam.conditions import ADDRESS_CONFLICT, with_condition, with_ready, without_condition
from kopf_ha_ipam.model import ACTIVE, CLAIMING, ClaimRef, Pool, where_of
from kopf_ha_ipam.planning import Record, misplaced

#: How many addresses a condition names.
NAMED = 5


def status_patch(
    pool: Pool, record: Record, state: str, *, trouble: str | None, twice: Mapping[str, Collection[ClaimRef]], now: str
) -> dict[str, Any]:
    """Return the merge patch that makes the pool's status say what it should. It is empty if it says so already (I7).

    A merge patch merges maps, whatever their `x-kubernetes-map-type`: an entry is removed by null.

    Args:
        pool: as it is at the API server.
        record: who has which address.
        state: `Claiming`, `Active` or empty.
        trouble: why the pool is not active.
        twice: addresses that more than one claim has.
        now: the time in RFC 3339, for conditions.
    """
    usable = pool.spec.usable
    used = sum(1 for a in record.allocations if a in usable)
    ok, reason, message = _ready(pool, state, len(record.allocations), trouble)
    wish: dict[str, Any] = {
        "observedGeneration": pool.generation,
        "state": state or None,
        "capacity": len(usable),
        "allocated": len(record.allocations),
        "free": len(usable) - used,
        "conditions": with_ready(
            pool.status, ok=ok, reason=reason, message=message, generation=pool.generation, now=now
        ),
    }
    for kind, told in (("SpecConflict", _misplaced(pool, record)), (ADDRESS_CONFLICT, _twice(pool, record, twice))):
        wish["conditions"] = _told(wish, kind, *told, generation=pool.generation, now=now)
    patch = {k: v for k, v in wish.items() if pool.status.get(k) != v}
    changes = _changes(pool.allocations, record.allocations)
    if changes or (state == ACTIVE and not pool.recorded):
        patch["allocations"] = changes
    changes = _changes(pool.tombstones, {a: t.owner for a, t in record.tombstones.items()})
    if changes:
        patch["tombstones"] = changes
    return patch


def _ready(pool: Pool, state: str, used: int, trouble: str | None) -> tuple[bool, str, str]:
    """Return value, reason and message of the `Ready` condition."""
    if pool.terminating:
        claims = "1 claim" if used == 1 else f"{used} claims"
        return False, "Terminating", f"The pool is in use by {claims}. It will be removed once they are deleted."
    if state == ACTIVE:
        return True, "Active", "The pool gives addresses."
    if state == CLAIMING:
        return False, "Claiming", "The operator makes sure that no other pool overlaps."
    return False, "Overlaps", trouble or "The pool is not active."


def _misplaced(pool: Pool, record: Record) -> tuple[str, str]:
    """Return reason and message about used addresses that the spec no longer allows. They stay with their claims."""
    found = misplaced(pool.spec, record.allocations)
    if not found:
        return "", ""
    gateway = pool.spec.gateway
    reason = "GatewayInUse" if gateway in found else "ExcludedInUse"
    what = [f"{a} ({'gateway' if a == gateway else 'excluded'}) by claim {where_of(o)}" for a, o in found.items()]
    return reason, f"In use, and kept until the claim is deleted: {_some(what)}."


def _twice(pool: Pool, record: Record, twice: Mapping[str, Collection[ClaimRef]]) -> tuple[str, str]:
    """Return reason and message about addresses of the range that more than one claim has."""
    found = [
        f"{address} by claims {' and '.join(sorted(ref.where for ref in refs))}"
        for address, refs in twice.items()
        if address in record.allocations or pool.spec.contains(address)
    ]
    return ("GivenTwice", f"Given twice: {_some(found)}. Delete one claim of each.") if found else ("", "")


def _told(
    status: Mapping[str, Any], kind: str, reason: str, message: str, *, generation: int, now: str
) -> Sequence[Mapping[str, Any]]:
    if not reason:
        return without_condition(status, kind)
    return with_condition(status, kind, "True", reason=reason, message=message, generation=generation, now=now)


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    changes: dict[str, str | None] = {a: o for a, o in after.items() if before.get(a) != o}
    changes.update((a, None) for a in before if a not in after)
    return changes
