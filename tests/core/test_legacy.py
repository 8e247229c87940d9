"""The locks of before: how they are read and written, and what a replica concludes from them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from kopf_ha.core.election import Phase
from kopf_ha.core.election import events as el
from kopf_ha.core.legacy_lock import ANNOTATION, PRIORITY, LegacyLock
from kopf_ha.errors import ConfigurationError
from tests.election.world import Replica, World

OURS = "kopf-ha:ns/op:"


# --- the objects


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("endpoints/op", "/api/v1/namespaces/ns/endpoints/op"),
        ("configmaps/there/op", "/api/v1/namespaces/there/configmaps/op"),
        ("leases/op", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/op"),
        ("kopfpeerings/default", "/apis/kopf.dev/v1/namespaces/ns/kopfpeerings/default"),
        ("clusterkopfpeerings/default", "/apis/kopf.dev/v1/clusterkopfpeerings/default"),
    ],
)
def test_where_a_lock_is(text: str, path: str) -> None:
    lock = LegacyLock.parse(text, "ns")
    assert lock.path == path
    assert path.startswith(f"/apis/{lock.group}/" if lock.group else "/api/v1/")
    assert LegacyLock.parse(str(lock), "elsewhere") == lock


@pytest.mark.parametrize("text", ["", "op", "pods/op", "endpoints/", "endpoints//op", "endpoints/a/b/c", "leases/a/"])
def test_a_lock_that_is_written_otherwise(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must be written RESOURCE/NAME or RESOURCE/NAMESPACE/NAME"):
        LegacyLock.parse(text, "ns")


def test_a_cluster_wide_peering_has_no_namespace() -> None:
    with pytest.raises(ConfigurationError, match="write clusterkopfpeerings/x"):
        LegacyLock.parse("clusterkopfpeerings/ns/x", "ns")


def lock_object(resource: str, record: dict[str, Any]) -> dict[str, Any]:
    if resource == "leases":
        return {"metadata": {"resourceVersion": "7"}, "spec": record}
    return {"metadata": {"resourceVersion": "7", "annotations": {"a": "b", ANNOTATION: json.dumps(record)}}}


@pytest.mark.parametrize("resource", ["endpoints", "configmaps", "leases"])
@pytest.mark.parametrize("duration", [17, "17"])  # the second one is how the kubernetes package writes it
def test_who_holds_a_lock(resource: str, duration: object) -> None:
    lock = LegacyLock.parse(f"{resource}/op", "ns")
    record = lock.read(lock_object(resource, {"holderIdentity": "pod-1", "leaseDurationSeconds": duration}))
    assert [(c.holder, c.duration) for c in record.claims] == [("pod-1", 17.0)]
    assert (record.version, record.unusable) == ("7", "")
    nobody: list[dict[str, Any]] = [{"metadata": {}}, lock_object(resource, {"holderIdentity": ""})]
    for free in nobody:
        assert (lock.read(free).claims, lock.read(free).unusable) == ((), "")


@pytest.mark.parametrize("duration", [None, True, 0, -3, "x", "1.5", []])
def test_a_duration_that_is_no_usable_number_is_left_to_the_reader(duration: object) -> None:
    lock = LegacyLock.parse("configmaps/op", "ns")
    record = lock.read(lock_object("configmaps", {"holderIdentity": "pod-1", "leaseDurationSeconds": duration}))
    assert [(c.holder, c.duration, record.unusable) for c in record.claims] == [("pod-1", None, "")]


def test_what_others_keep_in_the_spec_of_a_lease_survives() -> None:
    lock = LegacyLock.parse("leases/op", "ns")
    before = lock.read(lock_object("leases", {"holderIdentity": "pod-1", "strategy": "OldestEmulationVersion"}))
    for body in (lock.taken(before, OURS + "a", OURS, 15.0, "t1"), lock.given_back(before, "pod-1", "t1")):
        assert body["spec"]["strategy"] == "OldestEmulationVersion"


@pytest.mark.parametrize(("before", "after"), [(4, 5), (None, 1), ("4", 1), (True, 1)])
@pytest.mark.parametrize("resource", ["configmaps", "leases"])
def test_a_count_of_holders_that_is_no_number_begins_anew(resource: str, before: object, after: int) -> None:
    lock = LegacyLock.parse(f"{resource}/op", "ns")
    count = "leaseTransitions" if resource == "leases" else "leaderTransitions"
    record = lock.read(lock_object(resource, {"holderIdentity": "pod-1", count: before}))
    body = lock.taken(record, OURS + "a", OURS, 15.0, "t1")
    written = body["spec"] if resource == "leases" else json.loads(body["metadata"]["annotations"][ANNOTATION])
    assert written[count] == after


@pytest.mark.parametrize("resource", ["endpoints", "leases", "kopfpeerings"])
def test_a_lock_whose_fields_are_null_is_free_and_can_be_taken(resource: str) -> None:
    lock = LegacyLock.parse(f"{resource}/op", "ns")
    for empty in ({"metadata": None}, {"metadata": {"annotations": None}, "spec": None, "status": None}):
        record = lock.read(empty)
        assert (record.claims, record.version, record.unusable) == ((), "", "")
        assert lock.read(lock.taken(record, OURS + "a", OURS, 15.0, "t1")).claims[0].holder == OURS + "a"


def test_a_peer_that_says_nothing_has_the_lifetime_and_the_priority_that_kopf_assumes() -> None:
    (claim,) = LegacyLock.parse("kopfpeerings/op", "ns").read({"status": {"old": {}}}).claims
    assert (claim.holder, claim.duration, claim.priority) == ("old", 60.0, 0)


@pytest.mark.parametrize("resource", ["leases", "kopfpeerings"])
def test_fields_in_another_order_are_no_sign_of_life(resource: str) -> None:
    lock = LegacyLock.parse(f"{resource}/op", "ns")
    fields = [("holderIdentity", "pod-1"), ("renewTime", "t"), ("lastseen", "t")]
    one, other = (
        lock.read({"spec": dict(order), "status": {"pod-1": dict(order)}}).claims for order in (fields, fields[::-1])
    )
    assert one == other


def test_the_annotation_has_the_name_that_client_go_gives_it() -> None:
    note = {"control-plane.alpha.kubernetes.io/leader": '{"holderIdentity": "pod-1"}'}
    (claim,) = LegacyLock.parse("endpoints/op", "ns").read({"metadata": {"annotations": note}}).claims
    assert claim.holder == "pod-1"


def test_a_peering_of_a_namespace_is_written_there() -> None:
    body = LegacyLock.parse("kopfpeerings/op", "ns").taken(None, OURS + "a", OURS, 45.0, "t1")
    assert (body["apiVersion"], body["kind"]) == ("kopf.dev/v1", "KopfPeering")
    assert body["metadata"] == {"name": "op", "namespace": "ns"}


def test_a_cluster_wide_peering_is_written_without_a_namespace() -> None:
    lock = LegacyLock.parse("clusterkopfpeerings/op", "ns")
    body = lock.taken(lock.read({"metadata": {"resourceVersion": "7"}}), OURS + "a", OURS, 45.0, "t1")
    assert (body["apiVersion"], body["kind"]) == ("kopf.dev/v1", "ClusterKopfPeering")
    assert body["metadata"] == {"name": "op", "resourceVersion": "7"}


@pytest.mark.parametrize("resource", ["endpoints", "configmaps", "leases"])
def test_a_lock_is_taken_renewed_and_given_back(resource: str) -> None:
    """As client-go does it: transitions count holders, and the time of acquisition stays."""
    lock = LegacyLock.parse(f"{resource}/op", "ns")
    count = "leaseTransitions" if resource == "leases" else "leaderTransitions"
    theirs = {"holderIdentity": "pod-1", "acquireTime": "t0", count: 4}
    before = lock_object(resource, theirs) | {"data": {"kept": "yes"}}
    kept = copy.deepcopy(before)

    def written(body: dict[str, Any]) -> dict[str, Any]:
        return dict(body["spec"] if resource == "leases" else json.loads(body["metadata"]["annotations"][ANNOTATION]))

    taken = lock.taken(lock.read(before), OURS + "a", OURS, 15.0, "t1")
    mine = {"holderIdentity": OURS + "a", "leaseDurationSeconds": 15, "acquireTime": "t1", "renewTime": "t1", count: 5}
    assert written(taken) == mine
    renewed = lock.taken(lock.read(taken), OURS + "a", OURS, 15.0, "t2")
    assert written(renewed) == mine | {"renewTime": "t2"}
    freed = lock.given_back(lock.read(renewed), OURS + "a", "t3")
    assert written(freed) == {
        "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": "t3", "renewTime": "t3", count: 5,
    }  # fmt: skip
    assert (freed["data"], freed["metadata"]["resourceVersion"]) == ({"kept": "yes"}, "7")
    assert resource == "leases" or freed["metadata"]["annotations"]["a"] == "b"
    assert before == kept
    made = lock.taken(None, OURS + "a", OURS, 15.0, "t1")
    assert written(made)[count] == 1
    assert made["apiVersion"] == ("coordination.k8s.io/v1" if resource == "leases" else "v1")
    assert (made["metadata"], made["kind"]) == (
        {"name": "op", "namespace": "ns"}
        | ({} if resource == "leases" else {"annotations": made["metadata"]["annotations"]}),
        {"endpoints": "Endpoints", "configmaps": "ConfigMap", "leases": "Lease"}[resource],
    )


@pytest.mark.parametrize("text", ["no json", "[]", '"x"', '{"holderIdentity": 5}'])
def test_a_record_that_nobody_understands_is_said_and_never_taken_for_free(text: str) -> None:
    lock = LegacyLock.parse("configmaps/op", "ns")
    record = lock.read({"metadata": {"annotations": {ANNOTATION: text}}})
    assert record.unusable.startswith("configmaps/ns/op cannot be read: ")


def peer(priority: int = 0, lifetime: int = 60, seen: str = "t") -> dict[str, Any]:
    return {"priority": priority, "lifetime": lifetime, "lastseen": seen}


def test_a_claim_in_a_peering_replaces_those_of_siblings() -> None:
    lock = LegacyLock.parse("kopfpeerings/op", "ns")
    record = lock.read({"status": {"old": peer(5), OURS + "b": peer(PRIORITY, 45), "none": None}})
    assert [(c.holder, c.priority, c.duration) for c in record.claims] == [("old", 5, 60), (OURS + "b", PRIORITY, 45)]
    status = lock.taken(record, OURS + "a", OURS, 45.0, "t1")["status"]
    assert status == {"old": peer(5), "none": None, OURS + "a": peer(PRIORITY, 45, "t1")}
    freed = lock.given_back(lock.read({"status": status}), OURS + "a", "t2")
    assert freed["status"] == {"old": peer(5), "none": None}
    assert lock.read({"status": {"old": "x"}}).unusable
    assert lock.read({}).claims == ()


# --- one replica


@pytest.fixture
def world() -> World:
    return World()


def follower(world: World, **values: Any) -> Replica:
    """A replica that has seen both locks."""
    replica = world.replica("a", legacy=True, **values)
    while replica.inbox and replica.request is None:
        replica.deliver()
    return replica


def test_nobody_leads_before_the_legacy_lock_was_looked_at(world: World) -> None:
    a = world.replica("a", legacy=True)
    assert (a.phase, a.request) == (Phase.FOLLOWING, None)
    a.deliver()
    assert isinstance(a.request, el.PutLegacy)


def test_the_legacy_lock_comes_first_and_the_grant_counts_from_before_both(world: World) -> None:
    a = follower(world)
    began = world.now
    world.now += 1
    a.answer()
    assert a.grant is None
    assert isinstance(a.request, el.Put)
    world.now += 1
    a.answer()
    assert a.grant is not None
    assert a.grant.deadline == began + 15
    (claim,) = world.legacy.lock.read(world.legacy.body or {}).claims
    assert (claim.holder, claim.duration) == (OURS + "a", 15)
    world.now = a.due
    began = world.now
    a.last_beat = began
    a.tick()
    world.now += 1
    a.answer()
    assert a.grant.deadline < began + 15, "the Lease is not renewed yet"
    a.answer()
    assert a.grant.deadline == began + 15


def test_an_old_holder_is_waited_for_while_it_renews(world: World) -> None:
    old = world.old("pod-1")
    old.run()
    a = follower(world)
    world.run(60)
    assert world.leaders() == [old]
    assert a.tells == ["configmaps/ns/old is held by pod-1, which is waited for"]
    assert a.warnings == [], "to follow is no trouble"
    assert world.lease.body is None, "no token is used up"
    assert a.rules.vacant_since(a.state, world.now) is None
    old.release()
    a.flow()  # no time passes
    assert world.leaders() == [a]
    world.run(60)
    assert world.leaders() == [a]


def test_an_old_holder_that_is_killed_is_waited_for_as_long_as_it_says(world: World) -> None:
    old = world.old("pod-1", duration=40, deadline=38)
    old.run()
    a = follower(world)
    died = world.now
    world.run(died + 39.9 - world.now, a)
    assert a.phase is Phase.FOLLOWING
    world.run(0.3, a)
    assert a.leads()


def test_an_old_holder_that_does_not_say_for_how_long_is_waited_for_a_lease_duration(world: World) -> None:
    world.legacy.store(lock_object("configmaps", {"holderIdentity": "pod-1"}))
    a = follower(world)
    world.run(14.9)
    assert a.phase is Phase.FOLLOWING
    world.run(0.3)
    assert a.leads()


def test_the_lease_could_be_had_from_when_the_old_holder_gave_its_lock_back(world: World) -> None:
    """Whoever edits labels of the lock after that changes nothing."""
    old = world.old("pod-1")
    old.run()
    a = follower(world)
    a.step(el.HeadStart(60.0))
    world.now += 1
    old.release()
    released = world.now
    a.flow()
    assert world.legacy.body is not None
    world.now += 1
    world.legacy.store(world.legacy.body)
    a.flow()
    assert a.rules.vacant_since(a.state, world.now) == released


def test_the_lease_could_not_be_had_before_the_legacy_lock_was_looked_at(world: World) -> None:
    a = world.replica("a", legacy=True)
    a.step(el.HeadStart(60.0))
    world.now += 3
    assert a.rules.vacant_since(a.state, world.now) is None
    a.flow()
    assert a.rules.vacant_since(a.state, world.now) == world.now


def test_a_legacy_lock_that_nobody_understands_is_not_taken_until_somebody_mends_it(world: World) -> None:
    world.legacy.store(lock_object("configmaps", {"holderIdentity": 5}))
    a = follower(world)
    world.run(60)
    assert (a.phase, a.request) == (Phase.FOLLOWING, None)
    assert [text.partition(":")[0] for text in a.warnings] == ["configmaps/ns/old cannot be read"]
    world.legacy.store({"metadata": {}})
    a.flow()
    assert a.leads()


def test_an_edited_label_does_not_keep_an_old_holder_alive(world: World) -> None:
    world.old("pod-1").run()
    a = follower(world)
    for _ in range(16):
        assert world.legacy.body is not None
        world.legacy.store(world.legacy.body)
        world.run(1, a)
    assert a.leads()


def test_an_old_replica_that_starts_later_does_not_lead_until_the_last_sibling_is_gone(world: World) -> None:
    a = follower(world)
    a.flow()
    b = world.replica("b", legacy=True)
    old = world.old("pod-1")
    world.run(30)
    assert world.leaders() == [a]
    world.run(16.5, b, old)  # a is killed
    assert world.leaders() == [b]
    world.run(40, old)  # b, too
    assert world.leaders() == [old]


def test_a_released_legacy_lock_follows_the_lease_and_is_free_for_old_replicas(world: World) -> None:
    a = follower(world)
    a.flow()
    old = world.old("pod-1")
    old.run()
    a.step(el.Release())
    assert isinstance(a.request, el.Put)
    a.answer()
    assert isinstance(a.request, el.PutLegacy)
    a.answer()
    assert a.phase is Phase.STOPPED
    world.run(2.5, old)
    assert world.leaders() == [old]


def test_a_release_does_not_free_what_a_sibling_has_by_now(world: World) -> None:
    a = follower(world)
    a.flow()
    b = world.replica("b", legacy=True)
    b.flow()
    a.step(el.Release())
    a.answer()
    b.flow()
    assert world.leaders() == [b]
    a.answer()
    assert a.phase is Phase.STOPPED
    assert world.legacy.lock.read(world.legacy.body or {}).claims[0].holder == OURS + "b"


def test_a_release_gives_up_when_the_legacy_lock_is_edited_for_ever(world: World) -> None:
    """It is tried four times, and then left to expire."""
    a = follower(world)
    a.flow()
    a.step(el.Release())
    a.answer()
    puts = 0
    while a.request is not None and puts < 10:
        puts += isinstance(a.request, el.PutLegacy)
        a.answer(world.legacy.seen())
    assert (a.phase, puts) == (Phase.STOPPED, 4)


@pytest.mark.parametrize("seen_by", ["watch", "conflict"])
@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ({"holderIdentity": "pod-1"}, "configmaps/ns/old is held by pod-1"),
        ({"holderIdentity": ""}, "configmaps/ns/old is held by nobody"),
        ([], "configmaps/ns/old cannot be read"),
        (None, "configmaps/ns/old was deleted"),
    ],
)
def test_a_legacy_lock_that_is_lost_ends_the_term(world: World, record: Any, cause: str, seen_by: str) -> None:
    a = follower(world)
    a.flow()
    if record is None:
        world.legacy.store(None)
    else:
        world.legacy.store(lock_object("configmaps", record))
    if seen_by == "watch":
        a.flow()
    else:
        world.now = a.due
        a.last_beat = world.now
        a.tick()
        a.answer()
    assert a.phase is Phase.LOST
    assert cause in a.stopped[0]


def test_a_legacy_lock_that_cannot_be_renewed_ends_the_term_at_the_renew_deadline(world: World) -> None:
    a = follower(world)
    a.flow()
    sent = len(a.warnings)
    for _ in range(100):
        world.now += 0.2
        a.last_beat = world.now
        a.tick()
        if a.request is not None:
            assert isinstance(a.request, el.PutLegacy), "the Lease is not renewed without the legacy lock"
            a.answer(el.LegacyFailed("403"))
    assert len(a.warnings) > sent
    assert a.stopped[0].startswith("not renewed for ")
    assert a.stopped[0].endswith("s: 403")


@pytest.mark.parametrize("leads", [False, True])
def test_a_write_of_the_legacy_lock_that_took_all_the_time_is_followed_by_no_write_of_the_lease(
    world: World, leads: bool
) -> None:
    """Both have to fit into one request's time, since the grant counts from before both."""
    a = follower(world)
    if leads:
        a.flow()
        world.now = a.last_beat = a.due
        a.tick()
    assert isinstance(a.request, el.PutLegacy)
    world.now = a.request.until
    a.answer()
    assert (a.phase, a.request) == (Phase.LEADING if leads else Phase.FOLLOWING, None)
    assert "answered too late" in a.warnings[0]
    world.run(3)
    assert a.leads(), "it tries again"


def test_news_of_the_legacy_lock_after_the_renew_deadline_end_the_term(world: World) -> None:
    a = follower(world)
    a.flow()
    assert world.legacy.body is not None
    world.legacy.store(world.legacy.body)
    world.now += 10
    a.deliver()
    while a.inbox:
        a.deliver()
    assert a.phase is Phase.LOST
    assert a.stopped[0].startswith("not renewed for 10.0 s")


def test_a_legacy_lock_that_is_edited_for_ever_costs_a_leader_no_hot_loop(world: World) -> None:
    """A conflict is answered at once the first time, and slower than a busy editor then."""
    a = follower(world)
    a.flow()
    world.now = a.last_beat = a.due
    a.tick()
    for _ in range(2):
        assert isinstance(a.request, el.PutLegacy)
        a.answer(world.legacy.seen())
    assert (a.phase, a.request) == (Phase.LEADING, None)
    assert a.due == pytest.approx(world.now + 0.2)


def test_a_renewal_of_the_legacy_lock_that_shows_another_holder_ends_the_term(world: World) -> None:
    """Something changes the lock on its way to the store."""
    a = follower(world)
    a.flow()
    world.now = a.last_beat = a.due
    a.tick()
    a.answer(el.LegacyWritten(world.legacy.lock.read(lock_object("configmaps", {"holderIdentity": "pod-1"}))))
    assert (a.phase, a.request) == (Phase.LOST, None)
    assert a.stopped == ["configmaps/ns/old is held by pod-1"]


@pytest.mark.parametrize("second", ["conflict", "refused", "too late"])
def test_an_acquisition_that_is_done_late_is_recognised_whatever_the_legacy_lock_says_meanwhile(
    world: World, second: str
) -> None:
    """I9: its token is used up, so its term begins, and counts from when it was first sent."""
    a = follower(world)
    a.answer()
    assert isinstance(a.request, el.Put)
    sent, first = world.now, a.request.record
    a.lose_answer()
    a.answer()
    world.now = a.due
    a.tick()
    assert isinstance(a.request, el.PutLegacy)
    if second == "conflict":
        a.answer(world.legacy.seen())
        a.answer(world.legacy.seen())
    elif second == "refused":
        a.answer(el.LegacyFailed("403"))
    else:
        world.now = a.request.until
        a.answer()
    world.lease.put(first)  # now it arrives
    while a.inbox:
        a.deliver()
    assert a.leads()
    assert (world.tokens, a.grants[0].deadline) == ([1], sent + 15)


def test_a_sibling_s_write_of_the_legacy_lock_is_no_loss(world: World) -> None:
    """It was about to acquire, and the Lease was mine already."""
    a = follower(world)
    a.flow()
    lock = world.legacy.lock
    world.legacy.store(lock.taken(lock.read(world.legacy.body or {}), OURS + "b", OURS, 15.0, "t"))
    world.run(30)
    assert world.leaders() == [a]
    assert a.stopped == []


def test_an_old_holder_with_a_shorter_lease_duration_is_refused_in_words(world: World) -> None:
    """Its siblings would take the lock while our grant is open."""
    world.old("pod-1", duration=10, deadline=8).run()
    a = follower(world)
    world.run(60, a)
    assert a.phase is Phase.FOLLOWING
    assert a.warnings == [
        "configmaps/ns/old was held for 10 s at a time: --lease-duration (15 s) must not be longer than the old"
        " replicas' lease duration"
    ]


def test_a_lost_floor_does_not_take_the_legacy_lock_from_an_old_holder(world: World) -> None:
    a = follower(world)
    a.flow()
    a.step(el.RaiseFloor(5))
    world.legacy.store(lock_object("configmaps", {"holderIdentity": "pod-1"}))
    a.deliver()
    a.step(el.Resume())
    a.flow()
    assert a.phase is Phase.FOLLOWING
    assert world.legacy.lock.read(world.legacy.body or {}).claims[0].holder == "pod-1"


def test_a_put_without_an_answer_begins_no_term_when_an_old_replica_has_the_legacy_lock(world: World) -> None:
    a = follower(world)
    a.answer()
    a.serve()
    a.lose_answer()
    world.legacy.store(lock_object("configmaps", {"holderIdentity": "pod-1"}))
    a.answer(el.ReadFailed("timeout"))
    while a.inbox:
        a.inbox.rotate(1)  # the legacy lock's news are the last ones, and come first
        a.deliver()
    assert a.grant is None
    world.run(20)
    assert a.leads()
    assert world.tokens == [2]


def test_what_is_not_stored_as_it_was_written_begins_no_term(world: World) -> None:
    a = follower(world)
    a.answer(el.LegacyWritten(world.legacy.lock.read({"metadata": {"resourceVersion": "600"}})))
    assert a.phase is Phase.FOLLOWING
    assert "was not stored as it was written" in a.warnings[0]


def test_late_news_of_the_legacy_lock_end_no_term(world: World) -> None:
    a = follower(world)
    before = world.legacy.seen(read=False)
    a.flow()
    a.step(el.LegacySeen(before.record, "1"))
    assert a.leads()


def test_news_of_an_earlier_write_of_my_own_are_late(world: World) -> None:
    """I9: the next renewal names the revision that is there, and costs no conflict."""
    a = follower(world)
    while a.phase is not Phase.LEADING:
        a.answer()
    for _ in range(2):
        world.now = a.last_beat = a.due
        a.tick()
        while a.request is not None:
            a.answer()
    while a.inbox:
        a.deliver()
        assert a.state.legacy.version == str(world.legacy.version)
    assert a.leads()


@pytest.mark.parametrize("deleted", ["watch", "read"])
def test_news_of_the_legacy_lock_from_before_its_deletion_are_late(world: World, deleted: str) -> None:
    world.replica("other").flow()
    world.old("pod-1").run()
    a = follower(world)
    late = world.legacy.seen(read=False)
    if deleted == "watch":
        assert world.legacy.body is not None
        world.legacy.store(world.legacy.body)
        late = world.legacy.seen(read=False)
        world.legacy.store(None)
        a.step(world.legacy.seen(read=False))
    else:
        a.step(el.LegacySeen(None, read=True))
    a.step(late)
    assert a.tells[-1] == "configmaps/ns/old is held by no old replica"


# --- peerings


@pytest.fixture
def peering() -> World:
    world = World("kopfpeerings/ns/old")
    world.legacy.store({"metadata": {}})
    return world


def keepalive(world: World, name: str, priority: int = 0, lifetime: int = 60) -> None:
    """What a Kopf that lives writes now and then, whether it is paused or not; and what it leaves without lifetime."""
    body = copy.deepcopy(world.legacy.body or {})
    status = body.setdefault("status", {})
    status.pop(name, None)
    if lifetime:
        status[name] = peer(priority, lifetime, str(world.now))
    world.legacy.store(body)


def claims(world: World) -> dict[str, Any]:
    return dict((world.legacy.body or {}).get("status") or {})


@pytest.mark.parametrize("priority", [-5, 0, 666, PRIORITY, PRIORITY + 1])
def test_an_old_peer_that_lives_is_waited_for_whatever_its_priority(peering: World, priority: int) -> None:
    """Nobody learns when a peer has paused, so a lower priority is no proof."""
    keepalive(peering, "old", priority)
    a = follower(peering)
    for _ in range(10):
        peering.run(10)
        keepalive(peering, "old", priority)
    assert a.phase is Phase.FOLLOWING
    keepalive(peering, "old", lifetime=0)
    peering.run(3)
    assert a.leads()


@pytest.mark.parametrize("lifetime", [5, 60])
@pytest.mark.parametrize("priority", [0, PRIORITY])
def test_an_old_peer_that_was_killed_is_waited_for_as_long_as_it_says(
    peering: World, priority: int, lifetime: int
) -> None:
    """Its claim stays there for ever, and ends no term."""
    keepalive(peering, "old", priority, lifetime)
    a = follower(peering)
    peering.run(lifetime - 1)
    assert a.phase is Phase.FOLLOWING
    peering.run(30)
    assert a.leads()
    assert (a.stopped, a.warnings) == ([], [])


def test_the_claim_is_there_a_retry_period_before_the_term_begins(peering: World) -> None:
    """An old peer that starts in the same moment reads the peering first, and pauses when it sees the claim."""
    a = follower(peering)
    a.flow()
    assert claims(peering)[OURS + "a"]["priority"] == 2147483647, "which docs/adoption.md names"
    assert a.grant is None
    assert peering.lease.body is None
    peering.run(1.9)
    assert a.grant is None
    peering.run(0.5)
    assert a.leads()


def test_a_grant_does_not_count_from_before_old_peers_had_their_time(peering: World) -> None:
    """I9: the Lease was not written at the first attempt, so the grant is as long as any."""
    a = follower(peering)
    a.answer()
    peering.now = a.due
    a.tick()
    a.answer()
    sent = peering.now
    a.serve()
    a.lose_answer()
    a.answer()
    assert a.leads()
    assert a.grants[0].deadline == sent + 15


def test_an_acquisition_that_is_done_late_is_recognised_while_old_peers_get_their_time_again(peering: World) -> None:
    """Somebody removed the claim after the first attempt, so it has to stand for a while once more."""
    a = follower(peering)
    a.answer()
    peering.now = a.due
    a.tick()
    a.answer()
    assert isinstance(a.request, el.Put)
    sent, first = peering.now, a.request.record
    a.lose_answer()
    a.answer()
    keepalive(peering, OURS + "a", lifetime=0)
    while a.inbox:
        a.deliver()
    peering.now = a.due
    a.tick()
    a.answer()
    assert (a.phase, a.request) == (Phase.FOLLOWING, None)
    peering.lease.put(first)  # now it arrives
    while a.inbox:
        a.deliver()
    assert a.leads()
    assert (peering.tokens, a.grants[0].deadline) == ([1], sent + 15)


def test_a_successor_continues_the_claim_while_old_peers_pause(peering: World) -> None:
    a, b = peering.replica("a", legacy=True), peering.replica("b", legacy=True)
    peering.run(10)
    assert peering.leaders() == [a]
    keepalive(peering, "old", 5)
    peering.run(10)
    peering.run(15.5, b)  # a is killed
    assert peering.leaders() == [b]
    assert set(claims(peering)) == {"old", OURS + "b"}
    assert claims(peering)[OURS + "b"]["lifetime"] == 45


def test_a_successor_that_comes_too_late_waits_for_old_peers(peering: World) -> None:
    """They judge by the claim's lifetime, and remove it before they go on."""
    a, b = peering.replica("a", legacy=True), peering.replica("b", legacy=True)
    peering.run(10)
    assert peering.leaders() == [a]
    peering.now += 46  # a is killed, and b is paused
    keepalive(peering, OURS + "a", lifetime=0)
    for _ in range(6):
        keepalive(peering, "old")
        peering.run(10, b)
    assert peering.leaders() == []
    keepalive(peering, "old", lifetime=0)
    peering.run(3, b)
    assert peering.leaders() == [b]


def test_a_claim_that_nobody_renewed_for_two_lease_durations_proves_nothing(peering: World) -> None:
    a, b = peering.replica("a", legacy=True), peering.replica("b", legacy=True)
    peering.run(10)
    assert peering.leaders() == [a]
    new = peering.replica("new")
    peering.run(15.5, new)  # a is killed, and a replica without the legacy lock is the next
    assert peering.leaders() == [new]
    for _ in range(6):
        keepalive(peering, "old")
        peering.run(6, b, new)
    new.step(el.Release())
    peering.run(10, b, new)
    assert peering.leaders() == []
    keepalive(peering, "old", lifetime=0)
    peering.run(3, b)
    assert peering.leaders() == [b]


def test_a_claim_whose_age_is_unknown_proves_nothing(peering: World) -> None:
    peering.legacy.store({"status": {OURS + "gone": peer(PRIORITY, 45), "old": peer()}})
    a = follower(peering)
    peering.run(10)
    assert a.phase is Phase.FOLLOWING
    peering.run(55)
    assert a.leads()


def test_a_claim_that_proved_nothing_is_replaced_by_one_that_has_to_stand_for_a_while(peering: World) -> None:
    """Old peers may have taken the dead one for dead, and have to see mine before a term begins."""
    peering.legacy.store({"status": {OURS + "gone": peer(PRIORITY, 45)}})
    a = peering.replica("a", legacy=True)
    a.step(el.HeadStart(10.0))
    a.flow()
    peering.run(10)
    assert isinstance(claims(peering).get(OURS + "a"), dict)
    assert a.grant is None
    peering.run(2.2)
    assert a.leads()


@pytest.mark.parametrize(("priority", "lifetime"), [(3, 45), (PRIORITY, 44)])
def test_a_claim_of_a_sibling_with_another_priority_or_lifetime_proves_nothing(
    peering: World, priority: int, lifetime: int
) -> None:
    a = follower(peering)
    for _ in range(5):
        seen = str(peering.now)
        peering.legacy.store({"status": {OURS + "b": peer(priority, lifetime, seen), "old": peer(0, 60, seen)}})
        peering.run(5)
    assert a.phase is Phase.FOLLOWING


@pytest.mark.parametrize(
    ("edit", "cause"),
    [
        ({"old": peer(PRIORITY)}, "kopfpeerings/ns/old is held by old"),
        ({OURS + "a": None}, "kopfpeerings/ns/old is held by nobody"),
        ({"old": "x"}, "kopfpeerings/ns/old cannot be read"),
    ],
)
def test_a_peering_that_is_lost_ends_the_term(peering: World, edit: dict[str, Any], cause: str) -> None:
    a = follower(peering)
    peering.run(5)
    assert a.leads()
    body = copy.deepcopy(peering.legacy.body or {})
    body["status"] |= edit
    peering.legacy.store(body)
    a.flow()
    assert cause in a.stopped[0]


def test_old_peers_that_pause_end_no_term(peering: World) -> None:
    a = follower(peering)
    peering.run(5)
    for priority in (*range(20), 2**31 - 2):  # docs/adoption.md: ours is the next one
        keepalive(peering, "old", priority)
        peering.run(1)
    assert peering.leaders() == [a]
    assert a.stopped == []
    assert "old pauses" in a.tells


def test_a_peering_is_given_back(peering: World) -> None:
    a = follower(peering)
    peering.run(5)
    keepalive(peering, "old")
    a.flow()
    a.step(el.Release())
    a.flow()
    assert a.phase is Phase.STOPPED
    assert set(claims(peering)) == {"old"}


def test_a_peering_that_is_not_there_is_said(peering: World) -> None:
    peering.legacy.store(None)
    a = follower(peering)
    peering.run(5)
    assert a.phase is Phase.FOLLOWING
    assert a.warnings == [
        "there is no kopfpeerings/ns/old: name the peering of the old replicas, or drop --legacy-lock"
    ]
