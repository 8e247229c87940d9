"""The arguments of `kopf.run()`, `kopf.operator()` and `kopf.spawn_tasks()`, and what they mean here.

An application passes to `kopf_ha.operator()` what it passed to `kopf.operator()`. A test compares them with Kopf's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypedDict

import kopf

from kopf_ha.errors import ConfigurationError
from kopf_ha.run.flags import Flag
from kopf_ha.run.kopf_thread import KopfOptions
from kopf_ha.run.liveness import Endpoint
from kopf_ha.run.peering import name_ignored
from kopf_ha.settings import Settings

_OWN = "make_settings, make_memo and everywhere"


class Arguments(TypedDict, total=False):
    """Those of Kopf, and the last three, which are kopf-ha's own. None is the same as an argument that is not given."""

    #: Kopf's order of handlers.
    lifecycle: Any
    #: The handlers; Kopf's default registry by default.
    registry: kopf.OperatorRegistry | None
    #: Kopf's settings, the same object in each term. See `make_settings`.
    settings: kopf.OperatorSettings | None
    #: The operator's memo, the same object in each term. See `make_memo`.
    memo: object | None
    #: Served on every replica (`liveness`).
    liveness_endpoint: str | None
    #: Serve all namespaces.
    clusterwide: bool
    #: Those to serve; all if empty.
    namespaces: Collection[Any]
    #: The deprecated form of `namespaces`.
    namespace: Any
    #: Set it to stop the operator.
    stop_flag: Flag | None
    #: Raised when the first term's startup handlers have ended. So it is not raised while another replica leads.
    ready_flag: Flag | None
    #: Memory of Kopf's that the first term begins with. Later terms begin without.
    indexers: Any
    memories: Any
    insights: Any
    vault: Any
    #: Of Kopf's peering, so without effect: the Lease elects the leader.
    identity: Any
    standalone: bool | None
    priority: int | None
    peering_name: str | None

    #: Make Kopf's settings and the memo for each term anew. A pool of threads in the settings is the caller's to end.
    make_settings: Callable[[], kopf.OperatorSettings] | None
    make_memo: Callable[[], Any] | None
    #: Handlers that run on every replica and only read; `kopf_ha.everywhere` by default.
    everywhere: kopf.OperatorRegistry | None


def check(given: Mapping[str, Any]) -> None:
    """Check the arguments.

    Raises:
        TypeError: one is unknown.
        ConfigurationError: one is not allowed.
    """
    for name in given:
        if name not in Arguments.__annotations__:
            raise TypeError(f"kopf_ha has no argument {name!r}; it has those of kopf.operator(), and {_OWN}")
    if isinstance(given.get("settings"), Settings):
        raise ConfigurationError(
            "settings= are Kopf's; pass kopf_ha.Settings as the first argument, without a name:"
            " kopf_ha.operator(kopf_ha.Settings(...))"
        )
    if given.get("namespace") and given.get("namespaces"):
        raise ConfigurationError("give either namespaces or namespace, not both")


def options_from(given: Arguments) -> KopfOptions:
    """Return the options for the Kopf of each term.

    Raises:
        TypeError: an argument is unknown.
        ConfigurationError: an argument is not allowed.
    """
    check(given)
    name_ignored(given.get("peering_name"), given.get("priority"))
    namespaces = tuple(given.get("namespaces") or ())
    if alone := given.get("namespace"):
        warnings.warn("namespace= is deprecated; use namespaces=[...]", DeprecationWarning, stacklevel=2)
        namespaces = (alone,)
    settings, memo = given.get("settings"), given.get("memo")
    first = {
        name: part for name in ("indexers", "memories", "insights", "vault") if (part := given.get(name)) is not None
    }

    def make_parts() -> Mapping[str, Any]:
        parts = dict(first)
        first.clear()
        return parts

    return options_for(
        given.get("registry"),
        namespaces,
        bool(given.get("clusterwide")),
        lifecycle=given.get("lifecycle"),
        liveness=given.get("liveness_endpoint"),
        make_settings=given.get("make_settings") or (None if settings is None else lambda: settings),
        make_memo=given.get("make_memo") or (None if memo is None else lambda: memo),
        make_parts=make_parts,
    )


def options_for(
    registry: kopf.OperatorRegistry | None,
    namespaces: tuple[str, ...],
    clusterwide: bool,
    *,
    liveness: str | None = None,
    **more: Any,
) -> KopfOptions:
    """Return the options for the Kopf of each term.

    Raises:
        ConfigurationError: both `namespaces` and `clusterwide` are given, or `liveness` is no URL.
    """
    if namespaces and clusterwide:
        raise ConfigurationError("give either namespaces or clusterwide=True, not both")
    return KopfOptions(
        registry=registry if registry is not None else kopf.get_default_registry(),
        namespaces=namespaces,
        clusterwide=clusterwide or not namespaces,
        liveness=Endpoint.parse(liveness) if liveness else None,
        **{k: v for k, v in more.items() if v is not None},
    )
