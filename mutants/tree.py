"""A copy of the tree, in which mutations are made. The tree itself is never changed."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What no test needs in a copy.
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "site", "__pycache__", "*.egg-info", "results")


class Copy:
    """One copy of the tree.

    Args:
        root: of the copy; it does not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT, root, ignore=LEFT_OUT)

    @contextmanager
    def changed(self, path: str, text: str) -> Iterator[None]:
        """Have another text in a file for a while."""
        file = self.root / path
        before = file.read_text()
        self._write(file, text)
        try:
            yield
        finally:
            self._write(file, before)

    def _write(self, file: Path, text: str) -> None:
        file.write_text(text)
        if file.suffix == ".py":
            # Python takes compiled code for current if the time, in seconds, and the size are the same.
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
