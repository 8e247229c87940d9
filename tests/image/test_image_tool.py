"""`scripts/image`: what it keeps, the archives that it writes itself, and how it fails."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from devcluster import Progress
from devcluster.images import architecture, write_image
from image import base, build, busybox, cache, cli, tools, twice, wheels
from image.errors import ImageError
from testbed.unpacked import read_json
from tests.image.conftest import or_skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kopf-ha" / "image"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, list(arguments))


def writes(text: str, calls: list[str]) -> Callable[[Path, Path], None]:
    def make(file: Path, place: Path) -> None:
        calls.append(text)
        (place / "rubbish").write_text("x")
        file.write_text(text)

    return make


# --- what is kept


def test_it_is_made_once(own_cache: Path) -> None:
    calls: list[str] = []
    made = [cache.kept("thing", "k", writes("a", calls), Progress()) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].read_text() == "a"
    assert calls == ["a"]
    assert {f.name for f in own_cache.iterdir()} == {"thing-k.tar", "lock"}


def test_what_fails_half_way_leaves_nothing(own_cache: Path) -> None:
    def make(file: Path, place: Path) -> None:
        file.write_text("half")
        raise ImageError("no more")

    with pytest.raises(ImageError):
        cache.kept("thing", "k", make, Progress())
    assert {f.name for f in own_cache.iterdir()} == {"lock"}


def test_what_a_killed_one_left_is_removed(own_cache: Path) -> None:
    (own_cache / "making-old").mkdir(parents=True)
    (own_cache / "making-old" / "store").write_text("x")
    cache.kept("thing", "k", writes("a", []), Progress())
    assert not (own_cache / "making-old").exists()


def test_of_two_at_once_one_makes_it_and_the_other_waits() -> None:
    calls: list[str] = []
    began, go = threading.Event(), threading.Event()
    said = io.StringIO()

    def slow(file: Path, place: Path) -> None:
        calls.append("slow")
        began.set()
        assert go.wait(30)
        file.write_text("slow")

    class Hears(Progress):
        def line(self, text: str) -> None:
            super().line(text)
            go.set()  # the second one waits, so the first may end

    results: list[Path] = []
    first = threading.Thread(target=lambda: results.append(cache.kept("thing", "k", slow, Progress())))
    first.start()
    assert began.wait(30)
    results.append(cache.kept("thing", "k", slow, Hears(said)))
    first.join()
    assert calls == ["slow"]
    assert results[0] == results[1]
    assert "waiting" in said.getvalue()


def test_old_versions_are_forgotten(own_cache: Path) -> None:
    for n in range(cache.KEPT + 2):
        cache.kept("thing", str(n), writes("a", []), Progress())
    assert len(list(own_cache.glob("thing-*.tar"))) == cache.KEPT
    assert (own_cache / f"thing-{cache.KEPT + 1}.tar").exists()


def test_a_change_of_a_source_is_another_key(tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    (folder / "__pycache__").mkdir(parents=True)
    source = folder / "a.py"
    source.write_text("1")
    keys = [cache.key_of([folder])]
    (folder / "__pycache__" / "a.pyc").write_text("x")
    assert cache.key_of([folder]) == keys[0]
    source.write_text("2")
    keys.append(cache.key_of([folder]))
    source.rename(folder / "b.py")
    keys.append(cache.key_of([folder]))
    keys.append(cache.key_of([folder, "other"]))
    assert len(set(keys)) == 4


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    or_skip(lambda: busybox.busybox(Progress()))
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = invoke("--busybox")
    assert done.exit_code == 1
    assert "set XDG_CACHE_HOME" in done.stderr


# --- archives


def test_the_archive_of_busybox_is_one_that_a_node_takes(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "busybox.tar"
    or_skip(lambda: busybox.busybox(Progress()))
    done = invoke("--busybox", "--output", str(file))
    assert (done.exit_code, done.stdout) == (0, f"{file}\n")
    with tarfile.open(file) as packed:
        (manifest,) = read_json(packed, "manifest.json")
        config = read_json(packed, manifest["Config"])
        (layer,) = manifest["Layers"]
        content = packed.extractfile(layer)
        assert content is not None
        read = content.read()
    assert manifest["RepoTags"] == ["docker.io/library/busybox:latest"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(read).hexdigest()}"]
    assert config["architecture"] == architecture()
    with tarfile.open(fileobj=io.BytesIO(read)) as files:
        files.extractall(tmp_path / "root", filter="tar")
    asked = subprocess.run([tmp_path / "root/bin/sh", "-c", "echo $0"], env={}, capture_output=True, text=True)
    assert asked.stdout.endswith("/bin/sh\n")


def test_a_busybox_that_needs_libraries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    dynamic = shutil.which("tar")  # any program of the system's, which are all linked so
    assert dynamic is not None
    shutil.copy(dynamic, tmp_path / "bin/busybox")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    done = invoke("--busybox")
    assert done.exit_code == 1
    assert (
        done.stderr == "Error: a static busybox is needed for this image: install the Debian package busybox-static.\n"
    )


# --- two builds


def image_with(folder: Path, *, number: str = "1", **file: Any) -> Path:
    """Give the archive of an image with one file, which is described as a tar file does it."""
    layer, entry = folder / f"layer-{number}", tarfile.TarInfo("./etc/thing")
    for name, value in file.items():
        setattr(entry, name, value)
    with tarfile.open(layer, "w") as out:
        out.addfile(entry, io.BytesIO(bytes(entry.size)))
    write_image(folder / f"{number}.tar", "a:1", layer, {})
    return folder / f"{number}.tar"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, []),
        ({"mtime": 1}, ["layer 1: /etc/thing: time"]),
        ({"mode": 0o600, "uid": 1}, ["layer 1: /etc/thing: mode, owner"]),
        ({"size": 1}, ["layer 1: /etc/thing: content"]),
        ({"name": "etc/one"}, [f"layer 1: /etc/{name} is in one of them only" for name in ("one", "thing")]),
    ],
    ids=["the same", "time", "mode and owner", "content", "name"],
)  # fmt: skip
def test_what_differs_in_two_images_is_named(tmp_path: Path, other: dict[str, Any], said: list[str]) -> None:
    assert twice.differences(image_with(tmp_path), image_with(tmp_path, number="2", **other)) == said


def test_what_is_no_image_is_a_sentence(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "empty.tar", "w").close()
    with pytest.raises(ImageError, match="cannot be read as a docker archive"):
        twice.differences(tmp_path / "empty.tar", tmp_path / "empty.tar")


# --- by docker

ENGINE = """#!/bin/sh
echo "$@" >>"$0.log"
case $1 in
version) echo 28.0 ;;
save) cp "$ARCHIVE" "$3" ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker that has an empty image, and writes down how it was called."""
    engine, layer, archive = tmp_path / "bin/docker", tmp_path / "layer.tar", tmp_path / "empty.tar"
    engine.parent.mkdir()
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    tarfile.open(layer, "w").close()
    write_image(archive, "empty:1", layer, {})
    monkeypatch.setenv("ARCHIVE", str(archive))
    monkeypatch.setenv("PATH", f"{engine.parent}:/usr/bin:/bin")
    return tmp_path / "bin/docker.log"


def builds(engine: Path) -> list[str]:
    return [line for line in engine.read_text().splitlines() if line.startswith("build ")]


def test_an_engine_that_answers_builds_it(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "image.tar"
    monkeypatch.setattr(wheels, "wheelhouse", lambda progress, machine: None)
    done = invoke("--base", "mirror.example/python:3.12-slim", "--output", str(file))
    assert (done.exit_code, done.stdout) == (0, f"{file}\n")
    assert builds(engine) == [
        f"build --build-arg BASE=mirror.example/python:3.12-slim --tag {build.tag()} {wheels.ROOT}"
    ]
    told = json.loads((tmp_path / "image.cdx.json").read_text())
    assert told["metadata"]["component"]["name"] == build.tag().split(":")[0]
    assert (tmp_path / "image.licenses.txt").exists()


def test_two_builds_by_docker_are_never_one_image(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "wheelhouse", lambda progress, machine: None)
    done = invoke("--base", "some", "--output", str(tmp_path / "image.tar"), "--twice")
    assert done.exit_code == 1
    assert "docker writes the time of the build into the layers" in done.stderr


def test_for_another_machine_wheels_and_image_are_its(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(wheels, "wheelhouse", lambda progress, machine: asked.append(machine))
    done = invoke("--platform", "linux/arm64", "--output", str(tmp_path / "image.tar"))
    assert done.exit_code == 0, done.stderr
    assert asked == ["arm64"]
    assert builds(engine) == [f"build --platform=linux/arm64 --tag {build.tag()} {wheels.ROOT}"]


def test_pip_is_asked_for_wheels_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(wheels, "_pip", lambda *arguments, **_: asked.append(arguments))
    with pytest.raises(FileNotFoundError):  # nothing was downloaded
        wheels.wheelhouse(Progress(), tmp_path / "wheelhouse", "arm64")
    platforms = [argument for argument in asked[0] if argument.startswith("--platform=")]
    assert platforms
    assert all(platform.endswith("_aarch64") for platform in platforms)


# --- failures


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = invoke("--only-base")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: root is needed to make a base image with debootstrap")


@pytest.mark.parametrize(("program", "arguments"), [("debootstrap", ["--only-base"]), ("buildah", [])])
def test_a_missing_program_is_named(
    program: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = invoke(*arguments)
    assert done.exit_code == 1
    assert f"install the Debian package {program}." in done.stderr


def test_a_mirror_that_is_not_there_leaves_nothing(own_cache: Path) -> None:
    or_skip(partial(tools.need_root, "make a base image"))
    or_skip(partial(tools.need, "debootstrap", "make a base image"))
    done = invoke("--only-base", "--mirror", "http://127.0.0.1:1/debian")
    assert done.exit_code == 1
    assert (
        "If http://127.0.0.1:1/debian cannot be reached from here, choose another mirror with --mirror." in done.stderr
    )
    assert {f.name for f in own_cache.iterdir()} == {"lock"}


def test_without_a_package_index_the_old_wheels_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    old = tmp_path / "build" / "wheelhouse"
    old.mkdir(parents=True)
    (old / "key").write_text("of other versions")
    with pytest.raises(ImageError, match="Is a package index reachable"):
        wheels.wheelhouse(Progress(), old)
    assert [f.name for f in old.parent.iterdir()] == ["wheelhouse"]
    assert (old / "key").exists()


def test_an_output_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        build.put(Path(__file__), tmp_path / "file" / "image.tar")


def test_what_debian_s_packages_make_is_for_machines_like_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "architecture", lambda: "amd64")
    done = invoke("--debian", "--platform", "linux/arm64")
    assert done.exit_code == 2
    assert "machines like this one" in done.stderr


def test_options_that_exclude_each_other() -> None:
    done = invoke("--debian", "--busybox")
    assert done.exit_code == 2
    assert "exclude each other" in done.stderr


# --- what it is told elsewhere


def test_there_are_wheels_for_every_python_that_is_supported() -> None:
    project = tomllib.loads((wheels.ROOT / "pyproject.toml").read_text())["project"]
    named = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if ":: Python :: 3." in line]
    assert named == list(wheels.PYTHONS)


def test_the_base_is_another_one_when_its_packages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    key = base.key()
    monkeypatch.setattr(base, "PACKAGES", (*base.PACKAGES, "tzdata"))
    assert base.key() != key


def test_the_command_of_people() -> None:
    done = subprocess.run([wheels.ROOT / "scripts/image", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "docker-archive" in done.stdout
