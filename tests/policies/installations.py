"""Installations of one operator in namespaces of one cluster, each with what `kopf-ha manifests --namespace` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner

from devcluster import Cluster
from kopf_ha.manifests import schema_fragment
from kopf_ha.manifests.command import manifests
from testbed.replica import Replica, as_pod
from tests.kit import world as kit
from tests.kit.client import MERGE
from tests.kit.crd import LOOSE, crd

GROUP = "installed.kopf-ha.test"
DECIDING = f"pools.{GROUP}"

OPERATOR = f"""
import kopf, kubernetes, os

@kopf.on.startup()
def configure(settings, **_):
    settings.persistence.finalizer = "{GROUP}/finalizer"
    settings.scanning.disabled = "ONLY_ROLES" in os.environ

@kopf.on.create("{GROUP}", "cells")
def made(name, namespace, body, patch, **_):
    client = kubernetes.client.ApiClient()
    pools, core = kubernetes.client.CustomObjectsApi(client), kubernetes.client.CoreV1Api(client)
    where = ("{GROUP}", "v1", namespace, "pools", "pool")
    pool = pools.get_namespaced_custom_object(*where)
    given = {{"given": {{**(pool.get("status") or {{}}).get("given", {{}}), name: "yes"}}}}
    version = pool["metadata"]["resourceVersion"]
    pools.patch_namespaced_custom_object_status(*where, {{"metadata": {{"resourceVersion": version}}, "status": given}})
    child = {{"metadata": {{"name": name}}, "data": {{"of": name}}}}
    kopf.adopt(child, owner=body)
    core.create_namespaced_config_map(namespace, child)
    patch.status["done"] = True

@kopf.on.login()
def login(**given):
    kubernetes.config.load_kube_config()
    return kopf.login_via_client(**given)
"""


def kinds() -> list[dict[str, Any]]:
    """Pool (deciding), Cell, and the cluster-scoped Trunk, with the stamp and its rule."""
    found = [crd(GROUP, "Pool"), crd(GROUP, "Cell"), crd(GROUP, "Trunk")]
    found[2]["spec"]["scope"] = "Cluster"
    fragment = schema_fragment()
    for definition in found:
        for version in definition["spec"]["versions"]:
            status = LOOSE | fragment["properties"]["status"]
            properties = {"spec": LOOSE, "status": status}
            version["schema"]["openAPIV3Schema"] = {"type": "object", **fragment, "properties": properties}
    return found


class Installation(kit.World):
    """One installation: a namespace, an account, a Lease, and replicas with the credentials of pods.

    Args:
        cluster: the cluster.
        namespace: the account's and the Lease's, and the first that is served.
        folder: for the operator's file and logs.
        others: further namespaces that are served.
        may_all: the account may do everything in the cluster; otherwise it has what is written for it.
    """

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, *others: str, may_all: bool = False) -> None:
        super().__init__(cluster, namespace, GROUP)
        self.served = (namespace, *others)
        self.folder = folder
        folder.mkdir()
        (folder / "op.py").write_text(OPERATOR)
        self.running: list[Replica] = []
        self.kubectl("create", "serviceaccount", "operator")
        self.may_all = may_all
        if may_all:
            who = f"--serviceaccount={namespace}:operator"
            self.kubectl("create", "clusterrolebinding", namespace, "--clusterrole=cluster-admin", who)

    def written(self, *args: str) -> str:
        """What `kopf-ha manifests` writes for it."""
        given = ["--group", GROUP, "--kind=pools:deciding:map=given", "--kind=cells", "--child=configmaps:owner=Cell"]
        given += [f"--lease={self.namespace}/op", f"--service-account={self.namespace}/operator"]
        given += [f"--namespace={name}" for name in self.served]
        done = CliRunner().invoke(manifests, [*given, *args])
        assert done.exit_code == 0, done.output
        return done.output

    def start(self, pod: str, *args: str) -> Replica:
        """Start a replica in a pod of its own, of the StatefulSet `op`, whose name the Lease has."""
        identity = self.cluster.pod_identity(self.namespace, "operator", pod)
        config = self.cluster.kubeconfig_for(identity.token, name=f"{self.namespace}-{pod}")
        served = [word for name in self.served for word in ("-n", name)]
        arguments = ["run", *served, f"--deciding={DECIDING}", "--require-policies", *args, "op.py"]
        env = as_pod(identity, self.namespace) | ({} if self.may_all else {"ONLY_ROLES": "yes"})
        name, log = f"{self.namespace}-{pod}", self.folder / f"{pod}.log"
        made = Replica(name, config, arguments, log, env=env, cwd=self.folder, warm=True)
        made.start()
        self.running.append(made)
        return made

    def is_done(self, name: str) -> bool:
        """Whether a cell was handled, with its child."""
        status = self.read(self.path("cells", name)).get("status") or {}
        child = self.read(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")
        return bool(status.get("done")) and bool(child)

    def forge(self, plural: str, name: str) -> Any:
        """Write a stamp as an administrator; give the answer."""
        fencing = {"lease": f"{self.namespace}/op", "token": 1000, "holder": "x", "podUID": "u"}
        return self.api("PATCH", self.path(plural, name) + "/status", {"status": {"fencing": fencing}}, MERGE)

    def remove(self) -> None:
        """End its replicas, and remove what is in no namespace, and its objects."""
        for one in self.running:
            one.kill()
            print(f"--- {one.name}", one.log, sep="\n")  # pytest shows it on failure
        self.cluster.kubectl(
            "delete", "-f", "-", "--ignore-not-found", "--wait=false", input=self.written(), check=False
        )
        if self.may_all:
            self.kubectl("delete", "clusterrolebinding", self.namespace)
        self.clear("pools", "cells")
