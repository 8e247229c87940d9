"""One fenced group for all tests of a module; its kinds are the folder's."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Binaries, Cluster
from tests.policies.deployed import World, deployed
from tests.policies.fenced import Fenced, crds, make_kinds


@pytest.fixture(scope="package")
def group(cluster: Cluster) -> Iterator[None]:
    """The kinds. With each that comes or goes, the API server puts together anew what it serves."""
    make_kinds(cluster)
    yield
    cluster.kubectl("delete", "crd", *(kind["metadata"]["name"] for kind in crds()), "--wait=false", check=False)


@pytest.fixture(scope="module")
def fenced(cluster: Cluster, group: None) -> Iterator[Fenced]:
    namespace = f"fenced-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", namespace)
    made = Fenced(cluster, namespace)
    try:
        made.install()
        yield made
    finally:
        made.remove()
        cluster.kubectl("delete", "namespace", namespace, "--wait=false", check=False)


@pytest.fixture
def world(binaries: Binaries, tmp_path: Path) -> Iterator[World]:
    """The reference operator's, on a control plane of its own."""
    with deployed(binaries, tmp_path) as made:
        yield made
