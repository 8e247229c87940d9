"""The cluster with the CRDs of the reference operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.waiting import until
from tests.ipam.support import ROOT, Ipam


@pytest.fixture(scope="session")
def crds(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-k", str(ROOT / "crds"))
    cluster.wait_established()
    served = ("get", "addresspools,addressclaims", "-A")
    until("the CRDs to be served", lambda: cluster.kubectl(*served, check=False).returncode == 0)


@pytest.fixture
def ipam(cluster: Cluster, crds: None, namespace: str, tmp_path: Path) -> Iterator[Ipam]:
    """The CRDs, and no pools or claims."""
    made = Ipam(cluster, namespace, tmp_path)
    made.clear()
    try:
        yield made
    finally:
        made.clear()
