"""What Kopf's watch sees, told to the fence, so that the steady state costs no extra read."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import kopf

from kopf_ha import _kopf
from kopf_ha._context import current_grant
from kopf_ha.adapters import Outcome, wiring
from kopf_ha.core.target import Target
from kopf_ha.core.token import ANNOTATIONS
from kopf_ha.core.wire import Request
from kopf_ha.errors import Denied, FloorLost, TermEnded

HANDLER_ID = "kopf_ha.observe"
STARTUP_ID = "kopf_ha.ignore_stamps"


async def observe(resource: kopf.Resource, body: kopf.Body, type: str | None, **_: Any) -> None:
    """Note the revision that the object's handlers are about to decide from.

    In a term that is lost none of them begins any more: being first, this one ends the object's worker. A token
    above the term's ends it, too, even if nothing has to be written: what is written next would stand below (I1).
    """
    grant = current_grant()
    metadata = body["metadata"]
    target = Target(
        resource.group, resource.version, resource.plural, metadata.get("namespace") or "", metadata["name"]
    )
    use = wiring()
    known = use.fence.known
    if type == "DELETED":
        known.objects.forget(target.key)
    else:
        known.learn(target, dict(body))
    if grant is not None and not grant.closed and known.floor > grant.stamp.token and use.fence.mode == "full":
        floor = known.floor
        lost = FloorLost(f"{target} records token {floor}, this term's is {grant.stamp.token}", floor)
        use.report(Outcome("kopf", Request("WATCH", target.path), grant, lost))
    if grant is not None and grant.closed:
        raise asyncio.CancelledError


async def ignore_stamps(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Have Kopf see no change in a child's stamp: update handlers would run for it, in each term anew."""
    ignored = settings.persistence.diffbase_storage.ignored_fields
    ignored.extend(f for name in ANNOTATIONS if (f := ("metadata", "annotations", name)) not in ignored)


def observe_all(registry: kopf.OperatorRegistry) -> None:
    """Watch along with every handler of the registry; without effect the second time."""
    if not _kopf.watch_first(registry, observe, HANDLER_ID):
        return
    # The last of them, since the operator's own may choose another storage.
    kopf.on.startup(registry=registry, id=STARTUP_ID)(ignore_stamps)


def _not_ours(record: logging.LogRecord) -> bool:
    return not _kopf.tells_of_handler(record, HANDLER_ID)


def _not_signals(record: logging.LogRecord) -> bool:
    return not _kopf.tells_of_signals(record)


def _without_trace(record: logging.LogRecord) -> bool:
    """A write that is refused since its term is over is no surprise, and its cause is not where it was sent.

    Nor is that of one that a policy refuses: its sentence says all.
    """
    if record.exc_info and isinstance(record.exc_info[1], TermEnded | Denied):
        record.exc_info = None
    return True


def hush() -> None:
    """Keep the lines about our own handler, and of signals, which are the runner's, out of the operator's log.

    And tracebacks of a term's end.
    """
    _kopf.objects_log.addFilter(_not_ours)
    _kopf.objects_log.addFilter(_without_trace)
    _kopf.running_log.addFilter(_not_signals)
