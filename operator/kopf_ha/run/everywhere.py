"""What runs on every replica, leader or not: a second Kopf for the whole life of the process, in no term.

Webhooks have to answer while nobody leads, and there must be more than one to ask; indices serve them. It
cannot write: no term means no grant, so the fence refuses whatever leaves it (I8), whichever client is used.
What Kopf would write there by itself is kept from arising: no handlers that store their progress, no webhook
configurations of Kopf's own, no finalizers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import kopf
from kopf._cogs.structs import references  # what Kopf knows of the cluster; a parameter of spawn_tasks
from kopf._core.engines.peering import Identity  # another, whose type is not public
from kopf._core.intents import causes

from kopf_ha._context import entered_everywhere
from kopf_ha.adapters.kopf_client import FencedVault
from kopf_ha.errors import ConfigurationError
from kopf_ha.run.term import KopfOptions, discovers

logger = logging.getLogger("kopf_ha.everywhere")

#: The exit status when it ended by itself; see docs/runbook.md.
EXIT_EVERYWHERE = 5
#: Seconds for which webhooks are served after SIGTERM: a Service names the pod for a moment longer.
LINGER = 5.0
#: Kopf removes its finalizer from objects that its registry has no need of it for. Those of the terms' Kopf carry
#: that one's; no object carries this.
FINALIZER = "everywhere.kopf-ha.dev/none"
#: Seconds between two looks at whether the indices are filled.
LOOK = 0.05

_MANAGED = (
    "settings.admission.managed is set for what runs on every replica: Kopf would write the webhook configuration from"
    " each of them, and remove the webhooks when one stops; leave it unset, apply a ValidatingWebhookConfiguration or"
    " MutatingWebhookConfiguration of your own, and have its caBundle filled in by cert-manager or from your own CA"
)


class Everywhere:
    """One replica's Kopf for what only reads. Nothing at all when the registry has no handlers.

    Args:
        registry: the handlers. Without a login of its own it logs in as the terms do.
        options: of the terms: the same namespaces, and their registry's logins.
        holder: the holder identity.
        failed: called with the cause, from its thread, when it ended without having been asked to.

    Raises:
        ConfigurationError: a handler that has to write; the sentence names it.
    """

    def __init__(
        self, registry: kopf.OperatorRegistry, options: KopfOptions, holder: str, failed: Callable[[str], None]
    ) -> None:
        check(registry)
        self._registry = with_logins(registry, options.registry)
        self._options = options
        self._holder = holder
        self._failed = failed
        self._serves = bool(registry._webhooks.get_all_handlers())
        self._ready = False
        self._ended = threading.Event()
        self._asked = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self.wanted = has_handlers(registry)

    @property
    def ready(self) -> bool:
        """Whether webhooks are listened for and indices filled; for a readiness probe. True if nothing is to run."""
        return not self.wanted or (self._ready and not self._ended.is_set())

    def start(self) -> None:
        """Run it in a thread and loop of its own."""
        if self.wanted:
            self._thread = threading.Thread(target=self._main, name="kopf-ha-everywhere", daemon=True)
            self._thread.start()

    def stop(self, timeout: float, linger: float = 0.0) -> None:
        """Let requests in flight end, stop Kopf, and wait for it.

        Args:
            timeout: seconds to wait; what hangs longer ends with the process.
            linger: seconds to serve webhooks before that, since a Service leads here for a moment longer.
        """
        if self._thread is None:
            return
        if linger and self._serves and not self._ended.is_set():
            logger.info("webhooks are served for %g s more, while Services may still lead here", linger)
            self._ended.wait(linger)
        self._asked.set()
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:
                pass  # the loop is closed: it ended already
        self._thread.join(timeout)
        if self._thread.is_alive():
            logger.warning("what runs on every replica still does %g s after it was asked to stop", timeout)

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            with entered_everywhere():
                asyncio.run(self._run())
        except asyncio.CancelledError:
            pass  # Kopf cancels its own tasks when it stops
        except BaseException as e:  # noqa: BLE001  whatever it was, webhooks must not be dead in silence
            error = e
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Tell about the first end, unless it was asked for."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._asked.is_set():
            return
        error = (error.__cause__ or error) if error else None  # Kopf's own says only that handlers failed
        if isinstance(error, ConfigurationError):
            cause = str(error)
        else:
            cause = f"{type(error).__name__}: {error}" if error else "Kopf stopped by itself; its log has the reason"
        logger.error("what runs on every replica (kopf_ha.everywhere) ended: %s", cause)
        self._failed(f"what runs on every replica ended: {cause}")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self._asked.is_set():
            return
        settings, insights = kopf.OperatorSettings(), references.Insights()
        server = _Server()
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self._registry,
            settings=settings,
            insights=insights,
            lifecycle=self._options.lifecycle,
            namespaces=self._options.namespaces,
            clusterwide=self._options.clusterwide,
            standalone=True,
            identity=Identity(self._holder),
            vault=FencedVault(),
            stop_flag=self._stop,
            ready_flag=_Started(lambda: self._configure(server, settings)),
        )
        # As for terms: the first task to end is the end, and the one that logs in is not among them.
        login = {task for task in asyncio.all_tasks() - ours if task.get_name() == "credentials retriever"}
        for task in {*tasks, *login}:
            task.add_done_callback(self._root_done)
        self._loop.call_later(LOOK, self._look, server, insights, tasks)
        await kopf.run_tasks(tasks, ignored=ours)

    def _configure(self, server: _Server, settings: kopf.OperatorSettings) -> None:
        try:
            server.configure(settings)
        except ConfigurationError as error:
            self._end(error)
            raise

    def _root_done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():  # those are what Kopf ends because of another
            self._end(task.exception())
        assert self._loop is not None and self._stop is not None  # noqa: S101, PT018  they are there before any task
        if not self._stop.is_set() or self._asked.is_set():
            self._stop.set()  # Kopf's task that waits for it would be waited for
            self._cancel_discovery()

    def _cancel_discovery(self) -> None:
        assert self._loop is not None  # noqa: S101  it runs this
        for task in asyncio.all_tasks():
            if discovers(task):
                task.cancel()
        self._loop.call_later(LOOK, self._cancel_discovery)

    def _look(self, server: _Server, insights: references.Insights, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Look until all is there. A callback and no task: Kopf would wait for it when it stops."""
        if self._asked.is_set() or self._ended.is_set():
            return
        if not server.indexed.is_set() and _are_filled(insights, tasks):
            server.indexed.set()
        if server.indexed.is_set() and (server.listening or not self._serves):
            self._ready = True
            logger.info("what runs on every replica is up")
            return
        assert self._loop is not None  # noqa: S101  it runs this
        self._loop.call_later(LOOK, self._look, server, insights, tasks)


class _Started(asyncio.Event):
    """Kopf's ready flag: raised after the last startup handler, before anything else of Kopf begins."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def set(self) -> None:
        self._then()
        super().set()


class _Server:
    """The operator's own webhook server, seen from outside."""

    def __init__(self) -> None:
        self.listening = False
        self.indexed = asyncio.Event()
        self._server: Any = None

    def configure(self, settings: kopf.OperatorSettings) -> None:
        """Settle what startup handlers may not decide.

        Raises:
            ConfigurationError: they want Kopf to write webhook configurations.
        """
        if settings.admission.managed is not None:
            raise ConfigurationError(_MANAGED)
        settings.persistence.finalizer = FINALIZER
        if settings.admission.server is not None:
            self._server, settings.admission.server = settings.admission.server, self

    async def __call__(self, answer: Any) -> AsyncIterator[Any]:
        """Serve as the operator's server does; requests wait until the indices are filled."""

        async def answered(*args: Any, **kwargs: Any) -> Any:
            await self.indexed.wait()
            return await answer(*args, **kwargs)

        if hasattr(self._server, "__aexit__"):
            async with self._server as server:
                async for config in server(answered):
                    self.listening = True
                    yield config
        else:
            async for config in self._server(answered):
                self.listening = True
                yield config


def check(registry: kopf.OperatorRegistry) -> None:
    """Refuse handlers that cannot do without writing.

    Raises:
        ConfigurationError: there is one; the sentence names it.
    """
    for part in (registry._changing, registry._spawning):
        for handler in part.get_all_handlers():
            raise ConfigurationError(
                f"handler {handler.id} is registered to run on every replica, and cannot: Kopf writes the progress of"
                " handlers for changes, timers and daemons into their objects, which the leader alone may do; leave"
                " out registry=kopf_ha.everywhere, which is for webhooks, indices and event handlers that only read"
            )


def has_handlers(registry: kopf.OperatorRegistry) -> bool:
    """Say whether there is anything to run; Kopf's own logins are nothing."""
    parts = (registry._webhooks, registry._indexing, registry._watching)
    activities = [h for h in registry._activities.get_all_handlers() if h.activity != causes.Activity.AUTHENTICATION]
    return bool(activities) or any(part.get_all_handlers() for part in parts)


def with_logins(registry: kopf.OperatorRegistry, other: kopf.OperatorRegistry) -> kopf.OperatorRegistry:
    """Give the registry with the logins of the other, if it has none of its own; neither is changed."""
    mine, theirs = (
        [h for h in r._activities.get_all_handlers() if h.activity == causes.Activity.AUTHENTICATION]
        for r in (registry, other)
    )
    if not all(h._fallback for h in mine) or not theirs:
        return registry
    made = kopf.OperatorRegistry()
    made._webhooks, made._indexing, made._watching = registry._webhooks, registry._indexing, registry._watching
    kept = [h for h in registry._activities.get_all_handlers() if h.activity != causes.Activity.AUTHENTICATION]
    made._activities._handlers = [*theirs, *kept]
    return made


def name_unserved(registry: kopf.OperatorRegistry) -> None:
    """Say in the log which handlers of the terms' registry are not what they seem to be."""
    for handler in registry._webhooks.get_all_handlers():
        logger.warning(
            "webhook %s is served by the leader alone, and by nobody between two terms; register it with"
            " registry=kopf_ha.everywhere to have every replica serve it",
            handler.id,
        )
    for activity in registry._activities.get_all_handlers():
        if activity.activity == causes.Activity.PROBE:
            logger.warning(
                "probe %s is never asked: Kopf's liveness endpoint is not served; use --health-port", activity.id
            )


def _are_filled(insights: references.Insights, tasks: Iterable[asyncio.Task[Any]]) -> bool:
    """Say whether Kopf has listed and indexed all that its indices are made of.

    It has no public sign for that: its handlers wait for it by themselves, and webhooks do not.
    """
    if not (insights.ready_resources.is_set() and insights.ready_namespaces.is_set()):
        return False
    indexed = insights.indexed_resources & insights.watched_resources
    if not indexed or not insights.namespaces:
        return True
    for task in tasks:
        coroutine: Any = task.get_coro() if task.get_name() == "multidimensional multitasker" else None
        while coroutine is not None:
            ensemble = getattr(getattr(coroutine, "cr_frame", None), "f_locals", {}).get("ensemble")
            if ensemble is not None:
                watched = {key.resource for key in ensemble.watcher_tasks}
                return indexed <= watched and bool(ensemble.operator_indexed.is_on())
            coroutine = getattr(coroutine, "cr_await", None)
    return False
