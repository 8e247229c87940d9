"""Puts a fault, takes it away, and says what it cost."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from devcluster import DevclusterError
from devcluster.waiting import until
from faults.link import Request, Trap
from faults.seat import Seat
from faults.stand import PATIENCE, Stand
from faults.table import Fault, Scene, Where

#: What says that a leader knows that it leads no more, or leads again.
_KNOWS = re.compile(r"\] lost: |lost: token|is over|leading: token|released: ")
HELD, LATE, BROKEN, IMPOSSIBLE, FAILED = "held", "late", "BROKEN", "not on this machine", "FAILED"


@dataclass
class Outcome:
    """What came of a fault."""

    fault: Fault
    limit: float  #: seconds
    verdict: str = HELD
    seconds: float | None = None  #: until service was back; None if it never was
    after: float | None = None  #: the same, from when the fault was taken away
    takeovers: int = 0
    refused: Counter[str] = field(default_factory=Counter)  #: stale writes, by the line that refused them
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the promises hold, and service was back in time."""
        return self.verdict in (HELD, IMPOSSIBLE)


class NoSuchWrite(Exception):
    """An allocation has fewer writes than that."""


class Runner:
    """Does faults on one stand.

    Args:
        stand: where.
        say: takes a line of progress.
    """

    def __init__(self, stand: Stand, say: Callable[[str], None]) -> None:
        self.stand, self._say = stand, say

    def once(self, fault: Fault) -> Outcome:
        """Do one fault, with all that comes before and after it."""
        out = Outcome(fault, fault.limit(self.stand.lease_duration))
        if reason := fault.cannot(self.stand):
            out.verdict, out.notes = IMPOSSIBLE, [reason]
            return out
        self.stand.calm()
        leader, (_, token) = self.stand.leader(), self.stand.lease()
        seats, scene = list(self.stand.seats), Scene(self.stand, leader, token)
        marks = {seat: seat.size for seat in seats}
        self.stand.tampered |= fault.tampers
        try:
            self._do(fault, scene, out)
            self._settle(scene, marks)
            if fault.raw and self.stand.lease()[0].split("_")[0] not in ("", leader.name):
                self._steal(scene, out)
        except NoSuchWrite:
            out.verdict, out.notes = IMPOSSIBLE, ["an allocation has fewer writes"]
        except Exception as error:  # noqa: BLE001  the row says so, and the next one has a chance
            out.verdict, out.notes = FAILED, [f"{type(error).__name__}: {error}"]
            self.rescue(fault, scene)
        for seat in {*seats, *self.stand.seats}:
            out.refused += seat.refused(marks.get(seat, 0))
            out.takeovers += len(re.findall(r"leading: token", seat.said(marks.get(seat, 0))))
        self._judge(out)
        return out

    def _do(self, fault: Fault, scene: Scene, out: Outcome) -> None:
        stand, lease = self.stand, scene.lease
        if fault.where is not Where.STEADY:
            scene.trap = self._bite(fault, scene)
        fault.put(scene)
        put = time.monotonic()
        if fault.heals:
            out.seconds = stand.serves() - put
            if fault.taken:
                until("somebody else to lead", lambda: self._taken(scene), PATIENCE, 0.1)
        time.sleep(max(0.0, put + fault.hold * lease - time.monotonic()))
        fault.lift(scene)
        if scene.trap is not None:
            scene.leader.link.release(scene.trap, deliver=fault.deliver)
        lifted = time.monotonic()
        out.after = stand.serves() - lifted
        if not fault.heals:
            out.seconds = out.after

    def _bite(self, fault: Fault, scene: Scene) -> Trap:
        """Have an allocation made, and wait until the write in question is held."""
        stand, name = self.stand, f"bitten-{scene.token}-{time.monotonic_ns() % 10_000}"

        def decides(request: Request) -> bool:
            of_pool = fault.nth > 0 or ("/addresspools/" in request.target and request.method == "PATCH")
            return request.is_write and of_pool and name in request.text

        trap = scene.leader.link.arm(decides, after=fault.where is Where.AFTER, nth=max(1, fault.nth))
        stand.users.claim(name)
        end = time.monotonic() + PATIENCE
        while not trap.hit.wait(0.1):
            served = stand.users.served([name])
            if served is not None and time.monotonic() > served + 3:
                raise NoSuchWrite
            if time.monotonic() > end:
                raise DevclusterError("the write to be bitten did not come")
        if trap.request is not None:
            self._say(f"    bitten: {trap.request.method} {trap.request.target.split('?')[0]}")
        return trap

    def _taken(self, scene: Scene) -> bool:
        holder, token = self.stand.lease()
        return token != scene.token and bool(holder)

    def _settle(self, scene: Scene, marks: dict[Seat, int]) -> None:
        """Give a leader that lost its term the time to find that out, and to send what it wants to."""
        if self.stand.lease()[1] == scene.token:
            return
        seat, end = scene.leader, time.monotonic() + 2 * scene.lease
        while time.monotonic() < end and seat in self.stand.seats and not _KNOWS.search(seat.said(marks[seat])):
            time.sleep(0.1)
        time.sleep(0.1 * scene.lease)

    def _steal(self, scene: Scene, out: Outcome) -> None:
        """Write with the old leader's credentials and none of our code."""
        for status, message in self.stand.steal(scene.leader, scene.token):
            if status in (401, 403, 409, 422):
                out.refused["API server, raw"] += 1
            elif status:
                out.notes.append(f"a stale leader's raw write was answered by {status}: {message[:200]}")
                out.verdict = BROKEN

    def _judge(self, out: Outcome) -> None:
        try:
            findings = self.stand.findings()
        except Exception as error:  # noqa: BLE001  whatever it is, the row says so
            findings = [f"the judge could not read the history: {type(error).__name__}: {error}"]
        if findings:
            out.verdict = BROKEN
            out.notes += findings
        late = [s for s in (out.seconds, out.after) if s is not None and s > out.limit]
        if out.verdict == HELD and late:
            out.verdict = LATE

    def rescue(self, fault: Fault, scene: Scene) -> None:
        """After something went wrong, put all in order that faults change."""
        rescues: tuple[Callable[[], None], ...] = (lambda: fault.lift(scene), self._heal)
        for do in rescues:
            try:
                do()
            except Exception as error:  # noqa: BLE001  the next one may still help
                self._say(f"    rescue: {type(error).__name__}: {error}")

    def _heal(self) -> None:
        stand = self.stand
        for server in (*(stand.plane.etcd(n) for n in range(3 if stand.large else 1)), *stand.plane._apiservers):
            if not server.running:
                server.start()
            server.resume()
            server.wait_ready()
        for seat in stand.seats:
            if seat.link._trap is not None:
                seat.link.release(seat.link._trap, deliver=False)
            seat.link.heal()
            seat.link.turn(stand.plane.servers[0])
            seat.clock.heal()
            seat.revive()
            if seat.replica.running:
                seat.replica.resume()
        stand.users.forget()
