"""Writes what an image holds beside its archive: a bill of materials (CycloneDX 1.6, JSON), and a list of licenses.

Both are read from the finished archive, so they are about what is in it, whatever built it. The same image gives the
same files.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from image.contents import Package, packages
from image.errors import ImageError

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"


def write(archive: Path, name: str, version: str) -> tuple[Path, Path]:
    """Write both files beside `archive`, and return their paths. Raises ImageError if that cannot be done."""
    held = packages(archive)
    materials, licenses = archive.with_suffix(".cdx.json"), archive.with_suffix(".licenses.txt")
    try:
        materials.write_text(json.dumps(bill(held, name, version), indent=2) + "\n")
        licenses.write_text(list_of_licenses(held))
    except OSError as error:
        raise ImageError(f"what the image holds cannot be written: {error}") from error
    return materials, licenses


def bill(held: Sequence[Package], name: str, version: str) -> dict[str, Any]:
    """Return the bill of materials of an image."""
    components = [_component(package) for package in held]
    image = {"type": "container", "bom-ref": "image", "name": name, "version": version}
    told = json.dumps([image, components], sort_keys=True)
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Made from the content, so that it is another one for another image, and the same for the same.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, told)}",
        "version": 1,
        "metadata": {"component": image},
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": [package.purl for package in held]}],
    }


def _component(package: Package) -> dict[str, Any]:
    licenses = [{"license": {"name": name}} for name in package.licenses]
    told = {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "licenses": [{"expression": package.expression}] if package.expression else licenses,
        "evidence": {"occurrences": [{"location": package.place}]},
    }
    return {key: value for key, value in told.items() if value}


def list_of_licenses(held: Sequence[Package]) -> str:
    """Return a line for each package: name, version, licenses. The texts are in the image."""
    width = max((len(package.name) for package in held), default=0)
    lines = ["What the image holds, and under which licenses. Their texts are in the image: for packages of Debian in",
             "usr/share/doc/NAME/copyright, for those of Python in their folders *.dist-info.", ""]  # fmt: skip
    for package in sorted(held, key=lambda package: (package.purl.partition("/")[0], package.name.lower())):
        named = package.expression or ", ".join(package.licenses) or "not named for machines: see its text"
        lines.append(f"{package.name:{width}}  {package.version}  {named}")
    return "\n".join(lines) + "\n"
