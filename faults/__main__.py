"""Runs `python -m faults [name …] [--quick] [--lease 5]`; see docs/faults.md.

The exit status is 1 if a promise was broken, or service was not back within a bound. What was seen is in the folder
that `--output` names: the table, results.json, and the logs of all replicas.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from devcluster import Binaries, DevclusterError, Progress
from faults import clocks, network, objects, replicas, report, servers
from faults.runner import FAILED, Outcome, Runner
from faults.stand import Stand
from faults.table import Fault
from replay import read
from replay import report as replayed

ROWS: tuple[Fault, ...] = (*replicas.ROWS, *network.ROWS, *servers.ROWS, *objects.ROWS, *clocks.ROWS)
PAGE = Path(__file__).parents[1] / "docs" / "faults.md"


def chosen(names: Sequence[str], *, quick: bool) -> list[Fault]:
    """Give the faults whose name, with where they bite, contains one of these; cheap ones first, or them alone."""
    found = [f for f in ROWS if not quick or f.quick]
    found = [f for f in found if not names or any(n in f"{f.name} [{f.where.value}]" for n in names)]
    return sorted(found, key=lambda f: (f.large, not f.quick))


def run(faults: Sequence[Fault], lease: int, output: Path, until: float) -> list[Outcome]:
    """Do them all, on one stand for those that need one API server and on another one for the rest.

    None begins after `until`, by the monotonic clock.
    """
    binaries = Binaries.find(progress=Progress(sys.stderr))
    outcomes: list[Outcome] = []
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    left = list(faults)
    while left and time.monotonic() < until:
        large = left[0].large
        with tempfile.TemporaryDirectory(prefix="kopf-ha-faults-") as folder:
            try:
                with Stand(binaries, Path(folder), lease, large=large) as stand:
                    runner = Runner(stand, lambda text: print(text, flush=True))
                    while left and left[0].large == large and time.monotonic() < until:
                        began = time.monotonic()
                        one = runner.once(left.pop(0))
                        outcomes.append(one)
                        print(
                            report.line(len(outcomes), len(faults), one),
                            f"({time.monotonic() - began:.0f} s)",
                            flush=True,
                        )
                        if one.verdict == FAILED and left:
                            print("    a new cluster, to be sure", flush=True)
                            break
                for found in replay_of(stand):
                    print(f"    {found}", flush=True)
            finally:
                _keep(Path(folder), output, len(outcomes))
    return outcomes


def replay_of(stand: Stand) -> list[str]:
    """Put the traces of all replicas through the core again; give what the core would have done otherwise."""
    paths = [seat.trace for seat in (*stand.seats, *stand.gone) if seat.trace.exists()]
    found = replayed.check([run for path in paths for run in read(path)])
    return [*map(str, found.differences[:5]), replayed.summary(found)]


def _keep(folder: Path, output: Path, number: int) -> None:
    kept = output / f"until-{number}"
    kept.mkdir(exist_ok=True)
    for path in folder.glob("*.log"):
        shutil.copy(path, kept)


def main() -> int:
    """Run it, and give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="faults whose name contains one of these; all by default")
    parser.add_argument("--quick", action="store_true", help="only those that the tests try")
    parser.add_argument("--lease", type=int, default=5, help="the Lease's duration in seconds (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/faults"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none after so long")
    parser.add_argument("--first", type=int, default=1, help="the number of the first row of those chosen")
    parser.add_argument("--list", action="store_true", help="print the names")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/faults.md")
    args = parser.parse_args()
    faults = chosen(args.names, quick=args.quick)[args.first - 1 :]
    if args.list:
        print("\n".join(f"{f.name} [{f.where.value}]" for f in faults))
        return 0
    if not faults:
        parser.error("no fault has such a name; --list prints all")
    began, cpu = time.monotonic(), os.times()
    try:
        outcomes = run(faults, args.lease, args.output, began + args.minutes * 60)
    except DevclusterError as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    now = os.times()
    used = sum(now[:4]) - sum(cpu[:4])
    date = datetime.date.today().isoformat()
    about = {
        "date": date,
        "lease": args.lease,
        "seconds": time.monotonic() - began,
        "cores": os.cpu_count(),
        "cpu": used,
    }
    report.write(args.output, outcomes, args.lease, about)
    bad = [one for one in outcomes if not one.ok]
    sentence = (
        f"{len(outcomes)} faults on {date}, with a Lease of {args.lease} s on {os.cpu_count()} cores, in"
        f" {about['seconds'] / 60:.0f} minutes; {len(bad)} of them broke a promise or came back late."
    )
    print("\n" + report.table(outcomes, args.lease) + "\n\n" + sentence)
    if len(outcomes) < len(faults):
        print(f"not begun: {len(faults) - len(outcomes)}; go on with --first {args.first + len(outcomes)}")
    if args.docs:
        report.update(PAGE, ROWS, outcomes, args.lease, sentence)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
