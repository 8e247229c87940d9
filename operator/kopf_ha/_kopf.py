"""The only file that knows Kopf's private parts; it offers what kopf-ha needs of them under names of its own.

Each thing it relies on has a test in tests/test_kopf_contract.py, which says what breaks if a release of Kopf changes
it. An import contract in pyproject.toml keeps `kopf._*` out of all other files.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
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


class WrappedVault(credentials.Vault):
    """Kopf's store of credentials; what the operator's login handlers return is wrapped first.

    Wrapping the result keeps every login handler as it is. A second login handler would not do: of two with one
    priority Kopf takes one at random.

    Args:
        wrap: gives what Kopf uses instead; what it returns unchanged stays the operator's.
    """

    def __init__(self, wrap: Callable[[object], object]) -> None:
        super().__init__()
        self._wrap = wrap
        self._made: list[aiohttp.ClientSession] = []

    async def populate(self, src: dict[str, object]) -> None:
        """Take the credentials of the login handlers. Called by Kopf."""
        wrapped = {key: self._wrap(info) for key, info in src.items()}
        self._made += [
            new.aiohttp_session
            for key, new in wrapped.items()
            if new is not src[key] and isinstance(new, kopf.AiohttpSession)
        ]
        await super().populate(wrapped)

    async def close(self) -> None:
        """Close the sessions, those included that Kopf never used, since it takes one of several logins."""
        await super().close()
        for session in self._made:
            await session.close()


def with_session(info: kopf.ConnectionInfo, session: aiohttp.ClientSession) -> kopf.AiohttpSession:
    """Give the same connection with a session that exists: its server, namespace, priority and expiration."""
    base = {f.name: getattr(info, f.name) for f in dataclasses.fields(credentials.KubeContext)}
    return kopf.AiohttpSession(**base, aiohttp_session=session)


# --- registries of handlers


def new_registry() -> kopf.OperatorRegistry:
    """Make a registry that has Kopf's own logins, as the default one has."""
    return registries.SmartOperatorRegistry()


def only_logs_in(registry: kopf.OperatorRegistry) -> bool:
    """Say whether the registry has nothing to run: no webhooks, indices, watching handlers or activities but logins."""
    parts = (registry._webhooks, registry._indexing, registry._watching)
    return not _activities(registry) and not any(part.get_all_handlers() for part in parts)


def storing_handlers(registry: kopf.OperatorRegistry) -> list[str]:
    """Give the ids of handlers whose progress Kopf writes into their objects: for changes, timers, daemons."""
    return [str(h.id) for part in (registry._changing, registry._spawning) for h in part.get_all_handlers()]


def webhooks(registry: kopf.OperatorRegistry) -> list[str]:
    """Give the ids of the registry's admission webhooks."""
    return [str(h.id) for h in registry._webhooks.get_all_handlers()]


def probes(registry: kopf.OperatorRegistry) -> list[str]:
    """Give the ids of the registry's probes for Kopf's liveness endpoint."""
    return [str(h.id) for h in _activities(registry) if h.activity == causes.Activity.PROBE]


def with_logins_of(registry: kopf.OperatorRegistry, other: kopf.OperatorRegistry) -> kopf.OperatorRegistry:
    """Give the registry with the logins of the other, unless it has its own; Kopf's logins do not count as own.

    Neither is changed. The result has no handlers for changes, timers and daemons.
    """
    mine, theirs = _logins(registry), _logins(other)
    if not all(h._fallback for h in mine) or not theirs:
        return registry
    made = kopf.OperatorRegistry()
    made._webhooks, made._indexing, made._watching = registry._webhooks, registry._indexing, registry._watching
    made._activities._handlers = [*theirs, *_activities(registry)]
    return made


def watch_first(registry: kopf.OperatorRegistry, fn: Callable[..., Any], name: str) -> bool:
    """Have `fn` see each event of every object that the registry has handlers for, before they do.

    Kopf runs watching handlers at the beginning of an object's cycle, in their order, with the body that all others
    will see.

    Args:
        registry: is changed, the first time.
        fn: an event handler.
        name: the handler's id.

    Returns: whether it was the first time; otherwise nothing is done.
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
    # A handler for another handler's selector has no public constructor.
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
    """Give all but the logins."""
    return [h for h in registry._activities.get_all_handlers() if h.activity != causes.Activity.AUTHENTICATION]


def load(paths: Collection[str], modules: Collection[str]) -> None:
    """Load an operator's files and modules as `kopf run` does. Errors in their code pass through."""
    loaders.preload(paths=paths, modules=modules)


# --- a running operator

_LOGIN_TASK = "credentials retriever"
_WATCHING_TASK = "multidimensional multitasker"
_WORKER_TASKS = "worker for "


@dataclasses.dataclass(frozen=True, eq=False)
class SpawnedOperator:
    """What `kopf.operator()` is made of: an operator whose tasks run in this loop. Made by `spawn`."""

    tasks: Collection[asyncio.Task[Any]]  #: the root tasks; when the first one ends, Kopf ends the others
    login: Collection[asyncio.Task[Any]]  #: logs in; no root task, but without credentials all others wait for ever
    _others: Collection[asyncio.Task[Any]]  #: the tasks that were there before
    _insights: references.Insights

    async def run(self) -> None:
        """Run until the operator has stopped, its handlers included.

        Raises:
            Exception: what a root task ended with.
        """
        await kopf.run_tasks(self.tasks, ignored=self._others)

    def has_filled_indices(self) -> bool:
        """Say whether Kopf has listed and indexed all that its indices are made of.

        It has no public sign for that: its handlers wait for it by themselves, and webhooks do not.
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
        settings: startup handlers change them.
        memo: of the whole operator.
        lifecycle: Kopf's order of handlers; None for its default.
        namespaces: those served.
        clusterwide: all namespaces.
        identity: Kopf would ask for the user's name, which a container's uid may not have.
        vault: for the credentials.
        stop: set it to stop the operator.
        configured: called after the last startup handler, before anything else of Kopf begins.
    """
    insights, others = references.Insights(), asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=settings,
        memo=memo,
        lifecycle=lifecycle,
        namespaces=namespaces,
        clusterwide=clusterwide,
        # Peering elects by wall clocks and would write on its own; the Lease has decided already.
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
    """Kopf's ready flag, which calls a function when it is raised."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def set(self) -> None:
        self._then()
        super().set()


def discovers(task: asyncio.Task[Any]) -> bool:
    """Say whether it is Kopf's discovery of kinds, which Kopf waits 5 s for when it stops, and does not cancel."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename == scanning.__file__


def sleeps_between_tries(task: asyncio.Task[Any]) -> bool:
    """Say whether it is an object's worker in which no handler runs, since Kopf waits to try one again."""
    return task.get_name().startswith(_WORKER_TASKS) and any(
        getattr(coroutine, "cr_code", None) is aiotime.sleep.__code__ for coroutine in _awaited(task)
    )


def _awaited(task: asyncio.Task[Any]) -> Iterator[Any]:
    """Give the task's coroutine, the one that this awaits, and so on."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        yield coroutine
        coroutine = getattr(coroutine, "cr_await", None)


# --- the log

#: The formatters that `kopf run` writes with: any of them; the text; what puts the object's name in front of a text.
Formatter = loggers.ObjectFormatter
TextFormatter = loggers.ObjectTextFormatter
ObjectPrefix = loggers.ObjectPrefixingMixin

#: Where Kopf tells what it does with objects, and `logger` of handlers writes.
objects_log = loggers.logger
#: Where Kopf tells of its start and stop.
running_log = running.logger


def tells_of_handler(record: logging.LogRecord, name: str) -> bool:
    """Say whether the record is one of Kopf's own about what the handler did."""
    return f"'{name}'" in record.getMessage()


def tells_of_signals(record: logging.LogRecord) -> bool:
    """Say whether it is Kopf's warning that it handles no signals, as in any thread but the main one."""
    return record.getMessage().startswith("OS signals are ignored")
