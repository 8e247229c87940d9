"""The reference operator with its policies and its RBAC in force, on a control plane of its own.

Its replicas have the credentials of pods, so that a write that the policies refuse would end a term.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devcluster import Binaries, ControlPlane, PodIdentity, Process
from devcluster.waiting import until
from tests.policies.fenced import ROOT

NAME = "kopf-ha-ipam"


class Operator(Process):
    """One container of a pod; a second one is that container, restarted."""

    def __init__(
        self, plane: ControlPlane, pod: PodIdentity, log: Path, *args: str, launcher: Path | None = None, **env: str
    ) -> None:
        environment = os.environ | {
            "KUBECONFIG": str(plane.kubeconfig_for(pod.token, name=pod.name)),
            "PYTHONPATH": str(ROOT / "operator"),
            "POD_NAME": pod.name,
            "POD_UID": pod.uid,
            "POD_NAMESPACE": NAME,
            "KOPF_HA_IPAM_QUARANTINE": "1",
            **env,
        }
        start = [str(launcher)] if launcher else ["-m", "kopf_ha"]
        argv = [
            sys.executable, *start, "run", "-A", "-m", "kopf_ha_ipam.handlers",
            "--deciding=addresspools.ipam.kopf-ha.dev", f"--lease-name={NAME}", "--lease-duration=3",
            "--renew-deadline=2", "--retry-period=0.5", "--after-loss=follow", *args,
        ]  # fmt: skip
        super().__init__(log.stem, argv, environment, log)
        self.log = log


class World:
    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.running: list[Operator] = []
        self.logs: list[Path] = []

    def start(self, pod: PodIdentity, *args: str, **options: Any) -> Operator:
        made = Operator(self.plane, pod, self.folder / f"{pod.name}-{len(self.logs)}.log", *args, **options)
        self.logs.append(made.log)
        self.running.append(made)
        made.start()
        return made

    def kill(self, operator: Operator) -> None:
        operator.kill()
        self.running.remove(operator)

    def list(self, kind: str, *args: str) -> list[dict[str, Any]]:
        return list(json.loads(self.plane.kubectl("get", kind, "-o", "json", *args).stdout)["items"])

    def claims(self, *names: str) -> None:
        body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "spec": {"poolName": "pool"}}
        many = [body | {"metadata": {"name": n, "namespace": "default"}} for n in names]
        self.plane.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": many}))

    def delete(self, *names: str) -> None:
        self.plane.kubectl("delete", "addressclaim", "-n", "default", "--wait=false", *names)

    def until_bound(self, count: int) -> None:
        """Wait until there are that many claims, all bound, with as many ConfigMaps."""

        def check() -> bool:
            claims = self.list("addressclaims", "-n", "default")
            children = self.list("configmaps", "-n", "default", "-l", f"app.kubernetes.io/managed-by={NAME}")
            bound = [c for c in claims if (c.get("status") or {}).get("address")]
            return len(claims) == len(bound) == len(children) == count

        until(f"{count} claims to be bound", check, watched=self.running)

    def check_nothing_was_refused(self) -> None:
        said = [line for log in self.logs for line in log.read_text().splitlines() if "refused" in line]
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
        probe = json.dumps(lease | {"spec": {"holderIdentity": "nobody"}})

        def in_force() -> bool:
            done = plane.kubectl("create", "--dry-run=server", "-f", "-", input=probe, check=False)
            return "ValidatingAdmissionPolicy" in done.stderr

        until("the policies to be in force", in_force)
        made = World(plane, tmp_path)
        try:
            yield made
        finally:
            for operator in list(made.running):
                made.kill(operator)
