"""The cluster with the CRDs of the reference operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster
from kopf_ha_ipam.conflicts import GIVEN_TWICE
from tests.kit.ipam import Ipam, install_crds


@pytest.fixture(autouse=True)
def nothing_given_twice() -> Iterator[None]:
    """The metric belongs to the process; other tests look at it."""
    yield
    GIVEN_TWICE.set(0)


@pytest.fixture(scope="session")
def crds(cluster: Cluster) -> None:
    install_crds(cluster)


@pytest.fixture
def ipam(cluster: Cluster, crds: None, namespace: str, tmp_path: Path) -> Iterator[Ipam]:
    """The CRDs, and no pools or claims."""
    made = Ipam(cluster, namespace, tmp_path)
    made.clear()
    try:
        yield made
    finally:
        made.clear()
