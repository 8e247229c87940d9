"""The runner: follows the election and has at most one term at a time.

The order of what happens when a term ends is the promise (I3, I8): the gate is closed first, by whoever
notices; then Kopf is stopped; then its handlers are waited for; only then may this process lead again. A
handler that outlives its drain time ends the process, since nothing else can stop a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import kopf

import kopf_ha
from kopf_ha import adapters
from kopf_ha.adapters import Outcome, Wiring, wired
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.election import Elector
from kopf_ha.errors import ConfigurationError, FloorLost, TermEnded
from kopf_ha.run.api import Api, make_client
from kopf_ha.run.barrier import raise_barrier
from kopf_ha.run.observe import hush
from kopf_ha.run.report import Report
from kopf_ha.run.term import KopfOptions, Term
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: Exit statuses: lost the Lease with after_loss=exit, so that the pod restarts; handlers that would not end.
EXIT_LOST = 3
EXIT_STUCK = 4
#: Seconds to wait after failed terms: the first, and the longest.
BACKOFF = (1.0, 60.0)


@dataclass(frozen=True, slots=True)
class Started:
    """The election gave a grant."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Stopped:
    """The election closed a grant."""

    grant: Grant
    cause: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A term's thread is at its end."""

    term: Term
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Quit:
    """The process was asked to stop."""

    cause: str


class Runner:
    """Terms of one operator in one process. Use `run` or `operator`."""

    def __init__(self, settings: Settings, options: KopfOptions) -> None:
        self.settings = settings
        self.options = options
        self.report = Report()
        self.fence = Fence(settings.lease, settings.fence, settings.deciding, settings.exempt)
        # A SimpleQueue: signal handlers may put into it while this thread waits on it.
        self.inbox: queue.SimpleQueue[Started | Stopped | Ended | Quit] = queue.SimpleQueue()
        self.grant: Grant | None = None
        self.term: Term | None = None
        self.failures = 0
        self.elector = Elector(
            settings,
            lambda: make_client(f"kopf-ha-election/{kopf_ha.__version__}", fenced=False),
            on_started=lambda grant: self.inbox.put(Started(grant)),
            on_stopped=lambda grant, cause: self.inbox.put(Stopped(grant, cause)),
            floor=lambda: self.fence.floor,
        )

    def quit(self, cause: str) -> None:
        """Ask the process to stop: drain, release the Lease, return. From any thread or signal handler."""
        self.inbox.put(Quit(cause))

    def run(self) -> int:
        """Run until asked to stop; give the exit status.

        Raises:
            ConfigurationError: there are no credentials.
        """
        self.api = Api(make_client(f"kopf-ha/{kopf_ha.__version__}", fenced=True))
        hush()
        if self.settings.fence == "full":
            logger.info("replica %s follows Lease %s", self.settings.identity, self.settings.lease)
        with wired(Wiring(self.fence, self.on_outcome)):
            self.elector.start()
            while True:
                status = self.step(self.inbox.get())
                if status is not None:
                    return status

    def step(self, event: Started | Stopped | Ended | Quit) -> int | None:
        """Deal with one event; give an exit status when it was the last."""
        match event:
            case Started(grant):
                self.begin(grant)
            case Stopped(grant, cause):
                return self.lost(grant, cause)
            case Ended(term, error) if term is self.term and not term.grant.closed:
                return self.failed(term, error)
            case Ended():
                pass  # it was asked to
            case Quit(cause):
                return self.leave(cause)
        return None

    # --- what happens

    def begin(self, grant: Grant) -> None:
        """Start a term."""
        self.grant = grant
        self.fence.new_term()
        if self.settings.fence != "full":
            logger.warning(
                "UNSAFE: fence=%s: a stale leader can write in this term; for comparison only", self.settings.fence
            )
        self.term = Term(
            grant,
            self.options,
            before=self.barrier,
            beat=self.elector.beat,
            ended=lambda term, error: self.inbox.put(Ended(term, error)),
        )
        self.term.start()

    def barrier(self) -> None:
        """Raise the barrier in the term's thread."""
        if self.settings.fence != "full" or self.grant is None:
            return
        stamped = raise_barrier(self.api, self.fence, self.grant)
        logger.info("barrier: %d deciding objects stamped with token %d", stamped, self.grant.stamp.token)

    def lost(self, grant: Grant, cause: str) -> int | None:
        """Stop a term whose grant is closed already, then follow again or exit."""
        term, self.term, self.grant = self.term, None, None
        if term is not None and term.grant is grant:
            self.drain(term, f"term {grant.stamp.token} lost: {cause}")
            logger.info("term %d of %s is over: %s", grant.stamp.token, grant.stamp.holder, self.report.summary())
        # Before Kopf ran, no code of the operator did: there is no state that an exit would clear.
        if self.settings.after_loss == "exit" and term is not None and term.kopf_ran:
            logger.error("leaving, since after-loss is exit: %s", cause)
            self.elector.stop()
            return EXIT_LOST
        return self.back_off()

    def failed(self, term: Term, error: BaseException | None) -> int | None:
        """Step down after a term that ended by itself; others may do better."""
        if isinstance(error, FloorLost):
            self.elector.raise_floor(error.floor)
            return None  # on_stopped follows
        self.failures += 1
        cause = f"{type(error).__name__}: {error}" if error else "Kopf stopped"
        if isinstance(error, ConfigurationError | LookupError | TermEnded):
            logger.error("term %d failed: %s", term.grant.stamp.token, error)
        else:
            logger.error("term %d failed", term.grant.stamp.token, exc_info=error)
        self.elector.step_down(f"the term failed: {cause}")
        return None

    def back_off(self) -> int | None:
        """Wait after failed terms, then allow the election to lead again. A request to stop ends the wait."""
        if self.failures:
            wait = min(BACKOFF[0] * 2 ** (self.failures - 1), BACKOFF[1]) * random.uniform(0.8, 1.2)  # noqa: S311
            logger.info("leading again in %.1f s at the earliest, after %d failed terms", wait, self.failures)
            timer = threading.Timer(wait, self.elector.resume)
            timer.daemon = True
            timer.start()
        else:
            self.elector.resume()
        return None

    def leave(self, cause: str) -> int:
        """Stop by choice: drain with the gate open and the Lease renewed, then close, then release."""
        logger.info("stopping: %s", cause)
        term, self.term = self.term, None
        if term is not None:
            self.drain(term, cause)
            term.grant.close(f"stopped: {cause}")
            logger.info("term %d is over: %s", term.grant.stamp.token, self.report.summary())
        self.elector.release(self.settings.renew_deadline)
        return 0

    def drain(self, term: Term, cause: str) -> None:
        """Stop Kopf and wait for its handlers; past the drain time end the process."""
        term.stop()
        if not term.join(self.settings.drain_timeout):
            term.grant.close(cause)
            logger.critical(
                "handlers of term %d still run %g s after its end (%s); ending the process, the Lease is not released",
                term.grant.stamp.token,
                self.settings.drain_timeout,
                cause,
            )
            logging.shutdown()
            os._exit(EXIT_STUCK)

    def on_outcome(self, outcome: Outcome) -> None:
        """Close the gate at once when a write was refused for the term's sake; in the writer's thread."""
        refused, grant = outcome.refused, outcome.grant
        if isinstance(refused, TermEnded) and grant is not None and not grant.closed:
            grant.close(str(refused))
            if grant is self.grant:
                if isinstance(refused, FloorLost):
                    self.elector.raise_floor(refused.floor)
                else:
                    self.elector.step_down(str(refused))
        elif outcome.refused is None and outcome.grant is not None and outcome.client == "kopf":
            self.failures = 0
        self.report.add(outcome)


def _options(
    registry: kopf.OperatorRegistry | None, namespaces: tuple[str, ...], clusterwide: bool, **more: Any
) -> KopfOptions:
    if namespaces and clusterwide:
        raise ConfigurationError("either namespaces or cluster-wide, not both")
    return KopfOptions(
        registry=registry if registry is not None else kopf.get_default_registry(),
        namespaces=namespaces,
        clusterwide=clusterwide or not namespaces,
        **{k: v for k, v in more.items() if v is not None},
    )


def run(
    settings: Settings,
    *,
    registry: kopf.OperatorRegistry | None = None,
    namespaces: tuple[str, ...] = (),
    clusterwide: bool = False,
    prepare: Callable[[], None] = lambda: None,
) -> int:
    """Run an operator in the main thread until SIGTERM or SIGINT; give the exit status.

    Args:
        settings: of the Lease and the fence.
        registry: the handlers; Kopf's default registry by default.
        namespaces: those served; all when empty.
        clusterwide: all namespaces.
        prepare: loads the operator's code; it runs when the clients are fenced already.

    Raises:
        ConfigurationError: an option that cannot be meant so, or no credentials.
    """
    adapters.install()
    prepare()
    _name_uncovered()
    runner = Runner(settings, _options(registry, namespaces, clusterwide))

    def on_signal(number: int, frame: FrameType | None) -> None:
        runner.quit(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return runner.run()


async def operator(
    settings: Settings | None = None,
    *,
    registry: kopf.OperatorRegistry | None = None,
    namespaces: tuple[str, ...] = (),
    clusterwide: bool = False,
    lifecycle: Any = None,
    make_settings: Callable[[], kopf.OperatorSettings] | None = None,
    make_memo: Callable[[], Any] | None = None,
) -> None:
    """Run a fenced operator inside of an application, as `kopf.operator()` does; cancel it to stop.

    The terms run in threads and loops of their own, so that a blocked loop of the application does not cost
    the Lease. Call it before clients of the `kubernetes` package are made, or they are not fenced.

    Args:
        settings: of the Lease and the fence; ``KOPF_HA_*`` by default.
        registry: the handlers; Kopf's default registry by default.
        namespaces: those served; all when empty.
        clusterwide: all namespaces.
        lifecycle: Kopf's order of handlers.
        make_settings: makes Kopf's settings for a term.
        make_memo: makes the memo for a term.

    Raises:
        ConfigurationError: an option that cannot be meant so, or no credentials.
        TermEnded: the Lease was lost and `after_loss` is `exit`.
    """
    adapters.install()
    _name_uncovered()
    options = _options(
        registry, namespaces, clusterwide, lifecycle=lifecycle, make_settings=make_settings, make_memo=make_memo
    )
    runner = Runner(settings or Settings.from_env(), options)
    done = asyncio.get_running_loop().run_in_executor(None, runner.run)
    try:
        status = await asyncio.shield(done)
    except asyncio.CancelledError:
        runner.quit("cancelled")
        await done
        raise
    if status:
        raise TermEnded("the Lease was lost; the log has the cause")


def _name_uncovered() -> None:
    for name in adapters.uncovered():
        logger.warning(
            "client %s is imported and not fenced: what it writes, a stale leader writes, too; use kubernetes,"
            " pykube-ng or Kopf's patch for writes",
            name,
        )
