"""The workflows of .github call what is here, and nothing that can change by itself. `make actions` checks the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import versions

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
JOBS = [
    (f"{path.stem}: {name}", job)
    for path in WORKFLOWS
    for name, job in yaml.safe_load(path.read_text())["jobs"].items()
]


def targets() -> set[str]:
    named = re.findall(r"(?m)^([a-z- ]+):", (ROOT / "Makefile").read_text())
    return {name for names in named for name in names.split()}


@pytest.mark.parametrize(("name", "job"), JOBS, ids=[name for name, _ in JOBS])
def test_each_step_can_be_run_in_a_checkout(name: str, job: dict[str, Any]) -> None:
    """But for those that take or give what only GitHub has."""
    for step in job["steps"]:
        for command in str(step.get("run", "")).splitlines():
            words = command.removeprefix('sudo -E env PATH="$PATH" ').removeprefix("sudo ").split()
            if words[0] == "make":
                assert words[1] in targets(), command
            elif words[0] != "test":
                assert (ROOT / words[0]).exists(), command


@pytest.mark.parametrize(("name", "job"), JOBS, ids=[name for name, _ in JOBS])
def test_each_job_has_the_rights_and_the_time_that_it_needs(name: str, job: dict[str, Any]) -> None:
    assert job["timeout-minutes"] <= 90
    assert job["permissions"], "those of the repository, otherwise"


def test_actions_are_pinned_and_name_their_version() -> None:
    for path in WORKFLOWS:
        for line in re.findall(r"(?m)^.*\buses: .*$", path.read_text()):
            assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line), line


def test_one_pin_for_each_action() -> None:
    pins = {pin for path in WORKFLOWS for pin in re.findall(r"uses: (\S+)", path.read_text())}
    assert len(pins) == len({pin.partition("@")[0] for pin in pins})


def test_the_pythons_are_those_of_the_package() -> None:
    supported = set(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text()))
    units = dict(JOBS)["ci: units"]
    assert supported < set(units["strategy"]["matrix"]["python"])


def test_the_versions_of_kubernetes_are_the_oldest_and_the_newest() -> None:
    chosen = dict(JOBS)["ci: kubernetes"]["strategy"]["matrix"]["version"]
    minors = list(versions.minors())
    assert chosen == [minors[0], minors[-1]]
