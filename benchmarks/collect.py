"""All benchmarks in one run: `python -m benchmarks.collect [--minutes 40] [--output FOLDER] [NAME …]`.

Each one runs in a process and on a cluster of its own, so that what one leaves behind (ten thousand claims, a failure)
does not touch the next; those that need nodes share one cluster, whose start takes a minute. The minutes are divided
among them. A benchmark that fails is noted with its reason, the rest goes on, and the exit status is 1. `--add` keeps
what the folder has of other benchmarks. Whatever is written to benchmarks/results also goes into the tables of
docs/performance.md; `--docs` does only that.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine, report
from benchmarks.report import Outcome
from devcluster import DevclusterError, Process

LOGS = report.ROOT / "build" / "bench" / "logs"


class Benchmark(NamedTuple):
    """What the collector knows of a benchmark.

    Args:
        name: of its module.
        minutes: its part of a run of 40 minutes.
        least: seconds below which it says nothing.
        cluster: what it runs on: a control `plane`, `nodes`, or `none`, if it makes its own.
    """

    name: str
    minutes: float
    least: float
    cluster: str = "plane"


BENCHMARKS = (
    Benchmark("service", 9, 50),
    Benchmark("controller", 4, 25),
    Benchmark("cost", 6, 45),
    Benchmark("barrier", 2, 15),
    Benchmark("waiting", 2, 25),
    Benchmark("requests", 3, 25),
    Benchmark("takeover", 1.5, 25),
    Benchmark("first_handler", 2, 15),
    Benchmark("peers", 5, 45),
    Benchmark("start", 1.5, 60, "none"),
    Benchmark("failover", 3, 90, "nodes"),
    Benchmark("rollout", 3, 150, "nodes"),
)

Runner = Callable[[Sequence[tuple[Benchmark, float]]], list[Outcome]]


def share(wanted: Sequence[Benchmark], seconds: float) -> float:
    """Give the first one's part: what it needs at least, and its part of what is left when all have that."""
    rest = max(0.0, seconds - sum(one.least for one in wanted))
    return wanted[0].least + rest * wanted[0].minutes / sum(one.minutes for one in wanted)


def affordable(wanted: Sequence[Benchmark], seconds: float) -> list[Benchmark]:
    """Give those that fit; those that need most are left out first."""
    kept = list(wanted)
    while kept and sum(one.least for one in kept) > seconds:
        kept.remove(max(kept, key=lambda one: one.least))
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
        arguments = [f"{one.name}={seconds:.0f}" for one, seconds in group]
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
    about = machine.describe()
    print(report.names(about), flush=True)
    began = time.monotonic()
    outcomes = collect(
        wanted, args.minutes * 60, in_a_process, lambda some: report.save(args.output, about, merged(old, some))
    )
    report.save(args.output, about, merged(old, outcomes))
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
