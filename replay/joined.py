"""Joins traces with the history of etcd: whoever is stamped as a writer sent the write, in a term of its own.

The judge looks at the history alone, and at who the API server says sent a write. Here the processes' own words are
held against it (docs/promises.md):

- A token belongs to one process, unless somebody edited or deleted the Lease (I2).
- Each write that left was sent with a deadline that the process's own election gave to that token (I3, I8).
- An answer of the API server names a revision that the history has, and the object has the writer's stamp there (I2).
- Each new stamp in the history was sent by the process that it names (I8).
- Of one object, no write with a lower token was accepted after one with a higher token, whatever the stamp shows (I3).
  Terms may overlap otherwise: a leader that is late may write what its successor has not stamped yet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from judge.history import Change, History
from judge.shapes import EXEMPT, stamp_of
from judge.shapes import Stamp as Recorded
from kopf_ha.core.target import Target, parse_path
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import WRITES
from kopf_ha.trace.noted import stamp_from
from replay.again import Difference
from replay.tracefile import Line, Run


@dataclass(frozen=True)
class Sent:
    """One write that left a process.

    Args:
        run: the process.
        line: that says so.
        stamp: of the term that it belongs to.
        target: what it writes to.
        deadline: of the grant that it was sent with; None if no grant was asked, as of exempt kinds.
        status: of the answer; None if none came.
        revision: in the answer; 0 for none.
    """

    run: Run
    line: Line
    stamp: Stamp
    target: Target
    deadline: float | None
    status: int | None = None
    revision: int = 0

    @property
    def ok(self) -> bool:
        """Whether it was accepted."""
        return self.status is not None and self.status < 300

    def __str__(self) -> str:
        return f"a write of {self.target} with token {self.stamp.token} of {self.stamp.holder}"


def join(runs: list[Run], history: History, *, tampered: bool = False, some: bool = False) -> Iterator[Difference]:
    """Hold traces of one operator's replicas against the history; yield what does not fit.

    Args:
        runs: of all processes.
        history: until after the last of them ended.
        tampered: the Lease was edited or deleted on purpose, so that a token may have been given twice.
        some: there are processes without a trace.
    """
    if not tampered:
        yield from _tokens(runs)
    writes = [sent for run in runs for sent in _sent(run)]
    yield from _grants(runs, writes)
    yield from _answers(writes, history)
    yield from _order(writes, history)
    if not some:
        yield from _senders(writes, history, runs)


def deadlines(run: Run) -> dict[int, set[float]]:
    """Return the deadlines that the election of a process gave to each of its tokens."""
    given: dict[int, set[float]] = defaultdict(set)
    token = 0
    for line in run.of("step"):
        for action in line.data["actions"] or ():
            if action["is"] == "Open":
                token = action["token"]
            if action["is"] in ("Open", "Extend", "Reopen"):
                given[token].add(action["deadline"])
    return given


def _tokens(runs: list[Run]) -> Iterator[Difference]:
    owners: dict[tuple[str, int], Run] = {}
    for run in runs:
        for token in deadlines(run):
            first = owners.setdefault((run.head["lease"], token), run)
            if first.holder != run.holder:
                yield Difference(str(run.path), f"token {token} was given to {first.holder} and to {run.holder}")


def _sent(run: Run) -> Iterator[Sent]:
    asked: dict[int, Line] = {}
    out: dict[int, Sent] = {}
    seen: dict[int, float] = {}  #: the deadline that each write saw last
    for line in run.of("asked", "sent", "answered", "ended"):
        number, data = line.data["write"], line.data
        if line.what == "asked":
            asked[number] = line
        for what, value in data.get("reads") or ():
            if what == "deadline":
                seen[number] = value
        if line.what == "sent" and number in asked:
            request, begun = data["request"], asked[number].data
            stamp, target = stamp_from(begun["stamp"]), parse_path(request["path"])
            dry = "dryRun" in request.get("query", "") or "dryRun" in (request.get("body") or ())
            if request["method"] in WRITES and stamp and target and not dry and not begun["elsewhere"]:
                out[number] = Sent(run, line, stamp, target, seen.get(number))
        elif line.what == "answered" and number in out:
            sent, answer = out.pop(number), data["answer"]
            metadata = (answer.get("body") or {}).get("metadata") or {}
            version = str(metadata.get("resourceVersion") or "")
            yield Sent(sent.run, sent.line, sent.stamp, sent.target, sent.deadline, answer["status"],
                       int(version) if version.isdecimal() else 0)  # fmt: skip
    yield from out.values()


def _grants(runs: list[Run], writes: list[Sent]) -> Iterator[Difference]:
    given = {id(run): deadlines(run) for run in runs}
    for sent in writes:
        if sent.deadline is not None and sent.deadline not in given[id(sent.run)].get(sent.stamp.token, ()):
            sentence = f"{sent} left with the deadline {sent.deadline}, which the election did not give to that token"
            yield Difference(sent.run.at(sent.line), sentence)


def _answers(writes: list[Sent], history: History) -> Iterator[Difference]:
    changes = {change.revision: change for change in history.changes}
    for sent in writes:
        if not _is_judged(sent) or sent.revision > history.revision:
            continue
        change = changes.get(sent.revision)
        named = sent.target.namespace, sent.target.name
        if change is None or change.key.namespace != named[0] or named[1] not in ("", change.key.name):
            sentence = f"{sent} was answered with revision {sent.revision}, at which the history has "
            found = str(change.key) if change else "nothing"
            yield Difference(sent.run.at(sent.line), sentence + found)
            continue
        recorded = stamp_of(change.after)
        if recorded is not None and not _is(recorded, sent.stamp):
            sentence = f"{sent} was accepted at revision {sent.revision}, at which the object records {recorded}"
            yield Difference(sent.run.at(sent.line), sentence)


def _order(writes: list[Sent], history: History) -> Iterator[Difference]:
    uids = {change.revision: change.uid for change in history.changes}
    newest: dict[tuple[str, str], Sent] = {}
    for sent in sorted(filter(_is_judged, writes), key=lambda sent: sent.revision):
        if (uid := uids.get(sent.revision)) is None:
            continue
        before = newest.setdefault((sent.stamp.lease, uid), sent)
        if sent.stamp.token < before.stamp.token:
            sentence = f"{sent} was accepted at revision {sent.revision}, after {before} at revision {before.revision}"
            yield Difference(sent.run.at(sent.line), sentence)
        elif sent.stamp.token == before.stamp.token and sent.stamp.holder != before.stamp.holder:
            yield Difference(sent.run.at(sent.line), f"{sent} was accepted beside {before}: one token, two processes")
        else:
            newest[sent.stamp.lease, uid] = sent


def _senders(writes: list[Sent], history: History, runs: list[Run]) -> Iterator[Difference]:
    """Find stamps in the history that no process says it sent. It may have been killed before the answer came."""
    leases = {run.head["lease"] for run in runs}
    accepted = {(sent.revision, sent.stamp.token): sent for sent in writes if sent.ok}
    open_ends: dict[tuple[str, str, int], list[Sent]] = defaultdict(list)
    for sent in writes:
        if not sent.ok:
            # A proxy or a timeout may have answered for the API server.
            open_ends[sent.target.namespace, sent.target.name, sent.stamp.token].append(sent)
    for change in history.changes:
        stamp = stamp_of(change.after)
        if stamp is None or stamp.lease not in leases or not _is_new(change, stamp):
            continue
        found = accepted.get((change.revision, stamp.token))
        key = change.key
        left = [*open_ends[key.namespace, key.name, stamp.token], *open_ends[key.namespace, "", stamp.token]]
        if not any(_is(stamp, sent.stamp) for sent in ([found] if found else left)):
            sentence = f"{key} was stamped with {stamp} at revision {change.revision}, and no trace says who sent that"
            yield Difference("etcd", sentence)


def _is_new(change: Change, stamp: Recorded) -> bool:
    return not (change.same and stamp_of(change.before) == stamp)


def _is(recorded: Recorded, stamp: Stamp) -> bool:
    """Whether an object records this stamp. A label has only the digest of the holder."""
    same = (recorded.token, recorded.pod_uid) == (stamp.token, stamp.pod_uid)
    return same and recorded.holder in (stamp.holder, stamp.digest)


def _is_judged(sent: Sent) -> bool:
    """Whether the history can tell: Secrets are not in it, and a deletion's answer may show an earlier revision."""
    method = sent.line.data["request"]["method"]
    left_out = sent.target.resource in EXEMPT or sent.target.resource == "secrets"
    return sent.ok and sent.revision > 0 and method != "DELETE" and not left_out
