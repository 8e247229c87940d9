"""One term: a thread and an event loop in which the barrier is raised and Kopf runs, until it ends."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import kopf
from kopf._cogs.aiokits import aiotime  # to tell workers that sleep from those that handle
from kopf._cogs.clients import scanning
from kopf._core.engines.peering import Identity  # a parameter of spawn_tasks, whose type is not public

from kopf_ha._context import entered
from kopf_ha.adapters.kopf_client import FencedVault
from kopf_ha.core.grant import Grant
from kopf_ha.run.observe import observe_all

logger = logging.getLogger("kopf_ha.term")

T = TypeVar("T")

#: Seconds between two looks at what still runs while a term is drained.
LOOK = 0.05
#: Seconds after which a thread that waits looks for signals.
WAKE = 0.5


@dataclass(frozen=True, kw_only=True)
class KopfOptions:
    """What `kopf.operator()` gets in each term.

    Settings and memo are made anew for each: startup handlers change the settings, and what a memo holds was
    decided in an earlier term.
    """

    registry: kopf.OperatorRegistry
    namespaces: tuple[str, ...] = ()
    clusterwide: bool = False
    lifecycle: Any = None
    make_settings: Callable[[], kopf.OperatorSettings] = kopf.OperatorSettings
    make_memo: Callable[[], Any] = kopf.Memo


@dataclass(eq=False)
class Term:
    """One leadership of this process, from the barrier to the last handler.

    Args:
        grant: what this term's writes stand on.
        options: for Kopf.
        before: the barrier; runs in a thread, inside of the term.
        beat: called every `pulse` seconds while the term's loop turns.
        ended: called from the term's thread as soon as it ends by itself, and when it is over: with the error,
            or None when it was asked to stop.
        pulse: seconds between two signs of life of the loop, without which the lease is not renewed.
    """

    grant: Grant
    options: KopfOptions
    before: Callable[[], None]
    beat: Callable[[], None]
    ended: Callable[[Term, BaseException | None], None]
    pulse: float = 1.0
    kopf_ran: bool = field(default=False, init=False)  #: whether any code of the operator has run
    _stop: asyncio.Event | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _settings: kopf.OperatorSettings | None = field(default=None, init=False)
    _asked: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Run the term in a thread of its own, so that neither Kopf's signal handlers nor its loop meet ours."""
        name = f"kopf-ha-term-{self.grant.stamp.token}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def stop(self, patience: float = 0.0) -> None:
        """Ask Kopf to stop: no new handlers; those that run may end. From any thread, without waiting.

        Args:
            patience: seconds after which Kopf cancels async handlers, when more than its own setting says.
        """
        self._asked.set()
        loop, stop, settings = self._loop, self._stop, self._settings
        if patience and settings is not None:
            settings.queueing.exit_timeout = max(settings.queueing.exit_timeout, patience)
        if loop is not None and stop is not None:
            try:
                loop.call_soon_threadsafe(stop.set)
                loop.call_soon_threadsafe(self._wake_sleepers)
            except RuntimeError:
                pass  # the loop is closed: it stopped already

    def join(self, timeout: float) -> bool:
        """Wait until everything of the term ended, at most `timeout` seconds; say whether it did."""
        end = time.monotonic() + timeout
        while self._thread is not None and self._thread.is_alive() and (left := end - time.monotonic()) > 0:
            # In short pieces: of two signals the kernel may hand the second to another thread, and Python runs its
            # handler only when this one wakes.
            self._thread.join(min(left, WAKE))
        return self._thread is None or not self._thread.is_alive()

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            with entered(self.grant):
                asyncio.run(self._run())
        except asyncio.CancelledError:
            pass  # Kopf cancels its own tasks when it stops
        except BaseException as e:  # noqa: BLE001  a term may end by anything; the runner decides what follows
            error = e
        self.ended(self, error)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self._asked.is_set():
            return
        self._beat_on()
        asked = asyncio.ensure_future(self._stop.wait())
        barrier = in_thread(self.before, f"kopf-ha-barrier-{self.grant.stamp.token}")
        waiting: set[asyncio.Future[Any]] = {asked, barrier}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not barrier.done():
            # Nothing of the operator has run, so there is nothing to wait for; the gate ends the barrier.
            self.grant.close("the term was stopped before its barrier was up")
            return
        barrier.result()
        if self._asked.is_set() or self.grant.closed:
            return
        observe_all(self.options.registry)
        self._settings = self.options.make_settings()
        self.kopf_ran = True
        # What kopf.operator() is made of, so that the first task to end is seen when it ends: Kopf then
        # waits for its handlers, for ever if need be, and nobody would lead while the Lease is renewed.
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self.options.registry,
            settings=self._settings,
            memo=self.options.make_memo(),
            lifecycle=self.options.lifecycle,
            namespaces=self.options.namespaces,
            clusterwide=self.options.clusterwide,
            # Peering elects by wall clocks and would write on its own; the Lease has decided already.
            standalone=True,
            # Kopf would ask for the user's name, which a container's uid may not have.
            identity=Identity(self.grant.stamp.holder),
            vault=FencedVault(),
            stop_flag=self._stop,
        )
        # The one that logs in is not among them, and without credentials all others wait for ever.
        login = {task for task in asyncio.all_tasks() - ours if task.get_name() == "credentials retriever"}
        for task in {*tasks, *login}:
            task.add_done_callback(self._root_done)
        await kopf.run_tasks(tasks, ignored=ours)
        if not self._asked.is_set():
            raise RuntimeError("Kopf stopped by itself; its log has the reason")

    def _root_done(self, task: asyncio.Task[Any]) -> None:
        if not self._asked.is_set() and not self.grant.closed:
            error = None if task.cancelled() else task.exception()
            self.ended(self, error or RuntimeError("Kopf stopped by itself; its log has the reason"))

    def _beat_on(self) -> None:
        # A callback and no task: Kopf cancels tasks that it does not know when it stops.
        self.beat()
        if self._loop is not None:
            self._loop.call_later(self.pulse, self._beat_on)

    def _wake_sleepers(self) -> None:
        """Cancel what waits and has nothing to drain: retries whose time has not come, and Kopf's discovery.

        Kopf would wait for the former until its patience ends, and 5 s for the latter.
        """
        assert self._loop is not None  # noqa: S101  it runs this
        for task in asyncio.all_tasks():
            if discovers(task) or (task.get_name().startswith("worker for ") and _sleeps(task)):
                task.cancel()
        self._loop.call_later(LOOK, self._wake_sleepers)


def discovers(task: asyncio.Task[Any]) -> bool:
    """Whether it is Kopf's discovery, which Kopf waits 5 s for when it stops, and does not cancel before."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename == scanning.__file__


def _sleeps(task: asyncio.Task[Any]) -> bool:
    """Whether Kopf itself sleeps in the task, between two tries of a handler."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        if getattr(coroutine, "cr_code", None) is aiotime.sleep.__code__:
            return True
        coroutine = getattr(coroutine, "cr_await", None)
    return False


def in_thread(fn: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `fn` in a daemon thread of its own, with the caller's context: what hangs there keeps nobody waiting."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return  # nobody waits any more
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def main() -> None:
        result, error = None, None
        try:
            result = context.run(fn)
        except BaseException as e:  # noqa: BLE001  the caller gets it
            error = e
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=main, name=name, daemon=True).start()
    return future
