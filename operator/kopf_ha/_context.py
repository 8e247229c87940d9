"""Which term the running code belongs to.

It is a `ContextVar`, not a global. So a handler that outlives its term keeps its own grant, which is closed, and never
gets the grant of a later term of the same process. asyncio tasks and Kopf's threads inherit the term. Other threads and
jobs of pools get it from whoever started them (`adapters/_threads.py`). What was started outside of any term has none,
and its writes are refused: "no term" never means "the current term".
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from kopf_ha.core.grant import Grant
from kopf_ha.errors import NO_TERM, NoTerm

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Everywhere:
    """Takes the place of a grant in code that runs on every replica and can only read.

    Args:
        again: the code runs in each term, too, and may write there.
    """

    again: bool = False


_grant: ContextVar[Grant | _Everywhere | None] = ContextVar("kopf_ha_grant", default=None)


def boottime() -> float:
    """Return seconds since boot. They include suspension, so a Lease also expires while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class CurrentTerm:
    """The term that the calling handler belongs to, from `current_term()`."""

    _grant: Grant

    @property
    def token(self) -> int:
        """The fencing token, for databases and cloud APIs that can check one."""
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

        kopf-ha tries again as long as the term lasts, so ask each time. Once an object has left this set, read it again
        before you decide something from it.
        """
        return self._grant.set_aside

    def sets_aside(self, uid: str, namespace: str = "") -> bool:
        """Return whether nothing may be decided from a deciding object now (I4).

        It is in `set_aside`, or in a namespace that this term could not list so far.

        Args:
            uid: of the object.
            namespace: of the object; empty for a cluster-scoped one.
        """
        return self._grant.sets_aside(uid, namespace)

    @property
    def stamps_behind(self) -> bool:
        """Whether handlers run before all deciding objects are stamped: `--barrier each`."""
        return self._grant.behind

    async def stamped(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return a deciding object as it is once this term has stamped it: decide from that (I4).

        What you know of the object may be too old: a list, a cache or an event showed it, and an earlier leader, who
        does not know yet that its time is over, wrote it after that and before this term's stamp. From the stamp on,
        only this term's writes to it are accepted. What is returned is the answer to the stamp itself, so it shows all
        that any earlier leader ever wrote, and nothing is missing but what this term writes later. Replace what you
        remember of the object by it. Then no decision is made from what an earlier term can still change.

        With `--barrier each`, call it once in each term for each object before you decide from it; until then the
        fence refuses to write the object's status (`NotStamped`). With `--barrier all` all objects are stamped before
        any handler runs, so it is not needed, and costs one request. It waits for no other object's stamp.

        Args:
            body: the object, from wherever. Its uid counts, and of one that is younger than the term also its
                `apiVersion`, `kind`, name and namespace.

        Returns:
            The object; None if it is gone. Without the full fence, which stamps nothing, what was given.

        Raises:
            SetAside: it cannot be stamped at the moment; decide nothing from it. It is tried again without you.
            ConfigurationError: it is of no deciding kind.
            TermEnded: the term is over.
        """
        import asyncio  # here, since importing kopf_ha loads nothing that a handler does not need

        return await asyncio.to_thread(self.stamped_sync, body)

    def stamped_sync(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Do the same in the calling thread, for handlers that are no coroutines; see `stamped`."""
        stamper = self._grant.stamper
        return body if stamper is None else stamper(body)

    def remaining(self) -> float:
        """Return the seconds for which this term may still write. 0.0 if it has ended, and while its writes wait."""
        return self._grant.remaining(boottime())

    def bind(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Wrap `fn` so that it can write in this term wherever it runs.

        Threads and jobs of pools that a handler starts need no wrapping. It is for a worker that was started before,
        such as the thread of a queue that was made while a module was imported.

        After the term's end its writes raise `GateClosed`. Coroutine functions can be bound, too.
        """
        if inspect.iscoroutinefunction(fn):
            # Calling it runs nothing yet, so the coroutine enters the term when it runs.
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
    """Return the grant of the calling code's term, open or closed. None outside of a term."""
    grant = _grant.get()
    return grant if isinstance(grant, Grant) else None


def only_reads() -> bool:
    """Return whether the calling code runs on every replica, and so may write nothing."""
    return isinstance(_grant.get(), _Everywhere)


def runs_again() -> bool:
    """Return whether the calling code runs on every replica, and then again in each term, where it may write."""
    place = _grant.get()
    return isinstance(place, _Everywhere) and place.again


def current_term() -> CurrentTerm:
    """Return the term of the calling handler.

    Raises:
        NoTerm: the caller runs in no term.
    """
    grant = current_grant()
    if grant is None and only_reads():
        raise NoTerm(
            "this code runs on every replica and in no term, as webhooks, indices and kopf_ha.everywhere do, so there"
            " is no token; if it needs one, move it into a handler for changes, a timer or a daemon, which run on the"
            " leader"
        )
    if grant is None:
        raise NoTerm(f"this code runs in no term, so there is no token: {NO_TERM}")
    return CurrentTerm(grant)


def entered(grant: Grant) -> contextlib.AbstractContextManager[None]:
    """Run the body of the `with` statement in a term."""
    return _placed(grant)


def entered_everywhere(*, again: bool = False) -> contextlib.AbstractContextManager[None]:
    """Run the body as code of every replica, which can only read. A bound function in it still has its term.

    Args:
        again: the same code runs in each term, too. So a write that is refused here is no fault of the code.
    """
    return _placed(_Everywhere(again))


def outside() -> contextlib.AbstractContextManager[None]:
    """Run the body in no term, as what lives longer than a term."""
    return _placed(None)


def carry(fn: Callable[P, R]) -> Callable[P, R]:
    """Wrap `fn` so that it runs where the caller of this function is: in its term, on every replica, or in no term."""
    place = _grant.get()

    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        with _placed(place):
            return fn(*args, **kwargs)

    return carried


def inherit(fn: Callable[[], None]) -> Callable[[], None]:
    """Wrap `fn` so that it runs where the caller is, unless it already runs somewhere: its thread got a context."""
    there = carry(fn)
    return lambda: there() if _grant.get() is None else fn()


@contextlib.contextmanager
def _placed(place: Grant | _Everywhere | None) -> Iterator[None]:
    token = _grant.set(place)
    try:
        yield
    finally:
        _grant.reset(token)
