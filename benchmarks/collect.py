"""All benchmarks in one run: `python -m benchmarks.collect [--minutes 40] [--output FOLDER] [NAME …]`.

Each one runs in a process and on a cluster of its own, so that what one leaves behind (ten thousand claims, a failure)
does not touch the next; those that need nodes share one cluster, whose start takes a minute. The minutes are divided
among them. A benchmark that fails is noted with its reason, the rest goes on, and the exit status is 1. `--add` keeps
what the folder has of other benchmarks. Whatever is written to benchmarks/results also goes into the tables of
docs/performance.md; `--docs` does only that.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine, report
from benchmarks.contestants import PROGRAMS as EXTRA
from benchmarks.report import Outcome
from benchmarks.result import Row
from devcluster import Binaries, DevclusterError, Process
from devcluster.binaries import PROGRAMS

LOGS = report.ROOT / "build" / "bench" / "logs"


class Benchmark(NamedTuple):
    """What the collector knows of a benchmark.

    Args:
        name: of its module.
        minutes: its part of a run of 40 minutes.
        least: seconds below which it says nothing, with the start of its cluster.
        cluster: what it runs on: a control `plane`, `nodes`, or `none`, if it makes its own.
    """

    name: str
    minutes: float
    least: float
    cluster: str = "plane"


#: What matters most comes first, and is kept when there is little time.
BENCHMARKS = (
    Benchmark("service", 9, 55),
    Benchmark("throughput", 6, 55),
    Benchmark("barrier", 3, 40, "none"),
    Benchmark("takeover", 1.5, 25, "none"),
    Benchmark("peers", 5, 55),
    Benchmark("controller", 4, 25),
    Benchmark("waiting", 5, 30, "none"),
    Benchmark("asked", 3, 90, "none"),
    Benchmark("first_handler", 2, 15),
    Benchmark("cpu", 1, 30),
    Benchmark("lease", 2.5, 100),
    Benchmark("policies", 1.5, 20),
    Benchmark("start", 1.5, 60, "none"),
    Benchmark("failover", 3, 90, "nodes"),
    Benchmark("rollout", 3, 150, "nodes"),
    Benchmark("term", 1, 60),
    Benchmark("term_lag", 2, 120),
    Benchmark("outage", 4, 300),
)

#: Seconds that the start of a cluster and the end of all that was started take, by kind.
STARTS = {"plane": 8.0, "nodes": 60.0, "none": 0.0}

Runner = Callable[[Sequence[tuple[Benchmark, float]]], list[Outcome]]


def share(wanted: Sequence[Benchmark], seconds: float) -> float:
    """Give the first one's part: what it needs at least, and its part of what is left when all have that."""
    rest = max(0.0, seconds - sum(one.least for one in wanted))
    return wanted[0].least + rest * wanted[0].minutes / sum(one.minutes for one in wanted)


def affordable(wanted: Sequence[Benchmark], seconds: float) -> list[Benchmark]:
    """Give those that fit; the first ones are kept first."""
    kept: list[Benchmark] = []
    for one in wanted:
        if sum(other.least for other in kept) + one.least <= seconds:
            kept.append(one)
    return kept


def collect(
    wanted: Sequence[Benchmark],
    seconds: float,
    runner: Runner,
    done: Callable[[list[Outcome]], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[Outcome]:
    """Run them one after the other, and give how each ended.

    Args:
        wanted: in the order in which they run.
        seconds: that all of them may take.
        runner: runs some on one cluster, each with its seconds.
        done: is told all outcomes so far after each.
        clock: in seconds.
    """
    end = clock() + seconds
    left = affordable(wanted, seconds)
    outcomes = [
        Outcome(one.name, "left out", f"it needs {one.least:g} s of a longer run") for one in wanted if one not in left
    ]
    while left:
        group = [one for one in left if one.cluster == left[0].cluster] if left[0].cluster == "nodes" else left[:1]
        timed = []
        remaining = end - clock()
        for one in group:
            timed.append((one, share(left, remaining)))
            remaining -= timed[-1][1]
            left.remove(one)
        outcomes += runner(timed)
        done(outcomes)
    return outcomes


def in_a_process(group: Sequence[tuple[Benchmark, float]]) -> list[Outcome]:
    """Run some in one process; what it does not answer in time for has failed, and its clusters end with it."""
    LOGS.mkdir(parents=True, exist_ok=True)
    title = ", ".join(f"{one.name} ({seconds:.0f} s)" for one, seconds in group)
    print(f"{datetime.datetime.now():%H:%M:%S} {title}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        answers = Path(folder) / "answers"
        log = LOGS / f"{group[0][0].name}.log"
        log.unlink(missing_ok=True)
        start = STARTS[group[0][0].cluster] / len(group)
        arguments = [f"{one.name}={seconds - start:.0f}" for one, seconds in group]
        argv = [sys.executable, "-m", "benchmarks.one", group[0][0].cluster, str(answers), *arguments]
        limit = sum(seconds for _, seconds in group) * 1.5 + 90
        began = time.monotonic()
        with Process(title, argv, log_path=log, cwd=report.ROOT) as child:
            try:
                child.wait(limit)
                reason = f"its process ended with status {child.returncode}: {child.log_tail(1)}"
            except DevclusterError:
                reason = f"it was not done after {time.monotonic() - began:.0f} s"
                child.stop(60)
        lines = answers.read_text().splitlines() if answers.exists() else []
    found = {one.name: one for one in (report.outcome(json.loads(line)) for line in lines)}
    outcomes = [found.get(one.name) or Outcome(one.name, "failed", reason) for one, _ in group]
    for one in outcomes:
        print(f"         {one.name}: {one.state} {one.reason or f'in {one.seconds:.0f} s'}", flush=True)
        for row in one.rows:
            beside = f"; {row.peer}: {report.values(row.peer_values, row.unit)}" if row.peer else ""
            print(f"           {row.what}: {report.values(row.values, row.unit)}{beside}", flush=True)
    return outcomes


def merged(old: Sequence[Outcome], new: Sequence[Outcome]) -> list[Outcome]:
    """Give both in the order of `BENCHMARKS`; what is new replaces what is old, but for what was left out."""
    found = {one.name: one for one in old} | {one.name: one for one in new if one.state != "left out"}
    found = {one.name: one for one in new} | found
    order = [one.name for one in BENCHMARKS]
    return sorted(found.values(), key=lambda one: order.index(one.name) if one.name in order else len(order))


def beside_go(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Put first service beside that of a Go controller with as many objects, where both were measured."""
    theirs = {_objects(row): row for one in outcomes if one.name == "controller" for row in one.rows}
    found = []
    for one in outcomes:
        rows = [row for row in one.rows if not _is_go(row)]
        firsts = [row for row in rows if one.name == "service" and row.what.startswith("first creation")]
        for row in firsts:
            if go := theirs.get(_objects(row)):
                peer = f"{go.subject}, {_objects(row)} ReplicaSets"
                rows.append(dataclasses.replace(row, peer=peer, peer_values=go.values, goals=()))
        found.append(dataclasses.replace(one, rows=rows))
    return found


def _objects(row: Row) -> str:
    """Give how many objects there were, by the end of what was measured."""
    match = re.search(r", (\d+) (?:objects|claims)$", row.what)
    return match[1] if match else ""


def _is_go(row: Row) -> bool:
    return row.peer.endswith(" ReplicaSets")


def write_docs(folder: Path = report.RESULTS, path: Path = report.PAGE) -> None:
    """Fill the blocks of docs/performance.md."""
    path.write_text(report.fill(path.read_text(), *report.read(folder)))


def main() -> int:
    """Run, write, and give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the benchmarks; all by default")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--output", type=Path, default=report.ROOT / "build" / "bench")
    parser.add_argument("--add", action="store_true", help="keep what the folder has of other benchmarks")
    parser.add_argument("--docs", action="store_true", help="only fill the tables in docs/performance.md")
    args = parser.parse_args()
    if args.docs:
        write_docs()
        return 0
    known = {one.name: one for one in BENCHMARKS}
    if unknown := set(args.names) - set(known):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = [one for one in BENCHMARKS if one.name in args.names or not args.names]
    old = report.read(args.output)[1] if args.add else []
    # Before the clock runs: the first time it takes minutes.
    if any(one.cluster != "none" for one in wanted):
        Binaries.find([*PROGRAMS, *(EXTRA if "peers" in args.names or not args.names else ())])
    about = machine.describe()
    print(report.names(about), flush=True)
    began = time.monotonic()
    outcomes = collect(
        wanted, args.minutes * 60, in_a_process, lambda some: report.save(args.output, about, merged(old, some))
    )
    report.save(args.output, about, beside_go(merged(old, outcomes)))
    if args.output.resolve() == report.RESULTS:
        write_docs()
    missed = [sentence for one in outcomes for sentence in one.missed()]
    failed = [one for one in outcomes if one.state == "failed"]
    print(f"\n{time.monotonic() - began:.0f} s; the results are in {args.output}, the logs in {LOGS}")
    for sentence in missed:
        print(f"missed: {sentence}")
    for one in failed:
        print(f"FAILED: {one.name}: {one.reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
