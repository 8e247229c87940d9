"""Helm, if there is one: in PATH, or built by `scripts/helm --build`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.deployment import NAME, ROOT

#: Exit status of scripts/helm when there is none to be had.
NONE = 3
CHART = ROOT / "deploy" / "chart"

Documents = list[dict[str, Any]]
Helm = Callable[..., str]


def run(folder: Path, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run helm with a home of its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HELM_", "KUBE"))}
    env |= {f"HELM_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    done = subprocess.run([ROOT / "scripts/helm", *args], capture_output=True, text=True, env=env, timeout=120)
    if done.returncode == NONE and done.stderr.startswith("no helm"):
        if os.environ.get("KOPF_HA_HELM") == "required":
            pytest.fail(done.stderr)
        pytest.skip(done.stderr)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    """Run helm, which must succeed, and give what it printed."""

    def runs(*args: str) -> str:
        return run(tmp_path, *args).stdout

    return runs


def rendered(helm: Helm, values: Mapping[str, Any] | None = None, *args: str, release: str = NAME) -> Documents:
    """What the chart renders to, in the operator's namespace unless `args` name another."""
    sets = [f"--set-json={key}={json.dumps(value)}" for key, value in (values or {}).items()]
    text = helm("template", release, str(CHART), f"--namespace={NAME}", *sets, *args)
    return [document for document in yaml.safe_load_all(text) if document]
