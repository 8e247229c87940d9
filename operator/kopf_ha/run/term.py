"""One term in its thread: first what prepares it, then Kopf, until the term ends."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import kopf

from kopf_ha import _kopf
from kopf_ha._context import entered
from kopf_ha.adapters import may_begin
from kopf_ha.core.grant import Grant
from kopf_ha.core.target import Target
from kopf_ha.run.intake import Intake
from kopf_ha.run.kopf_thread import KopfOptions, KopfThread
from kopf_ha.run.liveness import Probes
from kopf_ha.run.observe import is_our_stamp, learn_kind, observe, observe_all
from kopf_ha.run.threads import in_thread

#: Seconds that Kopf gives a daemon to end before it looks again a minute later. Startup handlers may choose others.
INSTANT = 0.5
#: Objects of a page of Kopf's lists, as in client-go. Startup handlers may choose otherwise.
PAGE = 500

_BY_ITSELF = "Kopf stopped by itself; its log lines before this one say why"


@dataclass(eq=False)
class Term:
    """One leadership of this process, from the barrier to the last handler.

    Args:
        grant: allows this term's writes.
        options: for Kopf.
        before: prepares the term, with the barrier; called in a thread that belongs to the term.
        beat: called every `pulse` seconds while the term's event loop runs.
        ended: called from the term's thread as soon as the term ends by itself, and when it is over: with the error,
            or with None when it was asked to stop.
        asks: asks whether a kind is stamped; None if that is unknown. It blocks, and is called in threads of the term.
        pulse: seconds between two signs of life of the event loop. Without these the Lease is not renewed.
    """

    grant: Grant
    options: KopfOptions
    before: Callable[[], None]
    beat: Callable[[], None]
    ended: Callable[[Term, BaseException | None], None]
    asks: Callable[[Target], bool | None] = lambda target: None
    pulse: float = 1.0
    kopf_ran: bool = field(default=False, init=False)  #: whether any code of the operator has run
    thread: KopfThread = field(init=False)
    _settings: kopf.OperatorSettings | None = field(default=None, init=False)
    _probes: Probes | None = field(default=None, init=False)
    _context: contextvars.Context | None = field(default=None, init=False)  #: of handlers, once startup handlers ended

    def __post_init__(self) -> None:
        self.thread = KopfThread(
            name=f"kopf-ha-term-{self.grant.stamp.token}",
            inside=lambda: entered(self.grant),
            main=self._main,
            root_ended=self._root_ended,
            over=lambda error: self.ended(self, error),
        )

    def start(self) -> None:
        """Run the term in its own thread."""
        self.thread.start()

    def stop(self, patience: float = 0.0) -> None:
        """Ask Kopf to stop: no new handlers; those that run may end. From any thread, without waiting.

        Args:
            patience: seconds after which Kopf cancels async handlers, if that is longer than its own setting.
        """
        settings = self._settings
        if patience and settings is not None:
            settings.queueing.exit_timeout = max(settings.queueing.exit_timeout, patience)
        self.thread.stop()

    def probe(self) -> Future[Mapping[str, Any]] | None:
        """Run the operator's probes in this term; None before its startup handlers have ended, and when it stops.

        From any thread. The future is cancelled if the term ends meanwhile.
        """
        probes, context = self._probes, self._context
        if probes is None or context is None or self.thread.asked or self.grant.closed:
            return None
        return self.thread.call(probes.results, context)

    def join(self, timeout: float) -> bool:
        """Wait until everything of the term ended, at most `timeout` seconds; return whether it did."""
        return self.thread.join(timeout)

    async def _main(self) -> None:
        self._beat_on()
        asked = asyncio.ensure_future(self.thread.until_asked())
        barrier = in_thread(self.before, f"kopf-ha-barrier-{self.grant.stamp.token}")
        waiting: set[asyncio.Future[Any]] = {asked, barrier}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not barrier.done():
            # No code of the operator has run, so there is nothing to wait for; the closed gate ends the barrier.
            self.grant.close("the term was stopped before its barrier was up")
            return
        barrier.result()
        if self.thread.asked or self.grant.closed:
            return
        observe_all(self.options.registry)
        _kopf.hold_handlers(may_begin)
        self._settings = self.options.make_settings()
        let_daemons_end(self._settings)
        list_in_pages(self._settings)
        self.kopf_ran = True
        operator = await self.thread.spawn(
            self.options,
            self._settings,
            self.grant.stamp.holder,
            configured=self._configured,
            make_flow=self._flow,
        )
        self._probes = Probes(operator.probe)
        await operator.run()
        if not self.thread.asked:
            raise RuntimeError(_BY_ITSELF)

    def _flow(self, kind: _kopf.Kind) -> Intake:
        """Make what orders one kind's objects. The fence sees each of them, whether Kopf handles it or not."""
        return Intake(
            kind,
            lambda body: observe(resource=kind.resource, body=body, type=None),
            lambda event: is_our_stamp(kind.resource, event),
            lambda: learn_kind(kind.resource, self.asks),
        )

    def _configured(self) -> None:
        # Called in a task of Kopf's, which has the term and Kopf's own variables.
        self._context = contextvars.copy_context()

    def _root_ended(self, task: asyncio.Task[Any]) -> None:
        # At once: Kopf still waits for its handlers, and meanwhile this replica would renew the Lease and not lead.
        if not self.thread.asked and not self.grant.closed:
            error = None if task.cancelled() else task.exception()
            self.ended(self, error or RuntimeError(_BY_ITSELF))

    def _beat_on(self) -> None:
        # A callback and not a task: Kopf cancels unknown tasks when it stops.
        self.beat()
        asyncio.get_running_loop().call_later(self.pulse, self._beat_on)


def list_in_pages(settings: kopf.OperatorSettings) -> None:
    """Have Kopf list a page at a time, where it can (from 1.45 on): thousands of objects at once take much memory."""
    if getattr(settings.watching, "chunk_size", 0) is None:
        settings.watching.chunk_size = PAGE


def let_daemons_end(settings: kopf.OperatorSettings) -> None:
    """Have Kopf wait a moment for a daemon that it stops.

    By default it passes its event loop ten times, which a sync daemon needs luck for: its thread has to wake up and end
    in a fraction of a millisecond. Without that luck the deletion of the object waits for 60 s.
    """
    if settings.background.instant_exit_timeout is None:
        settings.background.instant_exit_timeout = INSTANT
