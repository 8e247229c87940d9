"""Whether replicas grow: `python -m faults.soak [--minutes 120] [--seed N]`.

Users make and delete claims all the time, and the leader changes every two minutes, in an order that the seed gives:
its Lease's holder is emptied, it is paused for longer than its lease, or it is cut off for that long. Its process lives
through all of that. Every ten seconds, memory, open files and threads of each replica are read from /proc, and its
requests are counted by verb in the API server's audit log.

What is flat is said by a rule (`flat`). The exit status is 1 if something is not, or if the judge found a broken
promise. The samples are in soak.json, the plot in soak.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from devcluster import Binaries, DevclusterError, Progress
from devcluster.waiting import until
from faults import chart, network, objects
from faults.seat import descriptors, memory, threads
from faults.stand import PATIENCE, Stand
from faults.table import Scene

#: Seconds between two samples, and between two changes of the leader.
EVERY, TERM = 10.0, 120.0
#: The part of its median by which something may grow in an hour.
GROWTH = 0.05
#: A growth below that, over the time that is looked at, is none: it is less than what single samples differ by.
LEAST = {"memory, MB": 1.5, "open files": 1.0, "threads": 1.0, "requests a minute": 6.0}
#: Points that the slope is taken from, at most: it looks at all pairs.
POINTS = 400


@dataclass
class Series:
    """What was seen of one replica: seconds since the beginning, and values by what they are."""

    times: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)  #: numbers of the samples that are the first of a new process

    def add(self, at: float, **values: float) -> None:
        """Add a sample."""
        self.times.append(at)
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def of_process(self, what: str) -> tuple[list[float], list[float]]:
        """Give the samples of the process that ran last."""
        first = self.starts[-1] if self.starts else 0
        return self.times[first:], self.values[what][first:]


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Give the median of the slopes of all pairs of samples (Theil and Sen): single peaks do not move it."""
    step = max(1, len(times) // POINTS)
    points = list(zip(times[::step], values[::step], strict=True))
    rises = [(b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2) if t > s]
    return statistics.median(rises) if rises else 0.0


def flat(what: str, times: Sequence[float], values: Sequence[float]) -> tuple[bool, float]:
    """Judge the second half of the samples; give whether they are flat, and by which part they grow in an hour.

    They are, if the slope's growth in an hour is at most `GROWTH` of their median, or if what it makes of the time
    that is looked at is below `LEAST`. Requests must not become fewer either.
    """
    half = len(times) // 2
    late, seen = times[half:], values[half:]
    if len(late) < 2:
        return True, 0.0
    rise, median = slope(late, seen), statistics.median(seen) or 1.0
    hourly, whole = rise * 3600 / median, rise * (late[-1] - late[0])
    if what == "requests a minute":
        hourly, whole = abs(hourly), abs(whole)
    return hourly <= GROWTH or whole <= LEAST[what], rise * 3600 / median


class Requests:
    """Counts the requests in the audit log, by pod and verb."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new(self) -> dict[str, Counter[str]]:
        """Give the requests since the last time."""
        found: dict[str, Counter[str]] = {}
        with self._path.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                event = json.loads(line)
                names = (event["user"].get("extra") or {}).get("authentication.kubernetes.io/pod-name") or [""]
                found.setdefault(names[0], Counter())[event["verb"]] += 1
        return found


class Soak:
    """One run.

    Args:
        stand: the cluster and its replicas.
        dice: decides how the leader changes.
    """

    def __init__(self, stand: Stand, dice: random.Random) -> None:
        self.stand, self.dice = stand, dice
        self.series = {seat.name: Series() for seat in stand.seats}
        self.verbs = {seat.name: Counter[str]() for seat in stand.seats}
        self.requests = Requests(stand.plane.audit_logs[0])
        self.changes: Counter[str] = Counter()
        self.restarts: dict[str, int] = {}
        self.notes: list[str] = []

    def run(self, seconds: float) -> None:
        """Sample for so long."""
        self.stand.calm()
        self.requests.new()
        began = sampled = time.monotonic()
        changed, said = began, began
        while (now := time.monotonic()) - began < seconds:
            time.sleep(max(0.0, sampled + EVERY - now))
            self.sample(time.monotonic() - began, time.monotonic() - sampled)
            sampled = time.monotonic()
            if sampled - changed >= TERM:
                changed = sampled
                self.change()
            if sampled - said >= 60:
                said = sampled
                self.say((sampled - began) / 60)

    def sample(self, at: float, passed: float) -> None:
        """Take one sample of each replica."""
        asked = self.requests.new()
        for seat in self.stand.seats:
            (pid,) = seat.pids() or (0,)
            if not pid:
                continue
            verbs = asked.get(seat.name, Counter())
            self.verbs[seat.name] += verbs
            try:
                values = {
                    "memory, MB": memory(pid) / 1e6,
                    "open files": float(descriptors(pid)),
                    "threads": float(threads(pid)),
                    "requests a minute": sum(verbs.values()) * 60 / passed,
                }
            except (OSError, ValueError):
                continue  # it ended just now
            one = self.series[seat.name]
            if seat.restarts > self.restarts.get(seat.name, 0):
                self.restarts[seat.name] = seat.restarts
                one.starts.append(len(one.times))
            one.add(at, **values)

    def change(self) -> None:
        """Have another one lead."""
        leader, (_, token) = self.stand.leader(), self.stand.lease()
        scene = Scene(self.stand, leader, token)
        ways: list[tuple[str, Callable[[], None], Callable[[], None]]] = [
            ("holder emptied", lambda: objects.holder_emptied(scene), lambda: None),
            ("paused", leader.replica.pause, leader.replica.resume),
            ("cut off", lambda: network.set_link(hears=False, tells=False)(scene), leader.link.heal),
        ]
        name, put, lift = self.dice.choice(ways)
        put()
        try:
            until("the next term", lambda: self.stand.lease()[1] > token, PATIENCE, 0.2)
        except DevclusterError as error:
            self.notes.append(f"after {name}: {error}")
        finally:
            lift()
        self.changes[name] += 1

    def say(self, minute: float) -> None:
        """Print a line of progress."""
        parts = []
        for name, one in self.series.items():
            if one.times:
                latest = {what: values[-1] for what, values in one.values.items()}
                parts.append(f"{name[-5:]} {latest['memory, MB']:.0f} MB {latest['open files']:.0f} files"
                             f" {latest['threads']:.0f} threads {latest['requests a minute']:.0f}/min")  # fmt: skip
        print(f"minute {minute:.0f}: term {self.stand.lease()[1]}; " + "; ".join(parts), flush=True)

    def verdicts(self) -> Iterator[tuple[str, str, bool, float, float]]:
        """Give for each replica and measure whether it is flat, its median, and its growth in an hour."""
        for name, one in self.series.items():
            for what in one.values:
                times, values = one.of_process(what)
                ok, growth = flat(what, times, values)
                yield name, what, ok, statistics.median(values[len(values) // 2 :]), growth

    def complaints(self) -> Iterator[str]:
        """Give what is wrong."""
        yield from self.notes
        for name, what, ok, median, growth in self.verdicts():
            if not ok:
                yield f"{what} of {name} grows by {growth:+.1%} of {median:.1f} in an hour"
        for seat in self.stand.seats:
            if seat.restarts:
                yield f"{seat.name} ended {seat.restarts} times: {dict(seat.ends)}"


def report(soak: Soak, about: dict[str, Any], output: Path) -> None:
    """Print the table, and write soak.json and soak.svg."""
    rows: list[dict[str, Any]] = [
        {"replica": name, "what": what, "flat": ok, "median": round(median, 2), "growth_per_hour": round(growth, 5)}
        for name, what, ok, median, growth in soak.verdicts()
    ]
    for r in rows:
        print(f"{r['replica'][-5:]}  {r['what']:18} {r['median']:8.1f}  {r['growth_per_hour']:+7.2%} an hour  "
              + ("flat" if r["flat"] else "NOT FLAT"))  # fmt: skip
    waits = sorted(soak.stand.users.waits)
    about |= {
        "changes": dict(soak.changes),
        "claims": len(waits),
        "wait_median": statistics.median(waits),
        "wait_most": waits[-1],
        "verbs": {name: dict(verbs) for name, verbs in soak.verbs.items()},
    }
    samples = {name: {"seconds": s.times, "starts": s.starts, **s.values} for name, s in soak.series.items()}
    (output / "soak.json").write_text(json.dumps(about | {"rows": rows, "samples": samples}) + "\n")
    title = f"{about['minutes']:.0f} minutes, seed {about['seed']}, {sum(soak.changes.values())} changes of the leader"
    lines = {what: {n: (s.times, s.values[what]) for n, s in soak.series.items() if s.times} for what in LEAST}
    (output / "soak.svg").write_text(chart.svg(title, lines))
    print(f"{len(waits)} claims, bound after {statistics.median(waits):.2f} s in the median, {waits[-1]:.1f} s at most")
    print(f"plot and samples are in {output}")


def main() -> int:
    """Run it, and give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=None, help="a random one by default")
    parser.add_argument("--output", type=Path, default=Path("build/soak"))
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else secrets.randbelow(10_000)
    args.output.mkdir(parents=True, exist_ok=True)
    binaries = Binaries.find(progress=Progress(sys.stderr))
    # SIGTERM ends the run early and in order: what was seen until then counts.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="kopf-ha-soak-") as folder:
        with Stand(binaries, Path(folder), 15, plain=True) as stand:
            soak, began = Soak(stand, random.Random(seed)), time.monotonic()  # noqa: S311  it has to repeat
            wrong: list[str] = []
            try:
                soak.run(args.minutes * 60)
            except KeyboardInterrupt:
                wrong = ["it was ended early"]
            except Exception as error:  # noqa: BLE001  what was seen until then counts
                wrong = [f"{type(error).__name__}: {error}"]
            about = {"minutes": (time.monotonic() - began) / 60, "seed": seed, "cores": os.cpu_count(), "lease": 15}
            wrong += soak.complaints()
            report(soak, about, args.output)
            stand.users.stop()
            print("the judge reads the whole history", flush=True)
            wrong += stand.findings()
        for path in Path(folder).glob("*.log"):
            shutil.copy(path, args.output)
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
