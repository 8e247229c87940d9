"""Processes of other tests, with traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kopf_ha.core.election.events import Conflict, Event, LeaseSeen, LeaseUnusable, Written
from kopf_ha.core.grant import Grant
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.election.driver import Driver
from kopf_ha.election.leadership import Leadership
from kopf_ha.election.signs import Observer
from kopf_ha.election.troubles import Troubles
from kopf_ha.trace import Trace
from replay import Difference, read, redo
from tests.core.fake_api import Attempt, FakeApi, Process
from tests.election.world import FakeLease, settings


class TracedProcess(Process):
    """A process of the fence's tests whose writes are written down."""

    def __init__(self, api: FakeApi, mine: Stamp, file: Path, **fence: Any) -> None:
        super().__init__(api, mine, **fence)
        given = {"deciding": tuple(fence.get("deciding", ())), "pod_uid": mine.pod_uid}
        self.trace = Trace(str(file), settings(mine.holder).changed(**given), "1.0")

    def attempt(self, request: Request) -> Attempt:
        flow = self.trace.flow(self.fence, request, self.grant, lambda: self.clock, "test", saw=self.saw)
        return Attempt(self.api, flow, self.grant.stamp.holder)


class Client:
    """What the driver needs of a Lease's client."""

    floor = 0

    def __init__(self, lease: FakeLease) -> None:
        self.lease = lease
        self.works = True

    def read(self, timeout: float) -> LeaseSeen | LeaseUnusable:
        return self.lease.seen()

    def write(self, record: LeaseRecord, timeout: float) -> Event:
        answer = self.lease.put(record)
        assert isinstance(answer, Written | Conflict)
        return answer


class Elected:
    """An elector without its threads: the driver that ships, on a Lease in memory and a clock turned by hand."""

    def __init__(self, lease: FakeLease, trace: Trace, holder: str = "pod7", pod_uid: str = "uid-pod7") -> None:
        self.now = 1000.0
        mine = settings(holder, recovery=15).changed(pod_uid=pod_uid)
        self.client = Client(lease)
        self.grants: list[Grant] = []
        self.driver = Driver(
            mine,
            Leadership(mine, self.grants.append, lambda grant, cause: None),
            Troubles(mine.lease),
            on_new_leader=lambda holder, token: None,
            floor=lambda: 0,
            observer=Observer(),
            legacy=lambda: None,  # type: ignore[arg-type, return-value]
            clock=lambda: self.now,
            record=trace.step,
        )

    def take(self, event: Event, seconds: float = 0.0) -> None:
        """Let time pass, and hand in an event."""
        self.now += seconds
        self.driver.take(event, self.client)  # type: ignore[arg-type]


def differences(file: Path) -> list[Difference]:
    """Do again what all processes in a file did."""
    return [found for run in read(file) for found in redo(run)]


def alter(file: Path, number: int, change: Callable[[Any], None]) -> None:
    """Change one line, by its number from 1."""
    lines = file.read_text().splitlines()
    data = json.loads(lines[number - 1])
    change(data)
    lines[number - 1] = json.dumps(data)
    file.write_text("\n".join(lines) + "\n")


def numbers(file: Path, what: str) -> list[int]:
    """Give the numbers of the lines of one sort."""
    return [n for n, text in enumerate(file.read_text().splitlines(), 1) if json.loads(text)["is"] == what]
