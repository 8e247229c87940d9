"""Which term the running code belongs to.

A `ContextVar`, not a global: a handler that outlives its term keeps *its* grant, which is closed, and never
sees the one of a later term of the same process. asyncio tasks and Kopf's threads inherit it; threads and
executors that user code starts do not, and are refused: unset never means "the current one" (trap 12).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from kopf_ha.core.grant import Grant
from kopf_ha.errors import NoTerm

P = ParamSpec("P")
R = TypeVar("R")


class _Everywhere:
    """Stands where a grant would: this code runs on every replica and can only read."""


_grant: ContextVar[Grant | _Everywhere | None] = ContextVar("kopf_ha_grant", default=None)


def boottime() -> float:
    """Seconds since boot, suspension included: a sleeping machine's lease runs out too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class CurrentTerm:
    """The term that the calling handler belongs to. Get it with `current_term()`."""

    _grant: Grant

    @property
    def token(self) -> int:
        """The fencing token, for databases and clouds that can check one themselves."""
        return self._grant.stamp.token

    @property
    def holder(self) -> str:
        """The holder identity of this process."""
        return self._grant.stamp.holder

    @property
    def lease(self) -> str:
        """``namespace/name`` of the Lease."""
        return self._grant.stamp.lease

    @property
    def set_aside(self) -> frozenset[str]:
        """Uids of the deciding objects that could not be stamped so far: decide nothing from them (I4).

        They are tried again while the term lasts, so ask each time. An object that is not among them any more has
        to be read again before something is decided from it.
        """
        return self._grant.set_aside

    def remaining(self) -> float:
        """Give the seconds for which this term may still write; 0.0 when it ended."""
        return self._grant.remaining(boottime())

    def bind(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Wrap `fn` so that it writes in this term, wherever it runs: in a thread of yours, in a pool.

        It ends with the term all the same: later writes raise `GateClosed`. Coroutine functions can be bound, too.
        """
        if inspect.iscoroutinefunction(fn):
            # Calling one runs nothing yet: the term has to be entered where its coroutine runs.
            @functools.wraps(fn)
            async def bound_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with entered(self._grant):
                    return await fn(*args, **kwargs)

            return cast(Callable[P, R], bound_coroutine)

        @functools.wraps(fn)
        def bound(*args: P.args, **kwargs: P.kwargs) -> R:
            with entered(self._grant):
                return fn(*args, **kwargs)

        return bound


def current_grant() -> Grant | None:
    """Give the grant of the calling code's term, open or not; None outside of any."""
    grant = _grant.get()
    return grant if isinstance(grant, Grant) else None


def only_reads() -> bool:
    """Say whether the calling code belongs to what runs on every replica, and so may write nothing."""
    return isinstance(_grant.get(), _Everywhere)


def current_term() -> CurrentTerm:
    """Give the term of the calling handler.

    Raises:
        NoTerm: the caller runs in none.
    """
    grant = current_grant()
    if grant is None and only_reads():
        raise NoTerm(
            "this code belongs to kopf_ha.everywhere, which runs on every replica and in no term: there is no token;"
            " what needs one belongs into a handler of Kopf's own registry, which runs on the leader"
        )
    if grant is None:
        raise NoTerm(
            "this code runs in no term: it was started in a thread or outside of a handler;"
            " wrap what the thread runs with kopf_ha.current_term().bind(...) inside of the handler"
        )
    return CurrentTerm(grant)


def entered(grant: Grant) -> contextlib.AbstractContextManager[None]:
    """Run the body in a term."""
    return _placed(grant)


def entered_everywhere() -> contextlib.AbstractContextManager[None]:
    """Run the body as code that runs on every replica and can only read; a bound function still has its term."""
    return _placed(_Everywhere())


@contextlib.contextmanager
def _placed(place: Grant | _Everywhere) -> Iterator[None]:
    token = _grant.set(place)
    try:
        yield
    finally:
        _grant.reset(token)
