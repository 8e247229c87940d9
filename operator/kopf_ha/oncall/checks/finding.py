"""What a check says: nothing if all is well, or findings, each with what to do."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kopf_ha.oncall.checks.facts import Case


class Mark(enum.Enum):
    """How bad a finding is."""

    OK = "ok"  #: nothing was found
    WARNING = "warning"  #: it works, and is less available or less safe than it could be
    UNKNOWN = "unknown"  #: it could not be found out
    ERROR = "error"  #: the fence or the failover does not work, or an installation would fail

    @property
    def sign(self) -> str:
        """As people see it."""
        return {"ok": "✓", "warning": "‼", "unknown": "?", "error": "×"}[self.value]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Args:
        mark: how bad it is.
        text: what was found, in a sentence without a full stop.
        hint: what to do, in words.
        command: the command that mends it, if one does.
    """

    mark: Mark
    text: str
    hint: str = ""
    command: str = ""


def error(text: str, hint: str = "", command: str = "") -> Finding:
    """Return a finding that is an error."""
    return Finding(Mark.ERROR, text, hint, command)


def warning(text: str, hint: str = "", command: str = "") -> Finding:
    """Return a finding that is a warning."""
    return Finding(Mark.WARNING, text, hint, command)


def unknown(text: str, hint: str = "", command: str = "") -> Finding:
    """Return a finding that says what could not be found out."""
    return Finding(Mark.UNKNOWN, text, hint, command)


class When(enum.Flag):
    """When a check can say something."""

    PRE = enum.auto()  #: before installation, about the API server and the person
    FILES = enum.auto()  #: about manifests in files
    INSTALLED = enum.auto()  #: about what is in the cluster


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        name: for programs, and for `docs/oncall.md`: ``section.what``.
        well: what holds if nothing is found, in a sentence.
        finds: what is found otherwise, for the documentation.
        run: gives the findings. It may raise `NotRead`.
        when: when it is asked.
        about_server: it is asked once, and not for each operator.
        well_in_files: what holds of manifests in files, if `well` would say more than they show.
    """

    name: str
    well: str
    finds: str
    run: Callable[[Case], Iterable[Finding]]
    when: When
    about_server: bool = False
    well_in_files: str = ""

    @property
    def section(self) -> str:
        """The first part of its name."""
        return self.name.partition(".")[0]
