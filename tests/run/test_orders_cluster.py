"""Pause, resume and handover by the command, with replicas in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from devcluster import Cluster, PodIdentity
from devcluster.waiting import until
from kopf_ha.core.lease import HANDOVER, PAUSED, PREFERRED
from kopf_ha.manifests import term_crd
from testbed.replica import KOPF_HA, as_pod, environment
from tests.kit.client import STRATEGIC
from tests.kit.world import apply_kinds
from tests.run.support import LONG, Replica, World

Start = Callable[..., Replica]

HANDLING = """
@kopf.on.create(GROUP, "v1", "things")
@kopf.on.resume(GROUP, "v1", "things")
def made(patch, **_):
    patch.status["by"] = kopf_ha.current_term().token
"""


class People:
    """What people type, and what they see."""

    def __init__(self, cluster: Cluster, world: World) -> None:
        self.cluster, self.world = cluster, world

    def type(self, *words: str) -> tuple[int, dict[str, Any], str]:
        """Run `kopf-ha`; give its exit status, its answer, and what it complained about."""
        argv = [sys.executable, *KOPF_HA, *words, "op", "-n", self.world.namespace, "-o", "json"]
        env = environment(self.cluster.kubeconfig)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LONG)
        print(words, done.stdout, done.stderr)
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    @property
    def notes(self) -> dict[str, str]:
        """The Lease's annotations."""
        return dict(self.world.read(self.world.lease_path)["metadata"].get("annotations") or {})

    def pod(self, name: str) -> PodIdentity:
        """Make a Pod of a Deployment `op`, which is ready as far as its status says."""
        made = self.cluster.pod_identity(self.world.namespace, "default", name)
        self.mark(name, ready=True)
        return made

    def mark(self, name: str, *, ready: bool) -> None:
        """Have the status of a Pod say whether it is ready, as a kubelet does."""
        status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        self.world.ask(
            "PATCH", f"/api/v1/namespaces/{self.world.namespace}/pods/{name}/status", {"status": status}, STRATEGIC
        )

    def handled(self, name: str, token: int) -> None:
        """Wait until an object was handled in this term."""
        seen = "handled by whoever leads"
        until(seen, lambda: self.world.get("things", name).get("status", {}).get("by") == token, LONG)
        assert self.world.stamp_of("things", name)["token"] == token


@pytest.fixture
def people(kinds: Cluster, world: World) -> People:
    apply_kinds(kinds, term_crd.definition())
    return People(kinds, world)


def test_a_pause_survives_restarts_and_a_handover_survives_a_stale_leader(
    replica: Start, people: People, world: World
) -> None:
    one, other = (people.pod(f"op-7d9fcb8d5b-{name}") for name in ("bbbbb", "ccccc"))
    args = ("op.py", "--after-loss=follow")
    a = replica(HANDLING, *args, env=as_pod(one, world.namespace))
    a.see("leading: token 1")
    b = replica(HANDLING, *args, env=as_pod(other, world.namespace))
    b.see("new leader")
    world.create("Thing", "first")
    people.handled("first", 1)

    # --- a pause
    status, said, _ = people.type("pause", "--reason", "a repair", "--by", "ann")
    assert (status, said["nobodyLeads"], said["paused"]["reason"]) == (0, True, "a repair")
    assert world.lease()["holderIdentity"] == ""
    assert json.loads(people.notes[PAUSED]) == said["paused"]
    world.create("Thing", "second")
    for each in (a, b):
        each.see("Lease .* is paused by ann since .*: a repair")
    b.signal(signal.SIGTERM)
    assert b.wait() == 0
    b.start()  # its log goes on
    b.see("is paused by ann", 2)
    assert people.type("pause", "--reason", "another")[0] == 1
    assert people.type("handover")[0] == 1
    assert (world.lease()["leaseTransitions"], world.stamp_of("things", "second")) == (1, {})
    events = world.events()
    assert "paused by ann" in events["Paused"]
    assert "Lost" not in events
    status, said, _ = people.type("resume")
    assert (status, said["token"]) == (0, 2)
    people.handled("second", 2)
    assert PAUSED not in people.notes
    assert people.type("resume")[0] == 1

    # --- a handover to a pod that does not take it, and a leader that wakes up later
    old, new, pods = (a, b, (one, other)) if said["leader"] == one.name else (b, a, (other, one))
    old.signal(signal.SIGSTOP)
    new.see("leading: token 3")
    status, said, _ = people.type("handover", "--to", pods[0].name)
    assert (status, said["leader"], said["token"]) == (1, pods[1].name, 4), "it leads again after the bound"
    assert HANDOVER not in people.notes
    old.signal(signal.SIGCONT)
    old.see("lost: token 2")
    world.create("Thing", "third")
    people.handled("third", 4)

    # --- and one that works
    status, said, _ = people.type("handover", "--to", pods[0].name, "--wait")
    assert (status, said["leader"]) == (0, pods[0].name)
    assert said["firstWriteSeconds"] is not None
    assert {HANDOVER, PREFERRED}.isdisjoint(people.notes)
    world.create("Thing", "fourth")
    people.handled("fourth", said["token"])
    assert f"handed over to pod {pods[0].name}" in world.events()["Handover"]
    people.mark(pods[1].name, ready=False)
    status, _, why = people.type("handover", "--to", pods[1].name)
    assert (status, f"{pods[1].name} is not ready" in why) == (1, True)
    for each in (a, b):
        assert "Traceback" not in each.log
