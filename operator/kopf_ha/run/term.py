"""One term: a thread and an event loop in which the barrier is raised and Kopf runs, until it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import kopf

from kopf_ha._context import entered
from kopf_ha.adapters.kopf_client import FencedVault
from kopf_ha.core.grant import Grant
from kopf_ha.run.observe import observe_all

logger = logging.getLogger("kopf_ha.term")

#: Seconds between two signs of life of a term's loop, without which the lease is not renewed.
BEAT = 1.0


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
        beat: called about every second while the term's loop turns.
        ended: called from the term's thread when it is over: with the error, or None when it was asked to stop.
    """

    grant: Grant
    options: KopfOptions
    before: Callable[[], None]
    beat: Callable[[], None]
    ended: Callable[[Term, BaseException | None], None]
    kopf_ran: bool = field(default=False, init=False)  #: whether any code of the operator has run
    _stop: asyncio.Event | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _asked: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Run the term in a thread of its own, so that neither Kopf's signal handlers nor its loop meet ours."""
        name = f"kopf-ha-term-{self.grant.stamp.token}"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask Kopf to stop: no new handlers; those that run may end. From any thread, without waiting."""
        self._asked.set()
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:
                pass  # the loop is closed: it stopped already

    def join(self, timeout: float) -> bool:
        """Wait until everything of the term ended, at most `timeout` seconds; say whether it did."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

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
        await asyncio.to_thread(self.before)
        if self._stop.is_set():
            return
        observe_all(self.options.registry)
        self.kopf_ran = True
        with warnings.catch_warnings():
            # The runner says itself which namespaces are served.
            warnings.filterwarnings("ignore", category=FutureWarning, module="kopf")
            await kopf.operator(
                registry=self.options.registry,
                settings=self.options.make_settings(),
                memo=self.options.make_memo(),
                lifecycle=self.options.lifecycle,
                namespaces=self.options.namespaces,
                clusterwide=self.options.clusterwide,
                # Peering elects by wall clocks and would write on its own; the Lease has decided already.
                standalone=True,
                vault=FencedVault(),
                stop_flag=self._stop,
            )
        if not self._stop.is_set():
            raise RuntimeError("Kopf stopped by itself; its log has the reason")

    def _beat_on(self) -> None:
        # A callback and no task: Kopf cancels tasks that it does not know when it stops.
        self.beat()
        if self._loop is not None:
            self._loop.call_later(BEAT, self._beat_on)
