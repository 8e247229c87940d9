"""What an option is: declared once, for the command line, the environment, the checks and the documentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kopf_ha.errors import ConfigurationError

#: What the name of each environment variable begins with.
PREFIX = "KOPF_HA_"
#: Where a dataclass field keeps its `Option`.
_METADATA = "kopf_ha.option"


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values that an option takes.

    Args:
        must_be: completes "--option must be …".
        read: makes a value from a text; raises ValueError if it cannot.
        takes: whether a value is allowed. If `many`, it is asked about each of the values.
        show: how people read a value.
        metavar: stands for the value in help texts; empty for a switch.
        many: the option takes several values. Environment variables separate them by commas.
    """

    must_be: str
    read: Callable[[str], Any] = str
    takes: Callable[[Any], bool] = lambda value: True
    show: Callable[[Any], str] = str
    metavar: str = "TEXT"
    many: bool = False


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of `kopf-ha run`.

    Args:
        values: those that it takes.
        help: one or two sentences for people.
        default: how people read the default.
        flags: as given on the command line; the first one names the option in errors.
        name: the field of the settings.
    """

    values: Values
    help: str
    default: str
    flags: tuple[str, ...] = ()
    name: str = ""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()

    def read(self, text: str, source: str) -> Any:
        """Make a value from a text.

        Args:
            text: as somebody wrote it.
            source: where it was written: the flag or the environment variable.

        Raises:
            ConfigurationError: it cannot be read.
        """
        try:
            return self.values.read(text)
        except ValueError:
            raise ConfigurationError(f"{source} must be {self.values.must_be}, not {text!r}") from None

    def check(self, value: Any) -> None:
        """Check a value, wherever it came from.

        Raises:
            ConfigurationError: it is not allowed.
        """
        for one in value if self.values.many else (value,):
            if not self.values.takes(one):
                raise ConfigurationError(f"{self.flags[0]} must be {self.values.must_be}, not {one!r}")


def option(default: Any, values: Values, text: str, *, flags: tuple[str, ...] = (), shown: str = "") -> Any:
    """Declare a dataclass field that is an option.

    Args:
        default: the value, or a function that makes it.
        values: those that it takes.
        text: the help.
        flags: when they do not follow from the field's name.
        shown: how people read the default, when it does not follow from the value.
    """
    found = Option(values=values, help=text, default=shown or values.show(default), flags=flags)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata={_METADATA: found})
    return dataclasses.field(default=default, metadata={_METADATA: found})


def options_of(settings: Any) -> list[Option]:
    """Return the options that a dataclass declares, in its order."""
    return [
        dataclasses.replace(found, name=f.name, flags=found.flags or (f"--{f.name.replace('_', '-')}",))
        for f in dataclasses.fields(settings)
        if (found := f.metadata.get(_METADATA)) is not None
    ]


def variables_of(settings: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that give these values to another process."""
    return {
        one.variable: ",".join(value) if one.values.many else str(value)
        for one in options_of(settings)
        if (value := values.get(one.name)) is not None
    }


def as_markdown(options: Iterable[Option]) -> str:
    """Return the table of options for the documentation."""
    lines = ["| option | environment variable | default | meaning |", "|---|---|---|---|"]
    for one in options:
        metavar = f" {one.values.metavar}" if one.values.metavar else ""
        flags = ", ".join(f"`{flag}{metavar}`" for flag in one.flags)
        text = one.help + (" The variable separates values by commas." if one.values.many else "")
        cells = (flags, f"`{one.variable}`", one.default, text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
