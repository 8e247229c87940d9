"""The cluster with crds/ and deploy/ applied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Binaries, Cluster, ControlPlane
from testbed.deployment import ROOT
from tests.manifests.operator_files import Files, crd, deployment, roles
from tests.manifests.support import NAMESPACE, get, rendered


@pytest.fixture(scope="package")
def cluster(
    pytestconfig: pytest.Config, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A control plane of its own: the policies of deploy/ would refuse what the others' tests do by hand."""
    if pytestconfig.getoption("kubeconfig") is not None:
        yield request.getfixturevalue("cluster")
        return
    binaries: Binaries = request.getfixturevalue("binaries")
    with ControlPlane(tmp_path_factory.mktemp("manifests") / "state", binaries=binaries) as plane:
        yield plane


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[list[dict[str, Any]]]:
    """The documents of deploy/, applied until the module's end."""
    if get(cluster, "namespace", NAMESPACE):
        pytest.skip(f"this cluster has a namespace {NAMESPACE} already, which the end of the test would remove")
    documents = rendered(cluster)
    cluster.kubectl("apply", "-k", str(ROOT / "crds"))
    cluster.wait_established()
    try:
        cluster.kubectl("apply", "-k", str(ROOT / "deploy"))
        yield documents
    finally:
        cluster.kubectl("delete", "-k", str(ROOT / "deploy"), "--ignore-not-found", "--timeout=60s", timeout=120)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.write(crds=crd(), rbac=roles(), workload=deployment())
    return made
