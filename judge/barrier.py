"""I4: no decision of a term is made from an object that an earlier term could still write.

A term stamps an object before it decides from it: all pools before its first decision, and before a pool becomes
active, all claims to which an earlier term may have promised an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from judge.finding import Finding, Party
from judge.history import Change, History, Key, Object, uid_of
from judge.leases import Leases, named
from judge.shapes import (
    CLAIMS,
    POOLS,
    Stamp,
    claim_address,
    is_active,
    is_claim,
    is_pool,
    pool_of,
    recorded,
    records,
    stamp_of,
)

SET_ASIDE = "SetAside"  # the reason of the Event about pools that a term could not stamp


def barrier_comes_first(history: History) -> Iterator[Finding]:
    """I4, by claims: find claims that got an address from a pool that no term from theirs on had stamped yet."""
    pools: dict[str, Stamp | None] = {}
    for change in history.of(POOLS, CLAIMS):
        if is_pool(change.key):
            pools[change.key.name] = stamp_of(change.after)
        stamp = stamp_of(change.after)
        if not is_claim(change.key) or stamp is None or not _gives(change):
            continue
        recorded_stamp = pools.get(pool_of(change.after))
        if recorded_stamp is None or (recorded_stamp.lease == stamp.lease and recorded_stamp.token < stamp.token):
            parties = (Party.stamped(stamp), *([Party.stamped(recorded_stamp)] if recorded_stamp else []))
            has = f"records {recorded_stamp}" if recorded_stamp else "has no stamp"
            address, pool = claim_address(change.after), pool_of(change.after)
            sentence = f"{change.key} got {address} under {stamp} while pool {pool} {has}"
            yield _finding("before the barrier", change, parties, sentence)


@dataclass
class _Term:
    """A term: when it began, its first decision, and the pools that did not have its stamp then."""

    began: int
    decided: Change | None = None
    skipped: dict[str, Key] = field(default_factory=dict)  # by uid


def no_pool_is_skipped(history: History, leases: Leases) -> Iterator[Finding]:
    """I4, by pools: find decisions from a pool that the term had not stamped before its first decision.

    Pools that were created after the term began are stamped with its first write of them, so they do not count. A pool
    that could not be stamped is set aside, and nothing may be decided from it. If an Event says that it was set aside,
    it may be stamped later in the term and be used after that.
    """
    pools: dict[Key, Object] = {}
    born: dict[str, int] = {}
    terms: dict[tuple[str, int], _Term] = {}
    aside: list[tuple[int, str]] = []
    for change in history.changes:
        stamp = stamp_of(change.after)
        if change.key.resource == "events" and (change.after or {}).get("reason") == SET_ASIDE:
            aside.append(
                (change.revision, str((change.after or {}).get("message") or (change.after or {}).get("note")))
            )
        if stamp:
            if (stamp.lease, stamp.token) not in terms:
                terms[stamp.lease, stamp.token] = _Term(_began(leases, stamp, change.revision))
            term = terms[stamp.lease, stamp.token]
            if _gives(change) or _records(change):
                if term.decided is None:
                    term.decided = change
                    term.skipped = {
                        uid_of(pool): key
                        for key, pool in pools.items()
                        if born[uid_of(pool)] <= term.began and not _covers(pool, stamp)
                    }
                pool = change.before if is_pool(change.key) else _named(pools, pool_of(change.after))
                key = term.skipped.get(uid_of(pool))
                if key and not (
                    _covers(pool, stamp) and any(at >= term.began and _names(text, key) for at, text in aside)
                ):
                    del term.skipped[uid_of(pool)]
                    first = term.decided
                    sentence = (
                        f"{key} was not stamped under {stamp} when that term decided first, at revision"
                        f" {first.revision} on {first.key}, and {change.key} was decided from it"
                    )
                    yield _finding("skipped by the barrier", change, (Party.stamped(stamp),), sentence)
        if is_pool(change.key):
            pools.pop(change.key, None)
            if change.after is not None:
                pools[change.key] = change.after
                born.setdefault(change.uid, change.revision)


def claims_are_stamped_before_activation(history: History) -> Iterator[Finding]:
    """I4, by waiting claims: find claims without a stamp of the term when that term activated a pool.

    An earlier leader may be paused just before it writes an address to a claim, from a pool that was deleted by force
    since. Claims that an active pool records are safe, and so are claims that were created after the term's first
    write: no earlier term promised them anything.
    """
    claims: dict[str, tuple[Key, Stamp | None]] = {}
    born: dict[str, int] = {}
    active: dict[str, Object] = {}
    began: dict[tuple[str, int], int] = {}
    for change in history.changes:
        stamp = stamp_of(change.after)
        if stamp:
            began.setdefault((stamp.lease, stamp.token), change.revision)
        if is_claim(change.key):
            for uid in change.uids:
                claims.pop(uid, None)
            if change.after is not None:
                claims[change.uid] = change.key, stamp
                born.setdefault(change.uid, change.revision)
        if not is_pool(change.key):
            continue
        if stamp and change.same and is_active(change.after) and not is_active(change.before):
            safe = {uid for pool in active.values() for _, uid in records(pool)}
            for uid in sorted(claims.keys() - safe):
                key, has = claims[uid]
                if born[uid] > began[stamp.lease, stamp.token] or _reaches(has, stamp):
                    continue
                parties = (Party.stamped(stamp), *([Party.stamped(has)] if has else []))
                bears = f"bore {has}" if has else "bore no stamp"
                sentence = f"{change.key} became active under {stamp} while {key} (uid {uid}) {bears}"
                yield _finding("claim not stamped before the activation", change, parties, sentence)
        for uid in change.uids:
            active.pop(uid, None)
        if change.after is not None and is_active(change.after):
            active[change.uid] = change.after


def _began(leases: Leases, stamp: Stamp, seen: int) -> int:
    """Return the revision at which the term got its token. It lists the objects that it stamps after that."""
    given = (
        t.since for t in leases.terms if t.token == stamp.token and t.since <= seen and named(stamp.lease, t.lease)
    )
    return max(given, default=seen)


def _gives(change: Change) -> bool:
    """Return whether a claim got an address."""
    address = claim_address(change.after)
    return is_claim(change.key) and bool(address) and not (change.same and claim_address(change.before) == address)


def _records(change: Change) -> bool:
    """Return whether a pool's record changed."""
    return is_pool(change.key) and change.same and recorded(change.before) != recorded(change.after)


def _covers(pool: Object | None, stamp: Stamp) -> bool:
    return _reaches(stamp_of(pool), stamp)


def _reaches(has: Stamp | None, stamp: Stamp) -> bool:
    """Return whether a stamp is of the term of the other stamp, or of a later term."""
    return has is not None and has.lease == stamp.lease and has.token >= stamp.token


def _named(pools: dict[Key, Object], name: str) -> Object | None:
    return next((pool for key, pool in pools.items() if key.name == name), None)


def _names(message: str, pool: Key) -> bool:
    """Return whether an Event's message names the pool, or says that it does not name all pools."""
    return " more" in message or any(word.strip(":;,()").rsplit("/", 1)[-1] == pool.name for word in message.split())


def _finding(kind: str, change: Change, parties: tuple[Party, ...], sentence: str) -> Finding:
    text = f"{sentence}, at revision {change.revision}"
    return Finding("I4", kind, change.revision, str(change.key), parties, text)
