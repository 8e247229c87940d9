"""The generated files of the chart, by their names in deploy/chart."""

from __future__ import annotations

import re
from pathlib import Path

from chart import documents
from chart.template import Blocks, template
from kopf_ha import __version__

CHART = documents.DEPLOY / "chart"
CRDS = documents.ROOT / "crds"

_CHART_YAML = """\
# Written by python -m chart.
apiVersion: v2
name: kopf-ha-ipam
description: An IP address manager for Kubernetes, with one fenced leader
type: application
version: {version}
appVersion: {app!r}
# ValidatingAdmissionPolicies
kubeVersion: ">=1.30.0-0"
keywords: [ipam, operator, kopf, leader-election, fencing]
"""


def files() -> dict[str, str]:
    """Return the text of each generated file."""
    made = {"Chart.yaml": _CHART_YAML.format(version=semantic(__version__), app=__version__)}
    made |= {f"templates/{name}.yaml": text for name, text in _templates().items()}
    made["dashboard.json"] = (documents.DEPLOY / "components/monitoring/dashboard.json").read_text()
    # With a separator, because `helm show crds` writes none between files.
    return made | {f"crds/{path.name}": "---\n" + path.read_text() for path in _crds()}


def semantic(version: str) -> str:
    """Return a Python version as Helm wants it: 1.2.3rc1 is 1.2.3-rc1."""
    return re.sub(r"(?<=\d)(a|b|rc)(?=\d)", r"-\1", version)


def _crds() -> list[Path]:
    return sorted(path for path in CRDS.glob("*.yaml") if path.name != "kustomization.yaml")


def _templates() -> dict[str, str]:
    blocks = Blocks()
    base, component = "deploy/base", "deploy/components"
    generator = "kopf_ha.manifests"
    return {
        "serviceaccount": template(documents.account(blocks), blocks, f"{base}/serviceaccount.yaml"),
        "rbac": template(documents.generated_roles(), blocks, generator),
        "deployment": template(documents.deployment(blocks), blocks, f"{base}/deployment.yaml"),
        "disruption-budget": template(documents.budget(), blocks, f"{base}/disruption-budget.yaml"),
        "metrics-service": template(documents.metrics_service(), blocks, f"{base}/metrics-service.yaml"),
        "policies": template(documents.generated_policies(), blocks, generator, ".Values.policies.enabled"),
        "flow-schema": template(
            documents.generated_flow_schema(), blocks, generator, ".Values.electionPriority.enabled"
        ),
        "network-policy": template(
            documents.network_policy(blocks),
            blocks,
            f"{component}/network-policy/network-policy.yaml",
            ".Values.networkPolicy.enabled",
        ),
        "priority-class": template(
            documents.priority_class(), blocks, f"{component}/priority-class", ".Values.priorityClass.enabled"
        ),
        "monitoring": template(documents.monitoring(), blocks, f"{component}/monitoring", ".Values.monitoring.enabled"),
        "dashboard": template(
            documents.dashboard(blocks),
            blocks,
            f"{component}/monitoring",
            "and .Values.monitoring.enabled .Values.monitoring.dashboard",
        ),
    }
