"""Takeovers under the hands of a stale leader that goes on writing, one for each way to write."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.terms import Pod, Terms
from tests.fourth_line.lateness import Audit, Told, told, writes
from tests.fourth_line.ways import Attempt, Way, Ways


@dataclass(frozen=True)
class Row:
    """What a stale leader was told: before the takeover, after it, and how late the last accepted write was.

    `late` is in ms, from the answer to the write of the Term until that write arrived; None if there was none.
    """

    way: Way
    before: Told
    after: Told
    late: float | None


class Stale:
    """Two pods of the account, of which each is the stale one in turn."""

    def __init__(self, plane: ControlPlane, terms: Terms, ways: Ways) -> None:
        self.terms, self.ways = terms, ways
        self.pods = [terms.pod("one"), terms.pod("two")]
        self.raws = {pod.name: pod.raw() for pod in self.pods}
        self._numbers = itertools.count()
        self._audit = Audit(plane)
        self._take(self.pods[0])

    def _take(self, pod: Pod) -> None:
        self.terms.take(pod, self.raws[pod.name])
        others = [other for other in self.pods if other is not pod]

        def heard() -> bool:
            return self.terms.is_heard(pod, 0) and not any(self.terms.is_heard(other, 0) for other in others)

        until("the API server to hear of it", heard)
        list(self._audit.new())  # what was asked here is nobody's write

    def row(self, way: Way, old: Pod, new: Pod) -> Row:
        """Have the old pod write all the time, while the new one takes over."""
        self._take(old)
        attempt = way.make(self.ways, old)
        attempt(next(self._numbers))
        seen = self._writes(old)
        assert seen, f"{way} sent nothing"
        ended = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self._write, attempt, ended)
            self.terms.take(new, self.raws[new.name])
            taken = 0.0

            def refused() -> bool:
                nonlocal taken
                if writing.done():
                    writing.result()
                for event in self._audit.new():
                    if writes(event, old.uid):
                        seen.append(told(event))
                    elif self.terms.is_take(event, new.uid):
                        taken = told(event).answered
                return taken > 0 and sum(self.terms.is_refusal(t.code, t.message) for t in seen) >= 3

            try:
                until(f"{way.client} {way.write}: to be refused", refused, every=0.01)
            finally:
                ended.set()
        accepted = [t for t in seen if not self.terms.is_refusal(t.code, t.message)]
        late = max(t.arrived for t in accepted) - taken
        return Row(way, seen[0], seen[-1], late * 1000 if late > 0 else None)

    def exempt(self, way: Way, old: Pod, new: Pod) -> Row:
        """Have the old pod write once before the new one takes over, and once after that."""
        answers = []
        for leader in (old, new):
            self._take(leader)
            way.make(self.ways, old)(next(self._numbers))
            answers += self._writes(old)
        return Row(way, answers[0], answers[-1], None)

    def _write(self, attempt: Attempt, ended: threading.Event) -> None:
        while not ended.is_set():
            attempt(next(self._numbers))

    def _writes(self, pod: Pod) -> list[Told]:
        return [told(event) for event in self._audit.new() if writes(event, pod.uid)]
