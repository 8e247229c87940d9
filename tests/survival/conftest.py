"""A control plane of this folder's own, with two API servers on one etcd, and a site for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Binaries, ControlPlane
from tests.kit.ipam import install_crds
from tests.survival.support import Site


@pytest.fixture(scope="package")
def cluster(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """In place of the shared one: its etcd's history is judged, and its CRDs are changed on the way."""
    with ControlPlane(tmp_path_factory.mktemp("survival") / "state", apiservers=2, binaries=binaries) as plane:
        install_crds(plane)
        yield plane


@pytest.fixture
def site(cluster: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Site]:
    """A namespace, a Lease of that namespace, and no pools or claims."""
    made = Site(cluster, namespace, tmp_path)
    try:
        yield made
    finally:
        made.clear()


@pytest.fixture
def bearer(site: Site) -> Iterator[str]:
    """A token of an account that may do anything, at any server."""
    site.kubectl("create", "serviceaccount", "op")
    account = f"--serviceaccount={site.namespace}:op"
    site.kubectl("create", "clusterrolebinding", site.namespace, "--clusterrole=cluster-admin", account)
    yield site.kubectl("create", "token", "op").stdout.strip()
    site.kubectl("delete", "clusterrolebinding", site.namespace)
