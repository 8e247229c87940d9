"""Runs `python -m model`. It exits with 0 if every promise holds within the bounds, and 1 if one does not.

Each exploration prints its bounds, how many states it found, and its CPU time. What breaks a promise is told as a story
and as a test.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from model.bounds import DEFENCES, Bounds
from model.clocks import Clocks
from model.cluster import Cluster
from model.explorer import explore
from model.plans import FULL, QUICK, Plan
from model.story import story


def run(plan: Plan) -> tuple[bool, str]:
    """Explore one plan; return whether everything holds, and what to print."""
    model = Clocks(plan.bounds) if plan.clocks else Cluster(plan.bounds)
    found = explore(model, limit=plan.limit, only=plan.only)
    what = "the election, clocks at one rate" if plan.clocks else "everything, clocks apart"
    if found.broken is None:
        how = "" if found.whole else f" The bound of {plan.limit:,} states ended it."
        return True, f"holds    {what}: {found}, the farthest {found.depth} moves away.{how}"
    return False, f"BROKEN   {what}: {story(found, clocks=plan.clocks, only=plan.only)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m model", description="Explore the core that ships within bounds.")
    parser.add_argument("--quick", action="store_true", help="the smaller bounds, which the tests explore, too")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes at once (default: %(default)s)")
    for name, default in vars(Bounds()).items():
        if type(default) is int:
            parser.add_argument(f"--{name}", type=int, metavar="N", help="explore this bound instead of the plans")
    parser.add_argument("--line4", action="store_true", help="with the Term and its policy")
    parser.add_argument("--recovery", action="store_true", help="with terms that go on after an outage")
    parser.add_argument("--clocks", action="store_true", help="the election alone, with clocks at one rate")
    parser.add_argument("--off", action="append", default=[], choices=DEFENCES, help="switch a defence off")
    parser.add_argument("--only", action="append", default=[], metavar="PROMISE", help="ask about this promise only")
    parser.add_argument("--limit", type=int, default=Plan.limit, metavar="N", help="the most states")
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in vars(Bounds()) if isinstance(getattr(args, name, None), int)}
    plans: Sequence[Plan] = QUICK if args.quick else FULL
    if given or args.off or args.only or args.clocks or args.line4 or args.recovery:
        bounds = replace(Bounds(term=args.line4, recovers=args.recovery, off=frozenset(args.off)), **given)
        plans = (Plan(bounds, clocks=args.clocks, limit=args.limit, only=tuple(args.only)),)
    began, good = time.monotonic(), True
    with ProcessPoolExecutor(min(args.workers, len(plans))) as pool:
        for holds, text in pool.map(run, plans):
            good = good and holds
            print(text, flush=True)
    print(f"{len(plans)} explorations in {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
