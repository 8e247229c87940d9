"""The only file that uses Kopf's private parts. It offers what kopf-ha needs of them under stable names.

tests/test_kopf_contract.py has a test for each private part, which says what breaks if a release of Kopf changes it. An
import contract in pyproject.toml forbids `kopf._*` in all other files.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any

import aiohttp
import kopf
from kopf._cogs.aiokits import aiotime
from kopf._cogs.clients import scanning
from kopf._cogs.helpers import loaders
from kopf._cogs.structs import credentials, ids, references
from kopf._core.actions import loggers
from kopf._core.engines import peering
from kopf._core.intents import causes, handlers, registries
from kopf._core.reactor import running

# --- credentials

#: Seconds to wait before each further login in a series: a 401 may be passing.
PAUSES: tuple[float, ...] = (0, 1, 2, 4, 8, 16, 32)
#: Credentials that were known for so many seconds end a series.
LASTING = 10.0


class WrappedVault(credentials.Vault):
    """Kopf's store of credentials. It wraps what the operator's login handlers return.

    So every login handler stays as it is. An additional login handler would not work: of two with the same priority,
    Kopf chooses one at random.

    Args:
        wrap: takes credentials and returns what Kopf uses instead. Sessions that it creates are closed with the store.
    """

    def __init__(self, wrap: Callable[[object], object]) -> None:
        super().__init__()
        self._wrap = wrap
        self._made: list[aiohttp.ClientSession] = []
        self._is_unknown = False  #: the API server answered 401 to the present credentials
        self._tries = 0  #: logins in a series of which each soon got a 401
        self._given = -math.inf  #: when the present credentials came, on the loop's clock

    async def invalidate(
        self, key: credentials.VaultKey, info: credentials.KubeContext, *, exc: Exception | None = None
    ) -> None:
        """Note that the API server does not know these credentials. Called by Kopf."""
        self._is_unknown = True
        await super().invalidate(key, info, exc=exc)

    async def populate(self, src: dict[str, object]) -> None:
        """Take the credentials of the login handlers. Called by Kopf.

        Kopf recognises credentials that got a 401 already, but not with a session that is made for each. So this waits
        longer before each further login, as with an account that is deleted, and takes none after the last.
        """
        clock = asyncio.get_running_loop().time
        if self._is_unknown:
            self._is_unknown = False
            self._tries = self._tries + 1 if clock() - self._given < LASTING else 0
            if self._tries >= len(PAUSES):
                src = {}  # Kopf says that it ran out of valid credentials, and ends
            elif pause := PAUSES[self._tries]:
                running_log.warning("The API server does not know the credentials; waiting %g s to try again.", pause)
                await asyncio.sleep(pause)
        wrapped = {key: self._wrap(info) for key, info in src.items()}
        self._made += [
            new.aiohttp_session
            for key, new in wrapped.items()
            if new is not src[key] and isinstance(new, kopf.AiohttpSession)
        ]
        await super().populate(wrapped)
        self._given = clock()

    async def close(self) -> None:
        """Close all sessions, also those that Kopf never used: of several logins it uses one."""
        await super().close()
        for session in self._made:
            await session.close()


def with_session(info: kopf.ConnectionInfo, session: aiohttp.ClientSession) -> kopf.AiohttpSession:
    """Return the same connection (server, namespace, priority, expiration) with an existing session."""
    base = {f.name: getattr(info, f.name) for f in dataclasses.fields(credentials.KubeContext)}
    return kopf.AiohttpSession(**base, aiohttp_session=session)


# --- registries of handlers


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


def probes(registry: kopf.OperatorRegistry) -> list[str]:
    """Return the ids of the registry's probes for Kopf's liveness endpoint."""
    return [str(h.id) for h in _activities(registry) if h.activity == causes.Activity.PROBE]


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
    watching = registry._watching
    if any(h.id == name for h in watching.get_all_handlers()):
        return False
    selectors = {
        handler.selector: None
        for part in (registry._watching, registry._spawning, registry._changing)
        for handler in part.get_all_handlers()
        if handler.selector is not None
    }
    # There is no public way to create a handler with another handler's selector.
    watching._handlers[:0] = [
        handlers.WatchingHandler(
            fn=fn, id=ids.HandlerId(name), param=None,
            errors=None, timeout=None, retries=None, backoff=None,
            selector=selector, labels=None, annotations=None, when=None, field=None, value=None,
        )
        for selector in selectors
    ]  # fmt: skip
    return True


def _logins(registry: kopf.OperatorRegistry) -> list[handlers.ActivityHandler]:
    return [h for h in registry._activities.get_all_handlers() if h.activity == causes.Activity.AUTHENTICATION]


def _activities(registry: kopf.OperatorRegistry) -> list[handlers.ActivityHandler]:
    """Return all activities except the logins."""
    return [h for h in registry._activities.get_all_handlers() if h.activity != causes.Activity.AUTHENTICATION]


def load(paths: Collection[str], modules: Collection[str]) -> None:
    """Load an operator's files and modules as `kopf run` does. Exceptions from their code pass through."""
    loaders.preload(paths=paths, modules=modules)


# --- namespaces


def exact_namespaces(patterns: Collection[str]) -> tuple[str, ...]:
    """Return those of the patterns of `-n` that are the name of one namespace, which Kopf serves without asking."""
    return tuple(sorted(references.select_specific_namespaces(patterns)))


def serves(name: str, patterns: Collection[str]) -> bool:
    """Return whether Kopf serves the namespace for one of the patterns of `-n`."""
    return any(references.match_namespace(references.NamespaceName(name), pattern) for pattern in patterns)


# --- a running operator

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
    vault: WrappedVault,
    stop: asyncio.Event,
    configured: Callable[[], None] | None = None,
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
    """
    insights, others = references.Insights(), asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
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
        vault=vault,
        stop_flag=stop,
        ready_flag=_Raised(configured) if configured is not None else None,
    )
    login = {task for task in asyncio.all_tasks() - others if task.get_name() == _LOGIN_TASK}
    return SpawnedOperator(tasks, login, others, insights)


class _Raised(asyncio.Event):
    """A ready flag for Kopf that calls a function when Kopf sets it."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def set(self) -> None:
        self._then()
        super().set()


def discovers(task: asyncio.Task[Any]) -> bool:
    """Return whether the task is Kopf's discovery of kinds, which a stopping Kopf does not cancel but waits 5 s for."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename == scanning.__file__


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
