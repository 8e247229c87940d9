"""The stage of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster import Cluster
from tests.election.stage import Stage


@pytest.fixture
def stage(cluster: Cluster, namespace: str) -> Iterator[Stage]:
    stage = Stage(cluster, namespace)
    try:
        yield stage
    finally:
        for replica in stage.replicas:
            replica.end()
        assert not any(any(r.open_when_stopped) for r in stage.replicas), "a grant was open when its end was told"
