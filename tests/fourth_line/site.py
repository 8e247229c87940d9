"""The reference operator with everything in deploy/, its replicas with the credentials of pods."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from devcluster import ControlPlane
from devcluster.waiting import until
from kopf_ha.manifests.term import KNOWN_TERM
from testbed.deployment import NAME, ROOT
from testbed.replica import IPAM, KOPF_HA, PATIENCE, Replica, as_pod
from testbed.terms import MERGE, Raw
from tests.kit.ipam import Ipam
from tests.kit.world import LEASES

#: Of the operator's pods, as in deploy/.
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "operator"}
#: The policy by which only the pod in the Term writes.
LINE = f"{NAME}-term"
TERM = f"/apis/kopf-ha.dev/v1/namespaces/{NAME}/terms/{NAME}"


def deploy(plane: ControlPlane) -> None:
    """Apply deploy/, and wait until each API server judges by its policies."""
    plane.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))  # its pods stay Pending: there is no node
    plane.kubectl("apply", "-f", str(ROOT / "deploy" / "components" / "policies" / "policies.yaml"))


class Site(Ipam):
    """One test's claims, and the operator's replicas."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        super().__init__(plane, namespace, folder)
        self.plane = plane
        self.lease_path = f"{LEASES}/{NAME}/leases/{NAME}"
        self.pods: list[str] = []

    def operator(self, name: str = "a", *, launcher: Path | None = None, **env: str) -> Replica:
        """Start a replica in a pod of its own."""
        name = f"{name}-{self.namespace}"
        pod = self.plane.pod_identity(NAME, NAME, name, LABELS)
        self.pods.append(name)
        config, log = self.plane.kubeconfig_for(pod.token), self.folder / f"{name}.log"
        arguments = [*IPAM, f"--lease-name={NAME}"]
        env = as_pod(pod, NAME) | {"KOPF_HA_IPAM_QUARANTINE": "1"} | env
        program = (launcher,) if launcher else KOPF_HA
        made = Replica(name, config, arguments, log, env=env, program=program, warm=True)
        self.operators.append(made)
        if launcher:
            self.expendable.add(made)
        made.start()
        return made

    def kill_and_restart(self, replica: Replica) -> None:
        """Have the container of a pod end and start again, as a kubelet does."""
        replica.kill()
        self.vacate_lease()
        replica.start()

    def raw_of(self, replica: Replica) -> Raw:
        """Give a client with the credentials of a replica's pod, and no fence."""
        config = yaml.safe_load(Path((replica.env or {})["KUBECONFIG"]).read_text())
        return Raw(self.plane.servers[0], self.plane.ca_file, config["users"][0]["user"]["token"])

    def begin(self) -> None:
        """Have nobody hold the Lease."""
        if self.lease():
            self.vacate_lease()

    def clear(self, *plurals: str) -> None:
        super().clear(*plurals)
        for pod in self.pods:
            self.cluster.kubectl("delete", "pod", pod, "-n", NAME, "--force", "--grace-period=0", check=False)

    def term(self) -> dict[str, Any]:
        """Give the Term's spec, an empty one if there is no Term."""
        return dict(self.read(TERM).get("spec") or {})

    def switch_off(self) -> None:
        """Take line 4 away, and wait until no API server judges by it."""
        self.cluster.kubectl("delete", "validatingadmissionpolicybinding", LINE)
        until("no API server to judge by it", lambda: not any(map(self.is_on, (0, 1))), PATIENCE)

    def switch_on(self) -> None:
        """Bring it back."""
        deploy(self.plane)
        until("each API server to judge by it", lambda: all(map(self.is_on, (0, 1))), PATIENCE)

    def is_on(self, server: int) -> bool:
        """Whether an API server judges by it, asked as a replica asks."""
        status, body = self._asker(server)("PATCH", f"{TERM}?dryRun=All&fieldManager=kopf-ha-ask%3Aterm", {}, MERGE)
        return status == 403 and KNOWN_TERM in str(body.get("message"))

    @functools.cache  # noqa: B019  a site lives for one test
    def _asker(self, server: int) -> Raw:
        name = f"asker-{self.namespace}-{server}"
        pod = self.plane.pod_identity(NAME, NAME, name, LABELS)
        self.pods.append(name)
        return Raw(self.plane.servers[server], self.plane.ca_file, pod.token)
