"""Stamps deciding objects while handlers run: at once what a decision waits for, and the rest behind (I4, I7).

With `--barrier each` handlers do not wait for all deciding objects, so first service does not wait for a thousand
pools. What keeps I4 is the order of three steps for each object that something is decided from: it is stamped, the
answer to the stamp reaches the operator's code (`CurrentTerm.stamped`), and only then the fence lets that code write
the object's status (`grant.unread`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kopf_ha._context import CurrentTerm, boottime
from kopf_ha.core.wire import Response
from kopf_ha.errors import ConfigurationError, SetAside
from kopf_ha.run.barrier import stamp_patiently
from kopf_ha.run.deciding import PARALLEL, DecidingObject, try_stamp
from kopf_ha.run.sweep import Sweep

#: Seconds before the first stamp behind: what changed around the takeover is served first.
HEAD_START = 1.0
#: For one second of stamping behind, so many seconds of rest: handlers come first, and so does the Lease.
REST = 4.0
#: Seconds of rest after one stamp, at most. So the last object has its stamp within a bound.
LONGEST = 1.0


class Behind:
    """The stamps of one term that handlers do not wait for.

    Args:
        sweep: of the term.
        objects: those that have no stamp of this term yet.
        wait: waits for so many seconds.
        clock: the machine's boot-time clock, in seconds.
    """

    def __init__(
        self,
        sweep: Sweep,
        objects: Sequence[DecidingObject] = (),
        *,
        wait: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._sweep = sweep
        self._listed = {one.uid: one for one in objects}
        self._left = dict(self._listed)
        self._wait = wait
        self._clock = clock
        self._at_once = threading.BoundedSemaphore(PARALLEL)
        self._stamp = CurrentTerm(sweep.grant).bind(
            lambda one: try_stamp(sweep.api, sweep.fence, one, sweep.grant.stamp)
        )

    def stamped(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Stamp an object now, and return it as it is with the stamp; None if it is gone. From any thread.

        It is stamped again if it has the stamp already: that changes nothing, and the API server's answer is the object
        as etcd has it.

        Raises:
            SetAside: it could not be stamped.
            ConfigurationError: it is of no deciding kind.
            TermEnded: the term is over.
        """
        one, grant = self._find(body), self._sweep.grant
        if grant.sets_aside(one.uid, one.target.namespace):
            raise SetAside(f"{one.target} is set aside: it could not be stamped in this term, and is tried again")
        with self._at_once:
            tried = self._stamp(one)
        if isinstance(tried, DecidingObject):
            raise SetAside(f"{tried} cannot be stamped now, and is tried again")
        self._left.pop(one.uid, None)
        found = _object(tried)
        if found is None or found["metadata"].get("uid") != one.uid:
            return None  # it is gone, and its name may belong to another one
        grant.read(one.uid)
        return found

    def run(self) -> list[DecidingObject]:
        """Stamp the rest, one at a time and with rests; return what could not be stamped.

        Raises:
            ConfigurationError: a kind's schema has no stamp.
            TermEnded: the term is over.
        """
        failed = []
        self._wait(HEAD_START if self._left else 0.0)
        for uid in list(self._left):
            one = self._left.get(uid)
            if one is None:
                continue  # something was decided from it meanwhile
            began = self._clock()
            tried = self._stamp(one)
            self._left.pop(uid, None)
            if isinstance(tried, DecidingObject):
                failed.append(tried)
            self._wait(min(LONGEST, REST * (self._clock() - began)))
        return stamp_patiently(self._sweep, failed, self._wait, failed=True)

    def _find(self, body: Mapping[str, Any]) -> DecidingObject:
        """Return what is meant.

        Raises:
            ConfigurationError: it is of no deciding kind.
        """
        metadata = body.get("metadata") or {}
        if (listed := self._listed.get(str(metadata.get("uid")))) is not None:
            return listed
        kind = next((kind for kind in self._sweep.kinds if kind.is_of(body)), None)
        if kind is None or not metadata.get("name") or not metadata.get("uid"):
            what = f"{body.get('apiVersion')} {body.get('kind')} {metadata.get('name')}"
            raise ConfigurationError(f"{what} is no object of a deciding kind; name its kind with --deciding")
        return DecidingObject.of(kind, body)


def _object(answer: Response) -> dict[str, Any] | None:
    body = answer.json
    return body if answer.ok and isinstance(body, dict) and isinstance(body.get("metadata"), dict) else None
