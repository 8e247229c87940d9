"""Drives the election's state machine: takes one event in, and does what the rules say."""

from __future__ import annotations

import datetime
import logging
import math
import random
from collections import deque
from collections.abc import Callable

from kopf_ha.core.election import Election, IllegalMove, Phase, State, events
from kopf_ha.core.election.events import Action, Event
from kopf_ha.core.history import Taken
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election.leadership import Leadership, called
from kopf_ha.election.lease_client import LeaseClient
from kopf_ha.election.legacy_client import LegacyClient
from kopf_ha.election.signs import Observer
from kopf_ha.election.troubles import Troubles
from kopf_ha.settings import Settings

log = logging.getLogger("kopf_ha.election")

#: What a warning is about, by the event that it came with; otherwise it is about a write.
_SOURCES: dict[type[Event], str] = {
    events.LeaseUnusable: "read",
    events.ReadFailed: "read",
    events.LegacySeen: "legacy",
    events.LegacyWritten: "legacy",
}


#: Writes down one step of the machine.
Record = Callable[[Event, float, str, list[Action] | None], None]


class Driver:
    """The state of one election, in the elector's thread. Any thread may read the attributes.

    Args:
        settings: the Lease, the identity, the durations.
        leadership: opens and closes the grant.
        troubles: is told what keeps the election from working.
        on_new_leader: see `Elector`.
        floor: see `Elector`.
        observer: is told how long renewals and takeovers took.
        legacy: gives the client of the legacy lock; not called if there is none.
        clock: seconds, on a clock that goes on while the machine sleeps.
        record: is told each step: the event, both clocks, and the actions; None for an event that could not come.

    Attributes:
        state: what the rules know.
        due: when a `Tick` is due, on the clock; infinite for never.
        turned: when the thread last began to wait, or a request; -inf before it was started.
        vacant: since when the Lease can be had; None while it cannot.
        taken: the Lease as it was when this process acquired it last; None before that.
    """

    def __init__(
        self,
        settings: Settings,
        leadership: Leadership,
        troubles: Troubles,
        *,
        on_new_leader: Callable[[str, int], None],
        floor: Callable[[], int],
        observer: Observer,
        legacy: Callable[[], LegacyClient],
        clock: Callable[[], float],
        record: Record = lambda event, now, wall, actions: None,
    ) -> None:
        self._identity = settings.identity
        mine = settings
        self._rules = Election(mine.identity, mine.lease, mine.timing, mine.legacy, mine.operator)
        self._leadership = leadership
        self._troubles = troubles
        self._on_new_leader = on_new_leader
        self._floor = floor
        self._observer = observer
        self._legacy = legacy
        self._clock = clock
        self._record = record
        self.state = State()
        self.due = math.inf
        self.turned = -math.inf
        self.vacant: float | None = None
        self.taken: Taken | None = None
        self._first_seen = -math.inf  #: when the Lease was seen first, on the clock

    def take(self, event: Event, client: LeaseClient) -> None:
        """Take in one event. Answers to the requests that it leads to go in before anything else."""
        todo: deque[Event] = deque([event])
        if self.state.phase in (Phase.FOLLOWING, Phase.LOST):
            floor = max(self._floor(), client.floor)
            if floor > self.state.floor:
                todo.appendleft(events.RaiseFloor(floor))
        while todo:
            event, now, wall = todo.popleft(), self._clock(), _wall()
            knew = self.state.known
            try:
                self.state, actions = self._rules.step(self.state, event, now, wall)
            except IllegalMove as error:
                self._record(event, now, wall, None)
                # After the end, a resume() may still come. In any other phase it is a bug, and must not be silent.
                log.log(logging.DEBUG if self.state.phase is Phase.STOPPED else logging.ERROR, "ignored: %s", error)
                continue
            self._record(event, now, wall, actions)
            if self.state.known and not knew:
                self._first_seen = self.state.changed
            self._note_vacancy()
            if isinstance(event, events.LeaseSeen):
                self._troubles.tell("read", "")
            for action in actions:
                if isinstance(action, events.Warn):
                    self._troubles.tell(_SOURCES.get(type(event), "write"), action.cause)
                elif (answer := self._do(action, client)) is not None:
                    todo.append(answer)

    def _do(self, action: Action, client: LeaseClient) -> Event | None:
        """Do one thing; give the answer if it was a request."""
        self.turned = self._clock()
        match action:
            case events.Put():
                return self._put(action, client)
            case events.Read(until):
                return client.read(until - self._clock())
            case events.PutLegacy(body, until):
                return self._legacy().write(body, until - self._clock())
            case events.Tell(text):
                log.info("%s", text)
            case events.Timer(at, spread):
                # The jitter keeps replicas that failed together from trying together, as in client-go.
                self.due = at + spread * random.random()  # noqa: S311
            case events.Open(token, deadline):
                return self._open(token, deadline)
            case events.Extend(deadline):
                self._leadership.extend(deadline)
            case events.Hold(cause):
                self._leadership.hold(cause)
            case events.Reopen(deadline):
                self._leadership.reopen(deadline)
            case events.Close(cause):
                self._leadership.close(cause)
            case events.Retire(cause):
                self._leadership.retire(cause)
            case events.NewLeader(holder, token):
                log.info("new leader: %s (token %d)", holder, token)
                if holder != self._identity:
                    self._troubles.tell("write", "")  # whatever kept me from leading then, somebody leads now
                called(self._on_new_leader, holder, token)
        return None

    def _put(self, action: events.Put, client: LeaseClient) -> Event:
        began = self._clock()
        if self.state.phase is Phase.ACQUIRING:
            self._note_taken(action.record, began)
        answer = client.write(action.record, action.until - began)
        written = isinstance(answer, events.Written)
        if written:
            self._troubles.tell("write", "")
        if self.state.phase in (Phase.RENEWING, Phase.REGAINING) and not isinstance(answer, events.Conflict):
            if written:
                called(self._observer.renewed, self._clock() - began)
            else:
                called(self._observer.not_renewed)
        return answer

    def _note_taken(self, record: LeaseRecord, now: float) -> None:
        """Keep what is about to be replaced, for the history of terms."""
        state, seen = self.state, self.state.seen
        self.taken = Taken(
            record=seen,
            gone=seen is not None and seen.holder in state.gone,
            silent=now - state.changed if state.changed > self._first_seen else None,
            acquired=record.acquire_time or "",
        )

    def _open(self, token: int, deadline: float) -> Event | None:
        vacant, self.vacant = self.vacant, None
        if vacant is not None:
            called(self._observer.took_over, self._clock() - vacant)
        return None if self._leadership.open(token, deadline) else events.StepDown("on_started failed")

    def _note_vacancy(self) -> None:
        """Keep since when the Lease can be had, for as long as nobody else gets it."""
        if self.state.phase in (Phase.FOLLOWING, Phase.ACQUIRING, Phase.LOST):
            since = self._rules.vacant_since(self.state, self._clock())
            self.vacant = since if since is None or self.vacant is None else self.vacant


def _wall() -> str:
    return _micro_time(datetime.datetime.now(datetime.UTC))


def _micro_time(now: datetime.datetime) -> str:
    """Give a MicroTime. The API server answers one without six digits of microseconds with 400."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
