"""What `scripts/image` says that an image holds: of a small one whose packages are known, and of the operator's."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from devcluster.images import write_image
from image import bom, contents
from image.contents import Package
from image.errors import ImageError
from image.wheels import ROOT
from kopf_ha import __version__

SITE = "opt/x/lib/python3.11/site-packages"
SMALL = {
    "usr/lib/os-release": 'PRETTY_NAME="Debian"\nVERSION_ID="12"\nID=debian\n',
    "var/lib/dpkg/status": (
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"
        "Package: gcc-base\nStatus: install ok installed\nArchitecture: all\nVersion: 1:12\n"
    ),
    "usr/share/doc/libc6/copyright": "Format: https://x\n\nLicense: LGPL-2.1\n text\n\nLicense: GPL-2\n",
    f"{SITE}/spdx-1.dist-info/METADATA": "Name: Some.Pdx\nVersion: 1\nLicense-Expression: MIT OR Apache-2.0\n",
    f"{SITE}/old-2.dist-info/METADATA": "Name: old\nVersion: 2\nClassifier: License :: OSI Approved :: MIT License\n",
    f"{SITE}/bare-3.dist-info/METADATA": "Name: bare\nVersion: 3\n",
}


def layer(folder: Path, files: dict[str, str], links: dict[str, str] | None = None) -> Path:
    made = folder / "layer.tar"
    with tarfile.open(made, "w") as out:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(text)
            out.addfile(entry, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            out.addfile(entry)
    return made


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.tar"
    links = {"usr/share/doc/gcc-base": "libc6"}
    write_image(file, "small:1", layer(tmp_path, SMALL, links), {"Env": ["PYTHON_VERSION=3.13.4"]})
    return file


def test_the_packages_are_those_that_are_installed(small: Path) -> None:
    found = {package.purl: package for package in contents.packages(small)}
    assert set(found) == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12",
        "pkg:deb/debian/gcc-base@1%3A12?arch=all&distro=debian-12",
        "pkg:pypi/some-pdx@1",
        "pkg:pypi/old@2",
        "pkg:pypi/bare@3",
        "pkg:generic/python@3.13.4",
    }
    assert found["pkg:pypi/some-pdx@1"].expression == "MIT OR Apache-2.0"
    assert found["pkg:pypi/old@2"].licenses == ("MIT License",)
    assert (found["pkg:pypi/bare@3"].expression, found["pkg:pypi/bare@3"].licenses) == ("", ())


def test_debian_s_licenses_are_read_where_a_link_leads_to(small: Path) -> None:
    of_debian = [package for package in contents.packages(small) if package.purl.startswith("pkg:deb/")]
    assert [package.licenses for package in of_debian] == [("GPL-2", "LGPL-2.1")] * 2


def test_what_a_later_layer_removes_is_not_held() -> None:
    files = contents._Files()
    for texts in (SMALL, {f"{SITE}/.wh.old-2.dist-info": "", "var/lib/dpkg/.wh..wh..opq": ""}):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as out:
            for name, text in texts.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                out.addfile(entry, io.BytesIO(text.encode()))
        packed.seek(0)
        with tarfile.open(fileobj=packed) as read:
            files.add(read)
    assert f"{SITE}/spdx-1.dist-info/METADATA" in files.texts
    assert not [path for path in files.texts if "old-2" in path or "dpkg" in path]


def test_both_files_are_the_same_each_time_and_stand_beside_the_archive(small: Path) -> None:
    written = bom.write(small, "small", "1")
    assert [path.name for path in written] == ["small.cdx.json", "small.licenses.txt"]
    texts = [path.read_text() for path in written]
    assert [path.read_text() for path in bom.write(small, "small", "1")] == texts
    assert re.search(r"(?m)^Some\.Pdx +1 +MIT OR Apache-2\.0$", texts[1])
    assert re.search(r"(?m)^bare +3 +not named", texts[1])


def test_another_content_is_another_number() -> None:
    held = [Package("pkg:pypi/a@1", "a", "1", "x")]
    numbers = {bom.bill(packages, "i", "1")["serialNumber"] for packages in (held, held, [])}
    assert len(numbers) == 2


def test_what_is_no_archive_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no tar")
    with pytest.raises(ImageError, match=r"x\.tar cannot be read as a docker archive"):
        contents.packages(tmp_path / "x.tar")


def against_the_schema(bill: dict[str, Any]) -> None:
    try:
        json_ = importlib.import_module("cyclonedx.validation.json")
    except ImportError:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("cyclonedx-python-lib is not installed")
    version = importlib.import_module("cyclonedx.schema").SchemaVersion.V1_6
    assert json_.JsonStrictValidator(version).validate_str(json.dumps(bill)) is None


def test_the_schema_accepts_it(small: Path) -> None:
    against_the_schema(bom.bill(contents.packages(small), "small", "1"))


@pytest.mark.timeout(600)  # the first time the image is made
def test_the_operator_s_image(archive: Path) -> None:
    held = contents.packages(archive)
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements/image.txt").read_text(), re.MULTILINE))
    of_python = {p.purl for p in held if p.purl.startswith("pkg:pypi/")}
    assert of_python == {f"pkg:pypi/{name}@{version}" for name, version in {**pinned, "kopf-ha": __version__}.items()}
    of_debian = {p.name: p for p in held if p.purl.startswith("pkg:deb/debian/")}
    assert {"python3-minimal", "libssl3", "ca-certificates"} <= set(of_debian)
    assert of_debian["libssl3"].licenses, "the base has the licenses of its packages"
    unnamed = [p.name for p in held if p.purl.startswith("pkg:pypi/") and not (p.expression or p.licenses)]
    assert unnamed == []
    against_the_schema(bom.bill(held, "kopf-ha-ipam", __version__))
