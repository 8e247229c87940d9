"""docs/adoption.md, "From another lock": with each old implementation, never two who lead, whoever is killed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Binaries, ControlPlane, Process
from devcluster.waiting import until
from testbed.deployment import ROOT
from testbed.peering import PEERINGS
from testbed.replica import ABSENT, KOPF_HA, PATIENCE, SOURCE, TIMES, Replica
from tests.kit.world import World

LOCKS = Path(__file__).parent / "locks"


class Migration:
    """One operator: its old replicas and its new ones, and the lines that each writes while it leads."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.plane, self.namespace, self.folder = plane, namespace, folder
        self.world = World(plane, namespace)
        self.lines = folder / "lines"
        self.lines.touch()
        self.started: list[Process] = []
        body = {"metadata": {"name": "handled", "labels": {"handled": "yes"}}}
        self.world.ask("POST", f"/api/v1/namespaces/{namespace}/configmaps", body)

    def replica(self, who: str, *arguments: str, program: Any = KOPF_HA) -> Replica:
        env = {"WHO": who, "LINES": str(self.lines), "POD_NAMESPACE": self.namespace}
        env |= {"PYTHONPATH": f"{ABSENT}:{SOURCE}:{ROOT}"}
        log = self.folder / f"{who}.log"
        made = Replica(who, self.plane.kubeconfig, arguments, log, times=TIMES, env=env, program=program, warm=True)
        made.start()
        self.started.append(made)
        return made

    def new(self, who: str, lock: str = "") -> Replica:
        """A replica under kopf-ha; with the legacy lock until the last rollout."""
        option = (f"--legacy-lock={lock}",) if lock else ()
        operator = (str(LOCKS / "op.py"), "-n", self.namespace, "--lease-name=op")
        return self.replica(who, "run", *operator, *option)

    def leaders(self) -> list[str]:
        """Who led, one after the other, by the times of their lines."""
        times = sorted((float(t), who) for t, who in (line.split() for line in self.lines.read_text().splitlines()))
        return [who for who, _ in itertools.groupby(times, key=lambda one: one[1])]

    def led_by(self, *whos: str) -> None:
        """Wait until the last of these leads, and see that these led one after the other, and never two at once."""
        until(f"{whos[-1]} to lead", lambda: self.leaders()[-1:] == [whos[-1]], PATIENCE)
        assert self.leaders() == list(whos)

    def claims(self) -> dict[str, Any]:
        """The claims of new replicas in the peering."""
        peering = self.world.read(f"/apis/kopf.dev/v1/namespaces/{self.namespace}/kopfpeerings/old")
        return {who: claim for who, claim in peering["status"].items() if who.startswith("kopf-ha:")}

    def end(self) -> None:
        for process in self.started:
            process.kill()
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/handled"
        self.world.api("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")


@pytest.fixture
def migration(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Migration]:
    made = Migration(control_plane, namespace, tmp_path)
    try:
        yield made
    finally:
        made.end()


@pytest.mark.parametrize("resource", ["configmaps", "endpoints"])
def test_from_a_record_in_an_annotation(migration: Migration, resource: str) -> None:
    """The election of the `kubernetes` package, and a record as old client-go wrote it."""
    lock = f"{resource}/old"
    elected = ("-m", "tests.adoption.locks.elected")

    def old(who: str) -> Replica:
        return migration.replica(who, resource, program=elected)

    first = old("old-1")
    migration.led_by("old-1")
    new = migration.new("new-1", lock)
    new.see(f"{resource}/{migration.namespace}/old is held by old-1, which is waited for")
    first.kill()
    migration.led_by("old-1", "new-1")
    second = old("old-2")  # somebody goes back, or a node comes back
    second.see("yet to finish lease_duration, lease held by kopf-ha:")
    new.kill()
    migration.led_by("old-1", "new-1", "old-2")
    new = migration.new("new-2", lock)
    new.see("held by old-2, which is waited for")
    second.stop()
    migration.led_by("old-1", "new-1", "old-2", "new-2")
    third = old("old-3")
    # The rollout that drops the option: the two sorts of new replicas elect by the Lease.
    last = migration.new("new-3")
    last.see("new leader")
    third.kill()
    assert new.stop() == 0
    migration.led_by("old-1", "new-1", "old-2", "new-2", "new-3")


def test_from_kopf_s_peering(migration: Migration) -> None:
    plane, world, namespace = migration.plane, migration.world, migration.namespace
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    world.ask("POST", definitions, PEERINGS)
    try:
        plane.wait_established()
        peering = {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": {"name": "old"}}
        world.ask("POST", f"/apis/kopf.dev/v1/namespaces/{namespace}/kopfpeerings", peering)

        def old(who: str, priority: int) -> Replica:
            options = ("--peering=old", f"--priority={priority}", "-n", namespace, "--verbose")
            return migration.replica(who, "run", str(LOCKS / "op.py"), *options, program=("-m", "kopf"))

        first = old("old-1", 10)
        migration.led_by("old-1")
        second = old("old-2", 5)
        second.see("Keep-alive in 'old'")
        new = migration.new("new-1", "kopfpeerings/old")
        new.see("which is waited for")
        first.kill()
        migration.led_by("old-1", "old-2")
        second.kill()
        migration.led_by("old-1", "old-2", "new-1")
        third = old("old-3", 666)
        third.see("Keep-alive in 'old'")
        sibling = migration.new("new-2", "kopfpeerings/old")
        sibling.see("new leader")
        # It knows how old a claim is only if it saw it change.
        for _ in range(2):
            seen = migration.claims()
            until("a renewal of the claim", lambda seen=seen: migration.claims() != seen, PATIENCE)  # type: ignore[misc]
        new.kill()
        migration.led_by("old-1", "old-2", "new-1", "new-2")  # which continues the claim, so that old-3 still pauses
        sibling.kill()
        migration.led_by("old-1", "old-2", "new-1", "new-2", "old-3")
        last = migration.new("new-3", "kopfpeerings/old")
        last.see("which is waited for")
        third.stop()
        migration.led_by("old-1", "old-2", "new-1", "new-2", "old-3", "new-3")
    finally:
        migration.end()
        world.api("DELETE", f"{definitions}/kopfpeerings.kopf.dev")


def test_from_a_lease_of_client_go(migration: Migration, binaries: Binaries) -> None:
    """A controller manager that controls nothing else elects by client-go."""

    def old(who: str) -> Process:
        lock = ("--leader-elect-resource-name=old", f"--leader-elect-resource-namespace={migration.namespace}")
        times = (
            "--leader-elect-lease-duration=6s",
            "--leader-elect-renew-deadline=5s",
            "--leader-elect-retry-period=1s",
        )
        rest = ("--controllers=clusterrole-aggregation-controller", "--secure-port=0", "--v=2")
        argv = [str(binaries["kube-controller-manager"]), f"--kubeconfig={migration.plane.kubeconfig}"]
        made = Process(
            who, [*argv, "--leader-elect=true", *lock, *times, *rest], log_path=migration.folder / f"{who}.log"
        )
        made.start()
        migration.started.append(made)
        return made

    def leads(process: Process) -> bool:
        return "Successfully acquired lease" in (migration.folder / f"{process.name}.log").read_text()

    first = old("old-1")
    until("old-1 to lead", lambda: leads(first), PATIENCE)
    new = migration.new("new-1", "leases/old")
    new.see("which is waited for")
    assert migration.leaders() == []
    first.kill()
    migration.led_by("new-1")
    second = old("old-2")
    until("old-2 to follow", lambda: "Attempting to acquire leader lease" in second.log_tail(1000), PATIENCE)
    assert new.stop() == 0
    assert not leads(second) or migration.leaders() == ["new-1"]
    until("old-2 to lead", lambda: leads(second), PATIENCE)
    sibling = migration.new("new-2", "leases/old")
    sibling.see("which is waited for")
    second.kill()
    migration.led_by("new-1", "new-2")
