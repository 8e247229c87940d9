"""High availability and fencing for Kubernetes operators written with Kopf.

Replicas elect a leader by a Lease; only the leader handles objects; every write carries a fencing token, so
that a leader that was paused, cut off or slow changes nothing, even when it does not know yet that it lost.

The command `kopf-ha run` runs an unchanged operator so; `await kopf_ha.operator()` does it inside of an
application; `kopf_ha.current_term()` gives handlers the token for other systems that can check one;
`kopf_ha.everywhere` is a registry for what runs on every replica and only reads: webhooks, indices.
"""

from typing import TYPE_CHECKING, Any

from kopf_ha._context import CurrentTerm, current_term
from kopf_ha.errors import (
    ConfigurationError,
    Denied,
    ElectionError,
    FloorLost,
    ForeignStamp,
    GateClosed,
    KopfHAError,
    MalformedLease,
    NoTerm,
    Refused,
    SetAside,
    StaleLeader,
    StampDropped,
    TermEnded,
    Unfenced,
)
from kopf_ha.settings import Settings

if TYPE_CHECKING:
    import kopf

    from kopf_ha.run.entry import operator

    #: Handlers for every replica: `@kopf.on.validate("widgets", registry=kopf_ha.everywhere)`. See docs/terms.md.
    everywhere: kopf.OperatorRegistry

__version__ = "0.1.0"

__all__ = [
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
    "Refused",
    "SetAside",
    "Settings",
    "StaleLeader",
    "StampDropped",
    "TermEnded",
    "Unfenced",
    "current_term",
    "everywhere",
    "operator",
]


def __getattr__(name: str) -> Any:
    # `operator` brings Kopf and the kubernetes client along, seconds of import; a handler that only asks for
    # its term, and the units of the core, need neither.
    if name == "operator":
        from kopf_ha.run import operator

        return operator
    if name == "everywhere":
        from kopf_ha._registry import everywhere

        return everywhere()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
