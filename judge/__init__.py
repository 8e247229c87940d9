"""The judge: it checks whether the promises of docs/promises.md held in a run that has ended.

It is independent of what it judges. It imports nothing of kopf_ha or the operator, and does not read their logs. It
reads every revision that etcd stored, and the API server's audit log, which says who sent which request. It knows only
those fields of the operator's objects that any user can see (shapes.py).

    history = judge.read_history("https://127.0.0.1:2379", ca, cert, key)
    verdict = judge.judge(history, judge.read_audit(["audit.log"]), judge.Expectations(min_terms=2))
    assert verdict.ok, verdict

Some checks need a run that had become quiet at the end (`Expectations.quiet_after`): whether anything is left of claims
that are gone, and whether claims wait although an address is free.

The judge needs an etcd that was never compacted, and an API server that stores JSON
(`--storage-media-type=application/json`).
"""

from judge.audit import AuditEntry, read_audit
from judge.etcd import read_history
from judge.finding import Finding, Party
from judge.history import Change, History, HistoryError, Key, dump, load
from judge.leases import Term
from judge.verdict import Expectations, Summary, Verdict, judge

__all__ = [
    "AuditEntry",
    "Change",
    "Expectations",
    "Finding",
    "History",
    "HistoryError",
    "Key",
    "Party",
    "Summary",
    "Term",
    "Verdict",
    "dump",
    "judge",
    "load",
    "read_audit",
    "read_history",
]
