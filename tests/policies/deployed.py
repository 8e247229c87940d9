"""The reference operator with its policies and its RBAC in force, on a control plane of its own.

Its replicas have the credentials of pods, so that a write that the policies refuse would end a term.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devcluster import Binaries, ControlPlane, PodIdentity
from devcluster.waiting import until
from testbed.deployment import NAME, ROOT
from testbed.replica import IPAM, KOPF_HA, PATIENCE, Replica, as_pod
from tests.kit.client import administrator
from tests.kit.world import LEASES

CLAIMS = "/apis/ipam.kopf-ha.dev/v1/namespaces/default/addressclaims"
CHILDREN = f"/api/v1/namespaces/default/configmaps?labelSelector=app.kubernetes.io/managed-by%3D{NAME}"


class World:
    """A control plane with everything in deploy/ and one pool, and replicas with the credentials of pods."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.running: list[Replica] = []
        self.all: list[Replica] = []  #: ended ones, too

    def start(self, pod: PodIdentity, *args: str, launcher: Path | None = None, **env: str) -> Replica:
        """Start one container of a pod; a second one is that container, restarted."""
        name = f"{pod.name}-{len(self.all)}"
        config = self.plane.kubeconfig_for(pod.token, name=pod.name)
        arguments = [*IPAM, f"--lease-name={NAME}", *args]
        env = as_pod(pod, NAME) | {"KOPF_HA_IPAM_QUARANTINE": "1"} | env
        program = (launcher,) if launcher else KOPF_HA
        log = self.folder / f"{name}.log"
        made = Replica(name, config, arguments, log, env=env, program=program, warm=True)
        self.all.append(made)
        self.running.append(made)
        made.start()
        return made

    def kill(self, replica: Replica) -> None:
        replica.kill()
        self.running.remove(replica)

    def list(self, path: str) -> list[dict[str, Any]]:
        return list(administrator(self.plane).must("GET", path)["items"])

    def claims(self, *names: str) -> None:
        body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "spec": {"poolName": "pool"}}
        many = [body | {"metadata": {"name": n, "namespace": "default"}} for n in names]
        self.plane.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": many}))

    def delete(self, *names: str) -> None:
        self.plane.kubectl("delete", "addressclaim", "-n", "default", "--wait=false", *names)

    def until_bound(self, count: int) -> None:
        """Wait until there are that many claims, all bound, with as many ConfigMaps."""

        def check() -> bool:
            claims, children = self.list(CLAIMS), self.list(CHILDREN)
            bound = [c for c in claims if (c.get("status") or {}).get("address")]
            return len(claims) == len(bound) == len(children) == count

        until(f"{count} claims to be bound", check, PATIENCE, watched=self.running)

    def check_nothing_was_refused(self) -> None:
        said = [line for replica in self.all for line in replica.log.splitlines() if "refused" in line]
        assert said == []


@contextmanager
def deployed(binaries: Binaries, tmp_path: Path) -> Iterator[World]:
    """Give a control plane with all that deploy/ has, and a pool."""
    with ControlPlane(tmp_path / "state", binaries=binaries) as plane:
        plane.kubectl("apply", "-k", str(ROOT / "crds"))
        plane.wait_established()
        plane.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))  # its pods stay Pending: there is no node
        plane.kubectl("apply", "-f", str(ROOT / "deploy" / "components" / "policies" / "policies.yaml"))
        body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": "pool"}}
        plane.kubectl("apply", "-f", "-", input=json.dumps(body | {"spec": {"cidr": "10.77.0.0/24"}}))
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME, "namespace": NAME}}
        probe = lease | {"spec": {"holderIdentity": "nobody"}}

        def in_force() -> bool:
            return bool(administrator(plane)("POST", f"{LEASES}/{NAME}/leases?dryRun=All", probe).by)

        until("the policies to be in force", in_force)
        made = World(plane, tmp_path)
        try:
            yield made
        finally:
            for replica in list(made.running):
                made.kill(replica)
