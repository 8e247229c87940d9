"""A cluster with two nodes that know the operator's image, for benchmarks; the tests follow the tutorial instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster import Progress, background
from devcluster.node import load_image
from devcluster.state import StateDir
from devcluster.supervisor import Size
from testbed.deployment import ROOT
from testbed.stage import Stage


@contextmanager
def cluster(folder: Path) -> Iterator[Stage]:
    """Run one in `folder`, and take it down in the end."""
    argv = [sys.executable, "-m", "image", "--debian"]
    built = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]
    state = StateDir(folder)
    record = background.up(state, Size(nodes=2), Progress(sys.stderr))
    try:
        load_image(record["cells"].values(), Path(built))
        yield Stage(record)
    finally:
        background.down(state)
