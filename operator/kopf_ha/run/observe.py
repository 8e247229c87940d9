"""Tells the fence which objects Kopf's watch sees, so that ordinary writes need no extra read."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import kopf

from kopf_ha import _kopf
from kopf_ha._context import current_grant
from kopf_ha.adapters import Outcome, wiring
from kopf_ha.core.notes import is_stamp
from kopf_ha.core.target import Target
from kopf_ha.core.wire import Request
from kopf_ha.errors import ApiError, FloorLost, Refused
from kopf_ha.run.threads import in_thread

logger = logging.getLogger("kopf_ha.run")

HANDLER_ID = "kopf_ha.observe"
STARTUP_ID = "kopf_ha.ignore_stamps"


async def observe(resource: kopf.Resource, body: kopf.Body, type: str | None, **_: Any) -> None:
    """Note the revision that the object's handlers are about to decide from.

    This handler is the first one. In a term that is lost it ends the object's worker, so that no other handler begins.
    An object with a higher token than the term's ends the term even if nothing has to be written: the next write of
    that object would lower its token (I1).
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


async def learn_kind(resource: kopf.Resource, asks: Callable[[Target], bool | None]) -> None:
    """Find out whether a kind is stamped before its objects are seen. Otherwise what a watch shows of them counts for
    nothing, and the first write of each object has to read it (I9). If it cannot be found out, that write says why.

    Args:
        resource: the kind.
        asks: asks the API server; it blocks.
    """
    known, target = wiring().fence.known, Target(resource.group, resource.version, resource.plural, "any", "any")
    if target.built_in or target.kind_version in known.schemas:
        return
    try:
        stamped = await in_thread(functools.partial(asks, target), f"kopf-ha-kind-{resource.plural}")
    except (ApiError, Refused):
        return
    if stamped is not None:
        known.schemas.setdefault(target.kind_version, stamped)
    if stamped is False:
        logger.info(
            "%s: its CRD has no status.fencing (`kopf-ha manifests --only schema` prints it), so its objects have their"
            " stamp in an annotation, which only policies protect",
            target.kind,
        )


def is_our_stamp(resource: kopf.Resource, raw: Any) -> bool:
    """Return whether an event shows what a separate stamp made before a patch of Kopf's, which was accepted since.

    Without the fence there would be no such revision, so no handler needs to see it (I9). The event of the patch
    follows it (I7).
    """
    metadata = raw["object"].get("metadata") or {}
    name, namespace = metadata.get("name") or "", metadata.get("namespace") or ""
    target = Target(resource.group, resource.version, resource.plural, namespace, name)
    told = wiring().fence.known.told
    return raw.get("type") == "MODIFIED" and told.get(target.key, metadata.get("resourceVersion")) is not None


async def ignore_stamps(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Make Kopf ignore stamps in metadata, those of other operators, too. Otherwise update handlers would run for them.

    The operator's own storage is wrapped, since Kopf's `ignored_fields` take whole names, and each Lease has its own.
    """
    storage = settings.persistence.diffbase_storage
    build = storage.build
    if getattr(build, "ignores_stamps", False):
        return  # an operator may use one storage in each term

    @functools.wraps(build)
    def without_stamps(**given: Any) -> Any:
        essence: Any = build(**given)
        metadata = essence.get("metadata") or {}
        for section in ("annotations", "labels"):
            for name in [name for name in metadata.get(section) or {} if is_stamp(name)]:
                del metadata[section][name]
        storage.remove_empty_stanzas(essence)
        return essence

    without_stamps.ignores_stamps = True  # type: ignore[attr-defined]
    setattr(storage, "build", without_stamps)  # noqa: B010  mypy does not let a method be assigned


def observe_all(registry: kopf.OperatorRegistry) -> None:
    """Add `observe` for each kind that the registry has handlers for. A second call does nothing."""
    if not _kopf.watch_first(registry, observe, HANDLER_ID):
        return
    # The last startup handler, since the operator's own may choose another storage.
    kopf.on.startup(registry=registry, id=STARTUP_ID)(ignore_stamps)
