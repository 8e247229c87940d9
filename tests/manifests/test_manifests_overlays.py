"""deploy/ and its overlays, as kustomize renders them: whole, of one mind, and what docs/deploy.md says. No cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from devcluster import Binaries
from kopf_ha import __version__
from kopf_ha.manifests.command import manifests
from kopf_ha.settings import Settings
from testbed.deployment import NAME, ROOT, container_of
from tests.manifests.support import ENTRIES, NAMESPACE, built, environment, one

Documents = list[dict[str, Any]]

POD = {"metadata": {"name": "kopf-ha-ipam-5d9-x2x", "uid": "0b1c", "namespace": NAMESPACE}}


@pytest.fixture(params=ENTRIES)
def documents(request: pytest.FixtureRequest, binaries: Binaries) -> Documents:
    return built(binaries, ROOT / request.param)


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def strangers(documents: Documents) -> list[str]:
    """Places that name another account, namespace or Lease than the Deployment's pods have."""
    deployment = one(documents, "Deployment")
    namespace, account = (
        deployment["metadata"]["namespace"],
        deployment["spec"]["template"]["spec"]["serviceAccountName"],
    )
    variables = environment(deployment, {"metadata": {**POD["metadata"], "namespace": namespace}})
    lease = variables["KOPF_HA_LEASE_NAME"]
    found = []
    for d in documents:
        kind, text = d["kind"], yaml.safe_dump(d, width=10_000)
        users = set(re.findall(r"system:serviceaccount:([a-z-]+:[a-z-]+)", text))
        users |= {
            f"{s['serviceAccount']['namespace']}:{s['serviceAccount']['name']}"
            for rule in d.get("spec", {}).get("rules", []) if kind == "FlowSchema" for s in rule["subjects"]
        }  # fmt: skip
        users |= {f"{s['namespace']}:{s['name']}" for s in d.get("subjects", [])}
        if users - {f"{namespace}:{account}"}:
            found.append(f"{kind} {d['metadata']['name']}: {users}")
        leases = set(re.findall(r"Lease ([a-z-]+/[a-z-]+)", text))
        if leases - {f"{namespace}/{lease}"}:
            found.append(f"{kind} {d['metadata']['name']}: {leases}")
    return found


def test_all_have_the_same_mind(documents: Documents) -> None:
    assert strangers(documents) == []


def test_another_namespace_by_kustomize_alone_is_noticed(binaries: Binaries, tmp_path: Path) -> None:
    """What the check above is for, and what docs/deploy.md warns of."""
    overlay(tmp_path, {"namespace": "elsewhere", "resources": ["../kopf-ha/deploy/default"]})
    found = strangers(built(binaries, tmp_path / "mine"))
    assert any(f.startswith("ValidatingAdmissionPolicy kopf-ha-ipam-stamped") for f in found)
    assert any(f.startswith("FlowSchema") for f in found)


def overlay(tmp_path: Path, kustomization: Mapping[str, Any]) -> None:
    """A folder ``mine`` next to ``kopf-ha``, as in docs/deploy.md."""
    (tmp_path / "kopf-ha").symlink_to(ROOT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(yaml.safe_dump(dict(kustomization)))


def page(fence: str) -> str:
    found = re.findall(rf"(?ms)^ *```{fence}\n(.*?)^ *```$", (ROOT / "docs/deploy.md").read_text())
    (about,) = (block for block in found if "NAMESPACE" in block or fence != "console")
    return str(about)


def test_the_overlay_of_the_page(binaries: Binaries, tmp_path: Path) -> None:
    overlay(tmp_path, yaml.safe_load(page("yaml")))
    documents = built(binaries, tmp_path / "mine")
    assert strangers(documents) == []
    assert {"ServiceMonitor", "PrometheusRule"} <= {d["kind"] for d in documents}
    deployment = one(documents, "Deployment")
    assert container_of(deployment)["image"] == f"registry.example/kopf-ha-ipam:{__version__}"
    assert container_of(deployment)["resources"]["limits"]["memory"] == "1Gi"
    assert zones(deployment)["minDomains"] == 3


def test_another_namespace_as_the_page_says(binaries: Binaries, tmp_path: Path) -> None:
    command, *args = page("console").replace("\\\n", " ").replace("NAMESPACE", "elsewhere").split()
    assert command == "kopf-ha"
    result = CliRunner().invoke(manifests, args[1:])
    assert result.exit_code == 0, result.output
    parts = ["base", "components/network-policy"]
    overlay(
        tmp_path,
        {
            "namespace": "elsewhere",
            "resources": ["../kopf-ha/deploy/base", "fence.yaml"],
            "components": ["../kopf-ha/deploy/components/network-policy"],
        },
    )
    (tmp_path / "mine/fence.yaml").write_text(result.output)
    documents = built(binaries, tmp_path / "mine")
    assert strangers(documents) == []
    kinds = {d["kind"] for d in documents}
    assert {"FlowSchema", "ValidatingAdmissionPolicy", "Deployment", "NetworkPolicy"} <= kinds, parts
    assert {d["metadata"].get("namespace") for d in documents if d["kind"] in NAMESPACED} == {"elsewhere"}


#: Kinds in deploy/ that live in a namespace.
NAMESPACED = {
    *("ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule", "Role", "RoleBinding"),
    *("Service", "ServiceAccount", "ServiceMonitor"),
}


def test_all_is_labelled_and_in_its_namespace(documents: Documents) -> None:
    for d in documents:
        assert (
            d["metadata"]["labels"].items()
            >= {
                "app.kubernetes.io/name": NAME,
                "app.kubernetes.io/part-of": "kopf-ha",
            }.items()
        ), d["metadata"]
        assert d["metadata"].get("namespace") == (NAMESPACE if d["kind"] in NAMESPACED else None), d["metadata"]


def test_selectors_and_ports_are_those_of_the_pods(documents: Documents) -> None:
    template = one(documents, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"]
    ports = {p["name"]: p["containerPort"] for p in container_of(one(documents, "Deployment"))["ports"]}
    assert ports == {"metrics": 8080, "health": 8081}

    service = one(documents, "Service", f"{NAME}-metrics")
    assert selects(service["spec"]["selector"], labels)
    assert [(p["name"], p["targetPort"], p["port"]) for p in service["spec"]["ports"]] == [
        ("metrics", "metrics", ports["metrics"])
    ]
    assert selects(one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"], labels)
    policy = one(documents, "NetworkPolicy")["spec"]
    assert selects(policy["podSelector"]["matchLabels"], labels)
    assert {p["port"] for rule in policy["ingress"] for p in rule["ports"]} == set(ports)
    for spread in template["spec"].get("topologySpreadConstraints", []):
        assert selects(spread["labelSelector"]["matchLabels"], labels)
    for monitor in (d["spec"] for d in documents if d["kind"] == "ServiceMonitor"):
        assert selects(monitor["selector"]["matchLabels"], service["metadata"]["labels"])
        assert [(e["port"], e["path"]) for e in monitor["endpoints"]] == [("metrics", "/metrics")]


def test_metrics_are_for_those_that_were_let_in(documents: Documents) -> None:
    (metrics,) = (
        rule
        for rule in one(documents, "NetworkPolicy")["spec"]["ingress"]
        if {p["port"] for p in rule["ports"]} == {"metrics"}
    )
    # an empty `from`, or an empty selector in it, would be everybody
    assert all(peer["namespaceSelector"]["matchLabels"] for peer in metrics["from"])
    scraped = any(d["kind"] == "ServiceMonitor" for d in documents)
    names = [peer["namespaceSelector"]["matchLabels"].get("kubernetes.io/metadata.name") for peer in metrics["from"]]
    assert ("monitoring" in names) == scraped


def test_the_program_listens_where_the_ports_are(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = one(documents, "Deployment")
    for name, value in environment(deployment, POD).items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_env()  # raises on durations that do not go together
    ports = {p["name"]: p["containerPort"] for p in container_of(deployment)["ports"]}
    assert settings.metrics_port == ports["metrics"]
    assert settings.health_port == ports["health"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > 2 * settings.drain_timeout + settings.renew_deadline
    # a leader that is late ends in order by itself before it is killed
    liveness = container_of(deployment)["livenessProbe"]
    assert liveness["periodSeconds"] * (liveness["failureThreshold"] - 1) > settings.lease_duration


def test_probes_ask_what_is_meant(documents: Documents) -> None:
    of = container_of(one(documents, "Deployment"))
    asked = {kind: of[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert asked == {
        "startup": {"path": "/livez", "port": "health"},
        "readiness": {"path": "/readyz", "port": "health"},
        "liveness": {"path": "/livez", "port": "health"},
    }


def test_replicas_give_way_to_the_system_only(documents: Documents) -> None:
    spec = one(documents, "Deployment")["spec"]["template"]["spec"]
    priority = one(documents, "PriorityClass", spec["priorityClassName"])
    assert 0 < priority["value"] <= 1_000_000_000  # what Kubernetes leaves to users
    assert not priority.get("globalDefault")


def test_a_node_that_does_not_count_local_storage_takes_the_pods(documents: Documents) -> None:
    # a limit without a request would be the request
    resources = container_of(one(documents, "Deployment"))["resources"]
    assert resources["requests"]["ephemeral-storage"] == "0"
    assert "ephemeral-storage" in resources["limits"]
    assert "cpu" not in resources["limits"]


def zones(deployment: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = (
        s
        for s in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        if s["topologyKey"] == "topology.kubernetes.io/zone"
    )
    return dict(found)


@pytest.mark.parametrize("name", ["three-zones", "kind"])
def test_three_zones_is_one_replica_in_each(binaries: Binaries, name: str) -> None:
    deployment = one(built(binaries, ROOT / "deploy/overlays" / name), "Deployment")
    zone = zones(deployment)
    assert zone["whenUnsatisfiable"] == "DoNotSchedule"
    assert zone["minDomains"] == deployment["spec"]["replicas"] == 3
    # else the old revision's pods would keep the new one's out
    assert zone["matchLabelKeys"] == ["pod-template-hash"]


def test_the_cluster_of_kind_has_the_zones() -> None:
    nodes = yaml.safe_load((ROOT / "deploy/overlays/kind/cluster.yaml").read_text())["nodes"]
    workers = [n["labels"]["topology.kubernetes.io/zone"] for n in nodes if n["role"] == "worker"]
    assert len(set(workers)) == len(workers) == 3
    assert [n["role"] for n in nodes].count("control-plane") == 1


def test_what_is_new_in_an_overlay_is_said(binaries: Binaries) -> None:
    """An overlay that lost its patch would be deploy/ under another name."""
    plain = built(binaries, ROOT / "deploy")
    for entry in ENTRIES[1:]:
        assert built(binaries, ROOT / entry) != plain, entry
        assert f"**{Path(entry).name}**" in (ROOT / "docs/deploy.md").read_text()
