"""A node without containers: the pods of Deployments run as processes, with what a kubelet would give them.

Their arguments, variables, credentials and ends are those of the pod; so the commands of a page about Deployments
mean what they say, and the controllers' part is the real one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from devcluster import ControlPlane
from testbed.deployment import variables
from testbed.replica import ABSENT, SOURCE, Replica
from tests.kit.client import unfenced_session

#: Pods have an address each, these processes share one.
NO_PORTS = {"KOPF_HA_METRICS_PORT": "0", "KOPF_HA_HEALTH_PORT": "0"}
EVERY = 0.2
NODE = "node"
MERGE = {"Content-Type": "application/merge-patch+json"}


def address(uid: str) -> str:
    """Give the address that a pod has for what it serves at all of its addresses."""
    return ".".join(["127", *(str(int(uid[n : n + 2], 16) or 1) for n in (0, 2, 4))])


class PodReplica(Replica):
    """One pod's container."""

    def __init__(self, pod: Mapping[str, Any], *args: Any, **more: Any) -> None:
        super().__init__(pod["metadata"]["name"], *args, **more)
        self.uid = str(pod["metadata"]["uid"])
        self.namespace = str(pod["metadata"]["namespace"])
        self.labels = dict(pod["metadata"].get("labels") or {})


class Node:
    """Runs pods of the namespaces that are named while it is used as a context manager.

    Args:
        plane: the control plane.
        folder: for logs.
        cwd: where the containers' commands start.
        older: a folder with a `sitecustomize` for images with the tag ``older``.
    """

    def __init__(self, plane: ControlPlane, folder: Path, cwd: Path, older: Path | None = None) -> None:
        self.plane, self.folder, self.cwd, self.older = plane, folder, cwd, older
        self.running: dict[str, PodReplica] = {}
        self.all: list[PodReplica] = []  #: in the order of their starts, ended ones too
        self._asked: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="node", daemon=True)

    def __enter__(self) -> Node:
        kubectl = self.plane.kubectl
        kubectl("create", "serviceaccount", "node", "-n", "kube-system")
        who = "--serviceaccount=kube-system:node"
        kubectl("create", "clusterrolebinding", "test-node", "--clusterrole=cluster-admin", who)
        token = kubectl("create", "token", "node", "-n", "kube-system", "--duration=2h").stdout.strip()
        self._session = unfenced_session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self.ask("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for replica in self.running.values():
            replica.kill()

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> requests.Response:
        """Send a request; what is gone meanwhile is no trouble, whoever asks."""
        url = self.plane.servers[0] + path
        # not the session's: a variable of the environment would win over it
        ca = str(self.plane.ca_file)
        answer = self._session.request(method, url, json=body, headers=headers, verify=ca, timeout=30)
        assert answer.ok or answer.status_code in (404, 409), f"{method} {path}: {answer.text}"
        return answer

    def check_running(self) -> None:
        """Raise what went wrong here, for waits."""
        if self._error is not None:
            raise self._error

    def replicas(self, label: str = "") -> list[PodReplica]:
        """Those that run now, oldest first; ``key=value`` selects."""
        key, _, value = label.partition("=")
        with self._lock:
            return [r for r in self.all if r.uid in self.running and (not label or r.labels.get(key) == value)]

    def _main(self) -> None:
        try:
            while not self._stop.wait(EVERY):
                self._look()
        except BaseException as error:
            self._error = error

    def _look(self) -> None:
        pods = {p["metadata"]["uid"]: p for p in self.ask("GET", "/api/v1/pods").json()["items"]}
        for uid, pod in pods.items():
            meta = pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            replica = self.running.get(uid)
            if meta.get("deletionTimestamp"):
                if replica is not None and replica.running:
                    if uid not in self._asked:
                        self._asked.add(uid)
                        replica.terminate()
                    continue
                options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
                self.ask("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", **options})
            elif replica is None:
                self._start(pod, path)
            elif not replica.running:
                replica.start()  # as a kubelet does
        for uid in self.running.keys() - pods.keys():
            self.running[uid].kill()
            with self._lock:
                del self.running[uid]

    def _start(self, pod: Mapping[str, Any], path: str) -> None:
        if not pod["spec"].get("nodeName"):
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}}
            self.ask("POST", f"{path}/binding", binding | {"target": {"kind": "Node", "name": NODE}})
        replica = self._replica(pod, path)
        if replica is None:
            return
        replica.start()
        with self._lock:
            self.running[replica.uid] = replica
            self.all.append(replica)
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
        self.ask("PATCH", f"{path}/status", {"status": {"phase": "Running", "conditions": ready}}, MERGE)

    def _replica(self, pod: Mapping[str, Any], path: str) -> PodReplica | None:
        meta, spec = pod["metadata"], pod["spec"]
        account = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{spec['serviceAccountName']}/token"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        answer = self.ask("POST", account, {"spec": {"boundObjectRef": bound, "expirationSeconds": 7200}})
        if answer.status_code in (404, 409):
            return None  # the pod is gone meanwhile
        token = answer.json()["status"]["token"]
        (container,) = spec["containers"]
        folders = [*([self.older] if container["image"].endswith(":older") else ()), ABSENT, SOURCE]
        search = os.pathsep.join(map(str, folders))
        env = {"HOME": str(self.folder), "PYTHONPATH": search, "KOPF_HA_IPAM_QUARANTINE": "1"}
        # an image without a command has kopf-ha as its entry point, as the Dockerfile says
        program, *args = container.get("command") or ["kopf-ha", *container.get("args", ())]
        args = [arg.replace("//0.0.0.0:", f"//{address(meta['uid'])}:") for arg in args]
        return PodReplica(
            pod,
            self.plane.kubeconfig_for(token, name=meta["name"]),
            args,
            self.folder / f"{meta['name']}.log",
            env=env | variables(container, pod) | NO_PORTS,
            program=("-m", {"kopf-ha": "kopf_ha"}.get(program, program)),
            cwd=self.cwd,
            warm=True,
        )
