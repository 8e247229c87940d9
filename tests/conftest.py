"""The cluster that tests share, and a namespace for each that wants one.

Without programs and without Go the tests that need a cluster are skipped with the ways out, except in CI,
where a skipped test would look like a passed one. Programs are built before the first test, since minutes of
building would count as a test's time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from devcluster import (
    Binaries,
    Cluster,
    ControlPlane,
    DevclusterError,
    ExistingCluster,
    NoBinariesError,
    NoNodeError,
    Progress,
)
from devcluster.binaries import programs
from devcluster.node import check_possible
from tests.kit.schedule import ByUnit, in_order
from tests.kit.world import fresh_namespace

# No test asserts a duration, and a busy machine draws slowly.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Where the tests run says nothing about where the settings under test are made.
for name in ("KUBERNETES_SERVICE_HOST", "POD_NAME", "POD_UID", "POD_NAMESPACE"):
    os.environ.pop(name, None)

# who asks for one of these needs a cluster, or the programs of one
_CLUSTER_FIXTURES = {"cluster", "binaries", "node_binaries"}

_binaries: pytest.StashKey[Binaries | DevclusterError] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kubeconfig",
        type=Path,
        help="run against this cluster that exists; tests that stop its processes are skipped",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # first, so that -m "not cluster" sees the mark
    for item in items:
        if _needs_cluster(item):
            item.add_marker("cluster")
    if hasattr(config, "workerinput"):
        items[:] = in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByUnit | None:
    return ByUnit(config, log) if config.getoption("dist") == "loadscope" else None


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = any(_needs_cluster(item) for item in session.items)
    existing = session.config.getoption("kubeconfig") is not None
    if not wanted or existing or session.config.getoption("collectonly"):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            nodes = any("node_binaries" in getattr(item, "fixturenames", ()) for item in session.items)
            session.config.stash[_binaries] = Binaries.find(programs(nodes), Progress(sys.stderr), exact=True)
        except DevclusterError as error:
            session.config.stash[_binaries] = error


def _needs_cluster(item: pytest.Item) -> bool:
    return not _CLUSTER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def binaries(pytestconfig: pytest.Config) -> Binaries:
    """The control plane's programs, for tests that start their own."""
    if pytestconfig.getoption("kubeconfig") is not None:
        pytest.skip("needs a control plane of its own, and --kubeconfig names another")
    found = pytestconfig.stash[_binaries]
    if isinstance(found, Binaries):
        return found
    if isinstance(found, NoBinariesError) and os.environ.get("CI") != "true":
        pytest.skip(str(found))
    pytest.fail(str(found))


@pytest.fixture(scope="session")
def node_binaries(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Binaries:
    """The programs of a cluster with nodes, where nodes can run."""
    try:
        check_possible(tmp_path_factory.getbasetemp())
        return Binaries.find(programs(nodes=1), Progress(sys.stderr), exact=True)
    except NoNodeError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def cluster(
    pytestconfig: pytest.Config, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster for all tests: one of our own, or the one that --kubeconfig names."""
    existing: Path | None = pytestconfig.getoption("kubeconfig")
    if existing is not None:
        with ExistingCluster(existing, Progress(sys.stderr)) as given:
            yield given
        return
    binaries: Binaries = request.getfixturevalue("binaries")
    with ControlPlane(tmp_path_factory.mktemp("cluster") / "state", binaries=binaries) as plane:
        # Early: an API server looks for new kinds of parameters every 30 s.
        plane.kubectl("apply", "-f", str(Path(__file__).parents[1] / "crds" / "terms.yaml"))
        yield plane


@pytest.fixture
def control_plane(cluster: Cluster) -> ControlPlane:
    """The same cluster, for tests that use its processes, its etcd or its audit log.

    Not of the session: a folder may have a cluster of its own, and pytest would keep the one that was asked for first.
    """
    if not isinstance(cluster, ControlPlane):
        pytest.skip("needs the processes of a cluster of our own, and --kubeconfig names another")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace in which Pods can be made."""
    with fresh_namespace(cluster) as name:
        yield name
