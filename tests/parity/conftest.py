"""One operator under `kopf run` and one under `kopf-ha run`, which serve all cells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster import Cluster
from testbed.replica import KOPF_HA
from tests.kit.world import apply_kinds, fresh_namespace
from tests.parity.kinds import KINDS
from tests.parity.stage import Stage

KOPF = ("-m", "kopf", "run", "--standalone")
#: Its times are long enough for a machine on which two operators start at once, and for hundreds of handlers to end.
FENCED = (*KOPF_HA, "run", "--lease-name=op", "--after-loss=follow", "--drain-timeout=60")


@pytest.fixture(scope="module")
def kinds(cluster: Cluster) -> Cluster:
    apply_kinds(cluster, *KINDS)
    return cluster


@pytest.fixture(scope="module")
def plain(kinds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The operator as it is."""
    with fresh_namespace(kinds) as name:
        stage = Stage(kinds, name, tmp_path_factory.mktemp("plain") / "stage")
        try:
            stage.start(*KOPF)
            yield stage
        finally:
            stage.close()


@pytest.fixture(scope="module")
def fenced(kinds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The same operator, with two followers."""
    with fresh_namespace(kinds) as name:
        stage = Stage(kinds, name, tmp_path_factory.mktemp("fenced") / "stage")
        try:
            stage.start(*FENCED, f"--lease-namespace={name}", count=3)
            yield stage
        finally:
            stage.close()
