"""One thread with an event loop in which Kopf runs once, from its first task to its last handler."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, TypeVar

import kopf

from kopf_ha import _kopf
from kopf_ha.adapters.kopf_client import fenced_vault
from kopf_ha.run.liveness import Endpoint
from kopf_ha.run.peering import switch_off

T = TypeVar("T")

#: Seconds between two looks at the tasks in the loop.
LOOK = 0.05
#: The name of tasks that run while somebody waits for their results, and that nobody needs when Kopf stops.
ASKED = "kopf-ha asked"
#: Seconds after which a waiting thread wakes, so that Python can run signal handlers.
WAKE = 0.5


@dataclass(frozen=True, kw_only=True)
class KopfOptions:
    """What `kopf.operator()` gets in each term.

    Each term gets new settings and a new memo: startup handlers change the settings, and a memo holds decisions of an
    earlier term.
    """

    registry: kopf.OperatorRegistry
    namespaces: tuple[str, ...] = ()
    clusterwide: bool = False
    lifecycle: Any = None
    liveness: Endpoint | None = None
    make_settings: Callable[[], kopf.OperatorSettings] = kopf.OperatorSettings
    make_memo: Callable[[], Any] = kopf.Memo
    make_parts: Callable[[], Mapping[str, Any]] = dict  #: further arguments, by name
    started: Callable[[], None] = lambda: None  #: called when startup handlers have ended
    #: Gets the settings after the last startup handler, before anything else of Kopf begins.
    overrule: Callable[[kopf.OperatorSettings], None] = lambda settings: None

    @property
    def makes_new_settings(self) -> bool:
        """Whether only one Kopf has the settings and their pool of threads; an application's may serve all terms."""
        return self.make_settings is kopf.OperatorSettings


@dataclass(eq=False, kw_only=True)
class KopfThread:
    """One Kopf in its own thread, so that it sets no signal handlers and has its own event loop.

    Args:
        name: the thread's.
        inside: makes the context manager that everything in the thread runs in.
        main: runs in the loop, and calls `spawn` when Kopf may begin; the thread ends when it returns.
        root_ended: called in the loop when one of Kopf's root tasks ends, or the task that logs in. Kopf itself waits
            until its handlers have ended, however long that takes.
        over: called in the thread when everything in it ended: with the error, or with None.
    """

    name: str
    inside: Callable[[], AbstractContextManager[None]]
    main: Callable[[], Coroutine[Any, Any, None]]
    root_ended: Callable[[asyncio.Task[Any]], None]
    over: Callable[[BaseException | None], None]
    loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _stop: asyncio.Event | None = field(default=None, init=False)  #: ends Kopf; made in the loop
    _asked: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _pool: Executor | None = field(default=None, init=False)  #: Kopf's own, for sync handlers

    @property
    def started(self) -> bool:
        """Whether the thread was started."""
        return self._thread is not None

    @property
    def asked(self) -> bool:
        """Whether it was asked to stop."""
        return self._asked.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._main, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask Kopf to stop: no new handlers; those that run may end. From any thread, without waiting."""
        self._asked.set()
        loop = self.loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self.stop_kopf)
            except RuntimeError:
                pass  # the loop is closed: it stopped already

    def call(self, make: Callable[[], Coroutine[Any, Any, T]], context: Context) -> Future[T]:
        """Run a coroutine in the loop, from any thread. It is cancelled when Kopf is stopped.

        Args:
            make: makes the coroutine.
            context: to run it in.
        """
        done: Future[T] = Future()

        def settle(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                done.cancel()
            elif error := task.exception():
                done.set_exception(error)
            else:
                done.set_result(task.result())

        def start() -> None:
            asyncio.create_task(make(), name=ASKED).add_done_callback(settle)

        try:
            assert self.loop is not None  # noqa: S101  the caller runs after its start
            self.loop.call_soon_threadsafe(start, context=context)
        except RuntimeError:
            done.cancel()  # the loop is closed
        return done

    def join(self, timeout: float) -> bool:
        """Wait until everything in the thread ended, at most `timeout` seconds; return whether it did."""
        end = time.monotonic() + timeout
        while self._thread is not None and self._thread.is_alive() and (left := end - time.monotonic()) > 0:
            # In short pieces: the kernel may deliver a second signal to another thread, and Python runs its handler
            # only when this thread wakes.
            self._thread.join(min(left, WAKE))
        return self._thread is None or not self._thread.is_alive()

    # --- in the loop

    async def until_asked(self) -> None:
        """Wait until it is asked to stop."""
        assert self._stop is not None  # noqa: S101  it is there before anything runs in the loop
        await self._stop.wait()

    async def spawn(
        self,
        options: KopfOptions,
        settings: kopf.OperatorSettings,
        holder: str,
        configured: Callable[[], None] | None = None,
        make_flow: _kopf.MakeFlow | None = None,
    ) -> _kopf.SpawnedOperator:
        """Start Kopf, fenced; the caller runs the operator that is returned.

        Args:
            options: for Kopf.
            settings: made by the caller, which may have to change them later.
            holder: the holder identity.
            configured: called after the last startup handler, before anything else of Kopf begins.
            make_flow: makes for each kind what orders the objects that exist; by default Kopf takes them as they come.
        """
        assert self._stop is not None  # noqa: S101  it is there before anything runs in the loop
        if options.makes_new_settings:
            # Taken now, since startup handlers may put a pool of theirs in its place.
            self._pool = settings.execution.executor

        def started() -> None:
            options.overrule(settings)
            switch_off(settings)
            options.started()
            if configured is not None:
                configured()

        operator = await _kopf.spawn(
            registry=options.registry,
            settings=settings,
            memo=options.make_memo(),
            lifecycle=options.lifecycle,
            namespaces=options.namespaces,
            clusterwide=options.clusterwide,
            identity=holder,
            vault=fenced_vault(),
            parts=options.make_parts(),
            stop=self._stop,
            configured=started,
            make_flow=make_flow,
        )
        for task in {*operator.tasks, *operator.login}:
            task.add_done_callback(self.root_ended)
        return operator

    def stop_kopf(self) -> None:
        """Stop Kopf, without waiting for tasks that have nothing to finish. A second call does nothing."""
        if self._stop is not None and not self._stop.is_set():
            self._stop.set()
            self._wake_sleepers()

    def _wake_sleepers(self) -> None:
        """Cancel tasks that only wait: handlers between two tries, and Kopf's discovery; and what others asked for.

        Kopf would wait for the first until its own timeout, and 5 s for the others.
        """
        for task in asyncio.all_tasks(self.loop):
            if task.get_name() == ASKED or _kopf.discovers(task) or _kopf.sleeps_between_tries(task):
                task.cancel()
        if self.loop is not None:
            # Again, since others may begin. A callback and not a task: Kopf would wait for a task.
            self.loop.call_later(LOOK, self._wake_sleepers)

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            with self.inside():
                asyncio.run(self._run())
        except asyncio.CancelledError:
            pass  # Kopf cancels its own tasks when it stops
        except BaseException as e:  # noqa: BLE001  whatever ends it, the caller decides what follows
            error = e
        if self._pool is not None:
            # Kopf leaves that to the end of the process. Its idle threads would stay, with their connections.
            self._pool.shutdown(wait=False)
        self.over(error)

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        # From here on `stop` reaches the loop; an earlier call has left its mark.
        self.loop = asyncio.get_running_loop()
        if not self._asked.is_set():
            await self.main()
