"""An operator that runs: its start, its tasks, its probes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any

import kopf
from kopf._cogs.aiokits import aiotime
from kopf._cogs.helpers import loaders
from kopf._cogs.structs import ephemera, references
from kopf._core.actions import lifecycles
from kopf._core.engines import activities, indexing, peering
from kopf._core.intents import causes
from kopf._core.reactor import running

from kopf_ha._kopf.discovery import Discovery
from kopf_ha._kopf.first_list import MakeFlow, use_flows
from kopf_ha._kopf.patching import store_status_first
from kopf_ha._kopf.vault import PreparedVault


def load(paths: Collection[str], modules: Collection[str]) -> None:
    """Load an operator's files and modules as `kopf run` does. Exceptions from their code pass through."""
    loaders.preload(paths=paths, modules=modules)


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
    use_flows(settings, make_flow)
    store_status_first()
    given, others = parts or {}, asyncio.all_tasks()
    insights, indexers = given.get("insights") or references.Insights(), given.get("indexers")
    indexers = indexing.OperatorIndexers() if indexers is None else indexers  # it is a mapping, and empty
    if "vault" in given:
        await vault.take(given["vault"])
    discovery = Discovery(settings, registry, insights, () if clusterwide else namespaces)
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
