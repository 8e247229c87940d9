"""Reads traces: the lines of each process, in order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kopf_ha.trace.writer import FORMAT


class TraceError(Exception):
    """The file is no trace, or lines of it are missing."""


@dataclass(frozen=True)
class Line:
    """One line: its number in the file, and what it says."""

    number: int
    data: dict[str, Any]

    @property
    def what(self) -> str:
        """What it is about."""
        return str(self.data.get("is"))


@dataclass(frozen=True)
class Run:
    """The trace of one process. Several may be in one file, one after the other.

    Args:
        path: of the file.
        head: its first line: who it is, and its settings.
        lines: all others.
    """

    path: Path
    head: dict[str, Any]
    lines: list[Line] = field(default_factory=list)

    @property
    def holder(self) -> str:
        """Its holder identity, unique per process."""
        return str(self.head["holder"])

    def at(self, line: Line) -> str:
        """Return where a line is, for messages."""
        return f"{self.path}:{line.number}"

    def of(self, *what: str) -> Iterable[Line]:
        """Return the lines of these sorts, in order."""
        return (line for line in self.lines if line.what in what)


def read(path: Path | str) -> list[Run]:
    """Read a file. A process that was killed may have left one broken line, as its last one.

    Raises:
        TraceError: a line in the middle is broken, or it is no trace of this format.
        OSError: it cannot be read.
    """
    path, runs = Path(path), list[Run]()
    broken = 0
    for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
        if not text:
            continue
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            if broken:
                raise TraceError(f"{path}:{broken}: the line is broken, and it is not the last one of a process")
            broken = number
        elif data.get("is") == "begin":
            if data.get("format") != FORMAT:
                raise TraceError(f"{path}:{number}: this is of format {data.get('format')!r}, not {FORMAT!r}")
            runs.append(Run(path, data))
            broken = 0
        elif broken or not runs:
            what = "the line is broken, and it is not the last one of a process" if broken else "this is no trace"
            raise TraceError(f"{path}:{broken or number}: {what}")
        else:
            runs[-1].lines.append(Line(number, data))
    if not runs and not broken:
        raise TraceError(f"{path} is empty")
    return runs
