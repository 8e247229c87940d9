"""The Deployment of the reference operator: its names, how to install it, and what a kubelet would give its pods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devcluster import Cluster, ControlPlane
from devcluster.waiting import until

#: The repository.
ROOT = Path(__file__).parents[1]
#: Of the operator, its namespace, its service account and its Lease.
NAME = "kopf-ha-ipam"
#: Selects the operator's pods.
SELECTOR = f"app.kubernetes.io/name={NAME}"
#: As whom its requests come.
ACCOUNT = f"system:serviceaccount:{NAME}:{NAME}"


def install(plane: ControlPlane) -> None:
    """Apply all of `deploy/`. Without a node its pods stay Pending, and processes take their place."""
    plane.kubectl("apply", "-k", str(ROOT / "crds"))
    plane.wait_established()
    plane.kubectl("apply", "-k", str(ROOT / "deploy"))


def container(cluster: Cluster) -> dict[str, Any]:
    """Give the container of the Deployment that is installed."""
    return container_of(json.loads(_get(cluster, f"deployment/{NAME}")))


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    """Wait for its three pods, and give them by name; those that are being deleted do not count."""

    def three() -> list[dict[str, Any]]:
        found = json.loads(_get(cluster, "pods", f"--selector={SELECTOR}"))["items"]
        live = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
        return sorted(live, key=lambda pod: str(pod["metadata"]["name"])) if len(live) == 3 else []

    return until("three pods of the Deployment", three, 120)


def _get(cluster: Cluster, *what: str) -> str:
    return cluster.kubectl("get", *what, f"--namespace={NAME}", "--output=json").stdout


def variables(container: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
    """Give a container's variables, with the pod's fields where it refers to them."""
    out = {}
    for variable in container.get("env") or ():
        if "value" in variable:
            out[variable["name"]] = str(variable["value"])
        else:
            value: Any = pod
            for part in variable["valueFrom"]["fieldRef"]["fieldPath"].split("."):
                value = value[part]
            out[variable["name"]] = str(value)
    return out


def container_of(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Give the one container of a Deployment."""
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def pod_token(cluster: Cluster, pod: Mapping[str, Any], duration: str = "2h") -> str:
    """Give a token of the pod's service account that is bound to the pod, as a kubelet mounts it."""
    meta = pod["metadata"]
    return cluster.kubectl(
        *("create", "token", pod["spec"]["serviceAccountName"], f"--namespace={meta['namespace']}"),
        f"--duration={duration}",
        *("--bound-object-kind=Pod", f"--bound-object-name={meta['name']}", f"--bound-object-uid={meta['uid']}"),
    ).stdout.strip()
