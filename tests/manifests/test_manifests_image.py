"""The Dockerfile, and that what it packs is what pyproject.toml asks for. `tests/image` has the image itself."""

import json
import re
import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testbed.deployment import ROOT, container_of
from tests.manifests.support import image_environment, instructions, stages


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def last(name: str) -> str:
    return [rest for n, rest in stages()[-1] if n == name][-1]


def deployment() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy/base/deployment.yaml").read_text()))


def test_two_stages_have_one_base_that_is_pinned() -> None:
    build, final = stages()
    assert build[0] == ("FROM", "${BUILD_BASE} AS build")
    assert ("ARG", "BUILD_BASE=${BASE}") in instructions()
    assert final[0] == ("FROM", "${BASE}")
    (base,) = (rest for name, rest in instructions() if name == "ARG" and rest.startswith("BASE="))
    assert re.fullmatch(r"BASE=[a-z/.]+:\d[\w.-]+", base)
    assert "latest" not in base


def test_the_last_stage_only_copies() -> None:
    assert {name for name, _ in stages()[-1]} == {"FROM", "LABEL", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}
    assert all(rest.startswith("--from=build ") for name, rest in stages()[-1] if name == "COPY")
    assert all(name != "ADD" for name, _ in instructions())


def test_it_runs_as_the_number_that_the_deployment_names() -> None:
    pod = deployment()["spec"]["template"]["spec"]["securityContext"]
    assert last("USER") == f"{pod['runAsUser']}:{pod['runAsGroup']}"
    assert pod["runAsUser"] > 0


def test_a_user_without_a_name_is_named_for_kopf() -> None:
    # Kopf asks getpass.getuser(), which fails for a number that has no name
    assert image_environment()["USER"]


def test_signals_reach_the_process() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["kopf-ha"]  # no shell in between
    args = json.loads(last("CMD"))
    assert args[: len(container_of(deployment())["args"])] == container_of(deployment())["args"]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    rules = [r for r in (ROOT / ".dockerignore").read_text().splitlines() if r and not r.startswith("#")]
    assert rules[0] == "*"
    kept = [r[1:] for r in rules if r.startswith("!")]
    for name, rest in stages()[0]:
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists() or source == "build/wheelhouse", source  # made by scripts/image
                assert any(fnmatch(source, k) or source.startswith(f"{k}/") for k in kept), source


def test_nothing_is_fetched_and_whatever_is_installed_is_pinned() -> None:
    runs = [rest for name, rest in stages()[0] if name == "RUN"]
    installs = [command for run in runs for command in run.split("&&") if "pip install" in command]
    assert len(installs) == 2
    assert all("--no-index" in c and ("--require-hashes" in c or "--no-deps" in c) for c in installs)
    assert not any(program in run for run in runs for program in ("curl", "wget", "apt", "git "))


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


def test_pins_are_what_pyproject_asks_for(pyproject: dict[str, Any]) -> None:
    for wanted, pinned in (
        (pyproject["project"]["dependencies"], pins("image.txt")),
        (pyproject["build-system"]["requires"], pins("build.txt")),
    ):
        for requirement in map(Requirement, wanted):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
