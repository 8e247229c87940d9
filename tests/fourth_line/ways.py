"""What a stale leader's programs may still send: every client, every kind, past any fence in the process."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.terms import Pod, Terms

#: Sends one write, with a number that makes its name a new one.
Attempt = Callable[[int], None]

CONTAINERS = {"containers": [{"name": "c", "image": "i"}]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": CONTAINERS}
SELECTOR = {"matchLabels": {"a": "b"}}
ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["bindings"]}
POLICY = {"matchConstraints": {"resourceRules": [RULE]}, "validations": [{"expression": "true"}]}
CRD_NAMES = {"kind": "Late", "plural": "lates", "singular": "late"}
CRD_VERSION = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}

#: Creations by kind: API, kind, and the body without its name. What is not in a namespace is a dry run, which the API
#: server judges alike, so that nothing is left.
CREATED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "configmaps": ("v1", "ConfigMap", {"data": {"a": "1"}}),
    "secrets": ("v1", "Secret", {"data": {"a": "MQ=="}}),
    "services": ("v1", "Service", {"spec": {"ports": [{"port": 80}]}}),
    "serviceaccounts": ("v1", "ServiceAccount", {}),
    "pods": ("v1", "Pod", {"spec": {**CONTAINERS, "schedulerName": "none"}}),
    "persistentvolumeclaims": (
        "v1",
        "PersistentVolumeClaim",
        {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}},
    ),
    "deployments": ("apps/v1", "Deployment", {"spec": {"replicas": 0, "selector": SELECTOR, "template": TEMPLATE}}),
    "statefulsets": (
        "apps/v1",
        "StatefulSet",
        {"spec": {"replicas": 0, "selector": SELECTOR, "template": TEMPLATE, "serviceName": "s"}},
    ),
    "jobs": (
        "batch/v1",
        "Job",
        {"spec": {"suspend": True, "template": {"spec": {**CONTAINERS, "restartPolicy": "Never"}}}},
    ),
    "roles": ("rbac.authorization.k8s.io/v1", "Role", {"rules": []}),
    "rolebindings": ("rbac.authorization.k8s.io/v1", "RoleBinding", {"roleRef": ROLE}),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}}}),
    "leases": ("coordination.k8s.io/v1", "Lease", {"spec": {"holderIdentity": "x"}}),
    "addressclaims": ("ipam.kopf-ha.dev/v1", "AddressClaim", {"spec": {"poolName": "none"}}),
    "addresspools": ("ipam.kopf-ha.dev/v1", "AddressPool", {"spec": {"cidr": "10.66.0.0/28"}}),
    "namespaces": ("v1", "Namespace", {}),
    "clusterroles": ("rbac.authorization.k8s.io/v1", "ClusterRole", {"rules": []}),
    "customresourcedefinitions": (
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        {"spec": {"group": "late.example.com", "scope": "Namespaced", "names": CRD_NAMES, "versions": [CRD_VERSION]}},
    ),
}
#: What no policy judges, or what this one leaves out, since it says nothing about who leads.
EXEMPT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "validatingadmissionpolicies": ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", {"spec": POLICY}),
    "events": ("v1", "Event", {"involvedObject": {"namespace": "NAMESPACE"}, "reason": "Late"}),
    "selfsubjectaccessreviews": (
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}},
    ),
}
CLUSTER_SCOPED = {
    "addresspools",
    "namespaces",
    "clusterroles",
    "customresourcedefinitions",
    "validatingadmissionpolicies",
    "selfsubjectaccessreviews",
}
#: Python's clients, by their names in tests/fencing/clients.py.
LIBRARIES = ("kr8s", "lightkube", "kubernetes", "pykube", "kubernetes_asyncio", "kubernetes.aio")
#: Objects that the stale leader deletes: it, or anybody else, never stamped one of them.
UNSTAMPED = 40
#: Their finalizer: an object that is deleted stays, so that the next deletion is judged, too.
HELD = "kopf-ha.dev/test"


@dataclass(frozen=True)
class Way:
    """One line of the table: a client, and what it sends."""

    client: str
    write: str
    make: Callable[[Ways, Pod], Attempt] = field(compare=False, repr=False)


class Ways:
    """All of them, for the pods of one account.

    Args:
        terms: the account.
        folder: for the files that curl reads.
    """

    def __init__(self, terms: Terms, folder: Path) -> None:
        self.terms, self.folder = terms, folder
        self.url = terms.cluster.servers[0]
        self._numbers = itertools.count()
        self._programs: dict[str, subprocess.Popen[str]] = {}

    def close(self) -> None:
        for program in self._programs.values():
            program.kill()
            program.wait()

    def judged(self) -> Iterator[Way]:
        """Give those that the policy judges."""
        maps = self._maps
        yield Way("`curl`", "creates a ConfigMap", lambda w, pod: w._curl(pod, "POST", maps, w._config_map))
        yield Way("`kubectl`", "creates a ConfigMap", lambda w, pod: w._kubectl(pod, "create", "configmap"))
        yield Way("`kubectl`", "deletes a ConfigMap", lambda w, pod: w._kubectl(pod, "delete", "configmap"))
        for name in LIBRARIES:
            yield Way(f"`{name}`", "creates a ConfigMap", self._of_library(name))
        for plural in CREATED:
            yield Way("raw", f"creates one of {plural}", self._of_kind(plural, CREATED[plural]))
        yield Way("raw", "deletes what was never stamped", lambda w, pod: w._raw(pod, "DELETE", w._doomed))
        yield Way("raw", "patches what was never stamped", lambda w, pod: w._raw(pod, "PATCH", w._kept))
        yield Way("raw", "deletes a collection", lambda w, pod: w._raw(pod, "DELETE", w._collection))
        yield Way("raw", "scales a Deployment", lambda w, pod: w._raw(pod, "PATCH", w._scale))
        yield Way("raw", "evicts a pod", lambda w, pod: w._raw(pod, "POST", w._eviction))
        yield Way("raw", "asks for a token", lambda w, pod: w._raw(pod, "POST", w._token))
        yield Way("raw", "runs a command in a pod", lambda w, pod: w._raw(pod, "POST", w._exec))

    def exempt(self) -> Iterator[Way]:
        """Give those that are not judged."""
        for plural in EXEMPT:
            yield Way("raw", f"creates one of {plural}", self._of_kind(plural, EXEMPT[plural]))

    # --- what is written

    @property
    def _maps(self) -> str:
        return f"/api/v1/namespaces/{self.terms.namespace}/configmaps"

    def prepare(self) -> None:
        """Make what is written to, as somebody else."""
        names = [f"doomed-{n}" for n in range(UNSTAMPED)] + ["kept"]
        items: list[dict[str, Any]] = []
        for name in names:
            labels = {"collected": "true"} if name == "kept" else {}
            meta = {"name": name, "labels": labels, "finalizers": [HELD]}
            items.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
        _, _, body = CREATED["deployments"]
        items.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "scaled"}, **body})
        items.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "target"}, **CREATED["pods"][2]})
        many = {"apiVersion": "v1", "kind": "List", "items": items}
        self.terms.cluster.kubectl("create", "-n", self.terms.namespace, "-f", "-", input=json.dumps(many))

    def _config_map(self, number: int) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"late-{number}"}}

    def _doomed(self, number: int) -> tuple[str, Any, str]:
        return f"{self._maps}/doomed-{number % UNSTAMPED}", None, "application/json"

    def _kept(self, number: int) -> tuple[str, Any, str]:
        return f"{self._maps}/kept", {"data": {"n": str(number)}}, "application/merge-patch+json"

    def _collection(self, number: int) -> tuple[str, Any, str]:
        return f"{self._maps}?labelSelector=collected", None, "application/json"

    def _scale(self, number: int) -> tuple[str, Any, str]:
        path = f"/apis/apps/v1/namespaces/{self.terms.namespace}/deployments/scaled/scale"
        return (
            path,
            {"metadata": {"labels": {"n": str(number)}}, "spec": {"replicas": 0}},
            "application/merge-patch+json",
        )

    def _pod(self, sub: str) -> str:
        return f"/api/v1/namespaces/{self.terms.namespace}/pods/target/{sub}"

    def _eviction(self, number: int) -> tuple[str, Any, str]:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "target"}}
        return self._pod("eviction") + "?dryRun=All", body | {"deleteOptions": {"dryRun": ["All"]}}, "application/json"

    def _token(self, number: int) -> tuple[str, Any, str]:
        path = f"/api/v1/namespaces/{self.terms.namespace}/serviceaccounts/default/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["x"]}}
        return path, body, "application/json"

    def _exec(self, number: int) -> tuple[str, Any, str]:
        return self._pod("exec") + "?command=true", None, "application/json"

    # --- by what

    def _raw(self, pod: Pod, method: str, what: Callable[[int], tuple[str, Any, str]]) -> Attempt:
        raw = pod.raw()

        def attempt(number: int) -> None:
            path, body, kind = what(number)
            raw(method, path, body, kind)

        return attempt

    def _of_kind(self, plural: str, made: tuple[str, str, dict[str, Any]]) -> Callable[[Ways, Pod], Attempt]:
        api, kind = made[:2]
        body = json.loads(json.dumps(made[2]).replace("NAMESPACE", self.terms.namespace))
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        scoped = plural in CLUSTER_SCOPED
        path = f"{root}/{plural}?dryRun=All" if scoped else f"{root}/namespaces/{self.terms.namespace}/{plural}"

        def what(number: int) -> tuple[str, Any, str]:
            name = "lates.late.example.com" if plural == "customresourcedefinitions" else f"late-{number}"
            meta = {} if plural.endswith("reviews") else {"metadata": {"name": name}}
            return path, {"apiVersion": api, "kind": kind, **meta, **body}, "application/json"

        return lambda ways, pod: ways._raw(pod, "POST", what)

    def _curl(self, pod: Pod, method: str, path: str, body: Callable[[int], Any]) -> Attempt:
        header = self.folder / f"{pod.name}.header"
        header.write_text(f"Authorization: Bearer {pod.token}\nContent-Type: application/json\n")
        argv = ["curl", "--silent", "--cacert", str(self.terms.cluster.ca_file), "--header", f"@{header}"]

        def attempt(number: int) -> None:
            more = ["--request", method, "--data", json.dumps(body(number)), self.url + path]
            subprocess.run([*argv, *more], check=True, capture_output=True)

        return attempt

    def _kubectl(self, pod: Pod, verb: str, kind: str) -> Attempt:
        cluster, doomed = self.terms.cluster, verb == "delete"

        def attempt(number: int) -> None:
            name = f"doomed-{UNSTAMPED - 1 - number % UNSTAMPED}" if doomed else f"late-{number}"
            argv = [verb, kind, name, "-n", self.terms.namespace, *(["--wait=false"] if doomed else [])]
            cluster.kubectl(*argv, token=pod.token, check=False)

        return attempt

    def _of_library(self, name: str) -> Callable[[Ways, Pod], Attempt]:
        def make(ways: Ways, pod: Pod) -> Attempt:
            program = ways._program(pod)

            def attempt(number: int) -> None:
                asked = {"client": name, "method": "POST", "path": ways._maps, "body": ways._config_map(number)}
                assert program.stdin is not None
                assert program.stdout is not None
                program.stdin.write(json.dumps(asked) + "\n")
                program.stdin.flush()
                assert program.stdout.readline(), "it ended"

            return attempt

        return make

    def _program(self, pod: Pod) -> subprocess.Popen[str]:
        """Give the process of a pod that has all libraries, as they are."""
        if pod.name not in self._programs:
            config = self.terms.cluster.kubeconfig_for(pod.token)
            argv = [sys.executable, "-m", "tests.fourth_line.libraries", str(config)]
            made = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._programs[pod.name] = made
        return self._programs[pod.name]
