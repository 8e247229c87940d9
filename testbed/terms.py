"""An operator's account whose writes the Term's policy judges, and its pods, each with a raw client."""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devcluster import Cluster, PodIdentity
from devcluster.waiting import until
from kopf_ha.manifests import Description, policies, render
from testbed.deployment import ROOT

MERGE = "application/merge-patch+json"


class Raw:
    """One connection to an API server, with a bearer's token; for one thread. Nothing fences it."""

    def __init__(self, url: str, ca: Path | None, token: str) -> None:
        parts = urlsplit(url)
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        self._connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=30, context=context)
        self._token = token

    def __call__(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        """Send a request; give status and body."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        """Close it."""
        self._connection.close()


@dataclass(frozen=True)
class Pod:
    """A pod of the account. `raw` gives a new connection to the API server with that number."""

    cluster: Cluster
    name: str
    uid: str
    token: str

    def raw(self, server: int = 0) -> Raw:
        return Raw(self.cluster.servers[server], self.cluster.ca_file, self.token)


def install_kind(cluster: Cluster) -> None:
    """Make the Term's kind."""
    cluster.kubectl("apply", "-f", str(ROOT / "crds" / "terms.yaml"))
    cluster.wait_established()
    until("terms to be served", lambda: cluster.kubectl("get", "terms", "-A", check=False).returncode == 0)


def administrator(cluster: Cluster, server: int = 0) -> Raw:
    """Give a connection that may do everything."""
    kubectl, name = cluster.kubectl, "testbed"
    kubectl("create", "serviceaccount", name, "-n", "kube-system", check=False)  # it may be there
    who = f"--serviceaccount=kube-system:{name}"
    kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", who, check=False)
    token = kubectl("create", "token", name, "-n", "kube-system", "--duration=4h").stdout.strip()
    return Raw(cluster.servers[server], cluster.ca_file, token)


class Terms:
    """A namespace, an account that may do everything in it, the Term's kind and its policy.

    Args:
        cluster: the cluster.
        namespace: to be made.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, "op"
        named = f"{namespace}/{self.name}"
        self.description = Description(
            group="", kinds=(), level="term", lease=named, service_account=named, prefix=f"kopf-ha-{namespace}"
        )
        self._policies = policies(self.description)
        self.path = f"/apis/kopf-ha.dev/v1/namespaces/{namespace}/terms"
        self._tokens = itertools.count(1)
        self._lock, self._given = threading.Lock(), 0

    def install(self) -> None:
        """Make all of it, and wait until each API server judges by it."""
        kubectl = self.cluster.kubectl
        kubectl("create", "namespace", self.namespace)
        kubectl("create", "serviceaccount", self.name, "-n", self.namespace)
        who = f"--serviceaccount={self.namespace}:{self.name}"
        kubectl("create", "clusterrolebinding", self.namespace, "--clusterrole=cluster-admin", who)
        install_kind(self.cluster)
        kubectl("apply", "-f", "-", input=render(self._policies))

    def pod(self, name: str) -> Pod:
        """Make a pod of the account."""
        made = self.cluster.pod_identity(self.namespace, self.name, name)
        return Pod(self.cluster, name, made.uid, made.token)

    def identity(self, pod: Pod) -> PodIdentity:
        """Give what `as_pod` takes."""
        return PodIdentity(pod.name, pod.uid, pod.token)

    def take(self, pod: Pod, raw: Raw) -> float:
        """Write the Term as a new leader does; give when the answer came, by the monotonic clock."""
        with self._lock:
            self._given = next(self._tokens)
            spec = self.spec(pod)
            status, body = raw("PATCH", f"{self.path}/{self.name}", {"spec": spec}, MERGE)
            if status == 404:
                meta = {"name": self.name}
                body = {"apiVersion": "kopf-ha.dev/v1", "kind": "Term", "metadata": meta, "spec": spec}
                status, body = raw("POST", self.path, body)
            at = time.monotonic()
            if status >= 300:
                raise RuntimeError(f"the Term was not written: {status} {body.get('message')}")
            return at

    def spec(self, pod: Pod) -> dict[str, Any]:
        """Give the Term's spec for a pod that took it last; each time another process of the pod."""
        return {"token": self._given, "holder": f"{pod.name}_{pod.uid}_{self._given}", "podUID": pod.uid}

    def remove(self) -> None:
        """Remove what is not in the namespace, and let that go."""
        self.cluster.kubectl("delete", "-f", "-", input=render(self._policies))
        self.cluster.kubectl("delete", "clusterrolebinding", self.namespace)
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def is_take(self, event: dict[str, Any], uid: str) -> bool:
        """Whether an event of the audit log is the write of the Term by the pod with this uid."""
        uids = (event["user"].get("extra") or {}).get("authentication.kubernetes.io/pod-uid") or [""]
        ref, code = event.get("objectRef") or {}, (event.get("responseStatus") or {}).get("code") or 0
        real = "dryRun" not in event["requestURI"] and event["verb"] in ("create", "patch", "update")
        return ref.get("resource") == "terms" and uids[0] == uid and code in (200, 201) and real

    def is_refusal(self, code: int, message: str) -> bool:
        """Whether this is the answer of the Term's policy."""
        return code == 403 and f"ValidatingAdmissionPolicy '{self.description.prefix}-term'" in message

    def is_heard(self, pod: Pod, server: int) -> bool:
        """Whether an API server takes this pod for the leader's, asked by a dry run."""
        raw = pod.raw(server)
        try:
            body = {"metadata": {"generateName": "probe-"}}
            status, _ = raw("POST", f"/api/v1/namespaces/{self.namespace}/configmaps?dryRun=All", body)
            return status == 201
        finally:
            raw.close()


class Writer:
    """Writes a ConfigMap of its own as fast as it can, in a thread, as a context manager."""

    def __init__(self, terms: Terms, pod: Pod, server: int) -> None:
        self.told: list[tuple[float, float, bool]] = []  #: when sent, when answered, whether accepted
        self._path = f"/api/v1/namespaces/{terms.namespace}/configmaps/of-{pod.name}"
        self._raw, self._ended = pod.raw(server), threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Writer:
        self._writing = self._pool.submit(self._write)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()
        self._raw.close()
        self._writing.result()

    def _write(self) -> None:
        for number in itertools.count():
            if self._ended.is_set():
                return
            began = time.monotonic()
            status, body = self._raw("PATCH", self._path, {"data": {"n": str(number)}}, MERGE)
            if status not in (200, 403):
                raise RuntimeError(f"{status}: {body.get('message')}")
            self.told.append((began, time.monotonic(), status == 200))
