"""The kinds, once in a session; a namespace, a Lease and fenced clients for each test."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import kopf
import pytest
from kubernetes.client import rest
from kubernetes.config import kube_config
from pykube.http import KubernetesHTTPAdapter

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha import adapters
from kopf_ha.adapters import refused_before
from kopf_ha.run.journal import Journal
from kopf_ha.settings import Settings
from tests.kit.client import MERGE
from tests.kit.world import apply_kinds
from tests.run.support import GROUP, LONG, Marks, Policy, Replica, Running, World, crd


@pytest.fixture(scope="session")
def kinds(cluster: Cluster) -> Cluster:
    """Root (deciding), Thing, and Bare, which has no stamp in its schema."""
    apply_kinds(cluster, crd("Root"), crd("Thing"), crd("Bare", fencing=False))
    return cluster


@pytest.fixture
def world(
    kinds: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[World]:
    """The test's own corner of the cluster; clients are fenced as long as the test runs."""
    monkeypatch.setenv("KUBECONFIG", str(kinds.kubeconfig))
    # The kubernetes client looks at it when it is imported.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kinds.kubeconfig))
    # What the adapters change, so that it is put back for the tests of others.
    monkeypatch.setattr(rest.RESTClientObject, "__init__", rest.RESTClientObject.__init__)
    monkeypatch.setattr(rest.RESTClientObject, "request", rest.RESTClientObject.request)
    monkeypatch.setattr(KubernetesHTTPAdapter, "_do_send", KubernetesHTTPAdapter._do_send)
    caplog.set_level(logging.INFO)
    here = World(kinds, namespace)
    adapters.install()
    yield here
    here.clear("roots", "things")


@pytest.fixture
def fenced_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients, fenced while no operator runs."""
    monkeypatch.setattr(rest.RESTClientObject, "__init__", rest.RESTClientObject.__init__)
    monkeypatch.setattr(rest.RESTClientObject, "request", rest.RESTClientObject.request)
    monkeypatch.setattr(KubernetesHTTPAdapter, "_do_send", KubernetesHTTPAdapter._do_send)
    adapters.install()
    refused_before()


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    """It posts no events, and keeps what they would be."""
    monkeypatch.setattr("kopf_ha.run.journal.Events", MagicMock())
    return Journal(Settings(pod_name="pod", pod_uid="uid", lease_name="kopf-ha", lease_namespace="ns"), MagicMock())


@pytest.fixture
def marks() -> Marks:
    return Marks()


@pytest.fixture
def run(world: World) -> Iterator[Callable[..., Running]]:
    """Run handlers in this process; stopped at the end."""
    made: list[Running] = []

    def start(handlers: kopf.OperatorRegistry, settings: Settings | None = None, **options: Any) -> Running:
        made.append(Running(settings or world.settings(), handlers, world.namespace, **options))
        return made[-1]

    yield start
    for one in made:
        if not one.ended:
            one.stop()


@pytest.fixture
def replica(world: World, tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Run the command with an operator's code; killed at the end."""
    made: list[Replica] = []

    def start(code: str, *args: str, **more: Any) -> Replica:
        made.append(Replica(world, code, tmp_path / f"replica-{len(made)}", *args, **more))
        return made[-1]

    yield start
    for one in made:
        one.kill()
        print(f"--- {one.name}", one.log, sep="\n")  # pytest shows it on failure


@pytest.fixture
def policy(kinds: Cluster, world: World) -> Iterator[Policy]:
    """Policies for updates in the test's namespace, in force when it returns."""
    made: list[str] = []

    def make(name: str, resource: str, expression: str, message: str, refused: str) -> None:
        group = "admissionregistration.k8s.io/v1"
        scope = {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}
        rule = {"apiGroups": [GROUP], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": [resource]}
        items = [
            {
                "apiVersion": group,
                "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "failurePolicy": "Fail",
                    "matchConstraints": {"namespaceSelector": scope, "resourceRules": [rule]},
                    "validations": [{"expression": expression, "message": message, "reason": "Forbidden"}],
                },
            },
            {
                "apiVersion": group,
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            },
        ]
        kinds.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        made.append(name)
        plural, _, sub = resource.partition("/")
        path = world.path(plural, refused) + (f"/{sub}" if sub else "") + "?dryRun=All"
        body = {"status": {"x": 1}} if sub else {"spec": {"x": 1}}
        until(
            "the policy to be in force",
            lambda: world.api("PATCH", path, body, MERGE).status in (403, 422),
            LONG,
        )

    yield make
    for name in made:
        kinds.kubectl("delete", f"validatingadmissionpolicybinding/{name}", f"validatingadmissionpolicy/{name}")
