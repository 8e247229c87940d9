"""Reads from an image's archive which packages it holds: those of Debian, and those of Python, with their licenses."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote

from image.archive import opened

_WANTED = re.compile(
    r"(.+\.dist-info/METADATA|.+\.egg-info/PKG-INFO|var/lib/dpkg/status(\.d/[^/]+)?|usr/share/doc/[^/]+/copyright"
    r"|usr/lib/os-release)"
)
_DOC = "usr/share/doc"
_CLASSIFIER = "License :: OSI Approved :: "


@dataclass(frozen=True, order=True)
class Package:
    """A package that an image holds.

    `expression` is its license as an SPDX expression; where its author wrote none, `licenses` has the names that they
    wrote. Both can be empty. `purl` is its package URL, and `place` the file that tells of it.
    """

    purl: str
    name: str
    version: str
    place: str
    expression: str = ""
    licenses: tuple[str, ...] = ()


@dataclass
class _Files:
    """The files of all layers that tell of packages, by path, and where folders of documentation lead to."""

    texts: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def add(self, layer: tarfile.TarFile) -> None:
        for entry in layer:
            path = PurePosixPath(entry.name.removeprefix("./"))
            if path.name == ".wh..wh..opq":
                self._forget(str(path.parent))
            elif path.name.startswith(".wh."):
                self._forget(str(path.with_name(path.name.removeprefix(".wh."))))
            elif entry.isfile() and _WANTED.fullmatch(str(path)):
                self.texts[str(path)] = _text(layer.extractfile(entry))
            elif entry.issym() and str(path.parent) == _DOC:
                self.links[path.name] = PurePosixPath(entry.linkname).name

    def _forget(self, gone: str) -> None:
        for path in [path for path in self.texts if path == gone or path.startswith(f"{gone}/")]:
            del self.texts[path]

    def copyright(self, package: str) -> str:
        return self.texts.get(f"{_DOC}/{self.links.get(package, package)}/copyright", "")


def packages(archive: Path) -> list[Package]:
    """Return the packages that an image holds, sorted. Raises ImageError if the archive is none of docker's."""
    files = _Files()
    with opened(archive) as (config, layers):
        for layer in layers:
            files.add(layer)
        told = json.loads(config)
    return sorted({*_of_python(files.texts), *_of_debian(files), *_python_itself(told)})


def _text(content: IO[bytes] | None) -> str:
    if content is None:
        raise ValueError("a folder stands where a file should")
    return content.read().decode("utf-8", "replace")


def _of_python(texts: Mapping[str, str]) -> Iterator[Package]:
    for path, text in texts.items():
        if not path.endswith(("/METADATA", "/PKG-INFO")):
            continue
        told = HeaderParser().parsestr(text)
        name, version = str(told["Name"]), str(told["Version"])
        purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version)}"
        expression = str(told["License-Expression"] or "").strip()
        yield Package(purl, name, version, path, expression, () if expression else _names(told))


def _names(told: Message) -> tuple[str, ...]:
    """Return the licenses' names in the old fields: classifiers, or else a line of text; not a whole text."""
    classifiers = [str(value) for value in told.get_all("Classifier", [])]
    found = tuple(c.removeprefix(_CLASSIFIER) for c in classifiers if c.startswith(_CLASSIFIER))
    written = str(told["License"] or "").strip()
    return found or ((written,) if written and "\n" not in written else ())


def _of_debian(files: _Files) -> Iterator[Package]:
    release = dict(re.findall(r'(?m)^(ID|VERSION_ID)="?([^"\n]*)"?$', files.texts.get("usr/lib/os-release", "")))
    distro = f"{release.get('ID', 'debian')}-{release.get('VERSION_ID', 'unknown')}"
    for path, text in files.texts.items():
        if not path.startswith("var/lib/dpkg/status"):
            continue
        for paragraph in text.split("\n\n"):
            told = HeaderParser().parsestr(paragraph)
            # Images without apt have a file for each package, without its status.
            if told["Package"] and str(told["Status"] or " installed").endswith(" installed"):
                name, version = str(told["Package"]), str(told["Version"])
                where = f"arch={told['Architecture']}&distro={distro}"
                purl = f"pkg:deb/{release.get('ID', 'debian')}/{quote(name)}@{quote(version)}?{where}"
                yield Package(purl, name, version, path, licenses=_machine_readable(files.copyright(name)))


def _machine_readable(copyright_: str) -> tuple[str, ...]:
    """Return the names of the licenses in a Debian copyright file, if it has Debian's format for machines."""
    if not re.match(r"Format(-Specification)?:", copyright_.lstrip()):
        return ()
    return tuple(sorted({name.strip() for name in re.findall(r"(?m)^License: *(\S.*)$", copyright_)}))


def _python_itself(config: Mapping[str, Any]) -> Iterator[Package]:
    """The official Python images build it from source, and name it in their environment alone."""
    for variable in config.get("config", {}).get("Env") or []:
        name, _, version = variable.partition("=")
        if name == "PYTHON_VERSION":
            yield Package(f"pkg:generic/python@{quote(version)}", "python", version, "PYTHON_VERSION", "PSF-2.0")
