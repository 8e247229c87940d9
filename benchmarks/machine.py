"""Names the machine and the versions that a measurement belongs to."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from devcluster import versions


def describe() -> dict[str, str]:
    """Give what a reader needs to compare the numbers with their own."""
    built = versions.read()
    return {
        "CPU": _first(r"(?m)^model name\s*: (.+)$", "/proc/cpuinfo") or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Kubernetes": built.kubernetes,
        "etcd": built.etcd,
        "Kopf": version("kopf"),
        "kubernetes client": version("kubernetes"),
    }


def load() -> float:
    """Give how many processes ran or wanted to in the last minute."""
    return round(os.getloadavg()[0], 2)


def _first(pattern: str, path: str) -> str:
    found = re.search(pattern, Path(path).read_text(errors="replace"))
    return found[1].strip() if found else ""
