"""Traces of processes that need neither threads nor a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kopf_ha.trace import Trace
from tests.core.fake_api import LEASE, MINE, FakeApi, Process
from tests.election.world import settings
from tests.replay.traced import TracedProcess


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.trace"


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def me(api: FakeApi, file: Path) -> Process:
    return TracedProcess(api, MINE, file)


@pytest.fixture
def begin(file: Path) -> Callable[[], Trace]:
    """Begin the trace of another process in the same file."""
    assert settings("x").lease == LEASE
    return lambda: Trace(str(file), settings("pod7", recovery=15), "1.0")
