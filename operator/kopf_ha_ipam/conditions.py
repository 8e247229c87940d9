"""The conditions in an object's status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

#: Its type on claims and pools while two claims have one address.
ADDRESS_CONFLICT = "AddressConflict"

Condition = Mapping[str, Any]


def timestamp() -> str:
    """Return the current time as conditions hold it (RFC 3339). It is for people: no decision uses it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def with_condition(
    status: Mapping[str, Any], kind: str, value: str, *, reason: str, message: str, generation: int, now: str
) -> Sequence[Condition]:
    """Return the status's conditions with one of them set.

    The other conditions stay. So does the transition time, if the value is the same as before.

    Args:
        status: the object's status.
        kind: the condition's type.
        value: ``True`` or ``False``.
        reason: one word in CamelCase.
        message: a sentence.
        generation: the generation of the spec that was judged.
        now: the time in RFC 3339.
    """
    old = condition_of(status, kind)
    condition = {
        "type": kind,
        "status": value,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == value else now,
        "reason": reason,
        "message": message,
    }
    return [condition, *without_condition(status, kind)]


def without_condition(status: Mapping[str, Any], kind: str) -> Sequence[Condition]:
    """Return the status's conditions without those of this type."""
    return [c for c in status.get("conditions") or () if c.get("type") != kind]


def condition_of(status: Mapping[str, Any], kind: str) -> Condition:
    """Return the condition of this type, or an empty mapping if there is none."""
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def with_ready(
    status: Mapping[str, Any], *, ok: bool, reason: str, message: str, generation: int, now: str
) -> Sequence[Condition]:
    """Return the status's conditions with `Ready` set; see `with_condition`."""
    return with_condition(
        status, "Ready", "True" if ok else "False", reason=reason, message=message, generation=generation, now=now
    )


def ready_reason(status: Mapping[str, Any]) -> str:
    """Return the reason of the `Ready` condition, or an empty string if there is none."""
    return str(condition_of(status, "Ready").get("reason", ""))


def ready_message(status: Mapping[str, Any]) -> str:
    """Return the message of the `Ready` condition, or an empty string if there is none."""
    return str(condition_of(status, "Ready").get("message", ""))
