"""What the tests of deploy/ and of the image share."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Binaries, Cluster
from testbed.deployment import NAME, ROOT, container_of, pod_token, variables
from testbed.ports import free_port
from testbed.replica import Replica

#: Named as the operator is.
NAMESPACE = NAME

#: What a user may apply, by the folder in the repository.
OVERLAYS = sorted(
    str(path.parent.relative_to(ROOT)) for path in (ROOT / "deploy/overlays").glob("*/kustomization.yaml")
)
ENTRIES = ["deploy", *OVERLAYS]
#: The alerts.
RULES = ROOT / "deploy/components/monitoring/prometheus-rule.yaml"
#: Exit status of scripts/promtool when there is none to be had.
NO_PROMTOOL = 3


def rendered(cluster: Cluster) -> list[dict[str, Any]]:
    """What `kubectl apply -k deploy/` sends."""
    return list(yaml.safe_load_all(cluster.kubectl("kustomize", str(ROOT / "deploy")).stdout))


def built(binaries: Binaries, folder: Path) -> list[dict[str, Any]]:
    """What a folder renders to, without a cluster. Raises AssertionError with what kustomize says."""
    argv: list[str | Path] = [binaries["kubectl"], "kustomize", folder]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(documents: list[dict[str, Any]], kind: str, name: str = NAME) -> dict[str, Any]:
    (found,) = (d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)
    return found


def environment(deployment: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
    """The variables that the kubelet would set for the pod."""
    return variables(container_of(deployment), pod)


def spec() -> dict[str, Any]:
    """The spec of the PrometheusRule."""
    return dict(yaml.safe_load(RULES.read_text())["spec"])


def rules() -> list[dict[str, Any]]:
    """Its rules, of all groups."""
    return [rule for group in spec()["groups"] for rule in group["rules"]]


def promtool(*args: str) -> subprocess.CompletedProcess[str]:
    """Run promtool. Skip the test where there is none, which CI does not allow."""
    done = subprocess.run([ROOT / "scripts/promtool", *args], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == NO_PROMTOOL:
        if os.environ.get("CI") == "true":
            pytest.fail(done.stderr)
        pytest.skip(done.stderr.strip())
    return done


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, rest in pairs]


def stages() -> list[list[tuple[str, str]]]:
    """Its stages, each from its FROM on."""
    out: list[list[tuple[str, str]]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            out.append([])
        if out:
            out[-1].append(instruction)
    return out


def image_environment() -> dict[str, str]:
    """What the image sets with ENV."""
    pairs = " ".join(rest for name, rest in stages()[-1] if name == "ENV").split()
    return dict(pair.split("=", 1) for pair in pairs)


def last_command() -> list[str]:
    """What the image runs by default."""
    return list(json.loads([rest for name, rest in stages()[-1] if name == "CMD"][-1]))


class DeployedReplica(Replica):
    """What a pod of the Deployment runs, as a process: its arguments, variables and credentials, and no others."""

    def __init__(self, cluster: Cluster, deployment: Mapping[str, Any], pod: Mapping[str, Any], folder: Path) -> None:
        ports = {p["name"]: free_port() for p in container_of(deployment)["ports"]}
        token = pod_token(cluster, pod)
        env = {
            **image_environment(),
            **variables(container_of(deployment), pod),
            "KOPF_HA_RUN_DIR": str(folder),
            # a pod has an address of its own, these processes share one
            **{f"KOPF_HA_{name.upper()}_PORT": str(port) for name, port in ports.items()},
            "PATH": os.environ["PATH"],
        }
        config, arguments = cluster.kubeconfig_for(token), container_of(deployment)["args"]
        super().__init__(pod["metadata"]["name"], config, arguments, folder / "replica.log", times={}, env=env)
        self.ports, self.token = ports, token

    def ask(self, port: str, path: str) -> tuple[int, str]:
        """What it answers at a port of the container: status and text; status 0 while it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


def get(cluster: Cluster, *what: str) -> dict[str, Any]:
    """One object or a list, empty if it is not there."""
    done = cluster.kubectl("get", *what, "--output=json", "--ignore-not-found")
    return dict(json.loads(done.stdout)) if done.stdout else {}
