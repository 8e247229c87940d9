"""Runs `python -m replay`. It exits with 0 if all fits, 1 if something differs, 2 if there is nothing to replay."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from judge.etcd import read_history
from judge.history import History, HistoryError, load
from replay import report
from replay.tracefile import TraceError, read


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    try:
        runs = [run for path in args.traces for run in read(path)]
        history = _history(args)
    except (TraceError, HistoryError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    found = report.check(runs, history, tampered=args.lease_tampered, some=args.some)
    print(report.text(found))
    return 1 if found.differences else 0


def _history(args: argparse.Namespace) -> History | None:
    if args.load:
        return load(args.load)
    return read_history(args.etcd, args.ca, args.cert, args.key) if args.etcd else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m replay", description="Put traces through the core again.")
    parser.add_argument("traces", type=Path, nargs="+", metavar="FILE", help="what `kopf-ha run --trace FILE` wrote")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--etcd", metavar="URL", help="join them with the history in this etcd")
    source.add_argument("--from", dest="load", metavar="FILE", help="join them with what the judge dumped")
    parser.add_argument("--ca", metavar="FILE", help="etcd's CA")
    parser.add_argument("--cert", metavar="FILE", help="client certificate")
    parser.add_argument("--key", metavar="FILE", help="the client certificate's key")
    tampered = "the Lease was edited or deleted on purpose, so a token may belong to two processes"
    parser.add_argument("--lease-tampered", action="store_true", help=tampered)
    parser.add_argument("--some", action="store_true", help="some processes of the operator wrote no trace")
    return parser


if __name__ == "__main__":
    sys.exit(main())
