"""How soon another replica leads, beside other elections: `python -m benchmarks.peers [--minutes 4]`.

Two replicas each of one small operator under kopf-ha and under Kopf's peering, of kube-scheduler,
kube-controller-manager and client-go's example, and of a script with the Python client's election, on one control
plane. The leader gets SIGTERM or SIGKILL. The time runs from the signal to the answer to the next holder's write to the
Lease, by the API server's audit log, and for the two operators to the next one's first write to an object. Nothing
tells of a death by SIGKILL here: there is no kubelet, so that all of them wait for a time to pass. What gives its place
up at SIGTERM is measured one after the other, the rest at the same time, since it mostly waits.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.contestants import Audit, Contestant, Field
from benchmarks.report import values
from benchmarks.result import Row, rounds
from devcluster import ControlPlane
from devcluster.waiting import until

#: Seconds within which another one leads, whichever program it is.
LONGEST = 120.0
#: Seconds that one death takes of programs with a Lease of 15 s, and of those that wait for a minute.
FAST, SLOW = 24, 75


class Seen(NamedTuple):
    """Seconds after a signal: until somebody else held the Lease, and until it wrote to an object."""

    holder: float | None
    wrote: float | None


class Contest:
    """Ends leaders, and looks when the next one is there."""

    def __init__(self, field: Field) -> None:
        self.field, self.audit, self.lock = field, Audit(field.plane), threading.Lock()
        self.seen: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        self.made = 0

    def events(self) -> list[dict[str, Any]]:
        with self.lock:
            return self.audit.look().copy()

    def strike(self, one: Contestant, number: signal.Signals) -> Seen:
        """End the leader, wait for the next one, and give how long that took."""
        old = one.held(self.events())
        leader = one.the(one.leader)
        since = time.time()
        leader.signal(number)
        found = Seen(None, None)
        written = since

        def look() -> bool:
            nonlocal found, written
            if one.writes and time.time() >= written:
                self.write(one.writes)
                # What is made while the leader ends may be its last work; so more is made, less and less often.
                written = time.time() + max(0.2, (time.time() - since) / 10)
            events = self.events()
            found = Seen(
                one.taken(events, since, old) if one.lease else None, one.wrote(events, since) if one.writes else None
            )
            return None not in (found.holder if one.lease else 0, found.wrote if one.writes else 0)

        until(f"another leader of {one.name}", look, LONGEST, 0.05, [one.the(one.follower)])
        after = Seen(*(x if x is None else x - since for x in found))
        self.seen[one.name, number.name].append(after)
        one.succeed()
        return after

    def write(self, space: str) -> None:
        """Make an object that a leader handles."""
        with self.lock:
            self.made += 1
            metadata = {"name": f"object-{self.made}", "labels": {"peers": "yes"}}
            self.field.create([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}], space)

    def one_by_one(self, those: Sequence[Contestant], seconds: float) -> None:
        """End leaders that give their place up, in turns."""
        for _ in rounds(seconds, least=2, most=10):
            for one in those:
                self.strike(one, signal.SIGTERM)
            for one in those:
                one.follow()
            for one in those:
                one.settle()
            time.sleep(2)  # until what has just started is quiet

    def at_once(self, those: Sequence[Contestant], seconds: float) -> None:
        """End leaders by SIGKILL, and by SIGTERM in turns where that is no request; those that wait for long apart."""
        slow = [one for one in those if one.slow]
        with ThreadPoolExecutor(2) as pool:
            groups = [([one for one in those if not one.slow], FAST), (slow, SLOW)]
            for done in [pool.submit(self._together, some, seconds, one) for some, one in groups if some]:
                done.result()

    def _together(self, those: Sequence[Contestant], seconds: float, each: float) -> None:
        """End all of them at the same moment, and again when all have another leader and another follower."""
        end = time.monotonic() + seconds
        for number in range(20):
            if number >= 2 - (each == SLOW) and time.monotonic() + each > end:
                return
            with ThreadPoolExecutor(len(those)) as pool:
                for done in [pool.submit(self.strike, one, _way(one, number)) for one in those]:
                    done.result()
            for one in those:
                one.follow()
            for one in those:
                one.settle()

    def rows(self, peers: Sequence[str]) -> Iterator[Row]:
        """Give ours beside each of the others."""
        for way in ("SIGTERM", "SIGKILL"):
            for what, index in (("next holder", 0), ("first write", 1)):
                ours = self.times("kopf-ha", way, index)
                for name in peers:
                    theirs = self.times(name, way, index)
                    if ours and theirs:
                        yield Row(f"{way}: {what}", "s", ours, name, theirs)

    def times(self, name: str, way: str, index: int) -> list[float]:
        return [found for one in self.seen[name, way] if (found := one[index]) is not None]


def _way(one: Contestant, number: int) -> signal.Signals:
    return signal.SIGTERM if number % 2 and not one.releases else signal.SIGKILL


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[Row]:
    """Give rows; below 150 s, programs that wait for a minute when a leader is killed are not killed."""
    began = time.monotonic()
    contest = Contest(Field(plane, folder))
    every = contest.field.all()
    try:
        for one in every:
            one.begin(contest.audit)
        for one in every:
            one.settle()
        left = seconds - (time.monotonic() - began)
        contest.one_by_one([one for one in every if one.releases], left * 0.3)
        left = seconds - (time.monotonic() - began)
        contest.at_once([one for one in every if not one.slow or seconds >= 2 * SLOW], left)
    finally:
        for one in every:
            one.end()
    return list(contest.rows([one.name for one in every[1:]]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ControlPlane() as plane:
        rows = run(plane, Path(folder), args.minutes * 60)
    table = Table("what", "kopf-ha", "peer", "of the peer", "kopf-ha ÷ peer")
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.ratio else ""
        table.add_row(row.what, values(row.values, row.unit), row.peer, values(row.peer_values, row.unit), ratio)
    console = Console(width=140)
    console.print(table)
    console.print(json.dumps({row.what: sorted(row.values) for row in rows}))


if __name__ == "__main__":
    main()
