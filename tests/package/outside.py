"""What a user of the package writes: every public name, with types that mypy and pyright can see (scripts/package).

It also runs there, in an environment that has the wheel and nothing else of this repository.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, assert_type

import kopf

import kopf_ha
from kopf_ha.run import TermFields


async def token() -> int:
    """Ask for the term in a handler."""
    term = kopf_ha.current_term()
    assert_type(term, kopf_ha.CurrentTerm)
    assert_type(term.token, int)
    assert_type(term.holder, str)
    assert_type(term.remaining(), float)
    assert_type(await term.stamped({"metadata": {}}), Mapping[str, Any] | None)
    return term.token


def twice(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def bound() -> int:
    """Bind a function to the term: its signature stays."""
    return kopf_ha.current_term().bind(twice)(1)


async def embedded() -> None:
    """Run an operator inside an application."""
    settings = kopf_ha.Settings(lease_name="mine", lease_duration=30, deciding=("pools.example.dev",))
    assert_type(settings.lease_duration, float)
    await kopf_ha.operator(settings, registry=kopf.OperatorRegistry(), namespaces=["default"])


def run() -> None:
    """Run an operator with a main of its own."""
    kopf_ha.run(clusterwide=True)


@kopf.on.validate("widgets", registry=kopf_ha.everywhere)
def checked(spec: kopf.Spec, **_: Any) -> None:
    """Serve a webhook on every replica."""


def refused(error: kopf_ha.KopfHAError) -> bool:
    """Tell the errors apart."""
    return isinstance(error, kopf_ha.StaleLeader | kopf_ha.GateClosed)


def main() -> None:
    """See that what the types say is there."""
    try:
        kopf_ha.current_term()
    except kopf_ha.NoTerm:
        print("no term here")
    assert issubclass(kopf_ha.NoTerm, kopf_ha.KopfHAError)
    assert isinstance(kopf_ha.everywhere, kopf.OperatorRegistry)
    assert callable(kopf_ha.run)
    assert isinstance(TermFields(), logging.Filter)
    assert not [name for name in kopf_ha.__all__ if not hasattr(kopf_ha, name)]


if __name__ == "__main__":
    main()
