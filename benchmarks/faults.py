"""What can happen to replicas, their nodes and their API server: one function a fault, for benchmarks.chaos."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

from devcluster.waiting import until
from testbed.deployment import NAME
from testbed.stage import LIMIT, Stage

#: Seconds of the Lease in deploy/, and those for which a stopped process is not yet killed by its liveness probe.
LEASE, UNNOTICED = 15.0, 21.0
DEPLOYMENT = f"deployment/{NAME}"


@dataclass
class Scene:
    """Where faults happen, and what they leave for the judgement.

    Args:
        stage: the cluster.
        random: all choices come from it.
    """

    stage: Stage
    random: Random
    struck: float = 0.0  #: when the last fault hit, by the monotonic clock
    before: int = 0  #: the Lease's token then
    killed: Counter[str] = field(default_factory=Counter)  #: times that the container was killed, by uid of its pod
    complaints: list[str] = field(default_factory=list)

    def leader(self) -> dict[str, Any]:
        """Give the leader's pod."""

        def look() -> Any:
            name = self.stage.lease()[0].split("_")[0]
            return next((p for p in self.stage.pods() if p["metadata"]["name"] == name), None)

        return dict(until("a leader among the pods", look, LIMIT, 0.2))

    def follower(self) -> dict[str, Any]:
        """Give one of the others."""
        leader = self.leader()["metadata"]["uid"]
        return self.random.choice([p for p in self.stage.pods() if p["metadata"]["uid"] != leader])

    def strikes(self) -> None:
        """Note that the fault hits now."""
        self.before, self.struck = self.stage.lease()[1], time.monotonic()

    def kubectl(self, *args: str) -> str:
        """Run kubectl on the operator's namespace."""
        return self.stage.kubectl("-n", NAME, *args)

    def process(self, pod: dict[str, Any]) -> int:
        """Give the process id of the operator in a pod, once it runs."""

        def look() -> int:
            try:
                return self.stage.process_of(pod["metadata"]["uid"])
            except LookupError:
                return 0

        return until("the operator's process", look, LIMIT, 0.05)

    @contextmanager
    def paused(self, pid: int) -> Iterator[None]:
        """Have a process stand still."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    def wait(self, least: float, most: float) -> float:
        """Let some time pass, within these bounds; give the seconds."""
        seconds = self.random.uniform(least, most)
        time.sleep(seconds)
        return seconds


@dataclass(frozen=True)
class Fault:
    """A fault that can be chosen.

    Args:
        do: does it, and undoes what does not heal by itself; may give a remark.
        often: weight of the choice.
        terms: that it may cost; None for any number.
        fast: whether somebody else must lead soon: by a release, or since the leader's Pod says that it is dead.
        alone: whether it wants the cluster healthy, and nothing else at the same time.
    """

    do: Callable[[Scene], str | None]
    often: int = 2
    terms: int | None = 1
    fast: bool = False
    alone: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.do.__name__.replace("_", " ")


FAULTS: list[Fault] = []


def fault(**about: Any) -> Callable[[Callable[[Scene], str | None]], Callable[[Scene], str | None]]:
    """Have it chosen; see `Fault`."""

    def add(do: Callable[[Scene], str | None]) -> Callable[[Scene], str | None]:
        FAULTS.append(Fault(do, **about))
        return do

    return add


@fault(fast=True)
def deleted(s: Scene) -> None:
    pod = s.leader()["metadata"]["name"]
    s.strikes()
    s.kubectl("delete", "pod", pod, "--wait=false")


@fault(fast=True)
def deleted_by_force(s: Scene) -> None:
    pod = s.leader()["metadata"]["name"]
    s.strikes()
    s.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


@fault(often=4, fast=True)
def paused_and_deleted_by_force(s: Scene) -> str:
    """It wakes up some time later, with a grant that may be open."""
    pod = s.leader()
    pid = s.process(pod)  # first: who has none is not started again while the kubelet stands still
    with s.stage.stopped_kubelet(pod["spec"]["nodeName"]), s.paused(pid):
        s.strikes()
        s.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
        slept = s.wait(0.2, 12)
    return f"{slept:.1f} s"


@fault(often=2, terms=1)
def paused(s: Scene) -> str:
    pid = s.process(s.leader())
    s.strikes()
    with s.paused(pid):
        slept = s.wait(1, LEASE - 1)
    return f"{slept:.1f} s"


@fault(often=2)
def paused_for_longer_than_its_lease(s: Scene) -> str:
    pid = s.process(s.leader())
    s.strikes()
    with s.paused(pid):
        slept = s.wait(LEASE + 1, UNNOTICED)
    return f"{slept:.1f} s"


@fault(terms=0)
def follower_paused(s: Scene) -> str:
    pid = s.process(s.follower())
    s.strikes()
    with s.paused(pid):
        slept = s.wait(1, UNNOTICED)
    return f"{slept:.1f} s"


def kill(s: Scene, pod: dict[str, Any]) -> None:
    pid = s.process(pod)
    s.killed[pod["metadata"]["uid"]] += 1
    os.kill(pid, signal.SIGKILL)


@fault(often=3, fast=True)
def killed(s: Scene) -> None:
    pod = s.leader()
    s.strikes()
    kill(s, pod)


@fault(often=2, terms=None)
def killed_again_and_again(s: Scene) -> str:
    """The kubelet waits longer each time before it starts the container again."""
    pod, times = s.leader(), s.random.randint(2, 3)
    s.strikes()
    for n in range(times):
        old = s.process(pod)
        kill(s, pod)
        if n < times - 1:
            until("the next one", lambda old=old: s.process(pod) != old, LIMIT, 0.05)  # type: ignore[misc]
            s.wait(0, 2)
    return f"{times} times"


@fault(often=2, terms=None)
def whoever_leads_is_killed(s: Scene) -> str:
    times = s.random.randint(2, 3)
    s.strikes()
    for _ in range(times):
        kill(s, s.leader())
        s.wait(0, 3)
    return f"{times} times"


@fault(terms=0)
def follower_killed(s: Scene) -> None:
    pod = s.follower()
    s.strikes()
    kill(s, pod)


@fault(terms=0)
def follower_deleted(s: Scene) -> None:
    pod = s.follower()["metadata"]["name"]
    s.strikes()
    s.kubectl("delete", "pod", pod, "--wait=false")


@fault(often=2, fast=True)
def deleted_while_the_kubelet_stands_still(s: Scene) -> str:
    pod = s.leader()
    with s.stage.stopped_kubelet(pod["spec"]["nodeName"]):
        s.strikes()
        s.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        slept = s.wait(3, 15)
    return f"{slept:.1f} s"


@fault(often=2)
def the_api_server_stands_still(s: Scene) -> str:
    pid = s.stage.program("kube-apiserver")
    s.strikes()
    with s.paused(pid):
        slept = s.wait(2, LEASE + 5)
    return f"{slept:.1f} s"


@fault(often=1)
def etcd_stands_still(s: Scene) -> str:
    pid = s.stage.program("etcd")
    s.strikes()
    with s.paused(pid):
        slept = s.wait(2, LEASE + 5)
    return f"{slept:.1f} s"


@fault(often=2, terms=3)
def all_are_deleted(s: Scene) -> str:
    force = s.random.choice([(), ("--force", "--grace-period=0")])
    s.strikes()
    s.kubectl("delete", "pods", "--all", "--wait=false", *force)
    return "by force" if force else ""


@fault(often=1, terms=None)
def all_are_killed(s: Scene) -> None:
    pods = s.stage.pods()
    s.strikes()
    for pod in pods:
        kill(s, pod)


@fault(often=2, alone=True)
def rolled_out_anew(s: Scene) -> None:
    s.strikes()
    s.kubectl("rollout", "restart", DEPLOYMENT)


@fault(often=2, terms=None)
def the_leader_is_killed_in_a_rollout(s: Scene) -> None:
    s.strikes()
    s.kubectl("rollout", "restart", DEPLOYMENT)
    s.wait(1, 12)
    kill(s, s.leader())


@fault(often=1)
def scaled_to_one_and_back(s: Scene) -> str:
    s.strikes()
    s.kubectl("scale", DEPLOYMENT, "--replicas=1")
    slept = s.wait(0, 12)
    s.kubectl("scale", DEPLOYMENT, "--replicas=3")
    return f"after {slept:.1f} s"


@fault(fast=True, alone=True)
def evicted(s: Scene) -> None:
    pod = s.leader()["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAME}}
    path = f"/api/v1/namespaces/{NAME}/pods/{pod}/eviction"
    s.strikes()
    s.stage.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body))


@fault(often=1, alone=True)
def drained(s: Scene) -> None:
    node = s.leader()["spec"]["nodeName"]
    s.strikes()
    try:
        s.stage.kubectl("drain", node, f"--timeout={LIMIT - 10:g}s", "--ignore-daemonsets", "--delete-emptydir-data")
    finally:
        s.stage.kubectl("uncordon", node)


@fault(often=2, terms=0)
def labels_are_edited(s: Scene) -> None:
    s.strikes()
    for _ in range(s.random.randint(2, 6)):
        value = s.random.choice(["chaos=1", "chaos=2", "chaos-"])
        if s.random.random() < 0.5:
            s.kubectl("label", "--overwrite", "lease", NAME, value)
        else:
            s.kubectl("label", "--overwrite", "pods", "--all", value)


@fault(often=1, terms=1, alone=True)
def the_leader_is_labelled_away(s: Scene) -> None:
    """It leaves its ReplicaSet and the others' watch, and comes back; it lives all the time."""
    pod, label = s.leader()["metadata"]["name"], "app.kubernetes.io/name"
    s.strikes()
    s.kubectl("label", "--overwrite", "pod", pod, f"{label}=somebody-else")
    try:
        s.wait(2, 8)
        if s.stage.lease()[1] != s.before:
            s.complaints.append("a leader that lives was taken for gone, since its label was changed")
    finally:
        s.kubectl("label", "--overwrite", "pod", pod, f"{label}={NAME}")


@fault(often=2, alone=True)
def deleted_by_force_while_a_policy_is_missing(s: Scene) -> str:
    """Nobody may take over early then: what protects would be missing."""
    binding = s.random.choice([f"{NAME}-lease", f"{NAME}-stamped"])
    pod, awake = s.leader(), s.random.random() < 0.3
    node, pid = pod["spec"]["nodeName"], s.process(pod)
    s.stage.kubectl("delete", "validatingadmissionpolicybinding", binding)
    try:
        s.wait(1.5, 3)  # policies lag
        with s.stage.stopped_kubelet(node), nullcontext() if awake else s.paused(pid):
            s.strikes()
            s.kubectl("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
            s.stage.next_leader(s.before)
            took = time.monotonic() - s.struck
    finally:
        s.stage.shell("kubectl apply -f deploy/components/policies/policies.yaml")
    if not awake and took < LEASE - 5:
        s.complaints.append(f"taken over after {took:.1f} s while the binding {binding} was missing")
    return f"{binding}{', released' if awake else ''}"
