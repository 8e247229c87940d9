"""The elector: one thread that drives the state machine, sends its requests and keeps its timer."""

from __future__ import annotations

import datetime
import logging
import math
import queue
import random
import threading
from collections import deque
from collections.abc import Callable

from kubernetes.client import ApiClient

from kopf_ha._context import boottime
from kopf_ha.core.election import Election, IllegalMove, Phase, State, events
from kopf_ha.core.election.events import Action, Event
from kopf_ha.core.grant import Grant
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.token import Stamp
from kopf_ha.election import answers
from kopf_ha.election.client import LeaseClient
from kopf_ha.election.signs import Observer, Signs
from kopf_ha.election.watcher import Watcher
from kopf_ha.settings import Settings

log = logging.getLogger("kopf_ha.election")


class Elector:
    """Takes part in the election of one Lease, from `start` until `release` or `stop`.

    Each `on_started` is followed by exactly one `on_stopped` with the same grant, whatever ends the term,
    and the grant is closed before `on_stopped` is called. After that the elector follows, and acquires again only
    when `resume` was called (but after `release` and `stop`, which are the end).

    The callbacks run in the elector's thread and must not block: while they run, nothing is renewed. Who closes
    a grant elsewhere must call `step_down`, too: the election goes on renewing until it is told.
    All methods may be called from any thread.

    Args:
        settings: the Lease, the identity, the durations.
        make_client: gives an `ApiClient` of the elector's own; called twice, once for each of its connections.
        on_started: a term began; here is its grant.
        on_stopped: the term of this grant ended, for this cause. The grant is closed already.
        on_new_leader: the Lease names this holder with this token; it may be this process.
        floor: gives the highest token recorded on any object that is known of. Asked while following only;
            must not raise.
        observer: is told how long renewals and takeovers took.
        clock: seconds, on a clock that goes on while the machine sleeps.
    """

    def __init__(
        self,
        settings: Settings,
        make_client: Callable[[], ApiClient],
        *,
        on_started: Callable[[Grant], None],
        on_stopped: Callable[[Grant, str], None],
        on_new_leader: Callable[[str, int], None] = lambda holder, token: None,
        floor: Callable[[], int] = lambda: 0,
        observer: Observer | None = None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._settings = settings
        self._make_client = make_client
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._on_new_leader = on_new_leader
        self._floor = floor
        self._observer = observer or Observer()
        self._clock = clock
        self._rules = Election(settings.identity, settings.lease, settings.timing)
        self._state = State()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._due = math.inf
        self._beat = -math.inf
        self._grant: Grant | None = None
        self._troubles: dict[str, str] = {}
        self._watcher: Watcher | None = None
        self._turned = -math.inf
        self._vacant: float | None = None  # since when the Lease can be had
        self._thread = threading.Thread(target=self._run, name="kopf-ha-election", daemon=True)

    # --- for the run layer

    def start(self) -> None:
        """Begin to follow, and acquire as soon as the Lease can be had."""
        self._thread.start()
        self._turned = self._clock()  # not before: who asked in between would take it for a thread that ended

    def beat(self) -> None:
        """Say that the term's event loop is alive, about once a second.

        Without it for a renew deadline, the term ends: a leader that handles nothing must not renew for ever.
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
        present = self._grant
        if present is not None and grant in (None, present):
            present.close(cause)
            self._events.put(events.StepDown(cause))

    def raise_floor(self, floor: int) -> None:
        """Say that an object records token `floor` (I1, trap 7).

        Any later term is above it. If the present one is not, its grant is closed before this returns, and
        after `resume` a new term begins, in the same Lease, above it.
        """
        present = self._grant
        if present is not None and floor >= present.stamp.token:
            present.close(f"floor: an object records token {floor}")
        self._events.put(events.RaiseFloor(floor))

    def holder_gone(self, holder: str) -> None:
        """Say that the process of this holder identity cannot lead any more: its Lease is not waited for.

        Only for what is certain, or where a mistake is refused by the API server: tokens rise all the same.
        """
        self._events.put(events.HolderGone(holder))

    def head_start(self, seconds: float) -> None:
        """Leave a Lease that can be had to others for so long, before it is acquired here; 0 for no longer."""
        self._events.put(events.HeadStart(seconds))

    def release(self, timeout: float) -> None:
        """Close the grant, give the Lease back if it is still mine, so that others lead at once, end the thread.

        The caller has drained the term. Waits up to `timeout` seconds for the end.
        """
        self._end(events.Release(), "released", timeout)

    def stop(self) -> None:
        """Close the grant, end the thread, and leave the Lease as it is: others wait until it expires."""
        self._end(events.Stop(), "stopped", self._settings.renew_deadline)

    @property
    def state(self) -> str:
        """The phase: following, acquiring, leading, renewing, releasing, lost or stopped."""
        return self._state.phase.value

    @property
    def leading(self) -> bool:
        """Whether a grant is open and not expired."""
        grant = self._grant
        return grant is not None and grant.remaining(self._clock()) > 0

    @property
    def grant(self) -> Grant | None:
        """The grant of the present term; None between terms."""
        return self._grant

    @property
    def lease_uid(self) -> str:
        """The uid of the Lease that was acquired last; empty before that."""
        return self._state.uid

    @property
    def signs(self) -> Signs:
        """What shows whether the election's threads live, and whether its watch does."""
        watcher, troubles = self._watcher, self._troubles
        trouble = troubles.get("watch") or troubles.get("read") or ""
        if self._grant is not None or self._vacant is not None:
            # Otherwise somebody leads, and it does not matter now that an earlier attempt of mine failed.
            trouble = trouble or troubles.get("write", "")
        return Signs(
            alive=self._thread.is_alive(),
            turned=self._turned,
            watching=watcher is not None and watcher.alive,
            watch_turned=watcher.turned if watcher else -math.inf,
            heard=watcher.heard if watcher else -math.inf,
            trouble=trouble,
            beat=self._beat,
        )

    @property
    def observed(self) -> LeaseRecord | None:
        """The Lease as it was last seen; None when there is none, or none that can be understood."""
        return self._state.seen

    @property
    def observed_holder(self) -> str:
        """The holder that the Lease named when it was last seen; empty for none."""
        seen = self._state.seen
        return seen.holder if seen else ""

    @property
    def observed_token(self) -> int:
        """The `leaseTransitions` that was last seen; 0 when there is no Lease."""
        seen = self._state.seen
        return seen.transitions if seen else 0

    @property
    def last_error(self) -> str:
        """What keeps the election from working now, in a sentence; empty when nothing does."""
        return next((cause for cause in list(self._troubles.values()) if cause), "")

    # --- the thread

    def _run(self) -> None:
        watcher: Watcher | None = None
        client: LeaseClient | None = None
        cause = "the election's thread ended by an error of its own"
        try:
            client = LeaseClient(self._settings, self._make_client())
            watcher = Watcher(
                self._settings,
                LeaseClient(self._settings, self._make_client()),
                self._events.put,
                lambda text: self._trouble("watch", text),
                self._clock,
            )
            watcher.start()
            self._watcher = watcher
            while self._state.phase is not Phase.STOPPED:
                self._take(self._next(), client)
        except Exception as e:
            log.exception(cause)
            self._troubles["thread"] = f"{cause}: {e}"
            self._state = State(phase=Phase.STOPPED)
        finally:
            self._close(cause)
            if watcher:
                watcher.stop()
            if client:
                client.close()

    def _next(self) -> Event:
        """Wait for the next event, or for the timer, which goes first: a flood of news must not starve it."""
        while True:
            self._turned = self._clock()
            left = self._due - self._turned
            if left <= 0:
                self._due = math.inf
                return events.Tick(self._beat)
            try:
                # The queue's clock stops while the machine sleeps, ours does not: look at least every period.
                return self._events.get(timeout=min(left, self._settings.retry_period))
            except queue.Empty:
                continue

    def _take(self, event: Event, client: LeaseClient) -> None:
        """Step the state machine and do what it says; answers to its requests go in before anything else."""
        todo: deque[Event] = deque([event])
        if self._state.phase in (Phase.FOLLOWING, Phase.LOST):
            floor = self._floor()
            if floor > self._state.floor:
                todo.appendleft(events.RaiseFloor(floor))
        while todo:
            event = todo.popleft()
            try:
                self._state, actions = self._rules.step(self._state, event, self._clock(), _wall())
            except IllegalMove as e:
                log.debug("ignored: %s", e)  # such as a resume() that the end overtook
                continue
            self._note_vacancy()
            if isinstance(event, events.LeaseSeen):
                self._trouble("read", "")
            for action in actions:
                if isinstance(action, events.Warn):
                    reading = isinstance(event, (events.LeaseUnusable, events.ReadFailed))
                    self._trouble("read" if reading else "write", action.cause)
                    continue
                answer = self._do(action, client)
                if answer is not None:
                    todo.append(answer)

    def _note_vacancy(self) -> None:
        """Keep since when the Lease can be had, for as long as nobody else gets it."""
        if self._state.phase in (Phase.FOLLOWING, Phase.ACQUIRING, Phase.LOST):
            since = self._rules.vacant_since(self._state, self._clock())
            self._vacant = since if since is None or self._vacant is None else self._vacant

    def _do(self, action: Action, client: LeaseClient) -> Event | None:
        self._turned = self._clock()
        match action:
            case events.Put():
                return self._put(action, client)
            case events.Read():
                return answers.read(client, action.until - self._clock())
            case events.Timer(at, spread):
                # The jitter keeps replicas that failed together from trying together, as in client-go.
                self._due = at + spread * random.random()  # noqa: S311
            case events.Open(token, deadline):
                return self._open(token, deadline)
            case events.Extend(deadline):
                if self._grant is not None:
                    self._grant.extend(deadline)
            case events.Close(cause):
                self._close(cause)
            case events.NewLeader(holder, token):
                log.info("new leader: %s (token %d)", holder, token)
                if holder != self._settings.identity:
                    self._trouble("write", "")  # whatever kept me from leading then, somebody leads now
                self._call(self._on_new_leader, holder, token)
        return None

    def _put(self, action: events.Put, client: LeaseClient) -> Event:
        began = self._clock()
        answer = answers.write(client, action.record, action.until - began)
        written = isinstance(answer, events.Written)
        if written:
            self._trouble("write", "")
        if self._state.phase is Phase.RENEWING and not isinstance(answer, events.Conflict):
            if written:
                self._call(self._observer.renewed, self._clock() - began)
            else:
                self._call(self._observer.not_renewed)
        return answer

    # --- the grant

    def _open(self, token: int, deadline: float) -> Event | None:
        s = self._settings
        grant = Grant(Stamp(token, s.identity, s.lease, s.pod_uid), deadline)
        self._grant = grant
        log.info("leading: token %d, Lease %s, holder %s", token, s.lease, s.identity)
        vacant, self._vacant = self._vacant, None
        if vacant is not None:
            self._call(self._observer.took_over, self._clock() - vacant)
        if not self._call(self._on_started, grant):
            return events.StepDown("on_started failed")
        return None

    def _close(self, cause: str) -> None:
        grant, self._grant = self._grant, None
        if grant is None:
            return
        grant.close(cause)
        if cause in ("released", "stopped"):
            log.info("%s: token %d, Lease %s", cause, grant.stamp.token, self._settings.lease)
        else:
            log.error("lost: token %d, Lease %s: %s", grant.stamp.token, self._settings.lease, cause)
        self._call(self._on_stopped, grant, cause)

    # --- small things

    def _end(self, event: Event, cause: str, timeout: float) -> None:
        if not self._thread.is_alive():
            return
        grant = self._grant
        if grant is not None:
            grant.close(cause)  # now: the thread may be in the middle of a request
        self._events.put(event)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
            if self._thread.is_alive():
                log.warning("the election's thread did not end in %.1f s", timeout)

    def _call(self, callback: Callable[..., None], *args: object) -> bool:
        try:
            callback(*args)
        except Exception:
            log.exception("a callback of the election failed")
            return False
        return True

    def _trouble(self, source: str, cause: str) -> None:
        """Keep the cause and log it once, until it changes."""
        before = self._troubles.get(source, "")
        others = [c for s, c in list(self._troubles.items()) if s != source and c]
        self._troubles[source] = cause
        if cause == before or cause in others:
            return
        if cause:
            log.warning("%s", cause)
        elif not others:
            log.info("Lease %s: works again, after: %s", self._settings.lease, before)


def _wall() -> str:
    return _micro_time(datetime.datetime.now(datetime.UTC))


def _micro_time(now: datetime.datetime) -> str:
    # The client makes a datetime of it and drops microseconds that are 0; a MicroTime without them gets a 400.
    return now.replace(microsecond=max(1, now.microsecond)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
