"""Runs `python -m mutants`. It exits with 0 if every mutation is noticed, or known to change nothing; else with 1."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mutants import random_ones
from mutants.judged import JUDGED
from mutants.mutation import Mutation
from mutants.named import NAMED
from mutants.random_ones import Result
from mutants.reached import Reached
from mutants.report import equivalent, share, write
from mutants.tree import ROOT, Copy
from mutants.trial import Clock, Outcome, explore, in_workers, preload, run_tests, split

#: Where results are kept, so that a run can be continued.
BUILD = ROOT / "build" / "mutants"


def try_named(mutation: Mutation, copy: Copy) -> str:
    """Return what notices a named mutation first; empty if nothing does."""
    tests, explorations = split(mutation.tests)
    with copy.changed(mutation.path, mutation.applied((ROOT / mutation.path).read_text())):
        outcome = run_tests(copy.root, tests) if tests else Outcome("", 1, 0.0)
        if not outcome.noticed and not outcome.tests:
            raise SystemExit(f"mutation {mutation.name}: its tests cannot be found: {', '.join(tests)}")
        noticed = outcome.noticed
        for arguments in explorations:
            noticed = noticed or explore(copy.root, arguments).noticed
    return noticed


def run_named(names: Sequence[str], copies: Sequence[Copy], clock: Clock) -> int:
    """Try named mutations; return how many were not noticed."""
    wanted = [one for one in NAMED if not names or one.name in names]
    if unknown := set(names) - {one.name for one in wanted}:
        raise SystemExit(f"no mutation is called {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        missed, seen = Path(folder, "missed"), Path(folder, "seen")

        def work(i: int) -> None:
            for mutation in wanted[i :: len(copies)]:
                if clock.over:
                    return
                noticed = try_named(mutation, copies[i])
                told = (
                    f"noticed  {mutation.name}: {noticed}"
                    if noticed
                    else f"MISSED   {mutation.name}: {mutation.breaks}"
                )
                print(told, flush=True)
                with open(seen if noticed else missed, "a") as out:
                    out.write("x")

        in_workers(len(copies), work)
        many = missed.stat().st_size if missed.exists() else 0
        tried = many + (seen.stat().st_size if seen.exists() else 0)
    print(f"{tried} of {len(wanted)} named mutations tried, {many} missed")
    return many + len(wanted) - tried


def run_random(number: int, seed: int, copies: Sequence[Copy], clock: Clock, *, heavy: bool, keep: bool) -> int:
    """Try random mutations; return how many were missed that nobody has judged."""
    file = BUILD / "random.ndjson"
    reached = Reached.load(copies, BUILD / "reached")
    chosen = random_ones.chosen(seed, number)

    def tell(result: Result) -> None:
        if result.noticed:
            print(f"noticed  {result.path}:{result.line}: {result.noticed} ({result.cpu:.0f} s)", flush=True)
            return
        reason = JUDGED.get(result.key, "nobody has judged this one")
        print(f"missed   {result.path}:{result.line}: {reason}\n  - {result.before}\n  + {result.after}", flush=True)

    def work(i: int) -> None:
        random_ones.run(chosen, copies[i], reached, file, tell, clock=clock, share=(i, len(copies)), heavy=heavy)

    in_workers(len(copies), work)
    results = random_ones.load(file)
    tried = [results[key] for _, key in chosen if key in results]
    missed = [one for one in tried if not one.noticed]
    print(
        f"{len(tried)} of {len(chosen)} random mutations tried, {len(missed)} missed, {sum(map(equivalent, missed))} of"
        f" these change nothing: {share(tried):.1f} % of those that change behaviour are noticed"
    )
    if keep:
        write(tried, seed)
    return sum(one.key not in JUDGED for one in missed) + len(chosen) - len(tried)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        "python -m mutants", description="Break the code on purpose; see which test notices."
    )
    parser.add_argument("names", nargs="*", help="named mutations to try (default: all)")
    parser.add_argument("--list", action="store_true", help="print the named mutations, and try none")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="try N random mutations of the core instead")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the choice (default: %(default)s)")
    parser.add_argument("--cheap", action="store_true", help="random ones: without the properties and the model")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="at once (default: cores)")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="begin nothing after that; random ones go on next time"
    )
    parser.add_argument("--write", action="store_true", help="write the random ones' results into docs/mutants.md")
    args = parser.parse_args(argv)
    if args.list:
        for one in NAMED:
            print(f"{one.name} ({one.promise}, {one.path}): {one.breaks}")
        return 0
    began, clock = time.monotonic(), Clock(args.seconds)
    preload()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workers = max(1, min(args.workers, args.random or len(args.names or NAMED)))
        copies = [Copy(Path(folder, str(i))) for i in range(workers)]
        if args.random:
            left = run_random(args.random, args.seed, copies, clock, heavy=not args.cheap, keep=args.write)
        else:
            left = run_named(args.names, copies, clock)
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
