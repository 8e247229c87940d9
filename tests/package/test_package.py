"""The distributions: what is in them, that one place has the version, and that the wheel works on its own.

`make package` does more, and takes a minute: twine, an environment with nothing but the wheel, types seen from outside.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from kopf_ha import __version__
from testbed.deployment import ROOT, container_of

#: What the build needs of the repository; a copy, since setuptools takes whatever lies in a build folder.
SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")

BUILD = """
import os, sys
from setuptools import build_meta
_, source, made = sys.argv  # which the first build changes
os.chdir(source)
build_meta.build_sdist(made)
build_meta.build_wheel(made)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel."""
    if int(version("setuptools").partition(".")[0]) < 77:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "setuptools is older than pyproject.toml asks for"
        )
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        (source / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(ROOT / "operator", source / "operator", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (source / "tests").mkdir()
    (source / "tests/test_x.py").write_text("")  # setuptools would take it
    done = subprocess.run([sys.executable, "-c", BUILD, source, made], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"kopf_ha-{__version__}-py3-none-any.whl"


def library() -> set[str]:
    return {p.relative_to(ROOT / "operator").as_posix() for p in (ROOT / "operator/kopf_ha").rglob("*.py")}


def test_the_wheel_has_the_library_and_nothing_else(wheel: Path) -> None:
    """The reference operator is an example that runs; nobody who installs the library wants its kinds."""
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert names == {*library(), "kopf_ha/py.typed"}


def test_the_source_distribution_builds_the_same_and_has_no_tests(dist: Path) -> None:
    with tarfile.open(dist / f"kopf_ha-{__version__}.tar.gz") as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    operator = {name.removeprefix("operator/") for name in names if name.endswith((".py", "py.typed"))}
    assert operator == {*library(), "kopf_ha/py.typed"}
    assert {*SOURCES, "PKG-INFO"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "demo", "operator/kopf_ha_ipam"))]


def test_what_an_index_shows_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (n for n in packed.namelist() if n.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(packed.read(name))
        assert [n for n in packed.namelist() if n.endswith("licenses/LICENSE")]
    assert (said["Name"], said["Version"], said["License-Expression"]) == ("kopf-ha", __version__, "Apache-2.0")
    assert said["Description-Content-Type"] == "text/markdown"
    assert {"asyncio", "easykube", "httpx", "httpx2", "kr8s", "lightkube"} <= set(said.get_all("Provides-Extra") or ())


def test_the_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    """With the dependencies of this environment; `make package` tries it in one of its own."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    (tmp_path / "outside.py").write_bytes((ROOT / "tests/package/outside.py").read_bytes())
    env = {k: v for k, v in os.environ.items() if not k.startswith("KOPF")} | {
        "PYTHONPATH": str(tmp_path / "installed")
    }

    def run(*argv: str) -> str:
        done = subprocess.run([sys.executable, *argv], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import kopf_ha; print(kopf_ha.__file__)").startswith(str(tmp_path / "installed"))
    run("outside.py")
    assert run("-m", "kopf_ha", "--version") == f"kopf-ha, version {__version__}\n"
    options = ["--group=example.dev", "--kind=widgets", "--lease=ns/op", "--service-account=ns/op"]
    kinds = {d["kind"] for d in yaml.safe_load_all(run("-m", "kopf_ha", "manifests", *options))}
    assert {"CustomResourceDefinition", "ValidatingAdmissionPolicy", "Role", "FlowSchema"} <= kinds


# --- one version


def tried(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([folder / "scripts/version", *argv], capture_output=True, text=True)


#: Files that repeat the version, since nothing that could compute it reads them first.
REPEATED = (
    *("operator/kopf_ha/__init__.py", "Dockerfile", "deploy/kustomization.yaml", "deploy/base/deployment.yaml"),
    *("deploy/default/kustomization.yaml", "deploy/overlays/kind/kustomization.yaml", "docs/deploy.md"),
)


def test_one_version_everywhere() -> None:
    assert tried(ROOT).stdout == f"{__version__}\n"
    deployment = yaml.safe_load((ROOT / "deploy/base/deployment.yaml").read_text())
    kustomization = yaml.safe_load((ROOT / "deploy/default/kustomization.yaml").read_text())
    assert container_of(deployment)["image"] == f"kopf-ha-ipam:{__version__}"
    assert kustomization["images"] == [{"name": "kopf-ha-ipam", "newTag": __version__}]
    assert kustomization["labels"][0]["pairs"] == {"app.kubernetes.io/version": __version__}


def test_a_new_version_gets_wherever_it_is_repeated(tmp_path: Path) -> None:
    for name in (*REPEATED, "scripts/version"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "scripts/version").chmod(0o755)
    assert tried(tmp_path, "12.34.56rc7").returncode == 0
    assert tried(tmp_path).stdout == "12.34.56rc7\n"
    for name in REPEATED:
        was, now = (ROOT / name).read_text(), (tmp_path / name).read_text()
        assert now == re.sub(rf"\b{re.escape(__version__)}\b", "12.34.56rc7", was), name
        assert now != was, name


def test_nonsense_is_no_version(tmp_path: Path) -> None:
    done = tried(ROOT, "latest")
    assert (done.returncode, tried(ROOT).stdout) == (2, f"{__version__}\n")
    assert "1.2.3" in done.stderr


# --- the changelog

KEPT = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_the_changelog_has_the_form_that_people_know() -> None:
    """https://keepachangelog.com"""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"(?m)^## (.*)$", text)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", version) for version in versions[1:])
    assert set(re.findall(r"(?m)^### (.*)$", text)) <= set(KEPT)
