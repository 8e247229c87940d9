"""Whether all answers can be true at once: each request took effect at one moment while it was under way.

The requests of users and operator are in the audit log, with their times and answers. Each object is a register with
compare-and-swap by resourceVersion. Each address is a lock: a claim takes it, and gives it back when it is gone. This
does not assume that etcd's order is the order in time; only for a write without an answer, the history tells what it
replaced.

Three things that API servers do are not held against them: a deletion of what is gone already may be answered with
success; the removal of the last finalizer deletes without its precondition; and only a GET that names no
resourceVersion has to show the newest one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from judge.audit import AuditEntry
from judge.book import Book
from judge.finding import Finding, Party
from judge.history import Change, History, Key
from judge.linear import Operation, search
from judge.shapes import CHILDREN, CLAIMS, POOLS, is_claim, is_pool
from judge.writers import Writers

HELD = "held twice at a time"

Register = tuple[int, bool]  # the newest revision, and whether the object exists


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an object, and its answer.

    Args:
        did: created, wrote, deleted, read, missed (404), collided (409), refused (409 of a creation); or lost, for a
            change that nobody was told of.
        made: the revision in the answer; 0 if it has none.
        asked: the revision in the request's precondition; 0 for none. Of what is lost, the revision before it.
        party: who sent it.
    """

    did: str
    made: int = 0
    asked: int = 0
    party: str = ""

    def __str__(self) -> str:
        asked = f" on {self.asked}" if self.asked else ""
        return f"{self.party} {self.did}{asked}" + (f", answered {self.made}" if self.made else "")


def register(state: Register, call: Call) -> Iterator[Register]:
    """Yield what an object is after a call, if the call can be answered like that."""
    revision, exists = state
    met = exists and call.asked in (0, revision)
    match call.did:
        case "created" if not exists and call.made > revision:
            yield call.made, True
        case "wrote" if met and call.made >= revision:  # the same revision: nothing was changed
            yield call.made, True
        case "deleted" if met or not exists:
            yield max(revision, call.made), False
        case "read" if exists and call.made in (0, revision):
            yield state
        case "missed" if not exists:
            yield state
        case "collided" if state != (call.asked, True):
            yield state
        case "refused" if exists:
            yield state
        case "lost" if state == (call.asked, True) or (not call.asked and not exists):
            yield abs(call.made), call.made > 0  # below 0 for a deletion


def lock(holder: str, call: tuple[str, str]) -> Iterator[str]:
    """Yield who holds an address after a claim, by its uid, took it or is gone."""
    did, uid = call
    if did == "gone":
        yield "" if holder == uid else holder
    elif holder in ("", uid):
        yield uid


def answers_agree(history: History, audit: Iterable[AuditEntry]) -> Iterator[Finding]:
    """Find pools and claims whose requests cannot have been answered like that, in whichever order they happened."""
    changes: dict[Key, list[Change]] = defaultdict(list)
    for change in history.of(POOLS, CLAIMS):
        if is_claim(change.key) or is_pool(change.key):
            changes[change.key].append(change)
    named = {(key.resource, key.namespace, key.name): key for key in changes}
    entries: dict[Key, list[AuditEntry]] = defaultdict(list)
    for entry in answered_in(history, list(audit)):
        if (key := named.get((entry.resource, entry.namespace, entry.name))) and entry.begun:
            entries[key].append(entry)
    for key, asked in entries.items():
        operations = calls(changes[key], asked)
        outcome = search(operations, (0, False), register)
        if outcome.ok:
            continue
        told = "; ".join(str(o.call) for o in outcome.stuck[:5])
        sentence = f"the answers about {key} fit no order of its requests: none of these can come next: {told}"
        if not outcome.decided:
            sentence = f"no order of the requests to {key} was found in time"
        last = changes[key][-1].revision
        yield Finding("linear", "answers disagree", last, str(key), (), sentence)


def answered_in(history: History, audit: Sequence[AuditEntry]) -> Iterator[AuditEntry]:
    """Yield what was answered before the history's end: later answers may tell of changes that it does not have.

    While somebody writes, the audit log is read a little later than the history. The end is taken to be the begin of
    the first request that made a revision that is not in the history.
    """
    later = [e.begun for e in audit if e.begun and e.write and e.accepted and (e.revision or 0) > history.revision]
    end = min(later, default=None)
    yield from (e for e in audit if end is None or e.finished < end)


def calls(changes: Sequence[Change], entries: Iterable[AuditEntry]) -> list[Operation[Call]]:
    """Return the operations on one object, from its creation on; none if that was not answered.

    Args:
        changes: of the object, in order.
        entries: requests to it.
    """
    first = changes[0].revision
    began = [_time(e.begun) for e in entries if e.write and e.accepted and e.revision == first]
    if not began:
        return []
    births = {change.revision for change in changes if change.before is None}
    made, told = [], set()
    for entry in entries:
        call = _call(entry, births)
        if call and _time(entry.begun) >= began[0]:
            made.append(Operation(_time(entry.begun), _time(entry.finished), call))
            told.add(call.made if call.did in ("created", "wrote", "deleted") else 0)
    before = 0
    for change in changes:
        gone = change.after is None
        if gone or change.revision not in told:
            lost = Call("lost", -change.revision if gone else change.revision, before)
            made.append(Operation(-math.inf, math.inf, lost))
        before = 0 if gone else change.revision
    return made


def _call(entry: AuditEntry, births: Collection[int]) -> Call | None:
    """Return what a request did, and None if its answer says nothing about the object."""
    made, asked, who = entry.revision or 0, entry.asked or 0, str(Party.audited(entry))
    if entry.doubtful or entry.dry_run or not (entry.write or entry.verb == "get"):
        return None
    if entry.code == 404:
        return Call("missed", party=who) if entry.reason and entry.verb != "create" else None
    if entry.code == 409 and entry.write:
        did = "refused" if entry.verb == "create" else "collided" if asked else ""
        return Call(did, asked=asked, party=who) if did else None
    if not entry.accepted:
        return None
    if entry.verb == "get":
        return Call("read", made, party=who) if entry.newest else None
    if entry.ended or (entry.verb == "delete" and not made):
        return Call("deleted", asked=0 if entry.ended else asked, party=who)
    return Call("created" if made in births else "wrote", made, asked, who) if made else None


def no_address_held_twice(
    history: History, writers: Writers, *, fenced: bool, known: Collection[str]
) -> Iterator[Finding]:
    """I5: find addresses that two claims held at one moment, by the times of the requests that gave them.

    Args:
        history: all changes.
        writers: who made them.
        fenced: see `Book`.
        known: addresses that were given twice by etcd's order.
    """
    book, by_address = Book(fenced=fenced), defaultdict(list)
    holders: dict[str, set[str]] = defaultdict(set)
    for change in history.of(POOLS, CLAIMS, CHILDREN):
        _, gained = book.turn(change)
        for address, uid in gained:
            if uid in book.claims:
                holders[uid].add(address)
                by_address[address].append(_timed(writers.entry(change), ("taken", uid)))
        for uid in change.uids - book.claims.keys() if is_claim(change.key) else ():
            for address in holders.pop(uid, ()):
                by_address[address].append(_timed(writers.entry(change), ("gone", uid)))
    for address, operations in by_address.items():
        if address not in known and search(operations, "", lock).stuck:
            uids = sorted({o.call[1] for o in operations})
            sentence = f"{address} was held by two claims at one moment, by the times of requests: {', '.join(uids)}"
            yield Finding("I5", HELD, history.revision, address, (), sentence)


def _timed(entry: AuditEntry | None, call: tuple[str, str]) -> Operation[tuple[str, str]]:
    if entry is None or not entry.begun:
        return Operation(-math.inf, math.inf, call)
    return Operation(_time(entry.begun), _time(entry.finished), call)


def _time(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()
