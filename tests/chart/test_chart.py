"""The Helm chart: written from what deploy/ has, and the same as deploy/ where the names are the same."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.documents import DESCRIPTION
from chart.files import CHART, files, semantic
from chart.template import Blocks, template
from devcluster import Binaries, ControlPlane
from devcluster.waiting import until
from kopf_ha.manifests import Description, flow_schema, policies, rbac
from kopf_ha.manifests.cel import _MANAGER_MAX
from kopf_ha.manifests.policies import all_policies
from testbed.deployment import NAME, ROOT, container_of, variables
from testbed.replica import Replica, as_pod
from tests.chart.conftest import Documents, Helm, rendered, run
from tests.manifests.support import built, one

#: Names that have nothing in common with those of deploy/.
OTHER: dict[str, Any] = {"serviceAccount.name": "an-account", "lease.name": "a-lease"}
ELSEWHERE, RELEASE = "elsewhere", "kopf-ha-two"


def by_name(documents: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name. The lines of PromQL, which mean nothing and which kustomize moves, are one."""
    made = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    for rules in (d for (kind, _), d in made.items() if kind == "PrometheusRule"):
        for rule in rules["spec"]["groups"][0]["rules"]:
            rule["expr"] = " ".join(rule["expr"].split())
    return made


# --- without helm


def test_the_chart_is_what_is_written_from_deploy() -> None:
    """``KOPF_HA_REWRITE=1``, or `make chart`, writes it anew."""
    for name, text in files().items():
        if os.environ.get("KOPF_HA_REWRITE"):
            (CHART / name).write_text(text)
        assert (CHART / name).read_text() == text, f"{name} is old: make chart"
    generated = {name for name in files() if name.startswith(("templates/", "crds/"))}
    there = {p.relative_to(CHART).as_posix() for p in CHART.glob("*/*.yaml")}
    assert there == generated


def test_a_placeholder_that_is_left_is_an_error() -> None:
    with pytest.raises(ValueError, match="zz-unknown"):
        template([{"kind": "x", "name": "zz-unknown"}], Blocks(), "nowhere")


def test_versions_are_as_helm_wants_them() -> None:
    assert [semantic(v) for v in ("1.2.3", "1.2.3rc1", "1.2.3a4")] == ["1.2.3", "1.2.3-rc1", "1.2.3-a4"]


def test_the_longest_name_leaves_the_questions_readable() -> None:
    """A question that is too long is replaced by its hash, which a template cannot compute from a name."""
    longest = max(len(rule.asked(p.name)) for p in all_policies(DESCRIPTION) for rule in p.rules)
    schema = json.loads((CHART / "values.schema.json").read_text())
    name = max(schema["properties"]["nameOverride"]["maxLength"], len("kopf-ha-ipam-") + 53)  # a release's name
    assert longest - len(DESCRIPTION.prefix) + name <= _MANAGER_MAX


# --- what helm makes of it


def test_the_defaults_are_what_kustomize_makes(helm: Helm, binaries: Binaries) -> None:
    """All but the namespace, which Helm needs before it installs anything."""
    wanted = by_name(d for d in built(binaries, ROOT / "deploy") if d["kind"] != "Namespace")
    assert by_name(rendered(helm)) == wanted
    assert by_name(yaml.safe_load_all(helm("show", "crds", str(CHART)))) == by_name(built(binaries, ROOT / "crds"))


@pytest.mark.parametrize(
    ("overlay", "values"), [("monitoring", {"monitoring.enabled": True}), ("three-zones", {"zones": 3})]
)
def test_values_do_what_overlays_do(helm: Helm, binaries: Binaries, overlay: str, values: dict[str, Any]) -> None:
    wanted = by_name(d for d in built(binaries, ROOT / "deploy/overlays" / overlay) if d["kind"] != "Namespace")
    assert by_name(rendered(helm, values)) == wanted


def elsewhere(helm: Helm, **values: Any) -> Documents:
    return rendered(helm, OTHER | values, f"--namespace={ELSEWHERE}", release=RELEASE)


def test_one_dashboard_is_enough_for_several_releases(helm: Helm) -> None:
    """Grafana knows a dashboard by its uid."""
    documents = elsewhere(helm, **{"monitoring.enabled": True, "monitoring.dashboard": False})
    assert "ConfigMap" not in {d["kind"] for d in documents}


def test_other_names_are_in_the_expressions(helm: Helm) -> None:
    """What kustomize cannot: the policies are those that the library writes for these names."""
    documents = elsewhere(helm, **{"monitoring.enabled": True})
    description = Description.from_json(
        DESCRIPTION.as_json()
        .replace(DESCRIPTION.lease, f"{ELSEWHERE}/a-lease")
        .replace(DESCRIPTION.service_account, f"{ELSEWHERE}/an-account")
        .replace(DESCRIPTION.prefix, RELEASE)
    )
    found = by_name(documents)
    for wanted in [*policies(description), *flow_schema(description), *rbac(description)]:
        made = found[wanted["kind"], wanted["metadata"]["name"]]
        del made["metadata"]["labels"]
        assert made == wanted
    namespaces = {d["metadata"].get("namespace") for d in documents}
    assert namespaces == {ELSEWHERE, None}
    # The old name is left only where it is no name of an object, an account or a Lease.
    labels = {"app.kubernetes.io/name", "app.kubernetes.io/managed-by"}
    for document in documents:
        assert NAME not in document["metadata"]["name"]
        if document["kind"] not in ("PrometheusRule", "PriorityClass", "Deployment", "ConfigMap"):
            left = [v for v in strings(document, but=labels) if NAME in v and "managed-by" not in v]
            assert left == [], document["metadata"]["name"]


def strings(value: Any, but: set[str]) -> Iterable[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in but:
                yield from strings(inner, but)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, but)
    elif isinstance(value, str):
        yield value


def test_every_value_gets_where_it_belongs(helm: Helm) -> None:
    documents = elsewhere(
        helm,
        **{
            "replicas": 2, "nodeSelector": {"disk": "ssd"}, "serviceAccount.annotations": {"a": "b"},
            "image": {"repository": "r.example/x", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
            "imagePullSecrets": [{"name": "secret"}], "tolerations": [{"key": "x", "operator": "Exists"}],
            "env": [{"name": "KOPF_HA_LEASE_DURATION", "value": "30"}],
            "affinity": {"podAffinity": {}}, "resources": {"limits": {"memory": "1Gi"}},
            "networkPolicy.apiServerPorts": [16443], "priorityClass.enabled": False,
        },
    )  # fmt: skip
    deployment = one(documents, "Deployment", RELEASE)
    pod, container = deployment["spec"]["template"]["spec"], container_of(deployment)
    assert deployment["spec"]["replicas"] == 2
    assert (container["image"], container["imagePullPolicy"]) == ("r.example/x@sha256:" + "0" * 64, "Always")
    assert pod["imagePullSecrets"] == [{"name": "secret"}]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["affinity"] == {"podAffinity": {}}
    assert pod["tolerations"][-1] == {"key": "x", "operator": "Exists"}
    assert len(pod["tolerations"]) == 3
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert container["env"][-1] == {"name": "KOPF_HA_LEASE_DURATION", "value": "30"}
    assert one(documents, "ServiceAccount", "an-account")["metadata"]["annotations"] == {"a": "b"}
    assert "priorityClassName" not in pod
    assert "PriorityClass" not in {d["kind"] for d in documents}
    ports = one(documents, "NetworkPolicy", RELEASE)["spec"]["egress"][0]["ports"]
    assert ports == [{"port": 16443, "protocol": "TCP"}]


def test_parts_can_be_left_out(helm: Helm) -> None:
    off = {f"{part}.enabled": False for part in ("policies", "electionPriority", "priorityClass", "networkPolicy")}
    kinds = {d["kind"] for d in rendered(helm, off)}
    assert kinds == {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service", "Deployment"),
        "PodDisruptionBudget",
    }


@pytest.mark.parametrize("name", ["123", "on", "1e5"])
def test_a_name_that_looks_like_something_else_stays_a_name(helm: Helm, name: str) -> None:
    documents = rendered(helm, {"lease.name": name, "serviceAccount.name": name})
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}}
    assert variables(container_of(one(documents, "Deployment")), pod)["KOPF_HA_LEASE_NAME"] == name
    assert one(documents, "ServiceAccount", name)


@pytest.mark.parametrize(
    "value",
    ["lease.name=x' || true || '", "serviceAccount.name=A", "nameOverride=mine", "replicas=many", "leasse.name=x"],
)
def test_what_no_name_can_be_is_refused(tmp_path: Path, value: str) -> None:
    """Names get into expressions: a quote in one could end it, and let everything pass."""
    done = run(tmp_path, "template", NAME, str(CHART), "--set", value, check=False)
    assert done.returncode != 0
    assert value.partition("=")[0].split(".")[0] in done.stderr


def test_a_release_of_any_name_has_names_that_replicas_look_for(helm: Helm) -> None:
    assert one(rendered(helm, release="mine"), "Deployment", "kopf-ha-ipam-mine")


def test_the_chart_is_clean(helm: Helm) -> None:
    helm("lint", "--strict", "--quiet", str(CHART))


# --- on a cluster


def test_it_is_installed_fenced_upgraded_and_removed(helm: Helm, binaries: Binaries, tmp_path: Path) -> None:
    """A replica with the chart's account and Lease leads only since each policy and each rule is in force."""
    helm("version")  # without helm this is skipped before a control plane starts
    with ControlPlane(tmp_path / "state", binaries=binaries) as plane:
        where = (f"--kubeconfig={plane.kubeconfig}", f"--namespace={ELSEWHERE}")
        sets = [f"--set={key}={value}" for key, value in OTHER.items()]
        helm("install", RELEASE, str(CHART), "--create-namespace", *sets, *where)
        assert "deployed" in helm("list", *where)

        pod = plane.pod_identity(ELSEWHERE, "an-account", "replica", {"app.kubernetes.io/name": NAME})
        deployment = json.loads(plane.kubectl("get", "deployment", RELEASE, "-n", ELSEWHERE, "-o", "json").stdout)
        container = container_of(deployment)
        metadata = {"metadata": {"name": pod.name, "uid": pod.uid, "namespace": ELSEWHERE}}
        env = {k: v for k, v in variables(container, metadata).items() if not k.endswith(("_PORT", "RUN_DIR"))}
        config = plane.kubeconfig_for(pod.token)
        args = [*container["args"], "--require-policies"]
        with Replica("replica", config, args, tmp_path / "log", env=env | as_pod(pod, ELSEWHERE)) as replica:
            pool = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": "pool"}}
            plane.kubectl("apply", "-f", "-", input=json.dumps(pool | {"spec": {"cidr": "10.9.0.0/24"}}))

            def stamped() -> bool:
                got = plane.kubectl("get", "addresspool", "pool", "-o", "jsonpath={.status.fencing.lease}")
                return got.stdout == f"{ELSEWHERE}/a-lease"

            until("the pool to be stamped by the chart's Lease", stamped, watched=[replica])
        # Somebody else of the account, with the leader gone: the expressions know the account and the Lease.
        late = plane.pod_identity(ELSEWHERE, "an-account", "late")
        done = plane.kubectl(*("annotate", "addresspool", "pool", "late=yes"), token=late.token, check=False)
        assert done.returncode != 0
        assert f"Lease {ELSEWHERE}/a-lease" in done.stderr

        helm("upgrade", RELEASE, str(CHART), "--reuse-values", "--set=replicas=2", *where)
        got = plane.kubectl("get", "deployment", RELEASE, "-n", ELSEWHERE, "-o", "jsonpath={.spec.replicas}")
        assert got.stdout == "2"
        helm("uninstall", RELEASE, *where)
        left = plane.kubectl("get", "validatingadmissionpolicies,clusterroles", "-o", "name").stdout
        assert RELEASE not in left
        assert "pool" in plane.kubectl("get", "addresspools", "-o", "name").stdout  # with the CRDs, users' objects stay
