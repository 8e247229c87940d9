"""deploy/ on a real API server: it applies, it is admitted, and its permissions are enough and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from devcluster import Cluster, ControlPlane
from devcluster.waiting import until
from kopf_ha.manifests.command import manifests
from testbed.deployment import ACCOUNT, NAME, ROOT, container_of
from tests.kit.crd import LOOSE, crd
from tests.manifests.support import NAMESPACE, OVERLAYS, DeployedReplica, get, one

Documents = list[dict[str, Any]]

LEASE = f"leases.coordination.k8s.io/{NAME}"
TERM = f"terms.kopf-ha.dev/{NAME}"

#: (verb, resource, --namespace), as `kubectl auth can-i` takes them.
NEEDED = [
    *((verb, LEASE, NAMESPACE) for verb in ("get", "list", "watch", "update")),
    ("create", "leases.coordination.k8s.io", NAMESPACE),
    *((verb, TERM, NAMESPACE) for verb in ("get", "patch")),
    ("create", "terms.kopf-ha.dev", NAMESPACE),
    *((verb, f"{kind}.ipam.kopf-ha.dev", "default") for kind in ("addresspools", "addressclaims")
      for verb in ("get", "list", "watch", "patch")),
    ("patch", "addresspools.ipam.kopf-ha.dev/status", "default"),
    ("patch", "addressclaims.ipam.kopf-ha.dev/status", "default"),
    *((verb, "configmaps", "default") for verb in ("get", "create", "patch", "delete")),
    ("create", "events", "default"),
    *((verb, "pods", NAMESPACE) for verb in ("get", "list", "watch")),
    *((verb, "customresourcedefinitions.apiextensions.k8s.io", "") for verb in ("get", "list", "watch")),
]  # fmt: skip
DANGEROUS = [
    *((verb, "secrets", where) for verb in ("get", "list", "watch", "create") for where in ("default", NAMESPACE)),
    # the Lease counts the terms, and others' Leases are no business of ours
    *((verb, LEASE, NAMESPACE) for verb in ("delete", "deletecollection", "patch")),
    *((verb, "leases.coordination.k8s.io/other", NAMESPACE) for verb in ("get", "list", "watch", "update", "delete")),
    *((verb, "leases.coordination.k8s.io", NAMESPACE) for verb in ("list", "watch", "deletecollection")),
    *((verb, TERM, NAMESPACE) for verb in ("delete", "deletecollection")),
    *((verb, TERM, "kube-system") for verb in ("get", "create", "update", "patch")),
    ("patch", "terms.kopf-ha.dev/other", NAMESPACE),
    *((verb, LEASE, "kube-system") for verb in ("get", "update")),
    ("create", "leases.coordination.k8s.io", "kube-system"),
    *((verb, "customresourcedefinitions.apiextensions.k8s.io", "") for verb in ("create", "update", "patch", "delete")),
    *((verb, f"{kind}.ipam.kopf-ha.dev", "default") for kind in ("addresspools", "addressclaims")
      for verb in ("create", "update", "delete", "deletecollection")),
    ("update", "addresspools.ipam.kopf-ha.dev/status", ""),
    *((verb, "configmaps", where) for verb in ("list", "watch", "update", "deletecollection")
      for where in ("default", "kube-system")),
    *((verb, "events", "default") for verb in ("list", "patch", "delete")),
    *((verb, "namespaces", "") for verb in ("list", "create", "patch", "delete")),
    *((verb, "pods", NAMESPACE) for verb in ("create", "update", "patch", "delete", "deletecollection")),
    *((verb, "pods", "default") for verb in ("get", "list", "watch")),
    ("create", "pods/exec", NAMESPACE),
    ("patch", "deployments.apps", NAMESPACE),
    ("create", "serviceaccounts/token", NAMESPACE),
    ("patch", "validatingadmissionpolicies.admissionregistration.k8s.io", ""),
    ("patch", "validatingadmissionpolicybindings.admissionregistration.k8s.io", ""),
    ("patch", "clusterroles.rbac.authorization.k8s.io", ""),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", ""),
    ("escalate", "clusterroles.rbac.authorization.k8s.io", ""),
    ("impersonate", "users", ""),
    ("*", "*", NAMESPACE),
]  # fmt: skip


def replicas(cluster: Cluster) -> list[dict[str, Any]]:
    """The Pods that the Deployment's controller made from its template: they passed Pod Security."""
    found: list[dict[str, Any]] = until(
        "the Deployment's three pods",
        lambda: pods if len(pods := get(cluster, "pods", f"--namespace={NAMESPACE}").get("items", [])) == 3 else None,
    )
    return found


@pytest.mark.parametrize("folder", ["crds", "deploy"])
def test_applying_again_changes_nothing(cluster: Cluster, deployed: Documents, folder: str) -> None:
    def generations() -> list[Any]:
        # of specs; a status changes by itself
        found = get(cluster, "-k", str(ROOT / folder))["items"]
        return [(o["kind"], o["metadata"]["name"], o["metadata"].get("generation")) for o in found]

    before = generations()
    again = cluster.kubectl("apply", "-k", str(ROOT / folder))
    # kubectl sends a budget's selector each time, which the schema says is replaced as a whole
    lines = [line for line in again.stdout.splitlines() if not line.startswith("poddisruptionbudget")]
    assert all(line.endswith(" unchanged") for line in lines), again.stdout
    assert again.stderr == ""
    assert generations() == before


@pytest.mark.parametrize("folder", ["crds", "deploy"])
def test_the_server_takes_each_document_without_a_warning(cluster: Cluster, deployed: Documents, folder: str) -> None:
    # a PUT of each, strict: unlike an apply it is sent even when nothing changed
    done = cluster.kubectl("replace", "-k", str(ROOT / folder), "--dry-run=server", "--validate=strict")
    count = (
        len(deployed)
        if folder == "deploy"
        else len([p for p in (ROOT / "crds").iterdir() if p.stem != "kustomization"])
    )
    assert len(done.stdout.splitlines()) == count
    assert done.stderr == ""


@pytest.mark.parametrize("level", ["term", "full"])
def test_the_server_takes_each_level_without_a_warning(cluster: Cluster, deployed: Documents, level: str) -> None:
    kinds = ["--group=a.example", "--kind=as", "--child=secrets"] if level == "full" else []
    names = f"--lease={NAMESPACE}/other", f"--service-account={NAMESPACE}/other"
    made = CliRunner().invoke(manifests, [f"--level={level}", *names, *kinds])
    assert made.exit_code == 0, made.output
    done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=made.stdout)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(list(yaml.safe_load_all(made.stdout)))
    assert any(line.startswith("customresourcedefinition.apiextensions.k8s.io/terms.kopf-ha.dev") for line in lines)


@pytest.fixture
def monitoring_kinds(cluster: Cluster) -> Iterator[None]:
    """Stand-ins for the CRDs of the Prometheus operator; promtool and the rest of the tests look at the contents."""
    served = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": LOOSE}}
    items = [crd("monitoring.coreos.com", kind, served) for kind in ("ServiceMonitor", "PrometheusRule")]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    cluster.kubectl("create", "-f", "-", input=listed)
    try:
        cluster.wait_established()
        yield
    finally:
        cluster.kubectl("delete", "-f", "-", "--timeout=60s", input=listed, timeout=90)


@pytest.mark.parametrize("folder", OVERLAYS)
@pytest.mark.usefixtures("monitoring_kinds")
def test_the_server_takes_each_overlay_without_a_warning(cluster: Cluster, deployed: Documents, folder: str) -> None:
    done = cluster.kubectl("apply", "-k", str(ROOT / folder), "--dry-run=server", "--validate=strict")
    assert "(server dry run)" in done.stdout
    assert done.stderr == ""


def test_pods_have_the_priority_and_wait_shortly_for_nodes(cluster: Cluster, deployed: Documents) -> None:
    for pod in replicas(cluster):
        assert pod["spec"]["priority"] == one(deployed, "PriorityClass")["value"]
        waits = {t["key"]: t["tolerationSeconds"] for t in pod["spec"]["tolerations"]}
        # admission adds 300 s where a pod says nothing
        assert waits == {f"node.kubernetes.io/{what}": 30 for what in ("not-ready", "unreachable")}


def test_nobody_else_uses_the_priority(cluster: Cluster, deployed: Documents, namespace: str) -> None:
    """Pods of one PriorityClass push others off their nodes, and anybody may name it."""
    template = one(deployed, "Deployment")["spec"]["template"]
    spec = {k: v for k, v in template["spec"].items() if k != "serviceAccountName"}
    create = ("create", "--dry-run=server", "-f", "-")

    def pod(where: str, **more: Any) -> str:
        meta = {"name": "probe", "namespace": where}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec | more}
        return cluster.kubectl(*create, input=json.dumps(body), check=False).stderr

    for where in (namespace, NAMESPACE):
        cluster.kubectl("create", "serviceaccount", "other", f"--namespace={where}")
        said = until("the policy to be in force", lambda w=where: pod(w, serviceAccountName="other"))  # type: ignore[misc]
        assert "only pods of system:serviceaccount:kopf-ha-ipam:kopf-ha-ipam use the PriorityClass" in said
        assert pod(where, serviceAccountName="other", priorityClassName="") == ""
    assert pod(NAMESPACE, serviceAccountName=NAME) == ""


def test_pod_security_is_enforced_and_met(cluster: Cluster, deployed: Documents) -> None:
    template = one(deployed, "Deployment")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "probe"}}
    create = ("create", "--dry-run=server", f"--namespace={NAMESPACE}", "-f", "-")
    good = cluster.kubectl(*create, input=json.dumps(pod))
    assert good.stderr == ""
    del pod["spec"]["securityContext"]
    bad = cluster.kubectl(*create, input=json.dumps(pod), check=False)
    assert 'violates PodSecurity "restricted:latest"' in bad.stderr
    assert len(replicas(cluster)) == 3


def can_i(cluster: Cluster, verb: str, resource: str, namespace: str) -> str:
    name, _, rest = resource.partition("/")
    # "status" is a subresource, what follows a Lease its name
    what = [name, f"--subresource={rest}"] if rest in ("status", "exec", "token") else [resource]
    where = [f"--namespace={namespace}"] if namespace else []
    asked = cluster.kubectl("auth", "can-i", verb, *what, *where, f"--as={ACCOUNT}", check=False)
    return asked.stdout.strip()


@pytest.mark.parametrize(("verb", "resource", "where"), NEEDED)
def test_what_it_needs_it_may(cluster: Cluster, deployed: Documents, verb: str, resource: str, where: str) -> None:
    assert can_i(cluster, verb, resource, where) == "yes"


@pytest.mark.parametrize(("verb", "resource", "where"), DANGEROUS)
def test_what_is_dangerous_it_may_not(
    cluster: Cluster, deployed: Documents, verb: str, resource: str, where: str
) -> None:
    assert can_i(cluster, verb, resource, where).startswith("no")


def test_the_list_of_what_it_needs_is_whole(cluster: Cluster, deployed: Documents) -> None:
    """What is granted and not named above would be tested by nobody."""
    named = {(verb, resource.removesuffix(f"/{NAME}")) for verb, resource, _ in NEEDED}
    rules = [*one(deployed, "ClusterRole")["rules"], *one(deployed, "Role", f"{NAME}-election")["rules"]]
    assert granted(rules) == named


def granted(rules: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {
        (verb, with_group(group, resource))
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def with_group(group: str, resource: str) -> str:
    """`plural.group/subresource`."""
    plural, _, rest = resource.partition("/")
    return plural + (f".{group}" if group else "") + (f"/{rest}" if rest else "")


def test_a_replica_does_all_its_work_with_what_is_granted_and_uses_all_of_it(
    control_plane: ControlPlane, deployed: Documents, namespace: str, tmp_path: Path
) -> None:
    cluster, deployment = control_plane, one(deployed, "Deployment")
    first, second, _ = replicas(cluster)

    def until_it(what: str, check: Callable[[], Any]) -> Any:
        return until(what, check, watched=[running])

    running = DeployedReplica(cluster, deployment, first, tmp_path)
    with running:
        until_it("the barrier", lambda: re.search(r"barrier: \d+ deciding objects stamped", running.log))
        lease = get(cluster, "lease", NAME, f"--namespace={NAMESPACE}")
        meta = first["metadata"]
        assert lease["spec"]["holderIdentity"].startswith(f"{meta['name']}_{meta['uid']}_")

        for probe in ("startup", "readiness", "liveness"):
            http = container_of(deployment)[f"{probe}Probe"]["httpGet"]
            until_it(f"the {probe} probe", lambda http=http: running.ask(http["port"], http["path"])[0] == 200)  # type: ignore[misc]
        assert f'leader_election_master_status{{name="{NAME}"}} 1.0' in running.ask("metrics", "/metrics")[1]

        spec = {"cidr": "10.77.0.0/28", "gateway": "10.77.0.1"}
        make(cluster, "AddressPool", "manifests", spec)
        make(cluster, "AddressClaim", "one", {"poolName": "manifests"}, namespace)
        ready = ("wait", "--for=condition=Ready", "--timeout=60s", "aclaim/one", f"--namespace={namespace}")
        cluster.kubectl(*ready, timeout=90)
        (child,) = children(cluster, namespace)
        assert child["data"]["ADDRESS"] == "10.77.0.2"
        until_it(
            "the event of the claim",
            lambda: (
                "Bound" in {e["reason"] for e in get(cluster, "events", f"--namespace={namespace}").get("items", [])}
            ),
        )
        running.terminate()
        assert running.wait(60) == 0
    assert_allowed(running.log)

    # What somebody changed in a child is corrected by the next leader.
    cluster.kubectl(
        *("patch", "configmap", child["metadata"]["name"], f"--namespace={namespace}", "--type=merge"),
        *("-p", '{"data": {"ADDRESS": "10.77.0.9"}}'),
    )
    running = DeployedReplica(cluster, deployment, second, tmp_path)
    with running:
        until_it(
            "the child to be corrected",
            lambda: children(cluster, namespace)[0]["data"]["ADDRESS"] == "10.77.0.2",
        )
        cluster.kubectl("delete", "aclaim/one", f"--namespace={namespace}", "--timeout=60s", timeout=90)
        assert not children(cluster, namespace)
        cluster.kubectl("delete", "apool/manifests", "--timeout=60s", timeout=90)
        running.terminate()
        assert running.wait(60) == 0
    assert_allowed(running.log)

    used, refused = requests(cluster)
    assert not refused
    rules = [*one(deployed, "ClusterRole")["rules"], *one(deployed, "Role", f"{NAME}-election")["rules"]]
    unused = granted(rules) - used
    # All of these are read after a conflict or a refusal, of which there need not be one.
    conflict = ["addresspools.ipam.kopf-ha.dev", "addressclaims.ipam.kopf-ha.dev", "leases.coordination.k8s.io"]
    conflict += ["terms.kopf-ha.dev"]
    assert unused <= {("get", resource) for resource in conflict}


def make(cluster: Cluster, kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> None:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": kind, "metadata": metadata, "spec": spec}
    cluster.kubectl("create", "-f", "-", input=json.dumps(body))


def children(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    label = f"app.kubernetes.io/managed-by={NAME}"
    return list(get(cluster, "configmaps", f"--namespace={namespace}", "-l", label).get("items", []))


def assert_allowed(log: str) -> None:
    # a bare 403 may be milliseconds; the audit log is asked for codes
    assert not re.search(r"[Ff]orbidden|[Nn]ot enough permissions|no permission|: 403 ", log), log


def requests(plane: ControlPlane) -> tuple[set[tuple[str, str]], list[dict[str, Any]]]:
    """What the service account asked for, as (verb, resource), and the requests that were refused."""
    used, refused = set(), []
    for path in plane.audit_logs:
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if event["user"]["username"] != ACCOUNT or "impersonatedUser" in event or "dryRun" in event["requestURI"]:
                continue  # dry runs are the leader's questions, which have to be refused
            ref = event.get("objectRef") or {}
            if event["responseStatus"].get("code") in (401, 403):
                refused.append(event)
            elif ref.get("resource"):
                sub = f"/{ref['subresource']}" if ref.get("subresource") else ""
                used.add((event["verb"], with_group(ref.get("apiGroup", ""), ref["resource"] + sub)))
    return used, refused


def test_election_requests_have_their_own_priority(cluster: Cluster, deployed: Documents, tmp_path: Path) -> None:
    schema = get(cluster, "flowschema", f"{NAME}-election")["metadata"]["uid"]
    token = DeployedReplica(cluster, one(deployed, "Deployment"), replicas(cluster)[0], tmp_path).token

    def matched() -> bool:
        # the answer's headers name the schema that took the request; whether there is a Lease matters not
        asked = cluster.kubectl("get", LEASE, f"--namespace={NAMESPACE}", "-v=8", token=token, check=False)
        return schema in asked.stderr

    until("the flow schema to be in force", matched)
