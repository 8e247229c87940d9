"""Stamps objects of the deciding kinds through the fence, each of them or with the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from kopf_ha._context import CurrentTerm
from kopf_ha.api import Api
from kopf_ha.core.asked import ONLY_NOTE, ONLY_STAMP
from kopf_ha.core.fence import Fence
from kopf_ha.core.floor import recorded_of
from kopf_ha.core.grant import Grant
from kopf_ha.core.refusal import outline
from kopf_ha.core.target import Target
from kopf_ha.core.token import MalformedStamp, Stamp, Verdict, judge
from kopf_ha.core.wire import MERGE_PATCH, Response, is_gone
from kopf_ha.errors import ConfigurationError, Refused, TermEnded, Unreached
from kopf_ha.run.kinds import NO_STAMP, ServedKind

#: Stamps under way at once. More would starve the renewal's priority level of a small API server.
PARALLEL = 8
#: Seconds that one stamp may take: one that hangs must not keep handlers waiting for long.
TIMEOUT = 10.0
#: How much of an object's trouble a line shows.
SHOWN = 300
#: What an object's trouble begins with when there was no answer at all.
UNANSWERED = "no answer: "


@dataclass(frozen=True, slots=True)
class DecidingObject:
    """One object of a deciding kind.

    Args:
        kind: where it lives.
        target: what the fence calls it.
        uid: its uid.
        trouble: why it could not be stamped, in a sentence; empty while nothing is known.
        refused: the fence refused it because of what the object records, which somebody has to repair.
    """

    kind: ServedKind
    target: Target
    uid: str
    trouble: str = ""
    refused: bool = False

    @classmethod
    def of(cls, kind: ServedKind, body: Mapping[str, Any]) -> DecidingObject:
        """Take it from a list."""
        return cls(kind, kind.target(body), str(body["metadata"]["uid"]))

    def __str__(self) -> str:
        return f"{self.target}" + (f" ({' '.join(self.trouble.split())[:SHOWN]})" if self.trouble else "")


def stamp_all(api: Api, fence: Fence, grant: Grant, objects: list[DecidingObject]) -> list[DecidingObject]:
    """Try each object once; return those that could not be stamped, with their trouble.

    Raises:
        ConfigurationError: a kind's schema has no stamp.
        TermEnded: the term is over.
    """
    stamp = CurrentTerm(grant).bind(lambda one: stamp_one(api, fence, one, grant.stamp))
    pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="kopf-ha-barrier")
    try:
        return [one for one in pool.map(stamp, objects) if one is not None]
    finally:
        # After a refusal that ends the term, the rest need not be refused one by one.
        pool.shutdown(cancel_futures=True)


def stamp_one(api: Api, fence: Fence, one: DecidingObject, mine: Stamp) -> DecidingObject | None:
    """Stamp one object through the fence; return it with its trouble, or None when it is stamped or gone.

    Raises:
        ConfigurationError: the kind's schema has no stamp.
        TermEnded: the term is over.
    """
    tried = try_stamp(api, fence, one, mine)
    return tried if isinstance(tried, DecidingObject) else None


def try_stamp(api: Api, fence: Fence, one: DecidingObject, mine: Stamp) -> DecidingObject | Response:
    """Stamp one object through the fence; return it with its trouble, or the API server's answer.

    That is the object as it is with the stamp, or a 404 when it is gone. The fence reads an object that it does not
    know right before it writes the stamp, and tries again when somebody edits it in between.

    Raises:
        ConfigurationError: the kind's schema has no stamp.
        TermEnded: the term is over.
    """
    kind, refused, trouble = one.kind, False, ""
    answer = Response(0)
    try:
        if one.trouble:
            fence.known.objects.forget(one.target.key)
        if one.refused and _records_the_same(api.request("GET", one.target.path, timeout=TIMEOUT), kind, mine):
            return one  # otherwise the log would show the same refusal each time
        path, alone = one.target.path + "/status", ONLY_STAMP
        if kind.stamped is False:
            path, alone = one.target.path, ONLY_NOTE
        answer = api.request("PATCH", path, alone, MERGE_PATCH, timeout=TIMEOUT)
        if not answer.ok and not is_gone(answer, one.target.name):
            trouble = outline(answer)
    except TermEnded:
        raise
    except Refused as error:
        refused, trouble = True, str(error)
    except Unreached as error:
        trouble = f"{UNANSWERED}{error}"
    if kind.stamped is None and fence.known.schemas.get(one.target.kind_version) is False:
        raise ConfigurationError(NO_STAMP.format(kind.name))
    return replace(one, trouble=trouble, refused=refused) if trouble else answer


def _records_the_same(answer: Response, kind: ServedKind, mine: Stamp) -> bool:
    """Whether the object still records what the fence refuses: another Lease's or a later stamp, or a malformed one."""
    try:
        stamped = kind.stamped is not False
        recorded = recorded_of(answer.json, kind.name, mine.lease, stamped=stamped) if answer.ok else None
    except MalformedStamp:
        return True
    return judge(recorded, mine) in (Verdict.FOREIGN, Verdict.STALE)
