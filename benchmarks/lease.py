"""What a shorter Lease gains and costs: `python -m benchmarks.lease [--minutes 3]`.

Two replicas of a small operator for each of three durations, all on one control plane. For each duration: how often the
leader writes the Lease; how long after a SIGKILL another one holds it, with nobody who tells of the death; and for how
long the API server may stand still (SIGSTOP) before a term ends. The peer is the same with the default of 15 s.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contestants import SPACE, Contestant, Field, holder
from benchmarks.peers import Contest
from benchmarks.report import values
from benchmarks.result import Row, rounds
from benchmarks.takeover import at
from devcluster import ControlPlane
from devcluster.waiting import until

#: Seconds of the Leases; the first one is the default.
DURATIONS = (15, 6, 3)
#: Seconds for which the API server stands still, one after the other.
PAUSES = (1, 2, 4, 6, 8, 10, 12)
#: Seconds for which renewals are counted.
WINDOW = 20.0


class Leases:
    """The replicas, and what is done to them."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.contest = plane, Contest(Field(plane, folder))
        self.pairs = {
            seconds: self.contest.field.ours(
                f"lease-{seconds}", f"--lease-duration={seconds}", "--after-loss=follow", writes=""
            )
            for seconds in DURATIONS
        }

    def begin(self) -> None:
        for pair in self.pairs.values():
            pair.begin(self.contest.audit)
        for pair in self.pairs.values():
            pair.settle()

    def end(self) -> None:
        for pair in self.pairs.values():
            pair.end()

    def renewals(self) -> dict[int, float]:
        """Count for a while how often each Lease is written; give that for a minute."""
        began = time.time()
        time.sleep(WINDOW)
        events = [event for event in self.contest.events() if at(event) > began]
        return {
            seconds: sum(60 / WINDOW for event in events if holder(event, pair.lease))
            for seconds, pair in self.pairs.items()
        }

    def killed(self) -> dict[int, float]:
        """End all leaders by SIGKILL; give the seconds until the next one held each Lease."""
        with ThreadPoolExecutor(len(self.pairs)) as pool:
            return dict(zip(self.pairs, pool.map(self._kill, self.pairs.values()), strict=True))

    def _kill(self, pair: Contestant) -> float:
        taken = self.contest.strike(pair, signal.SIGKILL).holder or 0.0
        pair.follow()
        pair.settle()
        return taken

    def outlasted(self) -> dict[int, float]:
        """Have the API server stand still, longer each time; give the longest time that ended no term."""
        found, lost = dict.fromkeys(self.pairs, 0.0), set()
        for pause in PAUSES:
            before = self._tokens()
            server = self.plane.apiserver()
            server.pause()
            time.sleep(pause)
            server.resume()
            since = time.time()
            until("all Leases to be renewed again", lambda since=since: self._renewed(since), timeout=90)  # type: ignore[misc]
            after = self._tokens()
            lost |= {seconds for seconds in self.pairs if after[seconds] != before[seconds]}
            found |= {seconds: float(pause) for seconds in self.pairs if seconds not in lost}
            if len(lost) == len(self.pairs):
                break
        return found

    def _renewed(self, since: float) -> bool:
        """Whether each Lease was written twice, so that a term that was about to end has ended."""
        written = [event for event in self.contest.events() if at(event) > since]
        return all(sum(bool(holder(e, pair.lease)) for e in written) >= 2 for pair in self.pairs.values())

    def _tokens(self) -> dict[int, int]:
        shown: Any = json.loads(self.plane.kubectl("get", "leases", "-n", SPACE, "-o", "json").stdout)
        found = {item["metadata"]["name"]: item["spec"]["leaseTransitions"] for item in shown["items"]}
        return {seconds: found[pair.lease] for seconds, pair in self.pairs.items()}


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[Row]:
    """Give rows; a round takes about a minute and a half."""
    began, leases = time.monotonic(), Leases(plane, folder)
    measured: dict[tuple[str, str], dict[int, list[float]]] = {}
    try:
        leases.begin()
        for _ in rounds(seconds - (time.monotonic() - began), least=1, most=5):
            for what, unit, found in (
                ("the leader's writes of the Lease", "a minute", leases.renewals()),
                ("SIGKILL: next holder", "s", leases.killed()),
                ("longest stop of the API server that ended no term", "s", leases.outlasted()),
            ):
                for duration, value in found.items():
                    measured.setdefault((what, unit), {}).setdefault(duration, []).append(value)
    finally:
        leases.end()
    return [
        Row(what, unit, found[duration], f"{DURATIONS[0]} s", found[DURATIONS[0]], subject=f"{duration} s")
        for (what, unit), found in measured.items()
        for duration in DURATIONS[1:]
    ]


def table_of(rows: Sequence[Row]) -> Table:
    """Give rows as they are printed."""
    table = Table("what", "Lease", "measured", "Lease", "measured")
    for row in rows:
        shown = values(row.values, row.unit), row.peer, values(row.peer_values, row.unit)
        table.add_row(row.what, row.subject, *shown)
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ControlPlane() as plane:
        Console(width=140).print(table_of(run(plane, Path(folder), args.minutes * 60)))


if __name__ == "__main__":
    main()
