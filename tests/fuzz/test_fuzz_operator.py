"""The reference operator decides about whatever its CRDs allow: no exception, a valid status, and no address twice.

A status is written by the operator alone, but an administrator may edit it, and its schema allows more than the
operator ever writes: allocations of what is no address, times of year 1, conditions of others.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kopf_ha_ipam.conditions import ready_message, ready_reason, with_ready
from kopf_ha_ipam.model import ADDRESS_NOTE, Claim, Pool
from kopf_ha_ipam.planning import (
    Give,
    Record,
    Tombstone,
    Wait,
    adopt,
    given_twice,
    misplaced,
    obstacle,
    plan,
    unrecorded,
)
from kopf_ha_ipam.pool_status import status_patch
from tests.fuzz.fuzzing import fuzzed, nearly
from tests.fuzz.schemas import objects, schema_of, why

NOW = "2030-01-01T00:00:00Z"
POOLS, CLAIMS = schema_of("addresspools"), schema_of("addressclaims")
CIDRS = ["10.0.0.0/29", "10.0.0.0/32", "10.0.0.0/31", "10.0.0.4/30", "fd00::/125", "fd00::/128"]
cidrs = st.sampled_from(CIDRS)
addresses = st.integers(0, 9).map(lambda n: f"10.0.0.{n}") | st.integers(0, 9).map(
    lambda n: f"fd00::{n}".replace("::0", "::")
)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
#: CEL allows any two addresses of one family, and a CIDR that does not begin at its first address.
excluded = st.one_of(
    addresses,
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda t: f"10.0.0.{t[0]}-10.0.0.{t[1]}"),
    st.sampled_from(["10.0.0.5/30", "fd00::1-fd00::3", "0.0.0.0/0", "::/0", "fd00::3/127"]),
)
names = st.sampled_from(["a", "b", "c"])
owners = st.tuples(names, names, names).map("/".join)
SPECIAL = {
    ".apiVersion": st.just("ipam.kopf-ha.dev/v1"),
    ".spec.cidr": cidrs,
    ".spec.gateway": addresses,
    ".spec.excluded[]": excluded,
    ".spec.address": addresses,
    ".spec.poolName": names,
    ".status.address": addresses | texts,
    ".status.allocations{}": addresses | texts,
    ".status.tombstones{}": addresses | texts,
    ".status.allocations[]": owners,
    ".status.tombstones[]": owners,
    ".status.conditions[].type": st.sampled_from(["Ready", "SpecConflict", "AddressConflict", "Others"]),
}


@st.composite
def metadata(draw: st.DrawFn, name: str, namespace: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "uid": f"{namespace}-{name}", "resourceVersion": "7"}
    made |= {"creationTimestamp": draw(st.sampled_from([NOW, "2029-01-01T00:00:00Z"]))}
    if namespace:
        made |= {"namespace": namespace}
    made |= draw(st.fixed_dictionaries({}, optional={
        "generation": st.integers(0, 9), "deletionTimestamp": st.just(NOW), "finalizers": st.lists(texts, max_size=2),
        "annotations": st.dictionaries(st.sampled_from([ADDRESS_NOTE, "x"]), addresses | texts, max_size=2),
    }))  # fmt: skip
    return made


@st.composite
def pools(draw: st.DrawFn, name: str = "a") -> dict[str, Any]:
    return {**draw(objects(POOLS, SPECIAL)), "metadata": draw(metadata(name))}


@st.composite
def claims(draw: st.DrawFn) -> list[dict[str, Any]]:
    who = draw(st.lists(st.tuples(names, names), max_size=5, unique=True))
    return [{**draw(objects(CLAIMS, SPECIAL)), "metadata": draw(metadata(name, ns))} for ns, name in who]


def merged(target: Any, patch: Any) -> Any:
    """Do what the API server does with a merge patch."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merged(made.get(key), value)
    return made


@fuzzed(60)
@given(pools(), claims(), st.sampled_from(["", "Claiming", "Active"]), st.data())
def test_whatever_the_schema_allows_is_decided(
    body: dict[str, Any], bodies: list[dict[str, Any]], state: str, data: st.DataObject
) -> None:
    assert not why(POOLS["properties"]["spec"], body["spec"])
    pool, some = Pool.parse(body), [Claim.parse(b) for b in bodies]
    own = [c for c in some if c.pool_name == pool.name]
    record = Record(
        {**pool.allocations} | (adopt(pool, some) if not pool.recorded else {}),
        {a: Tombstone(o, data.draw(st.sampled_from([0.0, 90.0]))) for a, o in pool.tombstones.items()},
    )
    closed = Wait("PoolNotActive", "It is not.") if state != "Active" else None
    gone = {o.rpartition("/")[2] for o in record.allocations.values()} - {c.ref.uid for c in own}
    freed = data.draw(st.lists(st.sampled_from(sorted(gone) or ["x"])))
    shown = unrecorded(some, record.held)
    made = plan(pool.spec, record, own, freed, name="a", closed=closed, now=100.0, quarantine=60.0, shown=shown)
    new = {a: o for a, o in made.record.allocations.items() if a not in record.allocations}
    assert {*new} <= {*pool.spec.usable}
    assert not {*new} & {a for a, uid in shown.items() if new.get(a, "").rpartition("/")[2] != uid}, "another shows it"
    given_now = [a.address for uid, a in made.answers.items() if isinstance(a, Give) and uid not in record.held]
    assert len(given_now) == len({*given_now})
    assert {*given_now} == {*new}
    assert {*made.answers} == {c.ref.uid for c in own}

    trouble = obstacle(pool, [pool], some)
    refs = {c.ref.uid: c.ref for c in some}
    twice = {
        a: [refs[u] for u in uids]
        for a, uids in given_twice(some, [made.record.allocations]).items()
        if uids <= refs.keys()
    }
    status = merged(pool.status, status_patch(pool, made.record, state, trouble=trouble, twice=twice, now=NOW))
    assert not why(POOLS["properties"]["status"], status), "the API server takes it"
    again = Pool.parse({**body, "status": status})
    assert not status_patch(again, made.record, state, trouble=trouble, twice=twice, now=NOW), "then writes stop (I7)"
    misplaced(pool.spec, made.record.allocations)
    for claim in own:
        answer = made.answers[claim.ref.uid]
        told = (True, "Bound", "It is.") if isinstance(answer, Give) else (False, answer.reason, answer.message)
        ready = with_ready(claim.status, ok=told[0], reason=told[1], message=told[2], generation=1, now=NOW)
        status = {**claim.status, "conditions": list(ready)}
        assert not why(CLAIMS["properties"]["status"], status)
        assert (ready_reason(status), ready_message(status)) == told[1:]


def parse_pool(body: Any) -> Any:
    return Pool.parse(body).spec.usable


@fuzzed(20)
@given(nearly(pools()), nearly(claims()))
def test_what_the_schema_does_not_allow_is_refused_by_errors_that_concern_one_object(body: Any, bodies: Any) -> None:
    """The API server refuses it first, so this is what happens behind an older CRD: Kopf retries this one object."""
    for parse, one in [(parse_pool, body), *((Claim.parse, b) for b in (bodies if isinstance(bodies, list) else []))]:
        try:
            assert parse(one) is not None
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
