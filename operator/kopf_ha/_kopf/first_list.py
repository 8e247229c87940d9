"""The order in which Kopf gets a kind's events, and what its handlers would do with an object that exists."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import kopf
from kopf._cogs.clients import watching
from kopf._cogs.structs import bodies, diffs, finalizers, references
from kopf._core.intents import handlers
from kopf._core.reactor import processing, queueing

from kopf_ha._kopf.registries import added_first


class Flow(Protocol):
    """Decides in which order Kopf gets one kind's events."""

    def ordered(self, source: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Yield the events of Kopf's list and watch, in another order."""

    def is_hidden(self, event: Any) -> bool:
        """Return whether no handler needs to see an event whose turn it is."""


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """One kind's handlers, and Kopf's settings: what they would do with an object of the first list.

    Args:
        resource: the kind.
        registry: the operator's handlers.
        settings: the operator's settings.
    """

    resource: references.Resource
    registry: kopf.OperatorRegistry
    settings: kopf.OperatorSettings

    @functools.cached_property
    def _changing(self) -> list[handlers.ChangingHandler]:
        return list(self.registry._changing.get_resource_handlers(resource=self.resource))

    @functools.cached_property
    def _runs_for_all(self) -> bool:
        """Whether handlers run for each object that exists: events, timers, daemons, resumption."""
        spies = (h for h in self.registry._watching.get_all_handlers() if h.id not in added_first)
        return (
            any(h.selector is None or h.selector.check(self.resource) for h in spies)
            or self.registry._spawning.has_handlers(resource=self.resource)
            or any(h.initial for h in self._changing)
        )

    @functools.cached_property
    def _extra_fields(self) -> set[Any]:
        parts = (self.registry._watching, self.registry._changing, self.registry._spawning)
        return set().union(*(part.get_extra_fields(resource=self.resource) for part in parts))

    def is_urgent(self, raw: Any) -> bool:
        """Return whether the object is being deleted, was never handled or has a changed spec. Quick, not exact.

        What Kopf keeps in an object may be anything, since whoever may edit the object may edit that. It concerns this
        object alone (I10): Kopf's cycle meets the error in its place.
        """
        try:
            return self._looks_urgent(raw)
        except Exception:  # noqa: BLE001  storages may be the operator's own
            return True

    def is_done(self, raw: Any) -> bool:
        """Return whether Kopf would run no handler for the object and write nothing. Exact: Kopf's own comparison."""
        try:
            return self._needs_nothing(raw)
        except Exception:  # noqa: BLE001  as above
            return False

    def _looks_urgent(self, raw: Any) -> bool:
        if raw["metadata"].get("deletionTimestamp"):
            return True
        if not self._changing:
            return False
        old = self.settings.persistence.diffbase_storage.fetch(body=bodies.Body(raw))
        if old is None:
            return True
        skipped = {"apiVersion", "kind", "metadata", "status"}
        return {k: v for k, v in old.items() if k not in skipped} != {k: v for k, v in raw.items() if k not in skipped}

    def _needs_nothing(self, raw: Any) -> bool:
        if self._runs_for_all or raw["metadata"].get("deletionTimestamp"):
            return False
        body = bodies.Body(raw)
        keep = self.settings.persistence
        is_blocked = finalizers.is_deletion_blocked(body=body, finalizer=keep.finalizer)
        deleting = [h for h in self._changing if h.requires_finalizer]
        if is_blocked != bool(deleting) or any(_has_filters(h) for h in deleting):
            return False  # only Kopf knows whether the finalizer belongs there
        if not self._changing:
            return True
        if any(keep.progress_storage.fetch(key=h.id, body=body) is not None for h in self._changing):
            return False  # a handler has to be tried again
        old = keep.diffbase_storage.fetch(body=body)
        if old is None:
            return False
        new = keep.diffbase_storage.build(body=body, extra_fields=self._extra_fields)
        return not diffs.diff(keep.progress_storage.clear(essence=old), keep.progress_storage.clear(essence=new))


def _has_filters(handler: handlers.ChangingHandler) -> bool:
    return bool(handler.labels or handler.annotations or handler.when or handler.field)


MakeFlow = Callable[[Kind], Flow]
#: Makes the flow of a kind, for the Kopf with these settings in this context.
_make_flow: contextvars.ContextVar[tuple[kopf.OperatorSettings, MakeFlow] | None]
_make_flow = contextvars.ContextVar("kopf_ha.make_flow", default=None)
_flow: contextvars.ContextVar[Flow | None] = contextvars.ContextVar("kopf_ha.flow", default=None)
_watcher, _infinite_watch = queueing.watcher, watching.infinite_watch


async def _ordered_watcher(*, settings: kopf.OperatorSettings, processor: Any, **more: Any) -> None:
    """Run Kopf's watcher of one kind. A kind with indices stays as it is: they need its whole list first."""
    made, given = _make_flow.get(), getattr(processor, "keywords", {})
    is_ours = made is not None and made[0] is settings  # not that of a Kopf that a handler starts
    handles = getattr(processor, "func", None) is processing.process_resource_event
    if made is None or not is_ours or not handles or more.get("resource_indexed") is not None:
        _flow.set(None)
        return await _watcher(settings=settings, processor=processor, **more)
    flow = made[1](Kind(given["resource"], given["registry"], settings))
    _flow.set(flow)

    async def process(*, raw_event: Any, **more: Any) -> Any:
        return None if flow.is_hidden(raw_event) else await processor(raw_event=raw_event, **more)

    await _watcher(settings=settings, processor=process, **more)


def _ordered_watch(**given: Any) -> AsyncIterator[Any]:
    source, flow = _infinite_watch(**given), _flow.get()
    return source if flow is None else flow.ordered(source)


def use_flows(settings: kopf.OperatorSettings, make_flow: MakeFlow | None) -> None:
    """Order the events of the Kopf with these settings that is started next in this context.

    Args:
        settings: Kopf's; they tell it from a Kopf that one of its handlers starts.
        make_flow: makes for each kind what orders the objects that exist; None lets Kopf take them as they come.
    """
    # Kopf's tasks inherit it.
    _make_flow.set((settings, make_flow) if make_flow is not None else None)


# Kopf has no place to say in which order it handles what exists. Both are looked up in their modules at each call.
queueing.watcher = _ordered_watcher
watching.infinite_watch = _ordered_watch
