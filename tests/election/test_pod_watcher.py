"""Followers and the Pods of leaders, on a real API server. The leader is a Lease and a Pod: no process renews it.

The Lease lasts for longer than a test waits, so whoever leads has not waited for it.
"""

from __future__ import annotations

import datetime
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from kubernetes import config
from kubernetes.client import ApiClient

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.api import Api
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.siblings import Siblings
from kopf_ha.election import PodWatcher
from testbed.replica import PATIENCE
from tests.election.stage import LONG, Replica, Stage

MERGE = "application/merge-patch+json"


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Pods:
    """The administrator, and the kubelet that is not there."""

    def __init__(self, stage: Stage) -> None:
        self.api = Api(config.new_client_from_config(str(stage.cluster.kubeconfig)))
        self.path = f"/api/v1/namespaces/{stage.namespace}/pods"

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        answer = self.api.request(method, self.path + path, body, content_type)
        assert answer.ok, f"{method} {path}: {answer.status} {answer.message}"
        return answer.json

    def make(self, name: str, revision: str = "", **meta: Any) -> str:
        """Create a Pod that never runs; give its uid."""
        labels = {"app": "op"} | ({"pod-template-hash": revision} if revision else {})
        containers = [{"name": "operator", "image": "none"}]
        spec = {"schedulerName": "none.kopf-ha.dev", "terminationGracePeriodSeconds": 0, "containers": containers}
        made = self.ask("POST", "", {"metadata": {"name": name, "labels": labels} | meta, "spec": spec})
        return str(made["metadata"]["uid"])

    def delete(self, name: str) -> None:
        self.ask("DELETE", f"/{name}?gracePeriodSeconds=0")

    def patch(self, name: str, **meta: Any) -> str:
        """Give the new resourceVersion."""
        return str(self.ask("PATCH", f"/{name}", {"metadata": meta}, MERGE)["metadata"]["resourceVersion"])

    def status(self, name: str, **status: Any) -> None:
        self.ask("PATCH", f"/{name}/status", {"status": status}, MERGE)

    def container(self, name: str, running: str, ended: str = "", when: str = "") -> None:
        """Have the operator's container run, the one before ended, now or then."""
        end = {"exitCode": 137, "containerID": f"x://{ended}", "finishedAt": when or now()}
        over = {"terminated": end} if ended else {}
        states = {"containerID": f"x://{running}", "state": {"running": {"startedAt": now()}}, "lastState": over}
        one = {"name": "operator", "image": "none", "imageID": "", "ready": True, "restartCount": 0} | states
        self.status(name, phase="Running", containerStatuses=[one])


@dataclass
class Watched:
    """A follower with a watcher, and what that told."""

    replica: Replica
    watcher: PodWatcher
    deleted: list[str] = field(default_factory=list)
    asked: int = 0
    off: str = ""

    @property
    def siblings(self) -> Siblings:
        """Read without the lock, by `until`, which reads again."""
        return self.watcher.known._siblings

    @property
    def leads(self) -> bool:
        return self.replica.elector.leading

    def shows(self, uid: str, version: str) -> bool:
        pod = self.siblings._pods.get(uid)
        return pod is not None and pod.version == version


class World(Stage):
    def __init__(self, cluster: Cluster, namespace: str) -> None:
        super().__init__(cluster, namespace)
        self.pods = Pods(self)
        self.watched: list[Watched] = []

    def leader(self, name: str = "lead", uid: str = "", token: int = 4) -> str:
        """Have a process in this Pod lead for longer than anybody waits; give its identity."""
        holder = f"{name}_{uid or self.pods.make(name)}_{secrets.token_hex(4)}"
        spec = {"holderIdentity": holder, "leaseTransitions": token, "leaseDurationSeconds": 900}
        spec |= {"acquireTime": now(), "renewTime": now()}
        if token == 4:
            self.create(spec)
        else:
            self.patch(**spec)
        return holder

    def follower(
        self, name: str = "next", *, revision: str = "", off: str = "", pod: bool = True, client: str = "", **meta: Any
    ) -> Watched:
        uid = self.pods.make(name, revision, **meta) if pod else "nowhere"
        values = LONG | {"pod_name": name if pod else "", "pod_namespace": self.namespace}
        replica = self.replica(f"{name}_{uid}_{secrets.token_hex(4)}", start=False, uid=uid, **values)
        elector = replica.elector

        def make_client() -> ApiClient:
            return config.new_client_from_config(client or str(self.cluster.kubeconfig))

        def confirm() -> str:
            made.asked += 1
            return made.off

        def observed() -> LeaseRecord | None:
            return elector.observed

        watcher = PodWatcher(
            replica.settings,
            make_client,
            holder=observed,
            gone=elector.holder_gone,
            head_start=elector.head_start,
            deleted=lambda cause: made.deleted.append(cause),
            confirm=confirm,
        )
        made = Watched(replica, watcher, off=off)
        replica.on_leader = watcher.nudge
        replica.start()
        watcher.start()
        self.watched.append(made)
        return made

    def knows(self, follower: Watched, holder: str) -> None:
        """Wait until the follower has seen the Lease of this holder, and its Pod."""
        uid = holder.split("_")[1]
        until("the Lease to be seen", lambda: follower.replica.elector.observed_holder == holder, PATIENCE)
        until("the Pod to be seen", lambda: follower.siblings.known(uid), PATIENCE)


@pytest.fixture
def world(cluster: Cluster, namespace: str, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    caplog.set_level(logging.INFO)
    world = World(cluster, namespace)
    try:
        yield world
    finally:
        for one in world.watched:
            one.watcher.stop()
            one.replica.end()


def ended(pods: Pods) -> None:
    pods.container("lead", "C2", ended="C1")


ENDS: dict[str, tuple[Callable[[Pods], None], str]] = {
    "deleted by force": (lambda pods: pods.delete("lead"), "Pod lead is gone"),
    "failed": (lambda pods: pods.status("lead", phase="Failed"), "Pod lead has ended"),
    "container restarted": (ended, "the container of Pod lead in which it ran has ended"),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_holder_whose_pod_is_gone_is_not_waited_for(world: World, caplog: pytest.LogCaptureFixture, how: str) -> None:
    holder = world.leader()
    world.pods.container("lead", "C1")
    follower = world.follower()
    world.knows(follower, holder)
    assert not follower.leads
    end, cause = ENDS[how]
    end(world.pods)
    follower.replica.leads()
    assert follower.replica.tokens == [5]
    assert follower.asked == 2, "at the start, and now"
    assert f"{cause}: taking over from {holder} without waiting" in caplog.text


def test_what_is_no_death(world: World) -> None:
    """Deleted but not gone, labelled otherwise, another container ended, the status lags behind a restart."""
    uid = world.pods.make("lead", finalizers=["test.kopf-ha.dev/stay"])
    world.pods.container("lead", "C1")
    first = world.leader(uid=uid)
    follower = world.follower()
    world.knows(follower, first)
    until("C1 to be the first one's", lambda: first in follower.siblings._container, PATIENCE)
    restarted = now()
    second = world.leader(uid=uid, token=5)  # the container was restarted, and the status does not say so yet
    world.knows(follower, second)
    until("the second one to be known", lambda: second in follower.siblings._waiting[uid], PATIENCE)
    world.pods.container("lead", "C1", ended="C0", when=restarted)
    world.pods.delete("lead")
    world.pods.container("lead", "C2", ended="C1", when=restarted)
    version = world.pods.patch("lead", labels={"app": "other"})  # which the watch shows as a deletion
    until("it to be read", lambda: follower.shows(uid, version), PATIENCE)
    assert not follower.leads
    assert follower.asked == 1, "at the start"
    world.pods.patch("lead", finalizers=None)


def test_where_stale_writes_would_be_taken_the_lease_is_waited_for(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    holder = world.leader()
    follower = world.follower(off="the policies are not in force")
    world.knows(follower, holder)
    world.pods.delete("lead")
    said = "its Lease is waited for, since fast takeover is off: the policies are not in force"
    until("it to say so", lambda: said in caplog.text, PATIENCE)
    for n in range(3):
        version = world.pods.patch("next", labels={"n": str(n)})
    mine = follower.replica.settings.pod_uid
    until("all news to be seen", lambda: follower.shows(mine, version), PATIENCE)
    until("it to be asked again", lambda: follower.asked > 3, PATIENCE)
    assert not follower.leads
    assert caplog.text.count(said) == 1
    follower.off = ""  # they are applied again
    follower.replica.leads()


def test_a_holder_that_is_labelled_otherwise(world: World) -> None:
    """The watch does not show it, so it is asked for."""
    uid = world.pods.make("lead")
    world.pods.patch("lead", labels={"app": "other"})
    holder = world.leader(uid=uid)
    world.pods.container("lead", "C1")
    follower = world.follower()
    world.knows(follower, holder)
    assert not follower.siblings.shown(uid)
    world.pods.delete("lead")
    follower.replica.leads()


def test_who_was_faster_meanwhile_is_not_taken_over_from(world: World, caplog: pytest.LogCaptureFixture) -> None:
    holder = world.leader()
    follower = world.follower()
    world.knows(follower, holder)
    until("it to have asked at the start", lambda: follower.asked, PATIENCE)
    asked = threading.Event()

    def confirm() -> str:
        faster = world.leader("faster", token=5)
        until("that to be seen", lambda: follower.replica.elector.observed_holder == faster, PATIENCE)
        asked.set()
        return ""

    follower.watcher._judge._confirm = confirm
    world.pods.delete("lead")
    assert asked.wait(PATIENCE)
    version = world.pods.patch("next", labels={"n": "1"})
    mine = follower.replica.settings.pod_uid
    until("the next news to be seen", lambda: follower.shows(mine, version), PATIENCE)
    assert "taking over" not in caplog.text


def test_a_pod_that_never_was_is_not_gone(world: World) -> None:
    holder = world.leader("elsewhere", uid="0-0-0")
    follower = world.follower()
    until("the Lease to be seen", lambda: follower.replica.elector.observed_holder == holder, PATIENCE)
    until("it to be asked for", lambda: "0-0-0" in follower.watcher._judge._asked, PATIENCE)
    assert (follower.asked, follower.leads) == (1, False)


def test_a_sibling_that_was_gone_before_i_was_there(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """All replicas died at once, or there is but one, and its Pod was replaced."""
    holder = world.leader("op-5c-gone", uid="0-0-0")
    follower = world.follower("op-5c-next", revision="5c", generateName="op-5c-")
    follower.replica.leads()
    assert f"Pod op-5c-gone is gone: taking over from {holder} without waiting" in caplog.text


def test_my_own_deletion_is_told_once(world: World) -> None:
    world.leader()
    marked = world.follower("marked", finalizers=["test.kopf-ha.dev/stay"])
    gone = world.follower("gone")
    for name in ("marked", "gone"):
        until("its Pod to be seen", lambda n=name: _sees(world, n), PATIENCE)  # type: ignore[misc]
        world.pods.delete(name)
    until("the deletion to be told", lambda: marked.deleted and gone.deleted, PATIENCE)
    world.pods.patch("marked", labels={"n": "1"}, finalizers=None)
    until("it to be gone", lambda: marked.siblings.missing(marked.replica.settings.pod_uid), PATIENCE)
    assert marked.deleted == ["Pod marked is being deleted"]
    assert len(gone.deleted) == 1


def _sees(world: World, name: str) -> bool:
    one = next(w for w in world.watched if w.replica.settings.pod_name == name)
    return one.siblings.known(one.replica.settings.pod_uid)


def test_a_replica_of_an_outdated_revision_lets_the_newer_one_lead(world: World) -> None:
    world.leader()
    # One that exists, or the garbage collector removes the Pods.
    uid = world.kubectl("create", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    owner = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": True}]
    old = world.follower("old", revision="1", ownerReferences=owner)
    created = world.pods.ask("GET", "/old")["metadata"]["creationTimestamp"]
    until("the next second", lambda: now()[:19] > created[:19], PATIENCE)
    new = world.follower("new", revision="2", ownerReferences=owner)
    world.pods.status("new", conditions=[{"type": "Ready", "status": "True"}])
    until(
        "the old one to abstain", lambda: old.replica.elector._driver.state.head_start == LONG["retry_period"], PATIENCE
    )
    world.patch(holderIdentity="")
    new.replica.leads()
    assert new.replica.tokens == [5]
    new.replica.elector.release(10)
    new.watcher.stop()
    # Nobody else is left.
    old.replica.leads()


def test_without_permission_it_says_which_rule_is_missing_and_follows(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.leader()
    token = world.kubectl("create", "token", "default").strip()
    follower = world.follower(client=str(world.cluster.kubeconfig_for(token)))
    said = (
        f"no permission to get pods in namespace {world.namespace} as system:serviceaccount:{world.namespace}:default:"
        " apply the Role and the RoleBinding that `kopf-ha manifests` writes,"
        f" in namespace {world.namespace} with pods: get, list, watch"
    )
    until("the warning", lambda: said in caplog.text, PATIENCE)
    world.patch(holderIdentity="")
    follower.replica.leads()
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING and "Pod" in r.getMessage()]) == 1


def test_outside_of_a_pod_it_says_so_and_follows(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.leader()
    follower = world.follower(pod=False)
    assert "not in a pod (POD_NAME and POD_UID are not set): the holder's Pod is not watched" in caplog.text
    world.patch(holderIdentity="")
    follower.replica.leads()


def test_a_pod_of_another_namespace(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.leader()
    follower = world.follower()
    other = PodWatcher(
        follower.replica.settings.changed(pod_namespace="kube-system"),
        lambda: config.new_client_from_config(str(world.cluster.kubeconfig)),
        holder=lambda: None,
        gone=lambda holder: None,
        head_start=lambda seconds: None,
        deleted=lambda cause: pytest.fail(cause),
        confirm=lambda: "",
    )
    other.start()
    until("it to say so", lambda: "in namespace kube-system: the holder's Pod is not watched" in caplog.text, PATIENCE)
    other.stop()
