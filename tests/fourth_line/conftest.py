"""A control plane of this folder's own: two API servers on one etcd, of which the second can learn late."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Binaries, ControlPlane
from testbed.terms import Terms
from tests.fourth_line.site import Site, deploy
from tests.kit.ipam import install_crds


@pytest.fixture(scope="package")
def cluster(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """In place of the shared one."""
    folder = tmp_path_factory.mktemp("fourth-line") / "state"
    with ControlPlane(folder, apiservers=2, lagging=True, binaries=binaries) as plane:
        install_crds(plane)
        yield plane


@pytest.fixture(scope="package")
def operator(cluster: ControlPlane) -> ControlPlane:
    """The same, with everything in deploy/."""
    deploy(cluster)
    return cluster


@pytest.fixture
def site(operator: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Site]:
    """The reference operator's, without pools and claims; nobody holds its Lease."""
    made = Site(operator, namespace, tmp_path)
    try:
        made.begin()
        yield made
    finally:
        made.clear()


@pytest.fixture
def terms(cluster: ControlPlane) -> Iterator[Terms]:
    """An account whose writes only the Term's policy judges: there are no stamps, no adapters, and it may do all."""
    made = Terms(cluster, f"term-{secrets.token_hex(3)}")
    made.install()
    yield made
    made.remove()
