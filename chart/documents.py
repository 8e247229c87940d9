"""The objects of deploy/, with placeholders for what the chart's values set.

Policies, roles and FlowSchema come from the library's generator, which is given the placeholders as names. The others
are read from deploy/, and their names are replaced where they stand. Labels are added as kustomize adds them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from chart.template import ACCOUNT, CHILD_NOTE, IMAGE, LEASE, NAME, NAMESPACE, REPLICAS, VERSION, Blocks
from kopf_ha.core.notes import PREFIX, note_name
from kopf_ha.manifests import Child, Description, Kind, flow_schema, policies, rbac

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
#: The name that everything in deploy/ has.
OURS = "kopf-ha-ipam"

Object = dict[str, Any]

#: What the reference operator writes; tests/policies compares deploy/components/policies with the same options.
DESCRIPTION = Description(
    group="ipam.kopf-ha.dev",
    kinds=(Kind.parse("addresspools:cluster:deciding:map=allocations"), Kind.parse("addressclaims:value=address")),
    children=(Child.parse(f"configmaps:app.kubernetes.io/managed-by={OURS}:owner=AddressClaim"),),
    lease=f"{NAMESPACE}/{LEASE}",
    service_account=f"{NAMESPACE}/{ACCOUNT}",
    prefix=NAME,
)
#: Kinds in a namespace, of those in deploy/.
_NAMESPACED = {
    *("ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule", "Role", "RoleBinding"),
    *("Service", "ServiceAccount", "ServiceMonitor"),
}
_LABELS = {
    "app.kubernetes.io/name": OURS,
    "app.kubernetes.io/component": "operator",
    "app.kubernetes.io/part-of": "kopf-ha",
}
#: Those of what deploy/default applies: overlays add other objects after it.
_DEFAULT_LABELS = _LABELS | {"app.kubernetes.io/version": VERSION}


def generated_policies() -> list[Object]:
    """Return the policies."""
    words = {note_name(DESCRIPTION.lease, "configmaps"): PREFIX + CHILD_NOTE}
    return _replaced(_placed(policies(DESCRIPTION)), words)


def generated_roles() -> list[Object]:
    """Return the roles and their bindings."""
    return _placed(rbac(DESCRIPTION))


def generated_flow_schema() -> list[Object]:
    """Return the FlowSchema."""
    return _placed(flow_schema(DESCRIPTION))


def account(blocks: Blocks) -> list[Object]:
    """Return the service account."""
    (made,) = _read("base/serviceaccount.yaml")
    made["metadata"]["name"] = ACCOUNT
    made["metadata"][
        blocks.entry(
            "{{- with .Values.serviceAccount.annotations }}",
            "annotations: {{- toYaml . | nindent {indent} }}",
            "{{- end }}",
        )
    ] = None
    return _placed([made])


def deployment(blocks: Blocks) -> list[Object]:
    """Return the Deployment."""
    (made,) = _read("base/deployment.yaml")
    made["spec"]["replicas"] = REPLICAS
    pod = made["spec"]["template"]["spec"]
    pod["serviceAccountName"] = ACCOUNT
    for name in ("imagePullSecrets", "nodeSelector", "affinity"):
        lines = f"{{{{- with .Values.{name} }}}}", f"{name}: {{{{- toYaml . | nindent {{indent}} }}}}", "{{- end }}"
        pod[blocks.entry(*lines)] = None
    pod[blocks.entry("{{- if .Values.priorityClass.enabled }}", f"priorityClassName: {NAME}", "{{- end }}")] = None
    pod["tolerations"].append(
        blocks.entry("{{- with .Values.tolerations }}", "{{- toYaml . | nindent {margin} }}", "{{- end }}")
    )
    (zone,) = (one for one in pod["topologySpreadConstraints"] if one["topologyKey"] == "topology.kubernetes.io/zone")
    usual = zone.pop("whenUnsatisfiable")
    apart = [f"{key}: {value}" for key, value in _three_zones().items()]
    zone[
        blocks.entry("{{- if .Values.zones }}", *apart, "{{- else }}", f"whenUnsatisfiable: {usual}", "{{- end }}")
    ] = None
    (container,) = pod["containers"]
    container["image"] = IMAGE
    container.pop("imagePullPolicy")
    container[blocks.entry("imagePullPolicy: {{ .Values.image.pullPolicy }}")] = None
    container.pop("resources")
    container[blocks.entry("resources: {{- toYaml .Values.resources | nindent {indent} }}")] = None
    (lease,) = (one for one in container["env"] if one["name"] == "KOPF_HA_LEASE_NAME")
    lease["value"] = LEASE
    container["env"].append(blocks.entry("{{- with .Values.env }}", "{{- toYaml . | nindent {margin} }}", "{{- end }}"))
    return _placed([made])


def _three_zones() -> Object:
    """Return what components/three-zones sets in the constraint about zones."""
    (component,) = _read("components/three-zones/kustomization.yaml")
    (patch,) = component["patches"]
    changes = {
        one["path"].rpartition("/")[2]: one["value"] for one in yaml.safe_load(patch["patch"]) if one["op"] != "test"
    }
    return changes | {"minDomains": "{{ .Values.zones }}"}


def budget() -> list[Object]:
    """Return the disruption budget."""
    return _placed(_read("base/disruption-budget.yaml"))


def metrics_service() -> list[Object]:
    """Return the Service for metrics."""
    return _placed(_read("base/metrics-service.yaml"))


def network_policy(blocks: Blocks) -> list[Object]:
    """Return the NetworkPolicy."""
    (made,) = _read("components/network-policy/network-policy.yaml")
    spec = made["spec"]
    spec["ingress"][0]["from"].append(
        blocks.entry(
            "{{- if .Values.monitoring.enabled }}",
            "- namespaceSelector:",
            "    matchLabels:",
            "      kubernetes.io/metadata.name: {{ .Values.monitoring.prometheusNamespace | quote }}",
            "{{- end }}",
        )
    )
    spec["egress"][0]["ports"] = [
        blocks.entry(
            "{{- range .Values.networkPolicy.apiServerPorts }}", "- port: {{ . }}", "  protocol: TCP", "{{- end }}"
        )
    ]
    return _placed([made])


def priority_class() -> list[Object]:
    """Return the PriorityClass, and the policy that reserves it for the operator's pods."""
    made = _read("components/priority-class/priority-class.yaml") + _read("components/priority-class/policy.yaml")
    return _placed(
        _replaced(
            made,
            {
                f"system:serviceaccount:{OURS}:{OURS}": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
                f"PriorityClass {OURS}": f"PriorityClass {NAME}",
                f"request.namespace == '{OURS}'": f"request.namespace == '{NAMESPACE}'",
                f"serviceAccountName.orValue('') == '{OURS}'": f"serviceAccountName.orValue('') == '{ACCOUNT}'",
                f"priorityClassName.orValue('') == '{OURS}'": f"priorityClassName.orValue('') == '{NAME}'",
                f"{OURS}-priority": f"{NAME}-priority",
            },
        )
    )


def monitoring() -> list[Object]:
    """Return the ServiceMonitor and the alert rules."""
    made = _read("components/monitoring/service-monitor.yaml") + _read("components/monitoring/prometheus-rule.yaml")
    for rule in (rule for one in made for group in one["spec"].get("groups", ()) for rule in group["rules"]):
        rule["expr"] = " ".join(rule["expr"].split())  # to PromQL lines are nothing
    return _placed(
        _replaced(
            made,
            {
                f'job="{OURS}-metrics"': f'job="{NAME}-metrics"',
                '-metrics"}) < 3': f'-metrics"}}) < {REPLICAS}',
                "of 3 replicas": f"of {REPLICAS} replicas",
            },
        ),
        _LABELS,
    )


def dashboard(blocks: Blocks) -> list[Object]:
    """Return the ConfigMap with the dashboard, which stays a file: in YAML nobody could read it."""
    (component,) = _read("components/monitoring/kustomization.yaml")
    (generated,) = component["configMapGenerator"]
    (file,) = generated["files"]
    key, _, source = file.partition("=")
    entry = blocks.entry(f'{key}: {{{{ .Files.Get "{source}" | toJson }}}}')
    metadata = {"name": generated["name"], "labels": generated["options"]["labels"]}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {entry: None}}
    return _placed([made], _LABELS)


def _read(name: str) -> list[Object]:
    return [document for document in yaml.safe_load_all((DEPLOY / name).read_text()) if document]


def _placed(objects: Iterable[Object], labels: Mapping[str, str] = _DEFAULT_LABELS) -> list[Object]:
    """Give the objects the release's name and namespace, and the labels that kustomize adds."""
    made = []
    for one in objects:
        metadata = one["metadata"]
        if one["kind"] != "ServiceAccount":
            metadata["name"] = metadata["name"].replace(OURS, NAME)
        if one["kind"] in _NAMESPACED:
            metadata["namespace"] = NAMESPACE
        metadata["labels"] = metadata.get("labels", {}) | labels
        if one["kind"] == "Deployment":
            template = one["spec"]["template"]["metadata"]
            template["labels"] = template["labels"] | labels
        made.append(one)
    return made


def _replaced(objects: list[Object], words: dict[str, str]) -> list[Object]:
    """Return a copy in which each of these words is another one, in every string.

    Raises ValueError if one of them is nowhere: then deploy/ has changed, and the chart would miss it.
    """
    used: set[str] = set()

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: walk(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [walk(inner) for inner in part]
        if isinstance(part, str):
            for word, other in words.items():
                if word in part:
                    used.add(word)
                    part = part.replace(word, other)
        return part

    made = [walk(one) for one in objects]
    if missing := words.keys() - used:
        raise ValueError(f"deploy/ contains no longer: {sorted(missing)}")
    return made
