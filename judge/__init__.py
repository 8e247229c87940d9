"""The judge: says whether the promises of docs/promises.md held in a run that is over.

It is a stranger to what it judges. It imports nothing of the operator or of its layer, asks neither, and believes
no log of theirs: it reads every revision that etcd ever stored, and what the API server's audit log says about who
asked for it. What the operator writes is known to it only as the fields that any user can see (shapes.py).

    history = judge.read_history("https://127.0.0.1:2379", ca, cert, key)
    verdict = judge.judge(history, judge.read_audit(["audit.log"]), judge.Expectations(min_terms=2))
    assert verdict.ok, verdict

Some of it can be said only of a run that had become quiet (`Expectations.quiet_after`): what was left of claims that
are gone, and who waits although an address is free.

It needs an etcd that was never compacted and an API server that stores JSON (`--storage-media-type=application/json`).
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
