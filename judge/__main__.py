"""Runs `python -m judge`. It exits with 0 if every promise held, 1 if one was broken, 2 if there is no history."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from judge.audit import read_audit
from judge.etcd import read_history
from judge.history import History, HistoryError, dump, load
from judge.report import report
from judge.verdict import Expectations, judge


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        history = _history(args)
        audit = read_audit(args.audit)
        if args.dump:
            dump(history, args.dump)
    except (HistoryError, OSError) as error:
        print(f"judge: {error}", file=sys.stderr)
        return 2
    expectations = Expectations(
        operator_user=args.operator_user,
        lease_names=tuple(args.lease),
        fenced=not args.unfenced,
        lease_tampered=args.lease_tampered,
        min_terms=args.min_terms,
        min_bound_claims=args.min_bound_claims,
        min_refusals=args.min_refusals,
        gate_refusals=args.gate_refusals,
        quiet_after=args.quiet_after,
        older_operator=args.older_operator,
        pods_expected=not args.no_pods,
        audit_whole=args.audit_whole,
    )
    verdict = judge(history, audit, expectations)
    print(report(verdict))
    return 0 if verdict.ok else 1


def _history(args: argparse.Namespace) -> History:
    if args.load:
        return load(args.load)
    return read_history(args.etcd, args.ca, args.cert, args.key)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m judge", description="Check whether the promises held in a run.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--etcd", metavar="URL", help="read the history from this etcd")
    source.add_argument("--from", dest="load", metavar="FILE", help="read a history that was written by --dump")
    parser.add_argument("--ca", metavar="FILE", help="etcd's CA")
    parser.add_argument("--cert", metavar="FILE", help="client certificate")
    parser.add_argument("--key", metavar="FILE", help="the client certificate's key")
    parser.add_argument("--dump", metavar="FILE", help="write the history to a file (without Secrets)")
    audit = "audit logs of all API servers"
    parser.add_argument("--audit", metavar="FILE", nargs="+", action="extend", default=[], help=audit)
    parser.add_argument("--operator-user", metavar="USER", help="system:serviceaccount:NAMESPACE:NAME")
    lease = "a Lease to judge, in addition to those in stamps"
    parser.add_argument("--lease", metavar="NAMESPACE/NAME", action="append", default=[], help=lease)
    parser.add_argument("--unfenced", action="store_true", help="do not expect stamps (for the comparison modes)")
    tampered = "the Lease was edited on purpose; report its findings as notes"
    parser.add_argument("--lease-tampered", action="store_true", help=tampered)
    least = "fail if fewer were seen (default: %(default)s)"
    for name, default in (("terms", 1), ("bound-claims", 1), ("refusals", 0)):
        parser.add_argument(f"--min-{name}", type=int, metavar="N", default=default, help=least)
    gate = "how many writes the operator refused itself, before sending"
    parser.add_argument("--gate-refusals", type=int, metavar="N", default=0, help=gate)
    quiet = "the run was quiet after this revision: fail if something changes, is left behind, or waits in vain"
    parser.add_argument("--quiet-after", type=int, metavar="REVISION", help=quiet)
    older = "judge a version that frees addresses before the claim is gone, and stamps no waiting claims"
    parser.add_argument("--older-operator", action="store_true", help=older)
    parser.add_argument("--no-pods", action="store_true", help="the operator does not run in pods")
    whole = "no API server was killed: fail if a write has no entry in the audit logs"
    parser.add_argument("--audit-whole", action="store_true", help=whole)
    return parser


if __name__ == "__main__":
    sys.exit(main())
