"""The decisions, tried with made-up worlds."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopf_ha_ipam.conditions import with_ready
from kopf_ha_ipam.model import ACTIVE, ADDRESS_NOTE, CLAIMING, Claim, ClaimRef, Pool, PoolSpec, newer
from kopf_ha_ipam.planning import (
    Give,
    Plan,
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

QUARANTINE = 60.0
SMALL = PoolSpec("10.0.0.0/29", "10.0.0.1", ("10.0.0.5",))  # usable: .2 .3 .4 .6


def a_claim(name: str, *, created: str = "2026-01-01T00:00:00Z", pool: str = "p", **more: Any) -> Claim:
    body: dict[str, Any] = {
        "metadata": {
            "namespace": more.get("namespace", "ns"),
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "creationTimestamp": created,
        },
        "spec": {"poolName": pool},
        "status": {"address": more.get("has")},
    }
    if more.get("noted"):
        body["metadata"]["annotations"] = {ADDRESS_NOTE: more["noted"]}
    if more.get("wanted"):
        body["spec"]["address"] = more["wanted"]
    if more.get("terminating"):
        body["metadata"]["deletionTimestamp"] = created
    return Claim.parse(body)


def a_pool(name: str, cidr: str, state: str = "") -> Pool:
    return Pool.parse(
        {
            "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"},
            "spec": {"cidr": cidr},
            "status": {"state": state} if state else {},
        }
    )


def decide(
    claims: list[Claim],
    record: Record | None = None,
    freed: tuple[str, ...] = (),
    spec: PoolSpec = SMALL,
    now: float = 1000.0,
    closed: Wait | None = None,
) -> Plan:
    return plan(spec, record or Record(), claims, freed, name="p", closed=closed, now=now, quarantine=QUARANTINE)


def addresses(planned: Plan) -> dict[str, str]:
    return {u: a.address for u, a in planned.answers.items() if isinstance(a, Give)}


def test_the_lowest_free_address_goes_to_the_oldest() -> None:
    claims = [
        a_claim("b", created="2026-01-01T00:00:01Z"),
        a_claim("z"),
        a_claim("a", created="2026-01-01T00:00:01Z"),
        a_claim("a2", namespace="a", created="2026-01-01T00:00:01Z"),
    ]
    assert addresses(decide(claims)) == {
        "uid-z": "10.0.0.2",
        "uid-a2": "10.0.0.3",
        "uid-a": "10.0.0.4",
        "uid-b": "10.0.0.6",
    }


def test_what_a_claim_has_it_keeps_even_from_a_closed_pool() -> None:
    record = Record({"10.0.0.5": "ns/a/uid-a"})
    planned = decide([a_claim("a"), a_claim("b")], record, closed=Wait("PoolTerminating", "It goes."))
    assert planned.answers == {"uid-a": Give("10.0.0.5", SMALL), "uid-b": Wait("PoolTerminating", "It goes.")}
    assert planned.record == record


def test_nothing_is_given_to_a_claim_that_is_being_deleted() -> None:
    planned = decide([a_claim("a", terminating=True)])
    assert planned.record.allocations == {}
    assert isinstance(planned.answers["uid-a"], Wait)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("10.0.0.4", None),
        ("10.0.0.3", "AddressTaken"),
        ("10.0.0.9", "AddressOutOfPool"),
        ("fd00::1", "AddressOutOfPool"),
        ("10.0.0.0", "AddressExcluded"),
        ("10.0.0.1", "AddressExcluded"),
        ("10.0.0.5", "AddressExcluded"),
        ("10.0.0.7", "AddressExcluded"),
    ],
)
def test_a_certain_address(wanted: str, reason: str | None) -> None:
    planned = decide([a_claim("a", wanted=wanted)], Record({"10.0.0.3": "ns/x/uid-x"}))
    answer = planned.answers["uid-a"]
    if reason is None:
        assert answer == Give(wanted, SMALL)
    else:
        assert isinstance(answer, Wait)
        assert answer.reason == reason
        assert wanted in answer.message


def test_a_freed_address_rests() -> None:
    full = Record({a: f"ns/c{i}/uid-c{i}" for i, a in enumerate(SMALL.usable)})
    freed = decide([a_claim("new")], full, freed=("uid-c1",))
    answer = freed.answers["uid-new"]
    assert isinstance(answer, Wait)
    assert (answer.reason, answer.retry_at) == ("PoolExhausted", 1000.0 + QUARANTINE)
    assert freed.record.tombstones == {"10.0.0.3": Tombstone("ns/c1/uid-c1", 1000.0)}
    wanted = decide([a_claim("new", wanted="10.0.0.3")], freed.record, now=1059.9).answers["uid-new"]
    assert isinstance(wanted, Wait)
    assert (wanted.reason, wanted.retry_at) == ("AddressTaken", 1060.0)
    after = decide([a_claim("new")], freed.record, now=1060.0)
    assert addresses(after) == {"uid-new": "10.0.0.3"}
    assert after.record.tombstones == {}


def test_an_old_tombstone_alone_is_no_reason_to_write() -> None:
    record = Record({}, {"10.0.0.3": Tombstone("ns/c/uid-c", 0.0)})
    assert decide([], record).record == record


def test_all_that_a_claim_has_is_freed() -> None:
    record = Record({"10.0.0.2": "ns/a/uid-a", "10.0.0.3": "ns/a/uid-a", "10.0.0.4": "ns/b/uid-b"})
    planned = decide([], record, freed=("uid-a", "uid-unknown"))
    assert planned.record.allocations == {"10.0.0.4": "ns/b/uid-b"}
    assert set(planned.record.tombstones) == {"10.0.0.2", "10.0.0.3"}


def test_a_full_pool_says_so() -> None:
    full = Record({a: f"ns/c{i}/uid-c{i}" for i, a in enumerate(SMALL.usable)})
    answer = decide([a_claim("a")], full).answers["uid-a"]
    assert isinstance(answer, Wait)
    assert (answer.reason, answer.retry_at) == ("PoolExhausted", None)
    freed = decide([a_claim("a")], full, freed=("uid-c1",)).answers["uid-a"]
    assert isinstance(freed, Wait)
    assert freed.message == answer.message  # else each address that is freed costs all who wait a write


@pytest.mark.parametrize(
    ("spec", "count", "first", "last"),
    [
        (PoolSpec("10.20.0.0/26", "10.20.0.1"), 61, "10.20.0.2", "10.20.0.62"),
        (PoolSpec("10.20.0.0/20"), 4094, "10.20.0.1", "10.20.15.254"),
        (PoolSpec("10.20.0.4/31"), 2, "10.20.0.4", "10.20.0.5"),
        (PoolSpec("10.20.0.4/32"), 1, "10.20.0.4", "10.20.0.4"),
        (PoolSpec("fd00::/120", "fd00::1"), 254, "fd00::2", "fd00::ff"),
        (PoolSpec("fd00::/116"), 4095, "fd00::1", "fd00::fff"),
        (PoolSpec("10.0.0.0/24", None, ("10.0.0.0/25", "10.0.0.254", "10.0.0.253-10.0.0.200")), 72, "10.0.0.128",
         "10.0.0.199"),
        (PoolSpec("10.0.0.0/30", None, ("fd00::/64", "9.0.0.0-11.0.0.0")), 0, None, None),
    ],
)  # fmt: skip
def test_usable(spec: PoolSpec, count: int, first: str | None, last: str | None) -> None:
    usable = list(spec.usable)
    assert len(usable) == count
    assert (usable[0], usable[-1]) == (first, last) if usable else first is last


def test_overlaps_and_claims_that_hold_an_address_keep_a_pool_from_becoming_active() -> None:
    pool = a_pool("b", "10.0.0.0/24")
    assert obstacle(pool, [pool, a_pool("a", "10.0.1.0/24", ACTIVE), a_pool("c", "10.0.0.0/25")], []) is None
    for state in (CLAIMING, ACTIVE):
        said = obstacle(pool, [pool, a_pool("a", "10.0.0.128/25", state)], [])
        assert said == "The range 10.0.0.0/24 overlaps with 10.0.0.128/25 of pool a."
    assert obstacle(pool, [pool, a_pool("a", "fd00::/120", ACTIVE)], []) is None
    mine = a_claim("mine", pool="b", has="10.0.0.7")
    assert obstacle(pool, [], [mine]) is None
    others = a_claim("old", pool="gone", has="10.0.0.7")
    assert obstacle(pool, [], [mine, others]) == "The claim ns/old of pool gone still has 10.0.0.7."


def test_a_new_pool_adopts_what_claims_have() -> None:
    claims = [
        a_claim("younger", created="2026-01-02T00:00:00Z", has="10.0.0.7", pool="b"),
        a_claim("older", has="10.0.0.7", pool="b"),
        a_claim("elsewhere", has="10.0.9.7", pool="b"),
        a_claim("another", has="10.0.0.8", pool="c"),
        a_claim("waits", pool="b"),
    ]
    assert adopt(a_pool("b", "10.0.0.0/24"), claims) == {"10.0.0.7": "ns/older/uid-older"}


def test_an_address_that_is_being_written_to_a_claim_keeps_a_pool_from_becoming_active() -> None:
    pool = a_pool("b", "10.0.0.0/24")
    assert obstacle(pool, [], [], {"uid-x": "10.0.1.7"}) is None
    assert "is being written" in str(obstacle(pool, [], [], {"uid-x": "10.0.0.7"}))


def test_what_was_given_twice_is_found_and_taken_from_nobody() -> None:
    first, second = a_claim("first", has="10.0.0.3"), a_claim("second", has="10.0.0.3")
    record = {"10.0.0.3": "ns/first/uid-first"}
    assert given_twice([first, second], [record]) == {"10.0.0.3": {"uid-first", "uid-second"}}
    assert given_twice([first], [record, {"10.0.0.3": "ns/gone/uid-gone"}]) == {}
    pools = [record, {"10.0.0.3": "ns/other/uid-other"}]
    assert given_twice([first, a_claim("other")], pools) == {"10.0.0.3": {"uid-first", "uid-other"}}
    answer = decide([second], Record(record)).answers["uid-second"]
    assert isinstance(answer, Wait)
    assert answer.reason == "GivenTwice"


def test_what_a_claim_shows_without_a_record_is_given_to_nobody_else() -> None:
    shows = a_claim("shows", has="10.0.0.2")
    shown = unrecorded([shows, a_claim("recorded", has="10.0.0.3")], {"uid-recorded": "10.0.0.3"})
    assert shown == {"10.0.0.2": "uid-shows"}
    planned = plan(
        SMALL, Record(), [a_claim("older", created="2025"), a_claim("wants", wanted="10.0.0.2"), shows],
        name="p", closed=None, now=0.0, quarantine=QUARANTINE, shown=shown,
    )  # fmt: skip
    assert addresses(planned) == {"uid-older": "10.0.0.3", "uid-shows": "10.0.0.2"}


def test_a_claim_gets_the_address_again_that_it_had() -> None:
    noted = a_claim("noted", noted="10.0.0.4")
    assert addresses(decide([noted])) == {"uid-noted": "10.0.0.4"}
    taken = Record({"10.0.0.4": "ns/x/uid-x"})
    assert addresses(decide([noted], taken)) == {"uid-noted": "10.0.0.2"}
    for nonsense in ("10.0.0.5", "10.0.9.9", "x"):
        assert addresses(decide([a_claim("a", noted=nonsense)])) == {"uid-a": "10.0.0.2"}


def test_what_the_spec_forbids_by_now_is_found() -> None:
    record = {"10.0.0.1": "ns/a/uid-a", "10.0.0.3": "ns/b/uid-b", "10.0.0.5": "ns/c/uid-c"}
    assert misplaced(SMALL, record) == {"10.0.0.1": "ns/a/uid-a", "10.0.0.5": "ns/c/uid-c"}


def test_an_unreadable_owner_is_an_error() -> None:
    assert ClaimRef.parse("ns/a/uid") == ClaimRef("ns", "a", "uid")
    for text in ("", "ns/a", "ns/a/", "ns/a/uid/x"):
        with pytest.raises(ValueError, match="is not namespace/name/uid"):
            ClaimRef.parse(text)


def test_newer() -> None:
    assert newer("10", "9")
    assert not newer("9", "10")
    assert not newer("9", "9")
    assert newer("x", "10")


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    other = {"type": "Other", "status": "True"}
    first = with_ready({"conditions": [other]}, ok=False, reason="A", message="a", generation=1, now="t1")
    second = with_ready({"conditions": first}, ok=False, reason="B", message="b", generation=1, now="t2")
    third = with_ready({"conditions": second}, ok=True, reason="C", message="c", generation=1, now="t3")
    assert [c[0]["lastTransitionTime"] for c in (first, second, third)] == ["t1", "t1", "t3"]
    assert third[1] == other


World = tuple[PoolSpec, list[list[tuple[str, int, int | None]]]]
specs = st.sampled_from(
    [
        SMALL,
        PoolSpec("10.0.0.0/28", None, ("10.0.0.3-10.0.0.6",)),
        PoolSpec("10.0.0.0/30"),
        PoolSpec("fd00::/124", "fd00::1", ("fd00::8/126",)),
    ]
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A pool, and batches of steps: claim number n asks (for a certain address or any), or frees."""
    step = st.tuples(st.sampled_from(["ask", "free"]), st.integers(0, 9), st.none() | st.integers(0, 17))
    return draw(specs), draw(st.lists(st.lists(step, max_size=6), max_size=12))


@given(worlds(), st.floats(0, 100))
def test_no_address_is_given_twice(world: World, tick: float) -> None:
    spec, batches = world
    net = ipaddress.ip_network(spec.cidr)
    record, now = Record(), 0.0
    freed_at: dict[str, float] = {}
    for batch in batches:
        now += tick
        asking = {
            n: a_claim(f"c{n}", wanted=None if w is None else str(net.network_address + w))
            for what, n, w in batch
            if what == "ask"
        }
        freeing = tuple(f"uid-c{n}" for what, n, _ in batch if what == "free" and n not in asking)
        before = record
        planned = decide(list(asking.values()), record, freeing, spec, now)
        record = planned.record
        owners = list(record.allocations.values())
        assert len(set(owners)) == len(owners)  # one address each, and by being a map one claim each
        assert not record.allocations.keys() & record.tombstones.keys()
        assert set(planned.answers) == {c.ref.uid for c in asking.values()}
        for address, owner in before.allocations.items():
            gone = owner.rpartition("/")[2] in freeing
            assert gone or record.allocations[address] == owner  # nobody loses one
            if gone:
                freed_at[address] = now
        for claim in asking.values():
            answer = planned.answers[claim.ref.uid]
            had = str(claim.ref) in before.allocations.values()
            if isinstance(answer, Wait):
                assert not had
                assert str(claim.ref) not in record.allocations.values()
                continue
            assert record.allocations[answer.address] == str(claim.ref)
            if had:
                continue
            assert answer.address in spec.usable
            assert claim.wanted in (None, answer.address)
            assert now - freed_at.get(answer.address, -QUARANTINE) >= QUARANTINE
        again = decide(list(asking.values()), record, (), spec, now)
        assert addresses(again) == addresses(planned)  # a decision that was recorded is found again


@given(st.permutations([a_claim(f"c{n}", created=f"2026-01-01T00:00:0{n % 3}Z") for n in range(6)]))
def test_the_order_of_arrival_in_a_batch_does_not_matter(claims: list[Claim]) -> None:
    assert decide(claims) == decide(sorted(claims, key=lambda c: c.ref.name))
