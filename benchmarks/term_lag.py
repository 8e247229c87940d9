"""How late an API server knows who leads: `python -m benchmarks.term_lag [seconds]`.

Two pods of one account write as fast as they can, past any fence in the process, while the Term passes from one to the
other. The policy's parameter comes from an informer, so it is late, in each API server by itself. Two times count, both
from the answer to the write of the Term: until the last write that the old pod sent and that was still accepted, and
until the first answer that accepted a write of the new pod. 0 is not late at all.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.takeover import World
from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.load import Load
from testbed.stage import Stage
from testbed.terms import Pod, Terms, Writer

#: The control plane that `run` wants.
PLANE = {"apiservers": 2, "lagging": True}
#: Seconds by which the second API server learns late of what it did not write.
LATE = 1.0
#: Seconds for which a frozen API server is watched.
FROZEN = 3.0
#: How etcd's keys of Terms begin.
KEYS = "/registry/kopf-ha.dev/terms/"


@dataclass(frozen=True)
class Lag:
    """What one passing of the Term cost, in ms: the old pod's last write, and the new pod's first. inf is never."""

    old: float
    new: float


@dataclass(frozen=True)
class Case:
    """Where the Term is written, where the pods write, and what else is so."""

    name: str
    written: int
    asked: int
    around: Callable[[ControlPlane], Any] = lambda plane: nullcontext()


@contextmanager
def late(plane: ControlPlane) -> Iterator[None]:
    """Have the second API server learn late."""
    plane.watch_lag.delay(LATE)
    try:
        yield
    finally:
        plane.watch_lag.delay(0.0)


class Bench:
    """The Term's policy, and two pods."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.terms = plane, Terms(plane, "term-lag")
        self.terms.install()
        self.pods = [self.terms.pod(name) for name in ("one", "two")]
        self.raws = [[pod.raw(server) for server in (0, 1)] for pod in self.pods]
        for pod in self.pods:
            plane.kubectl("create", "configmap", f"of-{pod.name}", "-n", self.terms.namespace)
        self.terms.take(self.pods[0], self.raws[0][0])
        self._leads = 0
        for server in (0, 1):
            until("the policy to be in force", partial(self.is_heard, server))

    def is_heard(self, server: int) -> bool:
        """Whether an API server knows who leads."""
        leader, other = self.pods[self._leads], self.pods[1 - self._leads]
        return self.terms.is_heard(leader, server) and not self.terms.is_heard(other, server)

    def _pass_on(self, server: int) -> tuple[Pod, Pod, Callable[[], float]]:
        old, new = self.pods[self._leads], self.pods[1 - self._leads]
        self._leads = 1 - self._leads
        raw = self.raws[self._leads][server]
        return old, new, lambda: self.terms.take(new, raw)

    def once(self, case: Case) -> Lag:
        """Pass the Term on; give how late that was heard."""
        old, new, take = self._pass_on(case.written)
        with Writer(self.terms, old, case.asked) as last, Writer(self.terms, new, case.asked) as first:
            until("both to write", lambda: len(last.told) > 5 and len(first.told) > 5, every=0.01)
            taken = take()

            def heard() -> bool:
                return first.told[-1][2] and not last.told[-1][2]

            until("the new one to be accepted", heard, every=0.005)
            time.sleep(0.1)  # whatever comes after that would count
        late = max(sent for sent, _, accepted in last.told if accepted) - taken
        soon = min(answered for _, answered, accepted in first.told if accepted) - taken
        return Lag(max(0.0, late * 1000), max(0.0, soon * 1000))

    def frozen(self) -> Lag:
        """Pass the Term on while the second API server hears of none; look at it for a while."""
        self.plane.watch_lag.freeze(KEYS)
        try:
            old, new, take = self._pass_on(0)
            with Writer(self.terms, old, 1) as last, Writer(self.terms, new, 1) as first:
                until("both to write", lambda: last.told and first.told, every=0.01)
                take()
                time.sleep(FROZEN)
            never = last.told[-1][2] and not first.told[-1][2]
        finally:
            self.plane.watch_lag.delay(0.0, KEYS)
        until("the second API server to hear again", lambda: self.is_heard(1))
        return Lag(math.inf, math.inf) if never else Lag(0.0, 0.0)


CASES = [
    Case("the API server that took it", 0, 0),
    Case("the other one", 0, 1),
    Case(f"the other one, {LATE:g} s late", 0, 1, late),
]


def measure(plane: ControlPlane, folder: Path, seconds: float, load: bool = True) -> dict[str, list[Lag]]:
    """Measure each case, idle and under load, in turns, for about so many seconds."""
    bench, found = Bench(plane), dict[str, list[Lag]]()
    for busy in (False, True)[: 1 + load]:
        with ExitStack() as stack:
            if busy:
                stack.enter_context(loaded(plane, folder))
            end = time.monotonic() + seconds / (3 if load else 2)
            while time.monotonic() < end:
                for case in CASES:
                    with case.around(plane):
                        found.setdefault(f"{case.name}, {'under load' if busy else 'idle'}", []).append(
                            bench.once(case)
                        )
                    until("all to know it", lambda: bench.is_heard(0) and bench.is_heard(1))
    found["the other one, its watch frozen"] = [bench.frozen()]
    return found


@contextmanager
def loaded(plane: ControlPlane, folder: Path) -> Iterator[None]:
    """Have users make and delete claims without a pause, which the reference operator serves."""
    world = World(plane, folder)
    leader = world.start()
    until("it to lead", lambda: leader.said("barrier: "), watched=[leader])
    stage = Stage({"kubectl": str(plane.kubectl_path), "kubeconfig": str(plane.kubeconfig)})
    try:
        with Load(stage, "load", pause=0.0):
            yield
    finally:
        leader.stop()


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Give the rows for `benchmarks.collect`."""
    rows = []
    for name, lags in measure(plane, folder, seconds, load=seconds >= 90).items():
        for what, values in (
            ("old pod's last write", [x.old for x in lags]),
            ("new pod's first", [x.new for x in lags]),
        ):
            if math.inf not in values:
                rows.append({"what": f"Term: {what}, {name}", "unit": "ms", "values": values})
    return rows


def main() -> None:
    """Print the table."""
    seconds = float(next(iter(sys.argv[1:]), "180"))
    table = Table(
        "writes go to", "rounds", "old pod's last write, ms: median", "most", "new pod's first, ms: median", "most"
    )
    with ControlPlane(**PLANE) as plane, tempfile.TemporaryDirectory() as folder:  # type: ignore[arg-type]
        for name, lags in measure(plane, Path(folder), seconds).items():
            cells = [
                f"{f([getattr(x, which) for x in lags]):.1f}"
                for which in ("old", "new")
                for f in (statistics.median, max)
            ]
            table.add_row(name, str(len(lags)), *cells)
    console = Console()
    console.print(table)
    console.print(f"on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}; {json.dumps(PLANE)}")


if __name__ == "__main__":
    main()
