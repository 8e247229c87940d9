"""The elector: the thread that takes part in the election of one Lease."""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections.abc import Callable

from kubernetes.client import ApiClient

from kopf_ha._context import boottime
from kopf_ha.core.election import Phase, State, events
from kopf_ha.core.election.events import Event
from kopf_ha.core.grant import Grant
from kopf_ha.core.history import Taken
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.legacy_lock import LegacyLock
from kopf_ha.core.orders import ByChoice, Pause, pause_of
from kopf_ha.election.driver import Driver, Record
from kopf_ha.election.leadership import Leadership
from kopf_ha.election.lease_client import LeaseClient, lease_api
from kopf_ha.election.leasewatch import LeaseNews
from kopf_ha.election.legacy_client import LegacyClient, legacy_api
from kopf_ha.election.legacywatch import LegacyNews
from kopf_ha.election.listwatch import ListWatch
from kopf_ha.election.signs import Observer, Signs
from kopf_ha.election.troubles import Troubles
from kopf_ha.settings import Settings

log = logging.getLogger("kopf_ha.election")

_BUG = "the election's thread ended by an error of its own"


class Elector:
    """Takes part in the election of one Lease, from `start` until `release` or `stop`.

    Each `on_started` is followed by exactly one `on_stopped` with the same grant, whatever ends the term. The grant is
    closed before `on_stopped` is called. After that the elector follows, and it acquires the Lease again only after
    `resume`. After `release` or `stop` it does not acquire again.

    In between the grant may be held and opened again, several times (`--recovery`): each `on_held` is followed by
    `on_reopened` or `on_stopped`.

    The callbacks run in the elector's thread and must not block: while they run, nothing is renewed. Code that closes
    a grant elsewhere must call `step_down`, too, since the election renews until it is told.
    All methods may be called from any thread.

    Args:
        settings: the Lease, the identity, the durations.
        make_client: gives a new `ApiClient`; called once for each connection of the elector.
        on_started: a term began; here is its grant.
        on_stopped: the term of this grant ended, for this cause.
        on_ordered: people ordered the end of this grant's term, for this cause. Drain it, then call `step_down` with
            the cause; until then the grant stays open, and the Lease is renewed. Called at most once for a term.
        on_held: this grant is held, for this cause: nothing leaves for now.
        on_reopened: this grant is open again.
        on_new_leader: the Lease names this holder with this token; it may be this process.
        floor: gives the highest token recorded on any object that is known of. Asked while following only;
            must not raise.
        observer: is told how long renewals and takeovers took.
        clock: seconds, on a clock that goes on while the machine sleeps.
        record: is told each step of the machine, before its actions are done; see `Driver`.
    """

    def __init__(
        self,
        settings: Settings,
        make_client: Callable[[], ApiClient],
        *,
        on_started: Callable[[Grant], None],
        on_stopped: Callable[[Grant, str], None],
        on_ordered: Callable[[Grant, ByChoice], None] = lambda grant, cause: None,
        on_held: Callable[[Grant, str], None] = lambda grant, cause: None,
        on_reopened: Callable[[Grant], None] = lambda grant: None,
        on_new_leader: Callable[[str, int], None] = lambda holder, token: None,
        floor: Callable[[], int] = lambda: 0,
        observer: Observer | None = None,
        clock: Callable[[], float] = boottime,
        record: Record = lambda event, now, wall, actions: None,
    ) -> None:
        self._settings = settings
        self._make_client = make_client
        self._clock = clock
        self._leadership = Leadership(settings, on_started, on_stopped, on_ordered, on_held, on_reopened)
        self._troubles = Troubles(settings.lease)
        self._driver = Driver(
            settings,
            self._leadership,
            self._troubles,
            on_new_leader=on_new_leader,
            floor=floor,
            observer=observer or Observer(),
            legacy=lambda: self._legacy_client,
            clock=clock,
            record=record,
        )
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._client: LeaseClient | None = None
        self._watch: ListWatch | None = None
        self._legacy_client: LegacyClient
        self._legacy_watch: ListWatch | None = None
        self._beat = -math.inf
        self._thread = threading.Thread(target=self._run, name="kopf-ha-election", daemon=True)

    # --- the thread

    def _run(self) -> None:
        """Acquire, lead, end the term; then again, until `release` or `stop`."""
        try:
            client = self._connect()
            while self._phase is not Phase.STOPPED:
                self._acquire(client)
                self._lead(client)
                self._end(client)
        except Exception as error:
            log.exception(_BUG)
            self._fail(f"{_BUG}: {error}")
        finally:
            self._disconnect()

    def _acquire(self, client: LeaseClient) -> None:
        """Follow, until the Lease can be had and is acquired. That opens the grant."""
        while self._phase in (Phase.FOLLOWING, Phase.ACQUIRING):
            self._driver.take(self._next(), client)

    def _lead(self, client: LeaseClient) -> None:
        """Renew the Lease, and with it the grant, until the term ends. That closes the grant."""
        while self._phase in (Phase.LEADING, Phase.RENEWING, Phase.RECOVERING, Phase.REGAINING):
            self._driver.take(self._next(), client)

    def _end(self, client: LeaseClient) -> None:
        """Give the Lease back where the rules say so, and wait until the run layer has drained the term."""
        while self._phase in (Phase.LOST, Phase.RELEASING):
            self._driver.take(self._next(), client)

    @property
    def _phase(self) -> Phase:
        return self._driver.state.phase

    def _next(self) -> Event:
        """Wait for the next event, or for the timer, which goes first: a flood of news must not starve it."""
        driver = self._driver
        while True:
            driver.turned = self._clock()
            left = driver.due - driver.turned
            if left <= 0:
                driver.due = math.inf
                return events.Tick(self._beat)
            try:
                # The queue's clock stops while the machine sleeps, ours does not: look at least every period.
                return self._events.get(timeout=min(left, self._settings.retry_period))
            except queue.Empty:
                continue

    def _connect(self) -> LeaseClient:
        client = self._client = LeaseClient(self._settings, lease_api(self._settings, self._make_client()))
        api = lease_api(self._settings, self._make_client())
        news = LeaseNews(self._settings, self._events.put, lambda cause: self._troubles.tell("watch", cause))
        watch = ListWatch(news, lambda: api, self._settings, name="kopf-ha-election-watch", clock=self._clock)
        watch.start()
        self._watch = watch
        if self._settings.legacy is not None:
            self._connect_legacy(self._settings.legacy)
        return client

    def _connect_legacy(self, lock: LegacyLock) -> None:
        self._legacy_client = LegacyClient(lock, legacy_api(self._make_client()))
        api = legacy_api(self._make_client())
        news = LegacyNews(lock, self._events.put, lambda cause: self._troubles.tell("legacy watch", cause))
        watch = ListWatch(news, lambda: api, self._settings, name="kopf-ha-legacy-watch", clock=self._clock)
        watch.start()
        self._legacy_watch = watch

    def _fail(self, cause: str) -> None:
        self._troubles.keep("thread", cause)
        self._driver.state = State(phase=Phase.STOPPED)

    def _disconnect(self) -> None:
        self._leadership.close(_BUG)  # without effect when the term ended as it should
        if self._watch is not None:
            self._watch.stop()
        if self._client is not None:
            self._client.close()
        if self._legacy_watch is not None:
            self._legacy_watch.stop()
            self._legacy_client.close()

    # --- for the run layer

    def start(self) -> None:
        """Begin to follow, and acquire as soon as the Lease can be had."""
        self._thread.start()
        self._driver.turned = self._clock()  # not before: who asked in between would take it for a thread that ended

    def beat(self) -> None:
        """Say that the term's event loop is alive, about once a second.

        Without it for a renew deadline the term ends: a leader that handles nothing must not renew forever.
        """
        self._beat = self._clock()

    def resume(self) -> None:
        """Say that the term that was lost is drained: its Lease may be given back, and acquired again."""
        self._events.put(events.Resume())

    def step_down(self, cause: str, *, grant: Grant | None = None) -> None:
        """End the term now: close its grant before this returns, give the Lease back, wait for `resume`.

        Args:
            cause: a sentence, for `on_stopped` and the log.
            grant: the term that is meant; when it is not the present one, nothing happens.
        """
        present = self.grant
        if present is not None and grant in (None, present):
            present.close(cause)
            self._events.put(events.StepDown(cause))

    def raise_floor(self, floor: int) -> None:
        """Say that an object, or the Term, records token `floor` (I1). Any later term gets a token above it.

        If the present token is not above it, the Lease has lost its count, though this process holds it. Then the grant
        is closed before this returns, and after `resume` a new term begins in the same Lease.
        """
        present = self.grant
        if present is not None and floor >= present.stamp.token:
            present.close(f"floor: an object records token {floor}")
        self._events.put(events.RaiseFloor(floor))

    def holder_gone(self, holder: str) -> None:
        """Say that the process of this holder identity cannot lead any more, so that its Lease is not waited for.

        Only for what is certain, or where the API server refuses the writes of a leader that lives after all. The
        token rises in any case.
        """
        self._events.put(events.HolderGone(holder))

    def head_start(self, seconds: float) -> None:
        """Leave a free Lease to others for so many seconds before it is acquired here; 0 for no longer."""
        self._events.put(events.HeadStart(seconds))

    def release(self, timeout: float) -> None:
        """Close the grant, give the Lease back if it is still mine, so that others lead at once, end the thread.

        The caller has drained the term.

        Args:
            timeout: seconds to wait for the thread's end.
        """
        self._finish(events.Release(), "released", timeout)

    def stop(self) -> None:
        """Close the grant, end the thread, and leave the Lease as it is: others wait until it expires."""
        self._finish(events.Stop(), "stopped", self._settings.renew_deadline)

    def _finish(self, event: Event, cause: str, timeout: float) -> None:
        if not self._thread.is_alive():
            return
        grant = self.grant
        if grant is not None:
            grant.close(cause)  # now: the thread may be in the middle of a request
        self._events.put(event)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
            if self._thread.is_alive():
                log.warning("the election's thread did not end in %.1f s", timeout)

    @property
    def state(self) -> str:
        """The phase: following, acquiring, leading, renewing, recovering, regaining, releasing, lost or stopped."""
        return self._driver.state.phase.value

    @property
    def leading(self) -> bool:
        """Whether a grant is open and not expired."""
        grant = self.grant
        return grant is not None and grant.remaining(self._clock()) > 0

    @property
    def grant(self) -> Grant | None:
        """The grant of the present term; None between terms."""
        return self._leadership.grant

    @property
    def lease_uid(self) -> str:
        """The uid of the Lease that was acquired last; empty before that."""
        return self._driver.state.uid

    @property
    def signs(self) -> Signs:
        """What shows whether the election's threads live, and whether its watch does."""
        watch = self._watch
        trouble = self._troubles.of("watch", "read", "legacy watch", "legacy")
        if self.grant is not None or self._driver.vacant is not None:
            # Otherwise somebody leads, and it does not matter now that an earlier attempt of mine failed.
            trouble = trouble or self._troubles.of("write")
        return Signs(
            alive=self._thread.is_alive(),
            turned=self._driver.turned,
            watching=watch is not None and watch.alive,
            watch_turned=watch.turned if watch else -math.inf,
            heard=watch.heard if watch else -math.inf,
            trouble=trouble,
            beat=self._beat,
        )

    def note(self, enforced: str) -> None:
        """Tell followers with the next renewal what is known about enforcement; empty for nothing. From any thread."""
        if self._client is not None:
            self._client.note = enforced

    def tell_end(self, text: str) -> None:
        """Say in the Lease, when it is given back, how the term ended; empty for nothing. From any thread."""
        if self._client is not None:
            self._client.ended = text

    @property
    def taken(self) -> Taken | None:
        """The Lease as it was when this process acquired it last; None before that."""
        return self._driver.taken

    @property
    def observed(self) -> LeaseRecord | None:
        """The Lease as it was last seen; None when there is none, or none that can be understood."""
        return self._driver.state.seen

    @property
    def pause(self) -> Pause | None:
        """Why nobody may lead, as the Lease was last seen; None if it is not paused."""
        return pause_of(self._driver.state.seen)

    @property
    def observed_holder(self) -> str:
        """The holder that the Lease named when it was last seen; empty for none."""
        seen = self._driver.state.seen
        return seen.holder if seen else ""

    @property
    def observed_token(self) -> int:
        """The `leaseTransitions` that was last seen; 0 when there is no Lease."""
        seen = self._driver.state.seen
        return seen.transitions if seen else 0

    @property
    def last_error(self) -> str:
        """What keeps the election from working now, in a sentence; empty when nothing does."""
        return self._troubles.first
