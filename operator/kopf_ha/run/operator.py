"""The runner: follows the election and has at most one term at a time.

The order of what happens when a term ends is the promise (I3, I8): the gate is closed first, by whoever
notices; then Kopf is stopped; then its handlers are waited for; only then may this process lead again. A
handler that outlives its drain time ends the process, since nothing else can stop a thread.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

import kopf
import urllib3

import kopf_ha
from kopf_ha import _registry
from kopf_ha._context import boottime, entered
from kopf_ha.adapters import Outcome, Wiring, wired
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.election import Elector, PodWatcher, RunLock
from kopf_ha.errors import ConfigurationError, FloorLost, TermEnded
from kopf_ha.run.api import Api, make_client
from kopf_ha.run.aside import try_again
from kopf_ha.run.barrier import raise_barrier
from kopf_ha.run.everywhere import EXIT_EVERYWHERE, LINGER, Everywhere
from kopf_ha.run.health import Health, Vitals
from kopf_ha.run.journal import Journal
from kopf_ha.run.kopf_thread import WAKE, KopfOptions
from kopf_ha.run.logs import speaking_for
from kopf_ha.run.observe import hush
from kopf_ha.run.selftest import SelfTest
from kopf_ha.run.serving import serving
from kopf_ha.run.term import Term
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: Exit statuses: lost the Lease with after_loss=exit, so that the pod restarts; handlers that would not end.
EXIT_LOST = 3
EXIT_STUCK = 4
#: Seconds to wait after failed terms: the first, and the longest.
BACKOFF = (1.0, 60.0)
#: The part of the drain time after which async handlers are cancelled, so that the rest is left to end in.
PATIENCE = 0.8
#: Seconds for each answer while a follower asks whether the fence is enforced, before it takes over early.
CONFIRM = 2.0
#: Seconds until a leader asks again: policies are taken out of force for repairs, and versions are added to kinds.
ASK_AGAIN = 60.0


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
    """The process was asked to stop, or has to."""

    cause: str
    status: int = 0


class Runner:
    """Terms of one operator in one process. Use `kopf_ha.run.run` or `operator`."""

    def __init__(
        self, settings: Settings, options: KopfOptions, everywhere: kopf.OperatorRegistry | None = None
    ) -> None:
        self.settings = settings
        self.options = options
        self.journal = Journal(settings, lambda: Api(make_client(f"kopf-ha/{kopf_ha.__version__}", fenced=False)))
        self.fence = Fence(settings.lease, settings.fence, settings.deciding, settings.exempt)
        # A SimpleQueue: signal handlers may put into it while this thread waits on it.
        self.inbox: queue.SimpleQueue[Started | Stopped | Ended | Quit] = queue.SimpleQueue()
        self.grant: Grant | None = None
        self.term: Term | None = None
        self.began = 0.0  #: when the present term did
        self.failures = 0  #: short terms in a row
        self.floor_lost: Grant | None = None  #: the term that met a higher token while it held the Lease
        self.leaving: int | None = None  #: the exit status, once it is decided
        self.asked = False  #: to stop, by a signal
        self.stopping = ""  #: why, once it was asked to
        self.stepping: float | None = None  #: since when it deals with one event
        self.draining: float | None = None  #: since when it waits for a term's handlers
        self.elector = Elector(
            settings,
            lambda: make_client(f"kopf-ha-election/{kopf_ha.__version__}", fenced=False),
            on_started=lambda grant: self.inbox.put(Started(grant)),
            on_stopped=lambda grant, cause: self.inbox.put(Stopped(grant, cause)),
            on_new_leader=lambda holder, token: self.pods.nudge(),
            floor=lambda: self.fence.known.floor,
            observer=self.journal.metrics,
        )
        self.journal.watch(self.elector)
        self.pods = PodWatcher(
            settings,
            lambda: make_client(f"kopf-ha-election/{kopf_ha.__version__}", fenced=False),
            holder=lambda: self.elector.observed,
            gone=self.elector.holder_gone,
            head_start=self.elector.head_start,
            deleted=self.quit,
            confirm=self.not_enforced,
        )
        self.run_lock = RunLock(settings, self.elector.holder_gone)
        self.everywhere = Everywhere(
            everywhere if everywhere is not None else _registry.everywhere(),
            options,
            settings.identity,
            failed=lambda cause: self.inbox.put(Quit(cause, EXIT_EVERYWHERE)),
        )

    def quit(self, cause: str) -> None:
        """Ask the process to stop: drain, release the Lease, return. From any thread or signal handler."""
        self.stopping = self.stopping or cause
        self.inbox.put(Quit(cause))

    def abandon(self, cause: str, status: int) -> None:
        """End the process without waiting for handlers; the Lease is not released. From any thread."""
        grant = self.grant
        if grant is not None:
            grant.close(cause)
        _end_hard(status, "%s again: ending without waiting for handlers; the Lease is not released", cause)

    def run(self) -> int:
        """Run until asked to stop; give the exit status.

        Raises:
            ConfigurationError: there are no credentials.
        """
        self.api = Api(make_client(f"kopf-ha/{kopf_ha.__version__}", fenced=True))
        self.selftest = SelfTest(Api(make_client(f"kopf-ha/{kopf_ha.__version__}", fenced=False)), self.settings)
        self.stepping = boottime()  # to start is a step, too: liveness sees when it hangs
        hush()
        with (
            wired(Wiring(self.fence, self.on_outcome)),
            speaking_for(self.settings, lambda: self.elector.grant or self.grant),
            serving(lambda: self.journal.metrics.serve(self.settings.metrics_port)),
            serving(Health(self.settings, self.vitals, boottime).serve),
        ):
            if self.settings.fence == "full":
                logger.info("replica %s follows Lease %s", self.settings.identity, self.settings.lease)
            try:
                self.everywhere.start()
                self.run_lock.start()
                self.elector.start()
                if self.settings.fast_failover and self.settings.fence == "full":
                    self.pods.start()
                    _later(self.settings.retry_period, self.look_ahead)
                self.stepping = None
                while True:
                    event = self.next()
                    self.stepping = boottime()
                    status = self.step(event)
                    self.stepping = None
                    if status is not None:
                        return status
            except BaseException:
                # Nobody would see to the term any more, so it must neither write nor renew.
                if self.grant is not None:
                    self.grant.close("the runner failed")
                self.elector.stop()
                raise
            finally:
                self.pods.stop()
                self.run_lock.stop()
                # The last to go, since webhooks are asked while others take over.
                self.everywhere.stop(self.settings.drain_timeout, LINGER if self.stopping else 0)

    def vitals(self) -> Vitals:
        """Give what probes are answered from. From any thread."""
        elector, ready = self.elector, self.everywhere.ready
        return Vitals(
            elector.signs, elector.state, self.grant, self.began, self.stepping, self.draining, self.stopping, ready
        )

    def next(self) -> Started | Stopped | Ended | Quit:
        """Wait for the next event; the election's own end is one."""
        while True:
            try:
                return self.inbox.get(timeout=WAKE)
            except queue.Empty:
                if self.elector.state == "stopped" and self.inbox.empty():
                    self.leaving = EXIT_LOST
                    return Quit(f"the election ended: {self.elector.last_error}")

    def step(self, event: Started | Stopped | Ended | Quit) -> int | None:
        """Deal with one event; give an exit status when it was the last."""
        match event:
            case Started():
                if self.leaving is not None:
                    return self.leave("the Lease is above the lost floor now")
                self.begin(event.grant)
            case Stopped(grant, cause):
                with entered(grant):  # so that the log names the term
                    return self.lost(grant, cause)
            case Ended(term, error) if term is self.term and not term.grant.closed:
                with entered(term.grant):
                    self.failed(term, error)
            case Ended():
                pass  # it was asked to, or its end is known already
            case Quit(cause, status):
                return self.leave(cause, status)
        return None

    # --- what happens

    def begin(self, grant: Grant) -> None:
        """Start a term."""
        self.began = boottime()
        self.grant = grant
        self.fence.known.new_term()
        self.journal.began(grant, self.elector.lease_uid)
        if self.settings.fence != "full":
            logger.warning(
                "UNSAFE: fence=%s: a stale leader can write in this term; for comparison only", self.settings.fence
            )
        self.term = Term(
            grant,
            self.options,
            before=lambda: self.barrier(grant),
            beat=self.elector.beat,
            ended=lambda term, error: self.inbox.put(Ended(term, error)),
            pulse=min(1.0, self.settings.retry_period / 2),
        )
        self.term.start()

    def barrier(self, grant: Grant) -> None:
        """Raise the barrier in the term's thread."""
        if self.settings.fence != "full":
            return
        # Beside the barrier, but before any handler runs; where it decides whether to lead, before all else.
        asking = threading.Thread(target=self.ask_the_server, args=(grant,), name="kopf-ha-selftest", daemon=True)
        if self.settings.require_policies:
            self.ask_the_server(grant)
        else:
            asking.start()
        began = boottime()
        raised = raise_barrier(self.api, self.fence, grant)
        self.journal.barrier_up(boottime() - began, raised.stamped)
        if raised.aside:
            self.journal.set_aside(raised.aside)
            again = (self.api, self.fence, grant, raised.aside, self.journal.set_aside)
            threading.Thread(target=try_again, args=again, name="kopf-ha-set-aside", daemon=True).start()
        if not self.settings.require_policies:
            asking.join()

    def ask_the_server(self, grant: Grant) -> None:
        """Have the API server say whether it enforces the fence; name what is missing, now and while it leads.

        A kind that a version of its definition makes unfit is written no more, which ends no term (I1, I10).

        Raises:
            ConfigurationError: something is missing, or a deciding kind is not there, and `require_policies` is set.
            LookupError: it cannot be found out, and `require_policies` is set.
        """
        required = self.settings.require_policies
        try:
            missing = self.look_at_the_server(grant)
        except (ConfigurationError, LookupError, urllib3.exceptions.HTTPError) as error:
            if required:
                raise
            logger.warning("unknown whether the API server enforces the fence: %s", error)
        else:
            if missing and required:
                raise ConfigurationError(f"the API server does not enforce the fence: {'; '.join(missing)}")
        finally:
            _later(ASK_AGAIN, lambda: self.ask_again(grant))

    def ask_again(self, grant: Grant) -> None:
        """Do so once more while the term lasts. What is missing by now ends none: it is taken out for repairs, too."""
        if grant.closed:
            return
        with entered(grant):
            try:
                self.look_at_the_server(grant)
            except (ConfigurationError, LookupError, urllib3.exceptions.HTTPError) as error:
                logger.warning("unknown whether the API server enforces the fence: %s", error)
            finally:
                _later(ASK_AGAIN, lambda: self.ask_again(grant))

    def look_at_the_server(self, grant: Grant) -> list[str]:
        """Ask everything, take note of kinds that are unfit, and tell."""
        missing = self.selftest.ask(grant.stamp.token, kinds=self.fence.known.stamped_kinds())
        if not grant.closed:
            self.fence.known.unfit = dict(self.selftest.unfit)
            self.journal.not_enforced(missing)
        return missing

    def look_ahead(self) -> None:
        """Ask everything while another replica leads, so that a takeover need not."""
        if self.stopping or self.elector.state == "stopped":
            return
        try:
            if self.grant is None:
                self.selftest.ask(self.elector.observed_token)
        except (ConfigurationError, LookupError, urllib3.exceptions.HTTPError) as error:
            logger.debug("unknown whether the API server enforces the fence: %s", error)
        finally:
            _later(ASK_AGAIN, self.look_ahead)

    def not_enforced(self) -> str:
        """Say why a stale leader might get its writes accepted, or why that is unknown; empty if it cannot be.

        Each rule was asked about before, so that each policy is enough for now.
        """
        try:
            missing = self.selftest.ask(self.elector.observed_token, CONFIRM, whole=not self.selftest.clean)
        except (ConfigurationError, LookupError, urllib3.exceptions.HTTPError) as error:
            return f"unknown whether the API server enforces the fence: {error}"
        return "; ".join(missing)

    def lost(self, grant: Grant, cause: str) -> int | None:
        """Stop a term whose grant is closed already, then follow again or exit."""
        term = self.term
        if term is None or term.grant is not grant:
            return None  # another term's, or none: nothing of it is left to stop
        # A term that lived long ends a row of failures; one that did not is one, whatever ended it.
        lived = boottime() - self.began
        self.failures = self.failures + 1 if lived < self.settings.lease_duration else 0
        self.journal.ended(grant, cause, lost=True)
        self.drain(term, f"term {grant.stamp.token} lost: {cause}")
        self.term = self.grant = None
        self.journal.over(grant, cause)
        floor_lost = grant is self.floor_lost
        # Before Kopf ran, no code of the operator did: there is no state that an exit would clear.
        if self.settings.after_loss == "exit" and term.kopf_ran:
            logger.error("leaving, since after-loss is exit: %s", cause)
            if not floor_lost:
                self.elector.release(self.settings.renew_deadline)
                self.journal.flush()
                return EXIT_LOST
            # The process that follows knows no floor and would meet the same object: raise the Lease first.
            self.leaving = EXIT_LOST
            _later(self.settings.lease_duration, lambda: self.inbox.put(Quit("the Lease is not raised")))
            self.elector.resume()
            return None
        if floor_lost and self.failures <= 1:
            self.elector.resume()
        else:
            self.back_off()
        return None

    def failed(self, term: Term, error: BaseException | None) -> None:
        """Step down after a term that ended by itself; others may do better. `Stopped` follows."""
        if isinstance(error, FloorLost):
            self.floor_lost = term.grant
            self.elector.raise_floor(error.floor)
            return
        cause = f"{type(error).__name__}: {error}" if error else "Kopf stopped"
        if isinstance(error, ConfigurationError | LookupError | TermEnded | urllib3.exceptions.HTTPError):
            logger.error("term %d failed: %s", term.grant.stamp.token, error)
        else:
            logger.error("term %d failed", term.grant.stamp.token, exc_info=error)
        self.elector.step_down(f"the term failed: {cause}", grant=term.grant)

    def back_off(self) -> None:
        """Wait after failed terms, then allow the election to lead again. A request to stop ends the wait."""
        if self.failures:
            wait = min(BACKOFF[0] * 2 ** (self.failures - 1), BACKOFF[1]) * random.uniform(0.8, 1.2)  # noqa: S311
            logger.info("leading again in %.1f s at the earliest, after %d short terms", wait, self.failures)
            _later(wait, self.elector.resume)
        else:
            self.elector.resume()

    def leave(self, cause: str, status: int = 0) -> int:
        """Stop by choice: drain with the gate open and the Lease renewed, then close, then release."""
        self.stopping = cause
        logger.info("stopping: %s", cause)
        term = self.term
        if term is not None:
            self.drain(term, cause, self.settings.drain_timeout * PATIENCE)
            term.grant.close(f"stopped: {cause}")
            self.term = None
            with entered(term.grant):
                self.journal.ended(term.grant, cause, lost=False)
                self.journal.over(term.grant, cause)
        self.elector.release(self.settings.renew_deadline)
        self.journal.flush()
        return self.leaving or status

    def drain(self, term: Term, cause: str, patience: float = 0.0) -> None:
        """Stop Kopf and wait for its handlers; past the drain time end the process."""
        self.draining = boottime()
        term.stop(patience)
        if not term.join(self.settings.drain_timeout):
            term.grant.close(cause)
            _end_hard(
                EXIT_STUCK,
                "handlers of term %d still run %g s after its end (%s); ending the process, the Lease is not released",
                term.grant.stamp.token,
                self.settings.drain_timeout,
                cause,
            )
        self.draining = None

    def on_outcome(self, outcome: Outcome) -> None:
        """Close the gate at once when a write was refused for the term's sake; in the writer's thread."""
        refused, grant = outcome.refused, outcome.grant
        if isinstance(refused, TermEnded) and grant is not None and not grant.closed:
            grant.close(str(refused))
            if isinstance(refused, FloorLost):
                self.floor_lost = grant
                self.elector.raise_floor(refused.floor)
            else:
                self.elector.step_down(str(refused), grant=grant)
        self.journal.wrote(outcome)


def _end_hard(status: int, message: str, *args: object) -> None:
    """End the process whatever its threads do; a handler that hangs may even hold the log's lock."""
    _later(1.0, lambda: os._exit(status))
    logger.critical(message, *args)
    logging.shutdown()
    os._exit(status)


def _later(seconds: float, fn: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, fn)
    timer.daemon = True
    timer.start()
