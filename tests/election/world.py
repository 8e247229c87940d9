"""Electors without threads on one Lease without a server, and one clock that the test turns by hand.

Requests take effect and are answered when the test says so, if at all; news of the watch wait until they are
delivered. A replica that is not scheduled is a paused process.
"""

from __future__ import annotations

import copy
import json
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kopf_ha.core.election import Election, Phase, State
from kopf_ha.core.election import events as el
from kopf_ha.core.election.events import Event
from kopf_ha.core.grant import Grant
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.legacy_lock import ANNOTATION, LegacyLock
from kopf_ha.core.orders import ByChoice
from kopf_ha.core.token import Stamp
from kopf_ha.errors import MalformedLease
from kopf_ha.settings import Settings
from tests.election.phases import NEXT

NS, NAME = "ns", "op"


def settings(identity: str, **values: Any) -> Settings:
    given = {"lease_duration": 15, "renew_deadline": 10, "retry_period": 2, "recovery": 0} | values
    return Settings(lease_name=NAME, lease_namespace=NS, identity=identity, pod_uid="uid", **given)


class FakeLease:
    """One Lease as the API server keeps it: compare-and-swap by resourceVersion and uid."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None
        self.version = 100
        self.uids = 0
        self.watchers: list[deque[Event]] = []

    def put(self, record: LeaseRecord) -> Event:
        body = record.as_object(NS, NAME)
        if not record.resource_version:
            if self.body is not None:
                return el.Conflict()
            self.create(body)
            return self.written()
        if self.body is None or self._key(self.body) != self._key(body):
            return el.Conflict()
        self._store(body)
        return self.written()

    def create(self, body: dict[str, Any]) -> None:
        self.uids += 1
        body.setdefault("metadata", {}).update(namespace=NS, name=NAME, uid=f"u{self.uids}")
        self._store(body)

    def delete(self) -> None:
        self.body = None
        self.version += 1
        self._tell(el.LeaseSeen(None, str(self.version)))

    def edit(self, labels: dict[str, str] | None = None, **spec: Any) -> None:
        assert self.body is not None
        body = copy.deepcopy(self.body)
        if labels:
            body["metadata"].setdefault("labels", {}).update(labels)
        body.setdefault("spec", {}).update(spec)
        self._store({**body, "spec": {k: v for k, v in body["spec"].items() if v is not None}})

    def annotate(self, name: str, value: str | None) -> None:
        """Set an annotation as people do; None removes it."""
        assert self.body is not None
        body = copy.deepcopy(self.body)
        notes = body["metadata"].setdefault("annotations", {})
        notes.pop(name, None)
        if value is not None:
            notes[name] = value
        self._store(body)

    @property
    def annotations(self) -> dict[str, str]:
        assert self.body is not None
        return dict(self.body["metadata"].get("annotations") or {})

    def written(self) -> el.Written:
        assert self.body is not None
        return el.Written(LeaseRecord.parse(self.body))

    def seen(self, *, read: bool = True) -> el.LeaseSeen | el.LeaseUnusable:
        return self._news(self.body, read=read)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.body is not None
        return dict(self.body["spec"])

    def _store(self, body: dict[str, Any]) -> None:
        self.version += 1
        self.body = copy.deepcopy(body)
        self.body["metadata"]["resourceVersion"] = str(self.version)
        self._tell(self._news(self.body, read=False))

    def _news(self, body: dict[str, Any] | None, *, read: bool) -> el.LeaseSeen | el.LeaseUnusable:
        if body is None:
            return el.LeaseSeen(None, "" if read else str(self.version), read=read)
        version = body["metadata"]["resourceVersion"]
        try:
            return el.LeaseSeen(LeaseRecord.parse(body), version, read=read)
        except MalformedLease as e:
            return el.LeaseUnusable(str(e), version, read=read)

    def _tell(self, news: Event) -> None:
        for inbox in self.watchers:
            inbox.append(news)

    @staticmethod
    def _key(body: dict[str, Any]) -> tuple[Any, Any]:
        return body["metadata"].get("resourceVersion"), body["metadata"].get("uid")


class FakeLegacy:
    """The object of a legacy lock as the API server keeps it: compare-and-swap by resourceVersion."""

    def __init__(self, lock: LegacyLock) -> None:
        self.lock = lock
        self.body: dict[str, Any] | None = None
        self.version = 500
        self.watchers: list[deque[Event]] = []

    def put(self, body: Mapping[str, Any]) -> Event:
        """Give what `election.legacy_client` makes of the answer."""
        return el.LegacyWritten(self.lock.read(self.body or {})) if self.swap(body) else self.seen()

    def swap(self, body: Mapping[str, Any]) -> bool:
        version = (body.get("metadata") or {}).get("resourceVersion", "")
        if version != (self.body["metadata"]["resourceVersion"] if self.body else ""):
            return False
        self.store(body)
        return True

    def store(self, body: Mapping[str, Any] | None) -> None:
        """Write it, whatever was there."""
        self.version += 1
        self.body = None
        if body is not None:
            self.body = copy.deepcopy(dict(body))
            self.body.setdefault("metadata", {})["resourceVersion"] = str(self.version)
        for inbox in self.watchers:
            inbox.append(self.seen(read=False))

    def seen(self, *, read: bool = True) -> el.LegacySeen:
        if self.body is None:
            return el.LegacySeen(None, "" if read else str(self.version), read=read)
        record = self.lock.read(self.body)
        return el.LegacySeen(record, record.version, read=read)


@dataclass(eq=False)
class Old:
    """A replica of before, as old client-go and the `kubernetes` package elect: by a record in an annotation.

    It stops on its own clock, one renew deadline after it sent its last renewal.
    """

    world: World
    name: str
    duration: float = 15.0
    deadline: float = 10.0
    period: float = 2.0
    next: float = -math.inf
    seen: str = ""  #: the record that it saw last
    changed: float = -math.inf  #: when that was new to it
    base: dict[str, Any] | None = None  #: what its GET showed; what it writes is conditioned on that
    wants: bool = False
    sent: float = -math.inf
    renewed: float = -math.inf

    def leads(self) -> bool:
        return self.world.now < self.renewed + self.deadline

    def read(self) -> None:
        lock, now = self.world.legacy, self.world.now
        self.sent, self.base = now, copy.deepcopy(lock.body)
        text = ((self.base or {"metadata": {}})["metadata"].get("annotations") or {}).get(ANNOTATION, "")
        holder = json.loads(text or "{}").get("holderIdentity")
        if text != self.seen:
            self.seen, self.changed = text, now
        self.wants = holder in (None, "", self.name) or now >= self.changed + self.duration

    def write(self) -> None:
        if self.wants:
            self._swap(self.name, self.duration)

    def release(self) -> None:
        """Stop leading, and give the lock back as client-go does."""
        self.read()
        if self.leads() and json.loads(self.seen or "{}").get("holderIdentity") == self.name:
            self._swap("", 1)
        self.renewed = -math.inf

    def run(self) -> None:
        if self.world.now >= self.next:
            self.next = self.world.now + self.period
            self.read()
            self.write()

    def _swap(self, holder: str, duration: float) -> None:
        record = {"holderIdentity": holder, "leaseDurationSeconds": str(int(duration)), "renewTime": self.world.now}
        body = self.base or {"metadata": {}}
        text = json.dumps(record)
        body["metadata"].setdefault("annotations", {})[ANNOTATION] = text
        self.wants = False
        if self.world.legacy.swap(body):
            self.seen, self.changed, self.renewed = text, self.world.now, self.sent if holder else -math.inf


@dataclass(eq=False)
class Replica:
    """One elector: its state, its timer, its request under way, its watch."""

    world: World
    settings: Settings
    name: str
    state: State = field(default_factory=State)
    due: float = math.inf
    legacy: bool = False  #: whether it keeps the legacy lock, too
    request: el.Put | el.Read | el.PutLegacy | None = None
    outcome: Event | None = None  #: what the server said to the request, before the answer arrives
    inbox: deque[Event] = field(default_factory=deque)
    grant: Grant | None = None
    grants: list[Grant] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)  #: causes, one for each ended term
    holds: list[str] = field(default_factory=list)  #: causes, one for each time that a grant was held
    leaders: list[tuple[str, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    told_floor: int = 0
    last_beat: float = -math.inf
    tells: list[str] = field(default_factory=list)
    ordered: list[ByChoice] = field(default_factory=list)  #: causes for which a term was to end by choice

    def __post_init__(self) -> None:
        lock, mine = (self.world.legacy.lock if self.legacy else None), self.settings
        self.rules = Election(mine.identity, mine.lease, mine.timing, lock, mine.operator)

    @property
    def phase(self) -> Phase:
        return self.state.phase

    def leads(self) -> bool:
        return self.grant is not None and self.grant.remaining(self.world.now) > 0

    def step(self, event: Event) -> None:
        """Take one event in and do what comes out, all but the request."""
        wall = f"{self.world.now:.6f} {self.name}"
        before = self.state.phase
        self.state, actions = self.rules.step(self.state, event, self.world.now, wall)
        may, then = NEXT[before][type(event)], self.state.phase
        assert then in may, f"{type(event).__name__} may not lead from {before.value} to {then.value}"
        closes = [i for i, a in enumerate(actions) if isinstance(a, el.Close | el.Hold)]
        assert closes in ([], [0]), "a grant is closed before anything else happens"
        for action in actions:
            assert self.request is None, "a request comes last"
            match action:
                case el.Put() | el.Read() | el.PutLegacy():
                    assert action.until > self.world.now
                    self.request, self.outcome = action, None
                case el.Timer(at, spread):
                    self.due = at + spread / 2
                case el.Open(token, deadline):
                    assert self.grant is None
                    stamp = Stamp(token, self.settings.identity, f"{NS}/{NAME}", "uid")
                    self.grant = Grant(stamp, deadline, self.settings.timing.recovery)
                    self.grants.append(self.grant)
                    self.world.opened(self, self.grant)
                case el.Extend(deadline):
                    assert self.grant is not None
                    self.grant.extend(deadline)
                case el.Hold(cause):
                    assert self.grant is not None
                    self.grant.hold(cause)
                    self.holds.append(cause)
                case el.Reopen(deadline):
                    assert self.grant is not None
                    assert self.grant.held
                    self.grant.reopen(deadline)
                    self.world.reopened(self.grant)
                case el.Close(cause):
                    assert self.grant is not None
                    self.grant.close(cause)
                    self.grant = None
                    self.stopped.append(cause)
                case el.Retire(cause):
                    assert self.grant is not None, "nobody is asked to end what has not begun"
                    self.ordered.append(cause)
                case el.NewLeader(holder, token):
                    self.leaders.append((holder, token))
                case el.Warn(cause):
                    self.warnings.append(cause)
                case el.Tell(text):
                    self.tells.append(text)
        held = then in (Phase.RECOVERING, Phase.REGAINING)
        leading = then in (Phase.LEADING, Phase.RENEWING)
        assert (self.grant is not None) == (leading or held), f"{then.value}, and the grant is {self.grant}"
        assert self.grant is None or bool(self.grant.held) == held, f"{then.value}, and the grant is {self.grant}"
        waiting = then in (Phase.ACQUIRING, Phase.RENEWING, Phase.REGAINING, Phase.RELEASING)
        assert self.request is not None or not waiting, f"{then.value} without a request: nothing would end it"

    # --- what the world does to it

    def relist(self) -> None:
        self.inbox.clear()
        seen = self.world.lease.seen(read=False)
        self.step(seen)
        if self.legacy:
            self.inbox.append(self.world.legacy.seen(read=False))

    def tick(self) -> None:
        if self.request is None and self.phase is not Phase.STOPPED and self.world.now >= self.due:
            self.due = math.inf
            self.step(el.Tick(self.last_beat))

    def serve(self) -> None:
        """The server does the request; the answer is still on its way."""
        if self.request is not None and self.outcome is None:
            if isinstance(self.request, el.Put):
                self.outcome = self.world.lease.put(self.request.record)
            elif isinstance(self.request, el.PutLegacy):
                self.outcome = self.world.legacy.put(self.request.body)
            else:
                self.outcome = self.world.lease.seen()

    def chase(self) -> int:
        """Answer, while somebody edits the Lease before each, until nothing is asked; give the PUTs, 5 at most."""
        puts = 0
        while self.request is not None and puts < 5:
            puts += isinstance(self.request, el.Put)
            self.world.lease.edit(labels={"n": str(puts)})
            self.answer()
        return puts

    def answer(self, event: Event | None = None) -> None:
        """The answer arrives: the server's, or `event` in its place."""
        if event is None:
            self.serve()
            event = self.outcome
        assert event is not None
        self.request = self.outcome = None
        self.step(event)

    def lose_answer(self) -> None:
        self.answer(self.refusal("timeout", el.Failed))

    def refusal(self, cause: str, write: type[el.Failed | el.NotWritten]) -> Event:
        """Give what becomes of the request under way if it is not answered, or refused."""
        if isinstance(self.request, el.PutLegacy):
            return el.LegacyFailed(cause)
        return el.ReadFailed(cause) if isinstance(self.request, el.Read) else write(cause)

    def deliver(self) -> None:
        if self.inbox and self.request is None and self.phase is not Phase.STOPPED:
            self.step(self.inbox.popleft())

    def flow(self) -> None:
        """All that waits happens now, in order: answers, timers, news."""
        for _ in range(1000):
            if self.request is not None:
                self.answer()
            elif self.world.now >= self.due and self.phase is not Phase.STOPPED:
                self.tick()
            elif self.inbox and self.phase is not Phase.STOPPED:
                self.deliver()
            else:
                return
        raise AssertionError(f"{self.name} never comes to rest: {self.state}")


class World:
    """The Lease, the replicas and the time."""

    def __init__(self, legacy: str = "configmaps/ns/old") -> None:
        self.now = 1000.0
        self.lease = FakeLease()
        self.legacy = FakeLegacy(LegacyLock.parse(legacy, NS))
        self.olds: list[Old] = []
        self.replicas: list[Replica] = []
        self.born = 0
        self.tokens: list[int] = []  #: of all grants, in the order they were opened
        self.tampered = False  #: whether somebody edits the Lease's holder and number

    def replica(self, identity: str, *, legacy: bool = False, **values: Any) -> Replica:
        self.born += 1
        replica = Replica(self, settings(identity, **values), f"{identity}#{self.born}", legacy=legacy)
        self.replicas.append(replica)
        self.lease.watchers.append(replica.inbox)
        if legacy:
            self.legacy.watchers.append(replica.inbox)
        replica.relist()
        return replica

    def opened(self, replica: Replica, grant: Grant) -> None:
        assert grant.stamp.token > replica.told_floor, "a token at or below a floor that was told"
        assert all(g.stamp.token < grant.stamp.token for g in replica.grants[:-1])
        self.tokens.append(grant.stamp.token)

    def reopened(self, grant: Grant) -> None:
        assert self.tampered or grant.stamp.token == max(self.tokens), "somebody led in between"

    def old(self, name: str, **values: Any) -> Old:
        old = Old(self, name, **values)
        self.olds.append(old)
        return old

    def leaders(self) -> list[Replica | Old]:
        return [r for r in self.everybody if r.leads()]

    @property
    def everybody(self) -> list[Replica | Old]:
        return [*self.replicas, *self.olds]

    def run(self, seconds: float, *replicas: Replica | Old, step: float = 0.1, beats: bool = True) -> None:
        """Let time pass for these replicas (all by default); the others are paused."""
        for _ in range(math.ceil(seconds / step)):
            self.now += step
            for replica in replicas or self.everybody:
                if isinstance(replica, Old):
                    replica.run()
                    continue
                if beats:
                    replica.last_beat = self.now
                replica.flow()
