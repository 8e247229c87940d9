"""The only file that uses Kopf's private parts. It offers what kopf-ha needs of them under stable names.

tests/test_kopf_contract.py has a test for each private part, which says what breaks if a release of Kopf changes it. An
import contract in pyproject.toml forbids `kopf._*` in all other files.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import functools
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, Protocol

import aiohttp
import kopf
from kopf._cogs.aiokits import aiotime
from kopf._cogs.clients import api, scanning, watching
from kopf._cogs.helpers import loaders
from kopf._cogs.structs import bodies, credentials, diffs, ephemera, finalizers, ids, references
from kopf._core.actions import invocation, lifecycles, loggers
from kopf._core.engines import activities, indexing, peering
from kopf._core.intents import causes, handlers, registries
from kopf._core.reactor import observation, processing, queueing, running

# --- credentials

#: Seconds to wait before each further login in a series: a 401 may be passing.
PAUSES: tuple[float, ...] = (0, 1, 2, 4, 8, 16, 32)
#: Credentials that were known for so many seconds end a series.
LASTING = 10.0


class PreparedVault(credentials.Vault):
    """Kopf's store of credentials. It prepares each session that Kopf makes of them.

    So every login handler stays as it is. An additional login handler would not work: of two with the same priority,
    Kopf chooses one at random.

    Args:
        prepare: called with each session and the server's URL before Kopf uses it. Kopf closes the session.
    """

    def __init__(self, prepare: Callable[[aiohttp.ClientSession, str], None]) -> None:
        super().__init__()
        self.prepare = [prepare]  #: what is called with each session
        self._is_unknown = False  #: the API server answered 401 to the present credentials
        self._tries = 0  #: logins in a series of which each soon got a 401
        self._given = -math.inf  #: when the present credentials came, on the loop's clock

    async def take(self, other: credentials.Vault) -> None:
        """Take the credentials that another store was made with."""
        found: dict[str, object] = {str(key): item.info for key, item in other._current.items()}
        if found:
            await self.populate(found)

    def extended(self, factory: Callable[[Any], Any], purpose: str | None = None) -> AsyncIterator[Any]:
        """Give the credentials with what the factory makes of them: their session. Called by Kopf."""

        def prepared(info: Any) -> Any:
            made = factory(info)
            for prepare in self.prepare:
                prepare(made.session, made.server)
            return made

        return super().extended(prepared, purpose)

    async def invalidate(self, *which: Any, exc: Exception | None = None) -> None:
        """Note that the API server does not know these credentials. Called by Kopf.

        Args:
            which: the key; and from Kopf 1.38 on the credentials.
            exc: how the API server refused them.
        """
        self._is_unknown = True
        await super().invalidate(*which, exc=exc)

    async def populate(self, src: Any) -> None:
        """Take the credentials of the login handlers. Called by Kopf.

        Kopf takes none that got a 401 before, and ends: also after one that was only passing. So this forgets the 401,
        waits longer before each further login, as with an account that is deleted, and takes none after the last.
        """
        clock = asyncio.get_running_loop().time
        if self._is_unknown:
            self._is_unknown = False
            self._invalid.clear()
            self._tries = self._tries + 1 if clock() - self._given < LASTING else 0
            if self._tries >= len(PAUSES):
                src = {}  # Kopf says that it ran out of valid credentials, and ends
            elif pause := PAUSES[self._tries]:
                running_log.warning("The API server does not know the credentials; waiting %g s to try again.", pause)
                await asyncio.sleep(pause)
        # Copies: if a login handler gives the same object again, Kopf cannot tell which one got a late 401.
        await super().populate({key: copy.copy(info) for key, info in src.items()})
        self._given = clock()


# --- registries of handlers

_first: set[str] = set()  #: the ids of handlers that `watch_first` added


def new_registry() -> kopf.OperatorRegistry:
    """Return a new registry with Kopf's own login handlers, like the default registry."""
    return registries.SmartOperatorRegistry()


def only_logs_in(registry: kopf.OperatorRegistry) -> bool:
    """Return whether the registry has only logins: no webhooks, indices, event handlers or other activities."""
    parts = (registry._webhooks, registry._indexing, registry._watching)
    return not _activities(registry) and not any(part.get_all_handlers() for part in parts)


def storing_handlers(registry: kopf.OperatorRegistry) -> list[str]:
    """Return the ids of handlers whose progress Kopf writes into their objects: for changes, timers, daemons."""
    return [str(h.id) for part in (registry._changing, registry._spawning) for h in part.get_all_handlers()]


def webhooks(registry: kopf.OperatorRegistry) -> list[str]:
    """Return the ids of the registry's admission webhooks."""
    return [str(h.id) for h in registry._webhooks.get_all_handlers()]


def with_logins_of(registry: kopf.OperatorRegistry, other: kopf.OperatorRegistry) -> kopf.OperatorRegistry:
    """Return the registry with the other one's login handlers, unless it has some besides Kopf's default ones.

    Neither registry is changed. A new registry has no handlers for changes, timers and daemons.
    """
    mine, theirs = _logins(registry), _logins(other)
    if not all(h._fallback for h in mine) or not theirs:
        return registry
    made = kopf.OperatorRegistry()
    made._webhooks, made._indexing, made._watching = registry._webhooks, registry._indexing, registry._watching
    made._activities._handlers = [*theirs, *_activities(registry)]
    return made


def for_every_replica(
    registry: kopf.OperatorRegistry, alone: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> kopf.OperatorRegistry:
    """Return a registry with the other one's webhooks, indices, logins, and startup and cleanup handlers.

    Args:
        registry: is not changed.
        alone: takes the id and the function of a startup or cleanup handler, both a coroutine function or neither, and
            returns the function to call.
    """
    made = kopf.OperatorRegistry()
    made._webhooks, made._indexing = registry._webhooks, registry._indexing
    own = (causes.Activity.STARTUP, causes.Activity.CLEANUP)
    made._activities._handlers = [
        *_logins(registry),
        *(dataclasses.replace(h, fn=alone(str(h.id), h.fn)) for h in _activities(registry) if h.activity in own),
    ]
    return made


def with_lasting_webhooks(registry: kopf.OperatorRegistry) -> kopf.OperatorRegistry:
    """Return a registry with the same handlers, whose Kopf leaves its webhook configurations behind when it stops."""
    made = kopf.OperatorRegistry()
    vars(made).update(vars(registry))
    made._webhooks = registries.WebhooksRegistry()
    made._webhooks._handlers = [dataclasses.replace(h, persistent=True) for h in registry._webhooks.get_all_handlers()]
    return made


def is_async(fn: Callable[..., Any]) -> bool:
    """Return whether Kopf awaits the handler, and does not run it in a thread."""
    return invocation.is_async_fn(fn)


def watch_first(registry: kopf.OperatorRegistry, fn: Callable[..., Any], name: str) -> bool:
    """Call `fn` for each event of every object that the registry has handlers for, before those handlers.

    Kopf runs event handlers at the beginning of an object's cycle, in the order of the registry, with the body that all
    other handlers will see.

    Args:
        registry: the registry; the first call changes it.
        fn: an event handler.
        name: the handler's id.

    Returns:
        True for the first call. Later calls do nothing and return False.
    """
    spies = registry._watching
    if any(h.id == name for h in spies.get_all_handlers()):
        return False
    _first.add(name)
    selectors = {
        handler.selector: None
        for part in (registry._watching, registry._spawning, registry._changing)
        for handler in part.get_all_handlers()
        if handler.selector is not None
    }
    # There is no public way to create a handler with another handler's selector.
    spies._handlers[:0] = [
        handlers.WatchingHandler(
            fn=fn, id=ids.HandlerId(name), param=None,
            errors=None, timeout=None, retries=None, backoff=None,
            selector=selector, labels=None, annotations=None, when=None, field=None, value=None,
        )
        for selector in selectors
    ]  # fmt: skip
    return True


# --- the first list


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
        spies = (h for h in self.registry._watching.get_all_handlers() if h.id not in _first)
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


# Kopf has no place to say in which order it handles what exists. Both are looked up in their modules at each call.
queueing.watcher = _ordered_watcher
watching.infinite_watch = _ordered_watch


def _logins(registry: kopf.OperatorRegistry) -> list[handlers.ActivityHandler]:
    return [h for h in registry._activities.get_all_handlers() if h.activity == causes.Activity.AUTHENTICATION]


def _activities(registry: kopf.OperatorRegistry) -> list[handlers.ActivityHandler]:
    """Return all activities except the logins."""
    return [h for h in registry._activities.get_all_handlers() if h.activity != causes.Activity.AUTHENTICATION]


def load(paths: Collection[str], modules: Collection[str]) -> None:
    """Load an operator's files and modules as `kopf run` does. Exceptions from their code pass through."""
    loaders.preload(paths=paths, modules=modules)


# --- what Kopf finds out about the cluster

#: Seconds before each further question to a server that was down; the last goes on for ever.
AGAIN: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 60)

_DISCOVERY_TASK = "kopf-ha discovery"
_NAMESPACES = re.compile(r"/api/v1/namespaces$")
_GROUP_VERSION = re.compile(r"/apis/([^/]+)/[^/]+$")
#: What the API server says in place of an aggregated API whose server is down. Its own kinds' 503 is a JSON object.
_DOWN = ("service unavailable", "error trying to reach service")


class _Discovery:
    """Lets Kopf begin with what it may know at once. What was refused is found out behind, as soon as it can be.

    Kopf repeats a refused request for 54 s by default, and goes on only then: at the start of each term.

    - If it may not list namespaces, it takes those that it was given by name. Here it takes them at the first refusal.
      It still repeats its request.
    - If the server of an aggregated API is down, Kopf ends after these 54 s, even if no handler needs that API. Here
      the API has no kinds until its server answers.

    It is a middleware of the session.
    """

    def __init__(
        self,
        settings: kopf.OperatorSettings,
        registry: kopf.OperatorRegistry,
        insights: references.Insights,
        namespaces: Collection[str],
    ) -> None:
        self.insights = insights
        self._settings, self._registry = settings, registry
        self._named = references.select_specific_namespaces(namespaces)
        self._down: set[str] = set()  #: paths that are asked for again

    def watch(self, session: aiohttp.ClientSession, server: str) -> None:
        """See the answers to what this session sends."""
        session._middlewares = (self._ask, *session._middlewares)

    async def _ask(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(request)
        path = request.url.path
        if request.method != "GET" or response.status not in (403, 503):
            return response
        if response.status == 403 and self._named and _NAMESPACES.search(path):
            await self._assume_namespaces()
        found = _GROUP_VERSION.search(path) if response.status == 503 else None
        if found and (await response.text()).startswith(_DOWN):
            response.status = 404  # for Kopf it has no kinds
            if found[0] not in self._down:
                self._down.add(found[0])
                running_log.warning("Nothing serves %s at the moment; going on without its kinds.", found[0])
                self._later(found[1], found[0], AGAIN)
        return response

    async def _assume_namespaces(self) -> None:
        if self.insights.ready_namespaces.is_set():
            return
        async with self.insights.revised:
            self.insights.namespaces.update(self._named)
            self.insights.revised.notify_all()
        self.insights.ready_namespaces.set()

    def _later(self, group: str, path: str, pauses: tuple[float, ...]) -> None:
        loop = asyncio.get_running_loop()
        # A callback and not a sleeping task: Kopf would wait for a task when it stops.
        loop.call_later(
            pauses[0], lambda: loop.create_task(self._again(group, path, pauses[1:] or pauses), name=_DISCOVERY_TASK)
        )

    async def _again(self, group: str, path: str, pauses: tuple[float, ...]) -> None:
        """Ask for a version's kinds again, and let Kopf look at the whole group once there is an answer."""
        try:
            await api.get(path, settings=self._settings, logger=observation.logger)
            changed: Any = {"type": "MODIFIED", "object": {"spec": {"group": group}}}
            await observation.process_discovered_resource_event(
                raw_event=changed, settings=self._settings, registry=self._registry, insights=self.insights
            )
            self._down.discard(path)
            running_log.info("%s is served again.", path)
        except Exception as error:  # noqa: BLE001  whatever it is, it must not end Kopf
            running_log.debug("%s is not served yet: %r", path, error)
            self._later(group, path, pauses)


# --- namespaces


def exact_namespaces(patterns: Collection[str]) -> tuple[str, ...]:
    """Return those of the patterns of `-n` that are the name of one namespace, which Kopf serves without asking."""
    return tuple(sorted(references.select_specific_namespaces(patterns)))


def serves(name: str, patterns: Collection[str]) -> bool:
    """Return whether Kopf serves the namespace for one of the patterns of `-n`."""
    return any(references.match_namespace(references.NamespaceName(name), pattern) for pattern in patterns)


# --- a running operator

#: Kopf's own function, whatever takes its place in this process.
plain_spawn_tasks = kopf.spawn_tasks


def replace_spawn_tasks(fn: Callable[..., Any]) -> None:
    """Let `fn` take the place of `kopf.spawn_tasks`, also in `kopf.operator`, `kopf.run` and the command `kopf run`."""
    for module in (kopf, running):
        setattr(module, "spawn_tasks", fn)  # noqa: B010  mypy does not let a function be assigned


_LOGIN_TASK = "credentials retriever"
_WATCHING_TASK = "multidimensional multitasker"
_WORKER_TASKS = "worker for "


@dataclasses.dataclass(frozen=True, eq=False)
class SpawnedOperator:
    """An operator whose tasks run in this event loop, as in `kopf.operator()`. `spawn` returns it."""

    tasks: Collection[asyncio.Task[Any]]  #: the root tasks; when one ends, Kopf ends the others
    login: Collection[asyncio.Task[Any]]  #: logs in; not a root task, but without credentials all others wait for ever
    _others: Collection[asyncio.Task[Any]]  #: the tasks that existed before
    _insights: references.Insights
    #: Runs the probes as Kopf's liveness endpoint does, once startup handlers have ended, and returns their results.
    probe: Callable[[], Awaitable[Mapping[str, Any]]]

    async def run(self) -> None:
        """Run until the operator has stopped, its handlers included.

        Raises:
            Exception: the error that a root task ended with.
        """
        await kopf.run_tasks(self.tasks, ignored=self._others)

    def has_filled_indices(self) -> bool:
        """Return whether Kopf has listed and indexed all objects for its indices.

        Kopf has no public sign of that. Its own handlers wait for it, but webhooks do not.
        """
        known = self._insights
        if not (known.ready_resources.is_set() and known.ready_namespaces.is_set()):
            return False
        indexed = known.indexed_resources & known.watched_resources
        if not indexed or not known.namespaces:
            return True
        for task in self.tasks:
            for coroutine in _awaited(task) if task.get_name() == _WATCHING_TASK else ():
                ensemble = getattr(getattr(coroutine, "cr_frame", None), "f_locals", {}).get("ensemble")
                if ensemble is not None:
                    watched = {key.resource for key in ensemble.watcher_tasks}
                    return indexed <= watched and bool(ensemble.operator_indexed.is_on())
        return False


async def spawn(
    *,
    registry: kopf.OperatorRegistry,
    settings: kopf.OperatorSettings,
    memo: object,
    lifecycle: Any,
    namespaces: tuple[str, ...],
    clusterwide: bool,
    identity: str,
    vault: PreparedVault,
    stop: asyncio.Event,
    configured: Callable[[], None] | None = None,
    parts: Mapping[str, Any] | None = None,
    make_flow: MakeFlow | None = None,
) -> SpawnedOperator:
    """Start an operator in the running loop, without peering.

    Args:
        registry: the handlers.
        settings: Kopf's settings; startup handlers change them.
        memo: the memo of the whole operator.
        lifecycle: the order in which Kopf runs handlers; None for its default.
        namespaces: the namespaces that are served.
        clusterwide: serve all namespaces.
        identity: the replica's name. Kopf's default is the user's name, which a container's uid may not have.
        vault: the store of credentials.
        stop: set it to stop the operator.
        configured: called after the last startup handler, before Kopf starts anything else.
        parts: an application's own `indexers`, `memories`, `insights` and `vault`. The vault's credentials are taken.
        make_flow: makes for each kind what orders the objects that exist; by default Kopf takes them as they come.
    """
    # Kopf's tasks inherit it.
    _make_flow.set((settings, make_flow) if make_flow is not None else None)
    given, others = parts or {}, asyncio.all_tasks()
    insights, indexers = given.get("insights") or references.Insights(), given.get("indexers")
    indexers = indexing.OperatorIndexers() if indexers is None else indexers  # it is a mapping, and empty
    if "vault" in given:
        await vault.take(given["vault"])
    discovery = _Discovery(settings, registry, insights, () if clusterwide else namespaces)
    vault.prepare.append(discovery.watch)
    tasks = await plain_spawn_tasks(
        registry=registry,
        settings=settings,
        memo=memo,
        lifecycle=lifecycle,
        namespaces=namespaces,
        clusterwide=clusterwide,
        # Peering elects by wall clocks and writes objects. Here the Lease has decided already.
        standalone=True,
        identity=peering.Identity(identity),
        insights=insights,
        indexers=indexers,
        memories=given.get("memories"),
        vault=vault,
        stop_flag=stop,
        ready_flag=_Raised(configured) if configured is not None else None,
    )
    login = {task for task in asyncio.all_tasks() - others if task.get_name() == _LOGIN_TASK}

    async def probe() -> Mapping[str, Any]:
        results = await activities.run_activity(
            lifecycle=lifecycles.all_at_once,
            registry=registry,
            settings=settings,
            activity=causes.Activity.PROBE,
            indices=indexers.indices,
            memo=ephemera.AnyMemo(memo),
        )
        return {str(id): result for id, result in results.items()}

    return SpawnedOperator(tasks, login, others, insights, probe)


class _Raised(asyncio.Event):
    """A ready flag for Kopf that calls a function when Kopf sets it."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def set(self) -> None:
        self._then()
        super().set()


def discovers(task: asyncio.Task[Any]) -> bool:
    """Return whether the task is the discovery of kinds, which a stopping Kopf does not cancel but waits 5 s for."""
    code = getattr(task.get_coro(), "cr_code", None)
    return task.get_name() == _DISCOVERY_TASK or (code is not None and code.co_filename == scanning.__file__)


def sleeps_between_tries(task: asyncio.Task[Any]) -> bool:
    """Return whether the task is an object's worker that only waits for a handler's next try: no handler runs."""
    return task.get_name().startswith(_WORKER_TASKS) and any(
        getattr(coroutine, "cr_code", None) is aiotime.sleep.__code__ for coroutine in _awaited(task)
    )


def _awaited(task: asyncio.Task[Any]) -> Iterator[Any]:
    """Yield the task's coroutine, the one that it awaits, and so on."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        yield coroutine
        coroutine = getattr(coroutine, "cr_await", None)


# --- the log

#: The formatters of `kopf run`: their base class, the one for text, and the mixin that prefixes the object's name.
Formatter = loggers.ObjectFormatter
TextFormatter = loggers.ObjectTextFormatter
ObjectPrefix = loggers.ObjectPrefixingMixin

#: The logger of what Kopf does with objects. The `logger` of handlers writes here, too.
objects_log = loggers.logger
#: The logger of Kopf's start and stop.
running_log = running.logger


def tells_of_handler(record: logging.LogRecord, name: str) -> bool:
    """Return whether the record is one of Kopf's own about this handler."""
    return f"'{name}'" in record.getMessage()


def tells_of_signals(record: logging.LogRecord) -> bool:
    """Return whether the record is Kopf's warning that it handles no signals outside of the main thread."""
    return record.getMessage().startswith("OS signals are ignored")
