"""The runner: takes the events of the election and of terms, one at a time, and runs at most one term.

The order of what happens when a term ends is the promise (I3, I8): whoever notices closes the gate first. Then Kopf
is stopped, then its handlers are waited for, and only then may this process lead again. A handler that outlives its
drain time ends the process, since nothing else can stop a thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from kopf_ha._context import boottime, entered
from kopf_ha.adapters import Clusters, Outcome, Wiring, open_ports, refused_before, wired
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.history import FAILED, FLOOR, LOST, STOPPED
from kopf_ha.core.orders import ByChoice, reason_of
from kopf_ha.election import Elector, PodWatcher, RunLock
from kopf_ha.errors import ApiError, ConfigurationError, FloorLost, MalformedLease, TermEnded
from kopf_ha.run.ending import EXIT_LOST, EXIT_STUCK, EXIT_UNFENCED, end_hard
from kopf_ha.run.enforcement import Enforcement
from kopf_ha.run.everywhere import LINGER, Everywhere
from kopf_ha.run.giveback import give_back
from kopf_ha.run.health import Health, Vitals
from kopf_ha.run.history import AT_THE_END
from kopf_ha.run.inbox import Ended, Event, Held, Inbox, Load, Ordered, Quit, Reopened, Started, Stopped
from kopf_ha.run.journal import Journal
from kopf_ha.run.kopf_thread import WAKE
from kopf_ha.run.liveness import Endpoint, Liveness, servers
from kopf_ha.run.logs import speaking_for
from kopf_ha.run.never import is_never
from kopf_ha.run.quiet import hush
from kopf_ha.run.serving import Server, serving
from kopf_ha.run.term import Term
from kopf_ha.run.threads import later
from kopf_ha.run.unknown import Unknown
from kopf_ha.settings import UNNAMED, Settings
from kopf_ha.trace import Trace

logger = logging.getLogger("kopf_ha.run")

#: Seconds to wait after failed terms: the first, and the longest.
BACKOFF = (1.0, 60.0)
#: The part of the drain time after which async handlers are cancelled, so that they can end in the rest of it.
PATIENCE = 0.8


@dataclass(eq=False, kw_only=True)
class Runner:
    """The terms of one operator in one process. `build` makes one with all of its parts.

    Args:
        settings: the replica's.
        inbox: where events come from.
        elector: takes part in the election.
        fence: of this process.
        journal: is told what happens to terms.
        enforcement: asks whether the API server enforces the fence.
        make_term: makes the term of a grant.
        pods: watches the Pods of all replicas.
        run_lock: proves that an earlier process of this pod is dead.
        everywhere: what runs on every replica.
        clusters: tells other clusters' servers from this one's; None if there are none.
        liveness: where Kopf's liveness endpoint is served, if it is.
        load: loads the operator's code, if that is to be done when the first term begins.
        trace: of what the fence takes in and does; None for none.
        later: calls a function after so many seconds, in a thread.
        clock: the machine's boot-time clock, in seconds.
    """

    settings: Settings
    inbox: Inbox
    elector: Elector
    fence: Fence
    journal: Journal
    enforcement: Enforcement
    make_term: Callable[[Grant], Term]
    pods: PodWatcher
    run_lock: RunLock
    everywhere: Everywhere
    clusters: Clusters | None = None
    liveness: Endpoint | None = None
    load: Callable[[], None] | None = None
    trace: Trace | None = None
    later: Callable[[float, Callable[[], None]], None] = later
    clock: Callable[[], float] = boottime

    grant: Grant | None = field(default=None, init=False)  #: of the present term
    term: Term | None = field(default=None, init=False)  #: the present one
    began: float = field(default=0.0, init=False)  #: when the present term did
    failures: int = field(default=0, init=False)  #: how many short terms there were in a series
    floor_lost: Grant | None = field(default=None, init=False)  #: of the term that met a higher token than its own
    leaving: int | None = field(default=None, init=False)  #: the exit status, once it is decided
    asked: bool = field(default=False, init=False)  #: a signal asked the process to stop
    stopping: str = field(default="", init=False)  #: why the process stops
    stepping: float | None = field(default=None, init=False)  #: since when it deals with one event
    draining: float | None = field(default=None, init=False)  #: since when it waits for a term's handlers
    used: bool = field(default=False, init=False)  #: a term that is over left memory behind
    unknown: Unknown = field(init=False)  #: whether the API server knows the writers' credentials

    def __post_init__(self) -> None:
        self.unknown = Unknown(self.clock)

    # --- from any thread

    def quit(self, cause: str) -> None:
        """Ask the process to stop: drain, release the Lease, return. From a signal handler, too."""
        self.stopping = self.stopping or cause
        self.inbox.put(Quit(cause))

    def abandon(self, cause: str, status: int) -> None:
        """End the process without waiting for handlers. The Lease is not released."""
        grant = self.grant
        if grant is not None:
            grant.close(cause)
        end_hard(status, "%s again: ending without waiting for handlers; the Lease is not released", cause)

    def vitals(self) -> Vitals:
        """Return what the probes look at."""
        elector, ready = self.elector, self.everywhere.ready
        return Vitals(
            elector.signs,
            elector.state,
            self.grant,
            self.began,
            self.stepping,
            self.draining,
            self.stopping,
            ready,
            self.journal.never.lines(),
            str(self.elector.pause or ""),
        )

    def on_outcome(self, outcome: Outcome) -> None:
        """Close the gate at once when a write shows that the term is over, or that nothing can be written in it.

        Called in the writer's thread.
        """
        refused, grant = outcome.refused, outcome.grant
        if isinstance(refused, TermEnded) and grant is not None and not grant.closed:
            # Without the write where it can be: each refusal that follows names a write of its own, and quotes this.
            grant.close(refused.cause)
            self.journal.history.ending(grant, FLOOR if isinstance(refused, FloorLost) else LOST, refused.cause)
            if isinstance(refused, FloorLost):
                self.floor_lost = grant
                self.elector.raise_floor(refused.floor)
            else:
                self.elector.step_down(refused.cause, grant=grant)
        elif grant is not None and (cause := self.unknown.wrote(outcome)):
            self.journal.history.ending(grant, FAILED, cause)
            self.elector.step_down(cause, grant=grant)
        self.journal.wrote(outcome)
        if is_never(outcome) and self.settings.on_unfenced == "exit":
            self.inbox.put(Quit(f"on-unfenced is exit: {type(refused).__name__}: {refused}", EXIT_UNFENCED))

    # --- the loop

    def run(self) -> int:
        """Run until asked to stop; return the exit status.

        Raises:
            ConfigurationError: a port is not available.
        """
        self.stepping = self.clock()  # to start is a step, too: liveness sees when it hangs
        hush()
        with (
            wired(Wiring(self.fence, self.on_outcome, clusters=self.clusters, trace=self.trace)),
            speaking_for(self.settings, lambda: self.elector.grant or self.grant),
            serving(lambda: self.journal.metrics.serve(self.settings.metrics_port)),
            contextlib.ExitStack() as served,
        ):
            for serve in self.probed():
                served.enter_context(serving(serve))
            try:
                self.start()
                self.stepping = None
                while True:
                    event = self.next()
                    self.stepping = self.clock()
                    status = self.step(event)
                    self.stepping = None
                    if status is not None:
                        return status
                    del event  # like the next ones, it may refer to the term that is over
                    if self.used and self.inbox.empty():
                        self.used = False
                        give_back()
            except BaseException:
                # Nobody is left to end the term, so it must neither write nor renew.
                if self.grant is not None:
                    self.grant.close("the runner failed")
                self.elector.stop()
                raise
            finally:
                self.enforcement.stop()
                self.pods.stop()
                self.run_lock.stop()
                # Last, since webhooks are still called while another replica takes over.
                self.everywhere.stop(self.settings.drain_timeout, LINGER if self.stopping else 0)

    def probed(self) -> Iterator[Callable[[], Server | None]]:
        """Yield what serves the kubelet's probes."""
        health = Health(self.settings, self.vitals, self.clock)
        asked = Liveness(endpoint=self.liveness, health=health, probe=self.probe) if self.liveness else None
        return servers(health, asked, self.settings.health_port)

    def probe(self) -> Future[Mapping[str, Any]] | None:
        """Run the operator's probes in the present term; None without one. From any thread."""
        term = self.term
        return term.probe() if term is not None else None

    def start(self) -> None:
        """Start what lives as long as the process."""
        if self.settings.fence == "full":
            logger.info("replica %s follows Lease %s", self.settings.identity, self.settings.lease)
            if self.settings.lease_name == UNNAMED:
                logger.warning(
                    "Lease %s is that of every operator that runs outside of a pod without --lease-name, and only one"
                    " of them leads; give each its own",
                    self.settings.lease,
                )
        for outcome in refused_before():
            self.on_outcome(outcome)
        self.everywhere.start()
        self.run_lock.start()
        self.elector.start()
        if self.settings.fast_failover and self.settings.fence == "full":
            self.pods.start()
            self.later(self.settings.retry_period, self.enforcement.look_ahead)

    def next(self) -> Event:
        """Wait for the next event; the election's own end is one."""
        while True:
            try:
                return self.inbox.get(timeout=WAKE)
            except queue.Empty:
                if self.elector.state == "stopped" and self.inbox.empty():
                    self.leaving = EXIT_LOST
                    return Quit(f"the election ended: {self.elector.last_error}")

    def step(self, event: Event) -> int | None:
        """Deal with one event; return the exit status when it was the last one."""
        match event:
            case Started():
                if self.leaving is not None:
                    return self.leave("the Lease is above the lost floor now")
                self.begin(event.grant)
            case Stopped(grant, cause):
                with entered(grant):  # so that the log names the term
                    return self.lost(grant, cause)
            case Ordered(grant, cause):
                with entered(grant):
                    self.retire(grant, cause)
            case Held(grant, cause):
                self.journal.held(grant, cause)
            case Reopened(grant):
                self.journal.reopened(grant)
            case Ended(term, error) if term is self.term and not term.grant.closed:
                with entered(term.grant):
                    self.failed(term, error)
            case Ended():
                pass  # it was asked to end, or its end is known already
            case Load(grant, done):
                self.load_for(grant, done)
            case Quit(cause, status):
                return self.leave(cause, status)
        return None

    # --- one step each

    def begin(self, grant: Grant) -> None:
        """Start a term."""
        self.began = self.clock()
        self.grant = grant
        self.fence.known.new_term()
        self.journal.began(grant, self.elector.lease_uid, self.elector.taken)
        if self.settings.fence != "full":
            logger.warning(
                "UNSAFE: fence=%s: a stale leader can write in this term; for comparison only", self.settings.fence
            )
        self.term = self.make_term(grant)
        self.term.start()

    def load_for(self, grant: Grant, done: Future[None]) -> None:
        """Load the operator's code in the main thread, as at a start, for the first term that gets that far."""
        term = self.term
        if term is None or term.grant is not grant or grant.closed:
            done.cancel()
            return
        load, self.load = self.load, None
        term.kopf_ran = True  # a second attempt would need another process
        try:
            if load is not None:
                load()
        except BaseException as error:  # noqa: BLE001  whatever ended it, the term fails with it
            done.set_exception(error)
        else:
            done.set_result(None)

    def failed(self, term: Term, error: BaseException | None) -> None:
        """Step down after a term that ended by itself; another replica may do better. `Stopped` follows."""
        if isinstance(error, FloorLost):
            self.floor_lost = term.grant
            self.journal.history.ending(term.grant, FLOOR, str(error))
            self.elector.raise_floor(error.floor)
            return
        cause = f"{type(error).__name__}: {error}" if error else "Kopf stopped"
        if isinstance(error, ConfigurationError | MalformedLease | ApiError | TermEnded):
            logger.error("term %d failed: %s", term.grant.stamp.token, error)
        else:
            logger.error("term %d failed", term.grant.stamp.token, exc_info=error)
        self.journal.history.ending(term.grant, FAILED, f"the term failed: {cause}", wait=AT_THE_END)
        self.elector.step_down(f"the term failed: {cause}", grant=term.grant)

    def retire(self, grant: Grant, cause: ByChoice) -> None:
        """End a term by choice, as `leave` does, but stay. `Stopped` follows, with this cause unless it was lost."""
        term = self.term
        if term is None or term.grant is not grant or grant.closed:
            return
        logger.info("ending term %d by choice: %s", grant.stamp.token, cause)
        self.drain(term, cause, self.settings.drain_timeout * PATIENCE)
        if not grant.closed:  # otherwise it was lost meanwhile, or its barrier was not up
            self.journal.history.ending(grant, cause.reason, cause, wait=AT_THE_END)
        self.elector.step_down(cause, grant=grant)

    def lost(self, grant: Grant, cause: str) -> int | None:
        """Stop a term whose grant is closed already, then follow again or exit."""
        term = self.term
        if term is None or term.grant is not grant:
            return None  # this term never began here, or is stopped already
        chosen = isinstance(cause, ByChoice)
        # Any other short term counts as a failure. A long one ends the series.
        lived = self.clock() - self.began
        if lived >= self.settings.lease_duration:
            self.failures = 0
        elif not chosen:
            self.failures += 1
        self.journal.history.ending(grant, reason_of(cause, LOST), cause)
        self.journal.ended(grant, cause, lost=not chosen)
        self.drain(term, f"term {grant.stamp.token} lost: {cause}")
        self.term = self.grant = None
        self.journal.over(grant, cause)
        # Until Kopf runs, no code of the operator runs, so there is no state that a restart would clear.
        if term.kopf_ran and (why := self._why_exit(grant)):
            return self.exit_after_loss(cause, why, floor_lost=grant is self.floor_lost)
        if chosen or (grant is self.floor_lost and self.failures <= 1):
            self.elector.resume()
        else:
            self.back_off()
        self.used = True
        return None

    def _why_exit(self, grant: Grant) -> str:
        """Return why this process cannot lead again after a term; empty if it can."""
        if self.settings.after_loss == "exit":
            return "after-loss is exit"
        if ports := open_ports(grant):
            return (
                f"code of the term still listens at {', '.join(ports)}, which a second term could not open again (close"
                " it in an on.cleanup handler, and --after-loss=follow stays in this process)"
            )
        return ""

    def exit_after_loss(self, cause: str, why: str, *, floor_lost: bool) -> int | None:
        """Exit, so that the pod restarts. If the floor was lost, raise the Lease before that."""
        chosen = isinstance(cause, ByChoice)
        logger.log(logging.INFO if chosen else logging.ERROR, "leaving, since %s: %s", why, cause)
        if not floor_lost:
            self.elector.release(self.settings.renew_deadline)
            self.journal.flush()
            return 0 if chosen else EXIT_LOST
        # The next process would not know the floor, and would meet the same object.
        self.leaving = EXIT_LOST
        self.later(self.settings.lease_duration, lambda: self.inbox.put(Quit("the Lease is not raised")))
        self.elector.resume()
        return None

    def back_off(self) -> None:
        """Wait after failed terms, then allow the election to lead again. A request to stop ends the wait."""
        if self.failures:
            wait = min(BACKOFF[0] * 2 ** (self.failures - 1), BACKOFF[1]) * random.uniform(0.8, 1.2)  # noqa: S311
            logger.info("leading again in %.1f s at the earliest, after %d short terms", wait, self.failures)
            self.later(wait, self.elector.resume)
        else:
            self.elector.resume()

    def leave(self, cause: str, status: int = 0) -> int:
        """Stop by choice: drain with the gate open and the Lease renewed, then close the gate, then release."""
        self.stopping = cause
        logger.info("stopping: %s", cause)
        self.enforcement.stop()
        term = self.term
        if term is not None:
            self.journal.history.ending(term.grant, STOPPED, cause, wait=AT_THE_END)
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
        """Stop Kopf and wait for its handlers; past the drain time end the process.

        A term that is drained recovers no more: a handler that waits at the gate would be waited for in vain.
        """
        self.draining = self.clock()
        term.grant.wait_no_more()
        term.stop(patience)
        if not term.join(self.settings.drain_timeout):
            term.grant.close(cause)
            end_hard(
                EXIT_STUCK,
                "handlers of term %d still run %g s after its end (%s); ending the process, the Lease is not released",
                term.grant.stamp.token,
                self.settings.drain_timeout,
                cause,
            )
        self.draining = None
