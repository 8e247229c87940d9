"""An operator that is installed as docs/adoption.md says, and `kopf-ha check` about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.cli import main
from kopf_ha.core.hearing import term_path
from kopf_ha.manifests.command import manifests
from tests.kit.client import APPLY, MERGE, Client
from tests.kit.world import World


def definition(group: str, kind: str, *versions: str) -> dict[str, Any]:
    """A CRD as operators have it."""
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": loose, "status": loose}}}
    made = [
        {"name": name, "served": True, "storage": n == 0, "subresources": {"status": {}}, "schema": schema}
        for n, name in enumerate(versions or ("v1",))
    ]
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural}, "versions": made},
    }


def operator(namespace: str, group: str, name: str = "toys") -> list[dict[str, Any]]:
    """The manifests of an operator that runs plain Kopf: CRDs, account, role, Deployment and budget."""
    labels = {"app": name}
    container = {"name": "operator", "image": "toys:1", "command": ["kopf", "run", "-A", "toys.py"]}
    template = {"metadata": {"labels": labels}, "spec": {"serviceAccountName": name, "containers": [container]}}
    meta = {"name": name, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{namespace}-{name}"}
    rules = [
        {
            "apiGroups": [group],
            "resources": ["racks", "racks/status", "toys", "toys/status"],
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch", "delete"]},
    ]
    return [
        definition(group, "Rack"),
        definition(group, "Toy"),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role["name"]},
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role["name"]},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": meta,
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
        },
    ]


def fenced(documents: list[dict[str, Any]], *args: str) -> list[dict[str, Any]]:
    """What `kopf-ha manifests -f` makes of them, after the one update that adopts it."""
    done = CliRunner().invoke(manifests, ["-f", "-", *args], input=yaml.safe_dump_all(documents))
    assert done.exit_code == 0, done.output
    made = [d for d in yaml.safe_load_all(done.stdout) if d]
    for one in made:
        if one["kind"] == "Deployment":
            one["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return made


class Checked(World):
    """The operator, installed, with a leader that somebody plays.

    Args:
        cluster: where.
        namespace: of the operator, which has no other objects.
        folder: for its manifests and for programs.
    """

    as_leader: Client
    holder = uid = ""
    number = 0

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        super().__init__(cluster, namespace, f"{namespace}.kopf-ha.test", lease="toys")
        self.folder = folder
        self.prefix = f"kopf-ha-{namespace}.toys"
        self.documents = fenced(operator(namespace, self.group), "--deciding", f"racks.{self.group}")
        self.file = folder / "fenced.yaml"
        self.file.write_text(yaml.safe_dump_all(self.documents))
        self._programs()

    def install(self) -> None:
        """Apply the manifests; make replicas that are ready, a leader, and an object that it stamped."""
        self.apply(self.file.read_text())
        self.cluster.wait_established()
        pods = until("the Deployment's two pods", lambda: p if len(p := self.pods()) == 2 else None)
        # A paused Deployment makes no Pods of a changed template, which would not become ready without nodes.
        self.kubectl("patch", "deployment/toys", "--type=merge", "-p", '{"spec":{"paused":true}}')
        for pod in pods:
            self.set_status(pod["metadata"]["name"])
        leader = pods[0]["metadata"]
        self.holder, self.uid = f"{leader['name']}_{leader['uid']}_1", str(leader["uid"])
        bound = ["--bound-object-kind=Pod", f"--bound-object-name={leader['name']}", f"--bound-object-uid={self.uid}"]
        token = self.kubectl("create", "token", "toys", *bound).stdout.strip()
        self.as_leader = Client(self.cluster.servers[0], self.cluster.ca_file, token)
        self.make_lease(leaseTransitions=6)
        self.lead()
        self.create("Rack", "one")
        path = self.path("racks", "one") + "/status"
        until("the leader to stamp", lambda: self.as_leader("PATCH", path, {"status": self.stamp_now()}, MERGE).ok)

    def stamp_now(self, **other: Any) -> dict[str, Any]:
        """The leader's stamp, as a status."""
        stamp = {"lease": f"{self.namespace}/toys", "token": self.number, "holder": self.holder, "podUID": self.uid}
        return {"fencing": stamp | other}

    def lead(self, *, write_term: bool = True) -> None:
        """Take the Lease as the operator would, with a higher number, and write the Term."""
        term = (self.read(term_path(self.namespace, "toys")).get("spec") or {}).get("token") or 0

        def led() -> bool:
            lease = self.ask("GET", self.lease_path)
            self.number = max(int(lease["spec"]["leaseTransitions"]), term) + 1
            self.holder = f"{self.holder.rpartition('_')[0]}_{self.number}"
            lease["spec"] |= {"holderIdentity": self.holder, "leaseTransitions": self.number}
            lease["spec"] |= {"leaseDurationSeconds": 15, "renewTime": now(), "acquireTime": now()}
            lease["metadata"]["annotations"] = {"kopf-ha.dev/operator": "toys"}
            return bool(self.as_leader("PUT", self.lease_path, lease).ok)

        until("the Lease to be taken", led)
        if write_term:
            self.write_term()

    def write_term(self) -> None:
        """Write who leads, as the operator would."""
        path, spec = term_path(self.namespace, "toys"), self.stamp_now()["fencing"]
        del spec["lease"]
        body = {"apiVersion": "kopf-ha.dev/v1", "kind": "Term", "metadata": {"name": "toys"}, "spec": spec}
        apply = f"{path}?fieldManager=leader&force=true"
        until("the Term to be written", lambda: self.as_leader("PATCH", apply, body, APPLY).ok)

    def renew(self) -> None:
        """Renew the Lease, whoever holds it, if it can be."""
        self.api("PATCH", self.lease_path, {"spec": {"renewTime": now()}}, MERGE)

    # --- Pods

    def pods(self) -> list[dict[str, Any]]:
        """The replicas."""
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3Dtoys"
        return list(self.ask("GET", path)["items"])

    def set_status(self, pod: str, *, ready: bool = True, ended: int = 0) -> None:
        """Say as a kubelet would whether a Pod is ready, and how its container ended last."""
        last = {"terminated": {"exitCode": ended}} if ended else {}
        container = {
            "name": "operator",
            "image": "",
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "lastState": last,
        }
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [container],
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/status"
        self.ask("PATCH", path, {"status": status}, MERGE)

    # --- commands

    def apply(self, text: str) -> None:
        """Apply manifests."""
        self.cluster.kubectl("apply", "-f", "-", input=text)

    def check(self, *args: str) -> dict[str, Any]:
        """What `kopf-ha check -o json` prints, with its exit status as `exit`."""
        given = ["check", "-o", "json", f"--kubeconfig={self.cluster.kubeconfig}", "-n", self.namespace, *args]
        done = CliRunner().invoke(main, given)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.stdout.startswith("{"), done.output
        return dict(json.loads(done.stdout)) | {"exit": done.exit_code}

    def findings(self, *args: str) -> dict[str, list[dict[str, Any]]]:
        """What it finds, by the check's name."""
        self.renew()
        return {c["name"]: c["findings"] for c in self.check(*args)["checks"] if c["findings"]}

    def run(self, command: str) -> None:
        """Run a command of a hint, as somebody would paste it."""
        env = self.cluster.kubectl_env() | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        env |= {"KUBECONFIG": str(self.cluster.kubeconfig)}
        done = subprocess.run(
            ["bash", "-ec", f"set -o pipefail; {command}"], env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def remove(self) -> None:
        """Remove what is in no namespace."""
        gone = [d for d in self.documents if d["metadata"].get("namespace") is None]
        gone = [d for d in gone if d["metadata"]["name"] != "terms.kopf-ha.dev"]
        gone.sort(key=lambda d: d["kind"] == "CustomResourceDefinition")
        text = yaml.safe_dump_all(gone)
        self.cluster.kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", input=text, check=False)

    def _programs(self) -> None:
        bin_ = self.folder / "bin"
        bin_.mkdir()
        (bin_ / "kubectl").write_text(f'#!/bin/sh\nexec {self.cluster.kubectl_path} "$@"\n')
        (bin_ / "kopf-ha").write_text(f'#!/bin/sh\nexec {sys.executable} -m kopf_ha "$@"\n')
        for program in bin_.iterdir():
            program.chmod(0o755)


def now() -> str:
    """The time as a MicroTime."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
