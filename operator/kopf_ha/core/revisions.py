"""resourceVersions in their order. They are decimal numbers of any length (KEP-5504).

They are not converted: Python makes no number of more than 4,300 digits, and whoever sends one must end nothing.
"""

from __future__ import annotations


def number(version: str) -> tuple[int, str] | None:
    """Return what compares as the number does; None for what is no number."""
    if not (version.isascii() and version.isdecimal()):
        return None
    digits = version.lstrip("0")
    return len(digits), digits


def newer(version: str, than: str) -> bool:
    """Compare two resourceVersions. One that is no number cannot be ordered, and counts as newer."""
    a, b = number(version), number(than)
    return a is None or b is None or a > b
