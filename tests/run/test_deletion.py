"""A replica whose own Pod is being deleted leaves as if it were told so by a signal, which may come later, or never."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf
import pytest

from devcluster.waiting import until
from tests.kit.client import MERGE
from tests.run.support import LONG, Marks, Replica, Rival, Running, World, registry

Run = Callable[..., Running]
STAY = "test.kopf-ha.dev/stay"


class Pod:
    """A Pod that never runs, and that a deletion marks, until the test is over."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.path = f"/api/v1/namespaces/{world.namespace}/pods"
        spec = {"schedulerName": "none.kopf-ha.dev", "containers": [{"name": "operator", "image": "none"}]}
        meta = {"name": "mine", "labels": {"app": "op"}, "finalizers": [STAY]}
        self.uid = world.ask("POST", self.path, {"metadata": meta, "spec": spec})["metadata"]["uid"]

    def delete(self) -> None:
        self.world.ask("DELETE", f"{self.path}/mine")

    def drop(self) -> None:
        self.world.api("PATCH", f"{self.path}/mine", {"metadata": {"finalizers": None}}, MERGE)

    @property
    def settings(self) -> dict[str, Any]:
        identity = f"mine_{self.uid}_abcd"
        return {
            "identity": identity, "pod_uid": self.uid, "pod_name": "mine", "pod_namespace": self.world.namespace,
        }  # fmt: skip


@pytest.fixture
def pod(world: World) -> Any:
    made = Pod(world)
    yield made
    made.drop()


def test_a_leader_drains_and_releases(run: Run, world: World, marks: Marks, pod: Pod) -> None:
    handlers = registry()

    @kopf.on.startup(registry=handlers)
    def begin(**_: object) -> None:
        marks.put("startup")

    @kopf.on.cleanup(registry=handlers)
    def end(**_: object) -> None:
        marks.put("cleanup", world.lease()["holderIdentity"])

    running = run(handlers, world.settings(**pod.settings))
    marks.wait("startup")
    pod.delete()
    assert running.wait() == 0
    assert marks.all("cleanup") == [pod.settings["identity"]], "drained while it held the Lease"
    assert not world.lease().get("holderIdentity")


def test_a_follower_leaves_and_never_leads(run: Run, world: World, pod: Pod) -> None:
    rival = Rival(world.settings())
    try:
        until("the rival to lead", lambda: rival.grants, LONG)
        running = run(registry(), world.settings(**pod.settings))
        until("it to follow", lambda: running.runner.elector.observed_holder == "rival", LONG)
        pod.delete()
        assert running.wait() == 0
    finally:
        rival.stop()
    assert world.lease()["leaseTransitions"] == 1


SLOW = """
@kopf.on.create(GROUP, "v1", "things")
def made(logger, **_):
    logger.info("BUSY")
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
    logger.info("DONE")
"""


def deleted_and_signalled(replica: Callable[..., Replica], world: World, pod: Pod) -> Replica:
    """Give a leader with a busy handler that saw its Pod's deletion, and then got the kubelet's signal."""
    world.create("Thing", "a")
    env = {"POD_NAME": "mine", "POD_UID": pod.uid, "POD_NAMESPACE": world.namespace}
    one = replica("import pathlib" + SLOW, "op.py", "--drain-timeout=60", env=env)
    one.see("BUSY")
    pod.delete()
    one.see("stopping: Pod mine is being deleted")
    one.signal(signal.SIGTERM)
    return one


def test_the_signal_that_follows_is_not_the_second_one(
    replica: Callable[..., Replica], world: World, pod: Pod, tmp_path: Path
) -> None:
    one = deleted_and_signalled(replica, world, pod)
    (tmp_path / "replica-0" / "go").touch()
    assert one.wait() == 0
    one.see("DONE")
    assert "ending without waiting for handlers" not in one.log
    assert not world.lease().get("holderIdentity")


def test_the_second_signal_is(replica: Callable[..., Replica], world: World, pod: Pod) -> None:
    one = deleted_and_signalled(replica, world, pod)
    one.signal(signal.SIGINT)
    assert one.wait() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "ending without waiting for handlers" in one.log
