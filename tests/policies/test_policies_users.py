"""What users keep: everything but the stamp and the Lease's count. And what keeps the cluster going."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from devcluster.waiting import until
from kopf_ha.core.lease import ENDED, PAUSED
from kopf_ha.core.notes import EARLIER, as_metadata, note_name, notes_of
from kopf_ha.core.token import Stamp
from kopf_ha.manifests.cel import NOT_FENCED
from tests.kit.client import APPLY, JSON_PATCH, MERGE, STRATEGIC, Answer, Client
from tests.policies.fenced import GROUP, LABEL, Fenced, changed


@pytest.fixture
def pool(fenced: Fenced) -> str:
    path = fenced.pool()
    fenced.stamp(fenced.new, path, 8, free=3)
    return path


@pytest.fixture
def child(fenced: Fenced) -> str:
    return fenced.child(fenced.new, 8)


def refused(answer: object, policy: str) -> bool:
    return getattr(answer, "status", 0) == 403 and getattr(answer, "by", "").endswith(f"-{policy}")


def notes(stamp: Stamp) -> dict[str, str]:
    """Give the annotations by which a ConfigMap is stamped."""
    return as_metadata(notes_of(stamp, "configmaps"))["annotations"]


# --- stamped kinds


def test_users_edit_specs_labels_and_annotations(fenced: Fenced, pool: str) -> None:
    edits = {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"excluded": ["10.1.1.1"]}}
    fenced.admin.must("PATCH", pool, edits, MERGE)
    now = fenced.read(pool)
    fenced.admin.must("PUT", pool, now | {"spec": now["spec"] | {"excluded": ["10.1.1.2"]}})
    meta = {"name": now["metadata"]["name"], "labels": {"e": "f"}}
    body = {"apiVersion": f"{GROUP}/v1", "kind": "FencedPool", "metadata": meta}
    fenced.admin.must("PATCH", pool + "?fieldManager=me", body, APPLY)
    now = fenced.read(pool)
    assert now["spec"]["excluded"] == ["10.1.1.2"]
    assert now["metadata"]["labels"] == {"a": "b", "e": "f"}
    assert now["status"]["fencing"]["token"] == 8


def test_users_scale_and_the_operator_does_not(fenced: Fenced, pool: str) -> None:
    fenced.admin.must("PATCH", f"{pool}/scale", {"spec": {"replicas": 2}}, MERGE)
    answer = fenced.new("PATCH", f"{pool}/scale", {"spec": {"replicas": 3}}, MERGE)
    assert refused(answer, "stamped")
    assert "a write to scale shows no stamp" in answer.message
    assert fenced.read(pool)["spec"]["replicas"] == 2


def test_an_object_without_a_stamp_is_stamped_first(fenced: Fenced) -> None:
    path = fenced.pool()
    label = {"metadata": {"labels": {"a": "b"}}}
    answer = fenced.new("PATCH", path, label, MERGE)
    assert refused(answer, "stamped")
    assert f"which records no token; stamp it through /status first{NOT_FENCED}" in answer.message
    answer = fenced.new("PATCH", f"{path}/status", {"status": {"free": 1}}, MERGE)
    assert refused(answer, "stamped")
    assert f"this one has none{NOT_FENCED}" in answer.message
    fenced.stamp(fenced.new, path, 1)
    fenced.new.must("PATCH", path, label, MERGE)


def test_users_delete_objects(fenced: Fenced, pool: str) -> None:
    fenced.admin.must("DELETE", pool)
    claim = fenced.claim(finalizers=["kopf-ha.dev/test"])
    fenced.stamp(fenced.new, claim, 8)
    fenced.admin.must("DELETE", f"{fenced.claims}?fieldSelector=metadata.name={claim.rpartition('/')[2]}")
    fenced.admin.must("PATCH", claim, {"metadata": {"finalizers": None}}, MERGE)
    assert fenced.admin("GET", claim).status == 404


@pytest.mark.parametrize("edit", ["s/free: 3/free: 5/", "s/token: 8/token: 9/"])
def test_kubectl_edit_of_the_status(fenced: Fenced, pool: str, edit: str) -> None:
    cluster = fenced.cluster
    done = subprocess.run(
        [str(cluster.kubectl_path), f"--kubeconfig={cluster.kubeconfig}", "edit", "--subresource=status",
         f"fencedpools/{pool.rpartition('/')[2]}"],
        env=cluster.kubectl_env() | {"KUBE_EDITOR": f"sed -i -e '{edit}'", "PATH": os.environ["PATH"]},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    status = fenced.read(pool)["status"]
    assert status["fencing"]["token"] == 8
    if "free" in edit:
        assert (done.returncode, status["free"]) == (0, 5), done.stderr
    else:
        assert done.returncode != 0
        assert "fencing: only system:serviceaccount:" in done.stderr


def test_nobody_else_writes_a_stamp(fenced: Fenced, pool: str) -> None:
    forged = fenced.new.stamp(9, fenced.lease).as_status()
    tries = [
        ({"status": {"fencing": forged}}, MERGE),
        ([{"op": "replace", "path": "/status/fencing/holder", "value": "me"}], JSON_PATCH),
    ]
    for body, content_type in tries:
        assert refused(fenced.admin("PATCH", f"{pool}/status", body, content_type), "stamp")
    now = fenced.read(pool)
    assert refused(
        fenced.admin("PUT", f"{pool}/status", now | {"status": now["status"] | {"fencing": forged}}), "stamp"
    )
    fresh = fenced.pool()  # not stamped yet
    assert refused(fenced.admin("PATCH", f"{fresh}/status", {"status": {"fencing": forged}}, MERGE), "stamp")
    assert "fencing" not in (fenced.read(fresh).get("status") or {})


def test_credentials_that_no_pod_is_bound_to(fenced: Fenced, pool: str) -> None:
    stamp = fenced.new.stamp(9, fenced.lease).as_status()
    answer = fenced.bare("PATCH", f"{pool}/status", {"status": {"fencing": stamp}}, MERGE)
    assert refused(answer, "stamped")
    assert "not bound to a pod" in answer.message
    body = fenced.child_body("bare", fenced.new.stamp(9, fenced.lease))
    answer = fenced.bare("POST", fenced.children, body)
    assert refused(answer, "child-configmaps")
    assert "not bound to a pod" in answer.message
    path = lease(fenced)
    now = fenced.read(path)
    token = now["spec"]["leaseTransitions"] + 1
    for holder in ("a__b", fenced.new.stamp(1, "").holder):
        answer = fenced.bare("PUT", path, changed(now, holderIdentity=holder, leaseTransitions=token))
        assert refused(answer, "lease"), answer.message
        assert "the service account token of this one is not bound to a pod; use the token that" in answer.message


# --- what is being deleted


def test_a_terminating_pool_gives_nothing_new(fenced: Fenced) -> None:
    full = {f"10.3.{n >> 8}.{n & 255}": f"ns/{'n' * 60}/{n:036}" for n in range(4095)}
    path = fenced.pool(finalizers=["kopf-ha.dev/test"])
    fenced.stamp(fenced.new, path, 8, allocations=full)
    fenced.admin.must("DELETE", path)
    some, *_ = full
    for by in (fenced.new, fenced.admin):
        for entry in ({"10.99.0.1": "n/new/uid"}, {some: "n/another/uid"}):
            answer = by("PATCH", f"{path}/status", {"status": {"allocations": entry}}, MERGE)
            assert refused(answer, "terminating-fencedpools"), answer.message
    # It is stamped, freed, and let go.
    fenced.stamp(fenced.third, path, 9, allocations={some: None}, free=1)
    fenced.third.must("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
    assert fenced.admin("GET", path).status == 404


def test_a_terminating_claim_gets_nothing(fenced: Fenced) -> None:
    path = fenced.claim(finalizers=["kopf-ha.dev/test"])
    fenced.admin.must("DELETE", path)
    body = {"status": {"address": "10.0.0.1", "fencing": fenced.new.stamp(8, fenced.lease).as_status()}}
    assert refused(fenced.new("PATCH", f"{path}/status", body, MERGE), "terminating-fencedclaims")
    fenced.stamp(fenced.new, path, 8, address=None)
    fenced.new.must("PATCH", path, [{"op": "remove", "path": "/metadata/finalizers"}], JSON_PATCH)
    assert fenced.admin("GET", path).status == 404


# --- children


def test_users_edit_children_but_not_their_stamps(fenced: Fenced, child: str) -> None:
    edits = {"data": {"a": "9"}, "metadata": {"labels": None, "annotations": {"mine": "too"}}}
    fenced.admin.must("PATCH", child, edits, MERGE)
    for name, value in notes(fenced.third.stamp(9, fenced.lease)).items():
        if value != fenced.read(child)["metadata"]["annotations"][name]:
            for new in (value, None):
                answer = fenced.admin("PATCH", child, {"metadata": {"annotations": {name: new}}}, MERGE)
                assert refused(answer, "annotations-configmaps"), name
    # The operator puts the label back, although the object does not look like a child any more.
    body = fenced.child_body("", fenced.new.stamp(8, fenced.lease))
    labels = {"labels": body["metadata"]["labels"], "annotations": body["metadata"]["annotations"]}
    fenced.new.must("PATCH", child, {"metadata": {"annotations": labels["annotations"]}, "data": {"a": "1"}}, MERGE)
    fenced.new.must("PATCH", child, {"metadata": labels}, MERGE)
    fenced.admin.must("DELETE", child)


def test_nobody_else_makes_a_stamped_child(fenced: Fenced) -> None:
    """A forged one of the next child's name would be taken for a newer leader's."""
    forged = fenced.child_body("forged", fenced.new.stamp(2_000_000_000, fenced.lease))
    assert refused(fenced.admin("POST", fenced.children, forged), "annotations-configmaps")
    for form in (list(EARLIER), [note_name(fenced.lease, "configmaps")]):
        kept = {name: text for name, text in forged["metadata"]["annotations"].items() if name in form}
        body = forged | {"metadata": forged["metadata"] | {"annotations": kept}}
        assert refused(fenced.admin("POST", fenced.children, body), "annotations-configmaps"), form


def test_another_operator_s_stamp_is_no_matter_of_ours(fenced: Fenced) -> None:
    """Two operators write one ConfigMap, each with a stamp that counts by its own Lease."""
    path, theirs = f"{fenced.children}/other", fenced.new.stamp(90, "some/where-else")
    fenced.admin.must("POST", fenced.children, fenced.child_body("other", theirs))
    mine = as_metadata(notes_of(fenced.new.stamp(8, fenced.lease), "configmaps", tuple(notes_of(theirs, "configmaps"))))
    assert set(mine["annotations"]).isdisjoint(notes(theirs))
    fenced.new.must("PATCH", path, {"data": {"b": "c"}, "metadata": mine}, MERGE)
    fenced.admin.must(
        "PATCH", path, {"metadata": {"annotations": notes(fenced.new.stamp(91, "some/where-else"))}}, MERGE
    )
    for name in mine["annotations"]:
        assert refused(
            fenced.admin("PATCH", path, {"metadata": {"annotations": {name: None}}}, MERGE), "annotations-configmaps"
        )
    late = as_metadata(notes_of(fenced.old.stamp(7, fenced.lease), "configmaps", tuple(notes_of(theirs, "configmaps"))))
    assert refused(fenced.old("PATCH", path, {"data": {"b": "d"}, "metadata": late}, MERGE), "child-configmaps")


@pytest.mark.parametrize("token", [6, 8])
def test_the_stamp_of_an_earlier_release_counts(fenced: Fenced, token: int) -> None:
    """Whichever of both forms has the higher token, as after a downgrade."""
    name = f"earlier-{token}"
    body = fenced.child_body(name, fenced.new.stamp(5, fenced.lease))
    newer = notes(fenced.new.stamp(token, fenced.lease))
    body["metadata"]["annotations"] |= {k: v for k, v in newer.items() if k in EARLIER}
    fenced.new.must("POST", fenced.children, body)
    own = {"metadata": {"annotations": notes(fenced.old.stamp(7, fenced.lease))}}
    answer = fenced.old("PATCH", f"{fenced.children}/{name}", own, MERGE)
    assert answer.ok if token < 7 else refused(answer, "child-configmaps"), answer.message


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "many",
        "8",
        "2000000001 {lease} {uid} me",
        "008 {lease} {uid} me",
        "8 else/where {uid} me",
        "8 {lease} {uid} ",
        "8 {lease}  {uid}",
    ],
)
def test_a_child_carries_a_whole_stamp(fenced: Fenced, child: str, text: str | None) -> None:
    value = text and text.format(lease=fenced.lease, uid=fenced.new.uid)
    name = note_name(fenced.lease, "configmaps")
    answer = fenced.new("PATCH", child, {"metadata": {"annotations": {name: value}}}, MERGE)
    assert refused(answer, "child-configmaps"), answer.message
    other_pod = text is not None and "  " in text
    assert other_pod or "must carry its writer's fencing stamp in the annotation" in answer.message


def test_subresources_of_children(fenced: Fenced) -> None:
    where = f"/apis/apps/v1/namespaces/{fenced.namespace}/deployments"
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    mine = as_metadata(notes_of(fenced.old.stamp(7, fenced.lease), "deployments.apps"))
    fenced.old.must("POST", where, {"metadata": {"name": "x"} | mine, "spec": spec})
    path = f"{where}/x"
    fenced.restamp(fenced.new, path, 8, "deployments.apps")
    status: dict[str, Any] = {"status": {"conditions": []}}
    assert refused(fenced.old("PATCH", f"{path}/status", status, MERGE), "child-deployments.apps")
    fenced.new.must("PATCH", f"{path}/status", status, MERGE)
    answer = fenced.new("PATCH", f"{path}/scale", {"spec": {"replicas": 1}}, MERGE)
    assert refused(answer, "child-deployments.apps")
    assert "a write to scale shows no stamp" in answer.message
    fenced.admin.must("PATCH", f"{path}/scale", {"spec": {"replicas": 1}}, MERGE)

    def rolled_out() -> bool:  # its controller is none of those whose writes are looked at
        found = fenced.read(path)
        return bool(found["status"].get("observedGeneration") == found["metadata"]["generation"])

    until("the Deployment's controller to have handled it", rolled_out)


def test_a_rollback_works_and_puts_no_stamp_back(fenced: Fenced) -> None:
    """`kubectl rollout undo` replaces a Deployment's annotations. Its controller copies them to ReplicaSets."""
    where = f"/apis/apps/v1/namespaces/{fenced.namespace}/deployments"
    labels, path = {"app": "rolls"}, f"{where}/rolls"
    note = note_name(fenced.lease, "deployments.apps")

    def template(image: str) -> dict[str, Any]:
        return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "x", "image": image}]}}

    def stamp(by: Client, token: int) -> dict[str, Any]:
        return as_metadata(notes_of(by.stamp(token, fenced.lease), "deployments.apps"))

    def handled(revision: str) -> None:
        def rolled_out() -> bool:
            found = fenced.read(path)
            notes = found["metadata"].get("annotations") or {}
            return bool(notes.get("deployment.kubernetes.io/revision") == revision)

        until(f"the Deployment's controller to make revision {revision}", rolled_out)

    # What an earlier release put into annotations is copied, and comes back.
    earlier = {k: v for k, v in notes(fenced.old.stamp(7, fenced.lease)).items() if k in EARLIER}
    mine = stamp(fenced.old, 7) | {"annotations": earlier | {"a": "1"}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template("one")}
    fenced.old.must("POST", where, {"metadata": {"name": "rolls"} | mine, "spec": spec})
    handled("1")
    newer = {k: v for k, v in notes(fenced.new.stamp(8, fenced.lease)).items() if k in EARLIER}
    again = stamp(fenced.new, 8) | {"annotations": newer | {"a": "2"}}
    fenced.new.must("PATCH", path, {"metadata": again, "spec": {"template": template("two")}}, STRATEGIC)
    handled("2")
    fenced.cluster.kubectl("rollout", "undo", "deployment/rolls", "-n", fenced.namespace)
    handled("3")
    now = fenced.read(path)["metadata"]
    assert (now["annotations"]["a"], now["annotations"][EARLIER[0]]) == ("1", "7"), "it was put back"
    assert now["labels"][note] == stamp(fenced.new, 8)["labels"][note], "I1"
    sets = fenced.admin.must("GET", where.replace("deployments", "replicasets"))["items"]
    of_it = [s["metadata"] for s in sets if s["metadata"]["name"].startswith("rolls-")]
    assert len(of_it) == 2
    assert all(note not in {**s["labels"], **s["annotations"]} for s in of_it)
    # The stale leader finds its own old annotations, and is refused all the same (I3).
    late = {"metadata": stamp(fenced.old, 7), "spec": {"replicas": 1}}
    assert refused(fenced.old("PATCH", path, late, MERGE), "child-deployments.apps")
    fenced.new.must("PATCH", path, {"metadata": stamp(fenced.new, 8), "spec": {"paused": True}}, MERGE)
    # A user may put back what is lower, but neither raise it nor touch the label.
    higher = {"annotations": {**newer, EARLIER[0]: "9"}}
    for metadata in (higher, {"labels": {note: None}}, {"labels": {note: "9.u.0123456789ab"}}):
        assert refused(fenced.admin("PATCH", path, {"metadata": metadata}, MERGE), "annotations-deployments.apps")


def test_what_a_user_makes_in_a_child_s_place_stays_the_user_s(fenced: Fenced) -> None:
    """Nothing of it is the operator's: neither the look of a child nor its stamp. The refusal is no token's (I10)."""
    path = f"{fenced.children}/in-place"
    made = fenced.admin.must("POST", fenced.children, {"metadata": {"name": "in-place"}, "data": {"b": "c"}})
    mine = {"annotations": notes(fenced.new.stamp(8, fenced.lease))}
    delete = {"preconditions": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    for answer in (
        fenced.new("PATCH", path, {"metadata": mine}, MERGE),
        fenced.new("PATCH", path, {"metadata": mine | {"labels": dict([LABEL])}}, MERGE),
        fenced.new("PUT", path, made | {"metadata": made["metadata"] | mine}),
        fenced.new("DELETE", path, delete),
    ):
        assert refused(answer, "child-configmaps"), answer.message
    said = "fencing: the operator changes and deletes only its own configmaps, those with label"
    assert f"denied request: {said}" in fenced.new("PATCH", path, {"metadata": mine}, MERGE).message
    assert fenced.read(path) == made


def test_others_config_maps_are_out_of_reach(fenced: Fenced) -> None:
    """Whatever the roles say: the account may patch and delete ConfigMaps of all namespaces."""
    maps = "/api/v1/namespaces/kube-system/configmaps"
    items = fenced.admin("GET", maps).body["items"]
    assert items
    for found in items:
        path, stamp = f"{maps}/{found['metadata']['name']}", fenced.new.stamp(8, fenced.lease)
        answer = fenced.new("PATCH", path, {"metadata": {"annotations": notes(stamp)}}, MERGE)
        assert refused(answer, "child-configmaps"), answer.message
        delete = {"preconditions": {"resourceVersion": found["metadata"]["resourceVersion"]}}
        answer = fenced.new("DELETE", path, delete)
        assert refused(answer, "child-configmaps"), answer.message


def test_children_from_before_the_fence_are_adopted(fenced: Fenced) -> None:
    """They have the look of children and no stamp."""
    body = fenced.child_body("from-before", None)
    fenced.admin.must("POST", fenced.children, body)
    path = f"{fenced.children}/from-before"
    now = fenced.restamp(fenced.new, path, 8)
    fenced.new.must("DELETE", path, {"preconditions": {"resourceVersion": now["metadata"]["resourceVersion"]}})


def test_the_garbage_collector_removes_children(fenced: Fenced) -> None:
    claim = fenced.claim()
    found = fenced.read(claim)
    body = fenced.child_body(f"owned-{fenced.number()}", fenced.new.stamp(8, fenced.lease))
    owner = {"apiVersion": f"{GROUP}/v1", "kind": "FencedClaim"}
    owner |= {k: found["metadata"][k] for k in ("name", "uid")}
    body["metadata"]["ownerReferences"] = [owner]
    fenced.new.must("POST", fenced.children, body)
    fenced.admin.must("DELETE", claim)
    path = f"{fenced.children}/{body['metadata']['name']}"
    until("the child to be collected", lambda: fenced.admin("GET", path).status == 404)


# --- the Lease


def lease(fenced: Fenced) -> str:
    fenced.acquire(fenced.new)
    return f"{fenced.leases}/leader"


def test_what_users_may_do_with_the_lease(fenced: Fenced) -> None:
    path = lease(fenced)
    fenced.admin.must("PATCH", path, {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}, MERGE)
    fenced.admin.must("PATCH", path, {"spec": {"holderIdentity": None}}, MERGE)  # a hand-over
    token = fenced.read(path)["spec"]["leaseTransitions"]
    assert fenced.acquire(fenced.third) == token + 1


@pytest.mark.parametrize("value", ["true", ""])
def test_while_people_pause_no_replica_begins_a_term_or_ends_the_pause(fenced: Fenced, value: str) -> None:
    """Whichever release it is of, and whatever a stale leader sends: earlier releases do not know the annotation."""
    path = lease(fenced)

    def pause(by: Client, value: str | None) -> Answer:
        return by("PATCH", path, {"metadata": {"annotations": {PAUSED: value}}}, MERGE)

    assert refused(pause(fenced.new, value), "lease"), "people pause, replicas do not"
    assert pause(fenced.admin, value).ok
    now = fenced.read(path)
    fenced.new.must("PUT", path, changed(now, renewTime="2026-01-01T00:00:00.000000Z"))  # its leader drains
    token = now["spec"]["leaseTransitions"]
    for by, holder in ((fenced.new, now["spec"]["holderIdentity"]), (fenced.old, fenced.old.stamp(1, "x").holder)):
        taken = {"spec": {"holderIdentity": holder, "leaseTransitions": token + 1}}
        for unpaused in ({}, {"metadata": {"annotations": {PAUSED: None}}}):
            assert refused(by("PATCH", path, taken | unpaused, MERGE), "lease")
        assert refused(pause(by, None), "lease")
    fenced.new.must("PATCH", path, {"spec": {"holderIdentity": ""}}, MERGE)
    assert pause(fenced.admin, None).ok
    assert fenced.acquire(fenced.third) == token + 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"leaseTransitions": 0}, "may not go back from"),
        ({"leaseTransitions": None}, "may not go back from"),
        ({"leaseTransitions": 2_000_000_000}, "raises leaseTransitions, from"),
        ({"leaseTransitions": 2_000_000_001}, "must be a number from 0 to 2000000000"),
        ({"holderIdentity": "me"}, "names a holder, and says how a term ended; others may only empty it"),
    ],
)
def test_what_users_may_not_do_with_the_lease(fenced: Fenced, spec: dict[str, object], said: str) -> None:
    answer = fenced.admin("PATCH", lease(fenced), {"spec": spec}, MERGE)
    assert refused(answer, "lease")
    assert said in answer.message


def test_users_do_not_say_how_a_term_ended(fenced: Fenced) -> None:
    """The next leader would keep it in the history of terms (I10)."""
    path, made_up = lease(fenced), {"metadata": {"annotations": {ENDED: "made up"}}}
    for body in (made_up, made_up | {"spec": {"holderIdentity": None}}):
        answer = fenced.admin("PATCH", path, body, MERGE)
        assert refused(answer, "lease")
        assert "says how a term ended" in answer.message
    fenced.new.must("PATCH", path, made_up | {"spec": {"holderIdentity": None}}, MERGE)
    assert refused(fenced.admin("PATCH", path, {"metadata": {"annotations": None}}, MERGE), "lease")


def test_only_this_lease(fenced: Fenced) -> None:
    spec = {"holderIdentity": "me", "leaseTransitions": 5}
    body = {"metadata": {"name": "another"}, "spec": spec}
    path = f"{fenced.leases}/another"
    for _ in range(2):
        made = fenced.admin.must("POST", fenced.leases, body)
        fenced.admin.must("PUT", path, changed(made, leaseTransitions=1, holderIdentity="you"))
        fenced.admin.must("DELETE", path)
    elsewhere = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    fenced.admin.must("POST", elsewhere, {"metadata": {"name": "leader"}, "spec": spec})
    fenced.admin.must("DELETE", f"{elsewhere}/leader")


def test_the_collection_does_not_take_the_lease_along(fenced: Fenced) -> None:
    """Deleting a collection asks for each object without its name, so a rule with resourceNames would miss it."""
    path = lease(fenced)
    answer = fenced.admin("DELETE", fenced.leases)
    assert refused(answer, "lease-kept")
    assert fenced.read(path)["spec"]["leaseTransitions"] > 0


def test_break_glass_and_repair(fenced: Fenced) -> None:
    path, name = lease(fenced), f"{fenced.description.prefix}-lease"
    fenced.cluster.kubectl("delete", "validatingadmissionpolicybinding", name)
    broken = {"spec": {"leaseTransitions": None, "holderIdentity": None}}
    until("the policy to be out of force", lambda: fenced.admin("PATCH", path, broken, MERGE).ok)
    fenced.apply_policies()
    # A Lease without a number takes one from anybody: the sentence of MalformedLease says so.
    fenced.admin.must("PATCH", path, {"spec": {"leaseTransitions": 50}}, MERGE)
    assert fenced.acquire(fenced.new) == 51


def test_break_glass_for_a_stamp_and_the_stamp_of_another_lease(fenced: Fenced, pool: str) -> None:
    fenced.cluster.kubectl("delete", "validatingadmissionpolicybinding", f"{fenced.description.prefix}-stamp")
    moved = {"status": {"fencing": fenced.old.stamp(9, "else/where").as_status()}}
    until("the policy to be out of force", lambda: fenced.admin("PATCH", f"{pool}/status", moved, MERGE).ok)
    fenced.apply_policies()
    said = f"the object is fenced by Lease else/where (token 9 of old_{fenced.old.uid}_1), not by {fenced.lease}"
    mine = {"status": {"fencing": fenced.new.stamp(10, fenced.lease).as_status()}}
    for answer in (
        fenced.new("PATCH", f"{pool}/status", mine, MERGE),
        fenced.old("PATCH", pool, {"metadata": {"labels": {"a": "b"}}}, MERGE),
    ):
        assert refused(answer, "stamped")
        assert said in answer.message


# --- all of it


def test_the_policies_are_well_typed(fenced: Fenced) -> None:
    """The API server checks expressions against the schemas of the kinds, and says so in the status."""
    prefix = fenced.description.prefix

    def checked() -> list[dict[str, object]] | None:
        done = fenced.cluster.kubectl("get", "validatingadmissionpolicy", "-o", "json")
        ours = [p for p in json.loads(done.stdout)["items"] if p["metadata"]["name"].startswith(prefix)]
        ready = all(p.get("status", {}).get("observedGeneration") == p["metadata"]["generation"] for p in ours)
        return ours if ready and ours else None

    for policy in until("the types to be checked", checked):
        assert not policy["status"]["typeChecking"], policy  # type: ignore[index]
