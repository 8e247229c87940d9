"""What the package promises by name, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kopf_ha
from kopf_ha import errors

NAMES = [
    "ApiError",
    "ApiRefused",
    "ConfigurationError",
    "CurrentTerm",
    "Denied",
    "ElectionError",
    "FloorLost",
    "ForeignStamp",
    "GateClosed",
    "KopfHAError",
    "MalformedLease",
    "NoTerm",
    "NotStamped",
    "Refused",
    "SetAside",
    "Settings",
    "StaleLeader",
    "StampDropped",
    "TermEnded",
    "Unfenced",
    "Unreached",
    "current_term",
    "everywhere",
    "operator",
    "run",
    "spawn_tasks",
]


def test_public_names() -> None:
    assert kopf_ha.__all__ == NAMES
    assert all(getattr(kopf_ha, name) is not None for name in NAMES)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kopf_ha.nothing


def test_every_error_is_public() -> None:
    mine = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert mine <= set(NAMES)


def test_refusals_are_of_no_kind_that_clients_retry() -> None:
    """I8."""
    for name in NAMES:
        value = getattr(kopf_ha, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert not issubclass(value, OSError | TimeoutError | RuntimeError | ValueError)


def test_importing_it_loads_no_client() -> None:
    """Handlers that only ask for their term, and the units of the core, do without."""
    code = "import sys, kopf_ha; kopf_ha.current_term; print([m for m in sys.modules if m in %r])"
    heavy = ("kopf", "kubernetes", "pykube", "aiohttp", "requests", "urllib3", "asyncio", "click", "yaml")
    source = Path(kopf_ha.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code % (heavy,)], env={"PYTHONPATH": str(source)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
