"""The election's words as JSON, and back: events, actions, and the records in them. No I/O.

Of the Lease, all of the spec is written, since a change in it restarts the expiry. Of a legacy lock, only what says
who holds it: it may be a ConfigMap that contains other things.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

from kopf_ha.core.election import events
from kopf_ha.core.election.events import Action, Event
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.legacy_lock import ANNOTATION, Claim, LegacyRecord

#: JSON has no infinite numbers.
_INFINITE = {"inf": math.inf, "-inf": -math.inf}
#: Fields of events that may be infinite.
_FLOATS = frozenset({"beat", "seconds"})
_RAW = "raw"


def as_json(word: Event | Action) -> dict[str, Any]:
    """Return an event or an action with its name under ``is``."""
    return {"is": type(word).__name__, **{f.name: _plain(getattr(word, f.name)) for f in dataclasses.fields(word)}}


def event_of(data: Mapping[str, Any]) -> Event:
    """Return the event that `as_json` made this of.

    Raises:
        ValueError: it is none.
    """
    name = data.get("is")
    kind = getattr(events, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, get_args(Event))):
        raise ValueError(f"{name!r} is no event of the election")
    given = {k: v if k not in _FLOATS else _INFINITE.get(v, v) for k, v in data.items() if k != "is"}
    if isinstance(record := given.get("record"), Mapping):
        given["record"] = _legacy_record(record) if str(name).startswith("Legacy") else _lease_record(record)
    try:
        made: Event = kind(**given)
    except TypeError as error:
        raise ValueError(f"{name} cannot be read: {error}") from None
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, LeaseRecord):
        return _fields(value) | {"spec": dict(value.raw.get("spec") or {})}
    if isinstance(value, LegacyRecord):
        claims = [dataclasses.asdict(claim) for claim in value.claims]
        return _fields(value) | {"claims": claims, "object": _lock(value.raw)}
    return _lock(value) if isinstance(value, Mapping) else value


def _fields(record: LeaseRecord | LegacyRecord) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != _RAW}


def _lock(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a legacy lock says of its holder, whatever kind it is."""
    metadata = body.get("metadata") or {}
    kept: dict[str, Any] = {k: metadata[k] for k in ("name", "namespace", "uid", "resourceVersion") if k in metadata}
    if ANNOTATION in (notes := metadata.get("annotations") or {}):
        kept["annotations"] = {ANNOTATION: notes[ANNOTATION]}
    whole = {k: body[k] for k in ("apiVersion", "kind") if k in body} | {"metadata": kept}
    part = "spec" if body.get("kind") == "Lease" else "status"  # the status of a peering has its claims
    return whole | ({part: body[part]} if part in body else {})


def _lease_record(data: Mapping[str, Any]) -> LeaseRecord:
    fields = {k: v for k, v in data.items() if k != "spec"}
    return LeaseRecord(**fields, raw={"spec": data.get("spec") or {}})


def _legacy_record(data: Mapping[str, Any]) -> LegacyRecord:
    claims = tuple(Claim(**claim) for claim in data["claims"])
    return LegacyRecord(claims, data["version"], data["unusable"], data["object"])
