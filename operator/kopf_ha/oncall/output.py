"""How commands print: tables as kubectl's for people, JSON and YAML for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

#: The version of what programs get. As long as it is the same, fields may be added, and none changes its meaning.
FORMAT = 1
#: What `-o` takes. `wide` is a table with more columns.
FORMATS = ("table", "wide", "json", "yaml")

#: Units of a duration, in seconds. Two of them are shown.
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def output_option(*formats: str) -> Callable[[Any], Any]:
    """Add ``-o`` to a command, which gets it as `output`.

    Args:
        formats: what it takes, the default first; all of `FORMATS` if none is named.
    """
    names = formats or FORMATS
    return click.option(
        "-o", "--output", type=click.Choice(names), default=names[0], show_default=True,
        help="How it is printed. JSON and YAML have the fields that docs/oncall.md names.",
    )  # fmt: skip


def show(data: dict[str, Any], output: str, text: Callable[[], str]) -> None:
    """Print an answer.

    Args:
        data: plain data, for `json` and `yaml`.
        output: one of `FORMATS`.
        text: makes what people read.
    """
    click.echo(formatted(data, output) if output in ("json", "yaml") else text())


def formatted(data: dict[str, Any], output: str) -> str:
    """Return data as JSON or YAML, in the order of its fields."""
    if output == "json":
        return json.dumps(data, indent=2, ensure_ascii=False)
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)).rstrip()


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], indent: str = "") -> str:
    """Return a table: headings in upper case, columns two spaces apart, nothing for None.

    Text from the cluster is shown in one line, and without what a terminal would take for a command.
    """
    lines = [[h.upper() for h in headings], *([printable(one) for one in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    return "\n".join(
        indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def printable(value: object) -> str:
    """Return a value as text in one line; ``-`` for nothing. Who wrote it may not move the reader's cursor (I10)."""
    text = "-" if value is None or value == "" else str(value)
    return "".join(c if c.isprintable() else "�" for c in text)


def duration(seconds: float | None) -> str | None:
    """Return a duration as kubectl shows ages: ``45s``, ``3m20s``, ``5h``, ``2d4h``; None for None."""
    if seconds is None:
        return None
    left = max(0, int(seconds))
    for index, (unit, size) in enumerate(_UNITS):
        if left >= size or unit == "s":
            count, rest = divmod(left, size)
            below = rest // _UNITS[index + 1][1] if index + 1 < len(_UNITS) else 0
            return f"{count}{unit}" + (f"{below}{_UNITS[index + 1][0]}" if below else "")
    raise AssertionError(seconds)
