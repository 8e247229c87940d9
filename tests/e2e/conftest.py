"""The cluster of the tutorial, made by its own lines, and the operator on it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Binaries
from devcluster.state import StateDir, folder_for
from testbed.deployment import NAME, ROOT
from testbed.stage import Stage
from tests.page import blocks


@pytest.fixture(scope="session")
def tutorial() -> Iterator[str]:
    """The blocks of the part about the cluster, in order; each test takes its own."""
    return iter(blocks(ROOT / "docs" / "tutorial.md", "On a cluster"))


@pytest.fixture(scope="session")
def stage(node_binaries: Binaries, tutorial: Iterator[str]) -> Iterator[Stage]:
    """Two nodes, and the operator on them as the tutorial says."""
    name = f"e2e-{secrets.token_hex(4)}"
    os.environ["DEVCLUSTER_NAME"] = name
    state: Path = folder_for(name)
    try:
        for contains in ("devcluster load",):
            block = next(tutorial)
            assert contains in block
            subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=ROOT, check=True, timeout=900)
        record = json.loads((state / "cluster.json").read_text())
        yield Stage(record)
    finally:
        subprocess.run([sys.executable, "-m", "devcluster", "down"], cwd=ROOT, check=True)
        del os.environ["DEVCLUSTER_NAME"]
    assert not StateDir(state).exists


@pytest.fixture(autouse=True)
def shown_if_it_fails(stage: Stage, request: pytest.FixtureRequest) -> Iterator[None]:
    """Show what a user would look at first when a test failed."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        for args in (("get", "pods", "-A", "-o", "wide"), ("get", "events", "-n", NAME)):
            print(stage.kubectl(*args, check=False))
        for pod in stage.pods():
            print(stage.kubectl("logs", "-n", NAME, pod["metadata"]["name"], "--tail=60", check=False))
