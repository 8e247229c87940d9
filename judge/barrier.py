"""I4: no decision of a term is made from an object that an earlier term could still write.

A term stamps a pool before it decides from it, and before a pool becomes active, all pools whose range overlaps and all
claims to which an earlier term may have promised an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
    ranges_overlap,
    recorded,
    records,
    stamp_of,
)


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


def pools_are_stamped_before_they_decide(history: History, leases: Leases) -> Iterator[Finding]:
    """I4, by decisions: find decisions of a term from a pool that had no stamp of that term before.

    Decisions from a pool are: its record changes, or a claim gets an address of it. The activation of a pool is decided
    from that pool and from all pools whose range overlaps. A pool that was created after the term began is stamped by
    the term's first write of it, since nobody promised anything from it before. Which pools are stamped when no
    decision needs them, does not matter.
    """
    pools: dict[Key, Object] = {}
    born: dict[str, int] = {}
    began: dict[tuple[str, int], int] = {}
    for change in history.of(POOLS, CLAIMS):
        stamp = stamp_of(change.after)
        if stamp:
            term = (stamp.lease, stamp.token)
            began.setdefault(term, _began(leases, stamp, change.revision))
            for key in _decided_from(change, pools):
                pool = pools[key]
                if born[uid_of(pool)] <= began[term] and not _covers(pool, stamp):
                    has = stamp_of(pool)
                    parties = (Party.stamped(stamp), *([Party.stamped(has)] if has else []))
                    sentence = f"{change.key} was decided under {stamp} from {key}, which {_bore(has)}"
                    yield _finding("decided before the stamp", change, parties, sentence)
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
                sentence = f"{change.key} became active under {stamp} while {key} (uid {uid}) {_bore(has)}"
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


def _decided_from(change: Change, pools: Mapping[Key, Object]) -> list[Key]:
    """Return the pools that a change was decided from, as far as objects show it."""
    if _gives(change):
        return [key for key in pools if key.name == pool_of(change.after)]
    if not is_pool(change.key) or not change.same:
        return []
    found = [change.key] if _records(change) else []
    if is_active(change.after) and not is_active(change.before):
        found += [key for key, pool in pools.items() if key != change.key and ranges_overlap(pool, change.after)]
    return found


def _bore(stamp: Stamp | None) -> str:
    return f"bore {stamp}" if stamp else "bore no stamp"


def _finding(kind: str, change: Change, parties: tuple[Party, ...], sentence: str) -> Finding:
    text = f"{sentence}, at revision {change.revision}"
    return Finding("I4", kind, change.revision, str(change.key), parties, text)
