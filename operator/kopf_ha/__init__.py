"""High availability and fencing for Kubernetes operators written with Kopf.

Replicas elect a leader through a Lease, and only the leader handles objects. Every write carries a fencing token, so a
paused or partitioned leader that wakes up still believing it leads cannot change anything.

- The command `kopf-ha run` runs an unchanged operator this way.
- `kopf_ha.run()`, `kopf_ha.operator()` and `kopf_ha.spawn_tasks()` do the same inside an application. They take what
  Kopf's functions of these names take.
- `kopf_ha.current_term()` gives a handler its token, for other systems that can check one.
- `kopf_ha.everywhere` is a registry for handlers that run on every replica and only read: webhooks, indices.
"""

import importlib
from typing import TYPE_CHECKING, Any

from kopf_ha._context import CurrentTerm, current_term
from kopf_ha.errors import (
    ApiError,
    ApiRefused,
    ConfigurationError,
    Denied,
    ElectionError,
    FloorLost,
    ForeignStamp,
    GateClosed,
    KopfHAError,
    MalformedLease,
    NoTerm,
    NotStamped,
    Refused,
    SetAside,
    StaleLeader,
    StampDropped,
    TermEnded,
    Unfenced,
    Unreached,
)
from kopf_ha.settings import Settings

if TYPE_CHECKING:
    import kopf

    from kopf_ha.run.entry import operator, run, spawn_tasks

    #: Handlers for every replica: `@kopf.on.validate("widgets", registry=kopf_ha.everywhere)`. See docs/terms.md.
    everywhere: kopf.OperatorRegistry

__version__ = "0.1.0"

__all__ = [
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


def __getattr__(name: str) -> Any:
    # These import Kopf and the kubernetes client, which takes seconds. A handler that only asks for its term needs
    # neither, nor do the unit tests of the core.
    if name in ("operator", "run", "spawn_tasks"):
        run = importlib.import_module("kopf_ha.run")
        return run if name == "run" else getattr(run, name)
    if name == "everywhere":
        from kopf_ha._registry import everywhere

        return everywhere()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
