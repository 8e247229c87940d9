"""The Lease record: what is read, what survives a write, what is refused."""

from typing import Any

import pytest

from kopf_ha.core.lease import ENDED, ENFORCED, HANDOVER, OPERATOR, PAUSED, PREFERRED, LeaseRecord, lease_path
from kopf_ha.core.revisions import newer
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.errors import MalformedLease


def lease(**spec: Any) -> dict[str, Any]:
    meta = {"name": "op", "namespace": "ns", "resourceVersion": "7", "uid": "u1", "labels": {"a": "b"}}
    return {"metadata": meta, "spec": {"holderIdentity": "me", "leaseTransitions": 3} | spec}


def test_a_lease_is_read() -> None:
    record = LeaseRecord.parse(lease(leaseDurationSeconds=15, acquireTime="t1", renewTime="t2"))
    assert record == LeaseRecord("me", 3, 15, "t1", "t2", "7", "u1")


@pytest.mark.parametrize("bad", [None, -1, True, False, "3", 3.0, TOKEN_MAX + 1, 2**31 - 1, [], {}])
def test_transitions_that_are_no_usable_number_are_an_error_and_never_0(bad: Any) -> None:
    with pytest.raises(MalformedLease, match="kubectl -n ns patch lease op"):
        LeaseRecord.parse(lease(leaseTransitions=bad))


@pytest.mark.parametrize(
    "body", [{}, {"spec": None}, {"spec": {}}, {"metadata": None, "spec": {"holderIdentity": "x"}}]
)
def test_a_lease_that_somebody_made_without_a_counter_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(MalformedLease, match="leaseTransitions is missing"):
        LeaseRecord.parse(body)


@pytest.mark.parametrize(
    "body", [{"metadata": ["a"]}, {"spec": "x"}, {"metadata": {"annotations": ["a"]}}, {"spec": [1]}]
)
def test_what_is_no_lease_at_all_is_an_unusable_lease(body: dict[str, Any]) -> None:
    """A proxy may answer anything, and the elector goes on."""
    with pytest.raises(MalformedLease, match="no object"):
        LeaseRecord.parse(lease() | body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (lease(leaseTransitions="3"), "Lease ns/op cannot be used: leaseTransitions is '3'. "),
        ({}, "Lease ?/? cannot be used: leaseTransitions is missing. "),
    ],
)
def test_the_error_says_which_lease_it_is_and_what_is_wrong(body: dict[str, Any], said: str) -> None:
    with pytest.raises(MalformedLease) as raised:
        LeaseRecord.parse(body)
    assert str(raised.value).startswith(said)


def test_a_null_is_a_field_that_is_missing() -> None:
    made = lease(leaseDurationSeconds=15)
    made["metadata"] |= {"annotations": None, "labels": None}
    assert "annotations" not in LeaseRecord.parse(made).as_object("ns", "op")["metadata"]
    nameless = LeaseRecord.parse({"metadata": None, "spec": {"leaseTransitions": 1}})
    assert (nameless.resource_version, nameless.uid) == ("", "")
    assert nameless.as_object("ns", "op")["metadata"] == {"namespace": "ns", "name": "op"}


def test_a_pause_without_a_value_is_one() -> None:
    body = lease()
    body["metadata"] |= {"annotations": {PAUSED: None}}
    assert LeaseRecord.parse(body).paused == ""


@pytest.mark.parametrize(("noted", "enforced"), [({ENFORCED: "full 7"}, "full 7"), ({ENFORCED: 5}, ""), ({}, "")])
def test_what_the_leader_noted_about_enforcement_is_read(noted: dict[str, Any], enforced: str) -> None:
    body = lease()
    body["metadata"] |= {"annotations": noted}
    assert LeaseRecord.parse(body).enforced == enforced
    assert LeaseRecord("me", 1).enforced == ""


@pytest.mark.parametrize(
    ("version", "than", "expected"),
    [
        *(("10", "9", True), ("9", "9", False), ("9", "10", False), ("09", "9", False), ("8", "7", True)),
        *(("", "9", True), ("9", "x", True), ("9", "", True), ("\u0669", "9", True)),
        ("1" + "0" * 5000, "9" * 5000, True),  # Python makes no number of so many digits
        ("9" * 5000, "1" + "0" * 5000, False),
    ],
)
def test_a_revision_is_newer_by_number_and_one_without_a_number_always_is(
    version: str, than: str, expected: bool
) -> None:
    assert newer(version, than) == expected


def test_the_path_of_a_lease_and_of_all_leases_of_a_namespace() -> None:
    """Names come from options, and none of them leads to another path."""
    assert lease_path("ns") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert lease_path("a/b", "c/d") == "/apis/coordination.k8s.io/v1/namespaces/a%2Fb/leases/c%2Fd"


def test_the_annotations_have_the_names_that_people_and_other_releases_write() -> None:
    names = ["operator", "enforced", "ended", "paused", "handover-to", "preferred"]
    assert [f"kopf-ha.dev/{name}" for name in names] == [OPERATOR, ENFORCED, ENDED, PAUSED, HANDOVER, PREFERRED]


@pytest.mark.parametrize("good", [0, 1, TOKEN_MAX])
def test_the_bounds_of_the_counter(good: int) -> None:
    assert LeaseRecord.parse(lease(leaseTransitions=good)).transitions == good


def test_a_holder_that_is_no_text_is_an_error() -> None:
    with pytest.raises(MalformedLease, match="holderIdentity is 5"):
        LeaseRecord.parse(lease(holderIdentity=5))


def test_no_holder_is_the_empty_holder() -> None:
    assert LeaseRecord.parse(lease(holderIdentity=None)).holder == ""


@pytest.mark.parametrize("bad", [None, 0, -3, True, "15", 1.5])
def test_a_duration_that_is_no_usable_number_is_left_to_the_reader(bad: Any) -> None:
    assert LeaseRecord.parse(lease(leaseDurationSeconds=bad)).lease_duration is None


def test_what_others_keep_in_the_lease_survives_a_write() -> None:
    body = lease(strategy="OldestEmulationVersion")
    body["metadata"]["annotations"] = {"note": "kept"}
    written = LeaseRecord.parse(body).changed(holder="you", transitions=4).as_object("ns", "op")
    assert written["metadata"]["annotations"] == {"note": "kept"}
    assert written["metadata"]["labels"] == {"a": "b"}
    assert written["spec"]["strategy"] == "OldestEmulationVersion"
    assert (written["spec"]["holderIdentity"], written["spec"]["leaseTransitions"]) == ("you", 4)


def test_a_write_carries_its_precondition_and_leaves_what_was_read_alone() -> None:
    body = lease()
    record = LeaseRecord.parse(body)
    written = record.changed(holder="you").as_object("ns", "op")
    assert (written["metadata"]["resourceVersion"], written["metadata"]["uid"]) == ("7", "u1")
    assert body == lease()


def test_a_write_is_conditioned_on_the_revision_that_the_record_names() -> None:
    """I2: and on no other one, wherever the rest of the object comes from."""
    record = LeaseRecord.parse(lease()).changed(resource_version="8", uid="u2")
    meta = record.as_object("ns", "op")["metadata"]
    assert (meta["resourceVersion"], meta["uid"]) == ("8", "u2")


def test_a_new_lease_has_no_precondition() -> None:
    written = LeaseRecord("me", 1, 15, "t", "t").as_object("ns", "op")
    assert written["metadata"] == {"namespace": "ns", "name": "op"}
    assert (written["apiVersion"], written["kind"]) == ("coordination.k8s.io/v1", "Lease")


def test_only_the_spec_and_the_uid_tell_two_revisions_apart() -> None:
    one = LeaseRecord.parse(lease())
    label = lease()
    label["metadata"] |= {"labels": {"a": "c"}, "resourceVersion": "8"}
    assert one.same_spec(LeaseRecord.parse(label))
    assert not one.same_spec(LeaseRecord.parse(lease(renewTime="t")))
    assert not one.same_spec(LeaseRecord.parse(lease(strategy="x")))
    other = lease()
    other["metadata"]["uid"] = "u2"
    assert not one.same_spec(LeaseRecord.parse(other))
