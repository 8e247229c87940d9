"""The kinds, namespaces and runners of the tests of terms, and a trace that replicas write together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.run.conftest import kinds, marks, replica, run, world  # noqa: F401  fixtures, used by name
from tests.run.support import Replica
from tests.terms.support import TRACING, Trace


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "trace")


@pytest.fixture
def traced(replica: Callable[..., Replica], trace: Trace) -> Callable[..., Replica]:  # noqa: F811  the fixture
    """Run a replica whose handlers can `trace(...)`."""

    def start(who: str, code: str, *args: str) -> Replica:
        return replica(TRACING + code, *args, env={"TRACE": str(trace.path), "WHO": who})

    return start
