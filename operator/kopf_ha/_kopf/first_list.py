"""The order in which Kopf gets a kind's events, and what its handlers would do with an object that exists."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import kopf
from kopf._cogs.clients import api, watching
from kopf._cogs.structs import bodies, diffs, finalizers, patches, references
from kopf._core.actions import loggers
from kopf._core.intents import causes, handlers
from kopf._core.reactor import processing, queueing

from kopf_ha._kopf.registries import added_first
from kopf_ha._kopf.stored import QuickBody, Stored


class Flow(Protocol):
    """Decides in which order Kopf gets one kind's events."""

    def ordered(self, source: AsyncIterator[Any], early: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        """Yield the events of Kopf's list and watch, in another order.

        Args:
            source: Kopf's list and watch.
            early: begins a watch beside the list. Its events are those of the API server, from a moment ago on.
        """

    def is_hidden(self, event: Any) -> bool:
        """Return whether no handler needs to see an event whose turn it is."""

    def left_out(self, body: Any, /) -> Awaitable[None]:
        """Take note of an object that Kopf does nothing about."""


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """One kind's handlers, and Kopf's settings: what they would do with an object of the first list.

    Args:
        resource: the kind.
        registry: the operator's handlers.
        settings: the operator's settings.
        parts: what Kopf handles objects with, by the names of its arguments; filters of handlers are asked with these.
        is_indexed: returns whether all indices are filled, which filters may ask.
    """

    resource: references.Resource
    registry: kopf.OperatorRegistry
    settings: kopf.OperatorSettings
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_indexed: Callable[[], bool] = lambda: True
    _patches: list[patches.Patch] = dataclasses.field(default_factory=list, init=False, repr=False)

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
        """Return whether Kopf would run no handler for the object and write nothing.

        Exact: it is Kopf's own comparison, and Kopf's own choice of handlers, with their filters.
        """
        try:
            return self._needs_nothing(raw)
        except Exception:  # noqa: BLE001  as above; filters are the operator's own
            return False

    def is_idle(self, event: Any) -> bool:
        """Return whether Kopf would run no handler for the event of a watch, write nothing and remember nothing.

        Exact, as `is_done`. Most of such events show what the operator itself has just written.
        """
        if event["type"] != "MODIFIED" or self._runs_for_all or not self.is_indexed():
            return False
        try:
            memory = self._memory(event["object"])
            if memory is not None and (
                self.registry._spawning.has_handlers(resource=self.resource)  # a daemon may have to be stopped
                or memory.error_throttler.source_of_delays is not None
                or getattr(memory, "remaining_patch", None)
            ):
                return False
            return self._needs_nothing(event["object"], event["type"])
        except Exception:  # noqa: BLE001  as above
            return False

    @functools.cached_property
    def _changing(self) -> list[handlers.ChangingHandler]:
        return list(self.registry._changing.get_resource_handlers(resource=self.resource))

    @functools.cached_property
    def _for_all(self) -> list[handlers.ResourceHandler]:
        """Handlers that run for each object that exists: for events, timers and daemons, resumption."""
        parts = (self.registry._watching, self.registry._spawning)
        some = [h for part in parts for h in part.get_all_handlers() if h.id not in added_first]
        some = [h for h in some if h.selector is None or h.selector.check(self.resource)]
        return [*some, *(h for h in self._changing if h.initial)]

    @functools.cached_property
    def _runs_for_all(self) -> bool:
        return not all(map(_has_filters, self._for_all))

    @functools.cached_property
    def _has_filters(self) -> bool:
        return any(map(_has_filters, [*self._for_all, *self._changing]))

    @functools.cached_property
    def _stored(self) -> Stored:
        parts = (self.registry._watching, self.registry._changing, self.registry._spawning)
        fields: set[Any] = set().union(*(part.get_extra_fields(resource=self.resource) for part in parts))
        return Stored(self.settings.persistence, {h.id for h in self._changing}, fields)

    @functools.cached_property
    def _requires_finalizer(self) -> bool:
        return any(h.requires_finalizer for h in self._changing)

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

    def _needs_nothing(self, raw: Any, type: Any = None) -> bool:
        if self._runs_for_all or raw["metadata"].get("deletionTimestamp"):
            return False
        body, finalizer = QuickBody(raw), self.settings.persistence.finalizer
        asked = self._asked(raw, body, type) if self._has_filters else None
        if asked is not None and (not self.is_indexed() or self._runs_by_itself(raw, type, asked)):
            return False
        if not self._changing:
            return not finalizers.is_deletion_blocked(body=body, finalizer=finalizer)
        if self._stored.has_progress(body):
            return False
        essences = self._stored.essences(raw, body)
        if essences is None:
            return False
        must_block = self._requires_finalizer
        if asked is not None:
            old, new = essences
            cause = causes.ChangingCause(
                initial=True, reason=causes.Reason.RESUME, diff=diffs.EMPTY, old=old, new=new, **asked
            )
            if self.registry._changing.get_handlers(cause):
                return False
            must_block = self.registry._changing.requires_finalizer(cause)
            if asked["patch"]:
                return False  # a filter wants something to be written
        return finalizers.is_deletion_blocked(body=body, finalizer=finalizer) == must_block

    def _memory(self, raw: Any) -> Any:
        """Return what Kopf remembers of an object; None if it has not met it."""
        memories = self.parts["memories"]
        return memories._items.get(memories._build_key(raw))

    def _asked(self, raw: Any, body: bodies.Body, type: Any) -> dict[str, Any]:
        """Return what filters are asked with, the same as in Kopf's cycle."""
        memory, memo = self._memory(raw), self.parts["memobase"]
        if memory is not None:
            if type is None:
                raise RuntimeError("Kopf has met it, and a further list is Kopf's own affair")
            memo = memory.memo
        elif memo is not None:
            memo = copy.copy(memo)
        return {
            "logger": loggers.LocalObjectLogger(body=body, settings=self.settings),
            "indices": self.parts["indexers"].indices,
            "memo": memo,
            "resource": self.resource,
            "patch": self._unused_patch(),
            "body": body,
        }

    def _unused_patch(self) -> patches.Patch:
        """Return an empty patch, the last one if no filter has written into it: a new one has parts of its own."""
        if not self._patches or self._patches[-1]:
            self._patches[:] = [patches.Patch()]
        return self._patches[-1]

    def _runs_by_itself(self, raw: Any, type: Any, asked: Mapping[str, Any]) -> bool:
        """Return whether an event handler, a timer or a daemon would run."""
        seen = causes.WatchingCause(type=type, event={"type": type, "object": raw}, **asked)
        if any(h.id not in added_first for h in self.registry._watching.iter_handlers(cause=seen)):
            return True
        return self.registry._spawning.has_handlers(resource=self.resource) and bool(
            self.registry._spawning.get_handlers(cause=causes.SpawningCause(reset=False, **asked))
        )


def _has_filters(handler: handlers.ResourceHandler) -> bool:
    return bool(handler.labels or handler.annotations or handler.when or handler.field)


MakeFlow = Callable[[Kind], Flow]
#: Makes the flow of a kind, for the Kopf with these settings in this context.
_make_flow: contextvars.ContextVar[tuple[kopf.OperatorSettings, MakeFlow] | None]
_make_flow = contextvars.ContextVar("kopf_ha.make_flow", default=None)
_flow: contextvars.ContextVar[Flow | None] = contextvars.ContextVar("kopf_ha.flow", default=None)
#: Revisions of the whole cluster: so many writes, whichever objects they were for.
BACK = 1000
_watcher, _infinite_watch = queueing.watcher, watching.infinite_watch


async def _ordered_watcher(*, settings: kopf.OperatorSettings, processor: Any, **more: Any) -> None:
    """Run Kopf's watcher of one kind. A kind with indices stays as it is: they need its whole list first."""
    made, given = _make_flow.get(), getattr(processor, "keywords", {})
    is_ours = made is not None and made[0] is settings  # not that of a Kopf that a handler starts
    handles = getattr(processor, "func", None) is processing.process_resource_event
    if made is None or not is_ours or not handles or more.get("resource_indexed") is not None:
        _flow.set(None)
        return await _watcher(settings=settings, processor=processor, **more)
    indexed = more.get("operator_indexed")
    is_indexed = indexed.is_on if indexed is not None else lambda: True
    kind = Kind(given["resource"], given["registry"], settings, given, is_indexed)
    flow = made[1](kind)
    _flow.set(flow)

    async def process(*, raw_event: Any, **more: Any) -> Any:
        if flow.is_hidden(raw_event):
            return None
        # While Kopf waits for the revision of a patch of its own, it handles no change, but it may have to later.
        if more.get("consistency_time") is None and kind.is_idle(raw_event):
            await flow.left_out(raw_event["object"])
            return None
        return await processor(raw_event=raw_event, **more)

    await _watcher(settings=settings, processor=process, **more)


def _ordered_watch(**given: Any) -> AsyncIterator[Any]:
    source, flow = _infinite_watch(**given), _flow.get()
    return source if flow is None else flow.ordered(source, lambda: _watch_from_a_moment_ago(**given))


async def _watch_from_a_moment_ago(
    *, settings: kopf.OperatorSettings, resource: references.Resource, namespace: Any, **_: Any
) -> AsyncIterator[Any]:
    """Watch a kind as Kopf does, but from `BACK` revisions before now on, if the API server still knows these.

    Only how soon something is seen depends on that, since Kopf's list shows all of it.
    """
    newest = await api.get(
        url=resource.get_url(namespace=namespace, params={"limit": "1"}), logger=watching.logger, settings=settings
    )
    version = str(newest["metadata"]["resourceVersion"])
    for since in (str(max(1, int(version) - BACK)), version):
        stream = watching.watch_objs(
            settings=settings,
            resource=resource,
            namespace=namespace,
            since=since,
            operator_pause_waiter=asyncio.get_running_loop().create_future(),
        )
        async for event in stream:
            if event["type"] == "ERROR":
                break  # it does not know them any more
            yield event


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
