"""When to ask whether the API server enforces the fence, and what follows from the answer.

It is asked once handlers run, each minute while the term lasts, by a follower in advance and then seldom, and by a
follower that is about to take a Lease over before it expires. Nothing waits for the answer where enforcement is not
required: dozens of dry runs before the barrier, or beside it, made a takeover three times as long.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

from kopf_ha._context import boottime, entered
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.history import MENDED
from kopf_ha.core.orders import ByChoice
from kopf_ha.errors import ApiError, ConfigurationError, MalformedLease, Unreached
from kopf_ha.run.journal import Journal
from kopf_ha.run.level import level_of
from kopf_ha.run.selftest import PARALLEL, STOPPED, TIMEOUT, SelfTest
from kopf_ha.run.termobject import TermObject
from kopf_ha.run.threads import later as call_later

logger = logging.getLogger("kopf_ha.run")

#: Seconds until it is asked again: policies are removed for repairs, and versions are added to kinds.
ASK_AGAIN = 60.0
#: Seconds until a follower asks again by itself. The leader asks each minute for all replicas and notes in the Lease
#: that nothing was missing, so this is for leaders of earlier releases.
AHEAD = 600.0
#: Seconds for which it is known that each rule is in force: a follower asks that often, and the answers take a moment.
KNOWN = AHEAD + 30.0
#: Seconds from a term's begin until it is asked, where this replica knows the answer: its first objects come first.
REST = 5.0
#: Seconds for each answer while a follower waits for it before it takes over early.
CONFIRM = 2.0

UNPROTECTED = (
    "deciding kind {} has no status.fencing, so its objects' stamps are annotations, and no policy is known to keep"
    " others from changing them; apply what `kopf-ha manifests --kind PLURAL:deciding:annotations` writes, or add"
    " status.fencing to the CRD"
)

#: What is raised when it cannot be found out.
_UNKNOWN = (ConfigurationError, MalformedLease, ApiError)


class Enforcement:
    """Asks, and tells the journal what is missing and the fence which kinds must not be written (I1).

    Args:
        selftest: asks the API server.
        fence: of this process.
        journal: of this replica.
        token: gives the highest token that the Lease was seen with.
        required: whether a replica may lead only where the fence is enforced.
        tell: tells followers that nothing was missing, by a text that differs each time; empty if something was.
        hear: gives what the leader told last.
        begin_again: ends a term by choice, for the next one to learn anew.
        term: the Term of this replica's terms.
        later: calls a function after so many seconds, in a thread.
        clock: the machine's boot-time clock, in seconds.
    """

    def __init__(
        self,
        selftest: SelfTest,
        fence: Fence,
        journal: Journal,
        *,
        token: Callable[[], int],
        required: bool,
        term: TermObject,
        tell: Callable[[str], None] = lambda text: None,
        hear: Callable[[], str] = str,
        begin_again: Callable[[Grant, ByChoice], None] = lambda grant, cause: None,
        later: Callable[[float, Callable[[], None]], None] = call_later,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._selftest = selftest
        self._fence = fence
        self._journal = journal
        self._token = token
        self._required = required
        self._tell = tell
        self._hear = hear
        self._heard = hear()
        self._begin_again = begin_again
        self._count = 0  #: of what was told
        self._term = term
        self._later = later
        self._clock = clock
        self._asked = -math.inf  #: when everything was asked last
        self._grant: Grant | None = None  #: of the newest term
        self._stopped = False

    def begin(self, grant: Grant) -> None:
        """Ask at a term's begin, and each minute while it lasts.

        What is missing is named, and keeps a replica from leading only where enforcement is required. A kind that a
        version of its definition makes unfit is not written any more, which ends no term (I1, I10).

        Raises:
            ConfigurationError: something is missing, or a deciding kind is not installed, and enforcement is required.
            ApiError, MalformedLease: it cannot be found out, and enforcement is required.
        """
        self._grant = grant
        try:
            missing = self._look(grant)
        except _UNKNOWN as error:
            if self._required:
                raise
            self._warn(error)
        else:
            if missing and self._required:
                raise ConfigurationError(f"the API server does not enforce the fence: {'; '.join(missing)}")
        finally:
            self._later(ASK_AGAIN, lambda: self._again(grant))

    def begin_soon(self, grant: Grant) -> None:
        """Ask soon after a term's begin, and each minute while it lasts. Nothing waits for the answer.

        No promise depends on that: the fence reads each kind's definition before its first write in a term (I1), and
        the policies are asked before an early takeover. A replica that asked as a follower lets its first objects go
        first.
        """
        self._grant = grant
        self._later(REST if self._known_for(KNOWN) else 0.0, lambda: self._again(grant))

    def _known_for(self, seconds: float) -> bool:
        """Return whether this replica asked everything in these last seconds, and nothing was missing."""
        return self._selftest.clean and self._clock() < self._asked + seconds

    def require(self, kinds: Iterable[str]) -> None:
        """Check that policies protect the stamps of these deciding kinds, as far as the last answers say (I4).

        Args:
            kinds: ``plural.group``, without `status.fencing`.

        Raises:
            ConfigurationError: they do not, or it is not known.
        """
        if unprotected := sorted(set(kinds) - self._selftest.protected):
            raise ConfigurationError(UNPROTECTED.format(", ".join(unprotected)))

    def look_ahead(self) -> None:
        """Ask while another replica leads, so that a takeover need not wait for all answers; each minute until `stop`.

        Nothing is asked for as long as the leader says each minute that nothing is missing, and this replica has found
        the same once.
        """
        if self._stopped:
            return
        try:
            if self._grant is not None and not self._grant.closed:
                return
            self._listen()
            if not self._known_for(AHEAD):
                self._ask(self._token(), at_once=1)
        except _UNKNOWN as error:
            logger.debug("unknown whether the API server enforces the fence: %s", error)
        finally:
            if not self._stopped:
                self._later(ASK_AGAIN, self.look_ahead)

    def _listen(self) -> None:
        """Take over what the leader found since the last look; `clean` says that this replica found it once, too."""
        heard, self._heard = self._heard, self._hear()
        if heard and not self._heard:
            self._asked = -math.inf  # the leader misses something, or has not asked yet
        elif self._heard != heard:
            self._asked = max(self._asked, self._clock() - ASK_AGAIN)

    def stop(self) -> None:
        """Ask nothing any more, for good, before the process ends. What is under way ends soon. From any thread."""
        self._stopped = True
        self._selftest.stop()

    def confirm(self) -> str:
        """Say why a stale leader might get its writes accepted, or why that is unknown; empty if it cannot be.

        Where each rule was asked about before, one question for each policy is enough now.
        """
        try:
            missing = self._ask(self._token(), timeout=CONFIRM, whole=not self._known_for(KNOWN))
        except _UNKNOWN as error:
            return f"unknown whether the API server enforces the fence: {error}"
        return "; ".join(missing)

    def _again(self, grant: Grant) -> None:
        """Ask while the term lasts. What is missing by now does not end it: policies are removed for repairs, too."""
        if grant.closed or self._stopped:
            return
        with entered(grant):
            try:
                self._term.look(grant)
                self._look(grant, at_once=1)
            except _UNKNOWN as error:
                self._warn(error)
            finally:
                if not grant.closed and not self._stopped:
                    self._later(ASK_AGAIN, lambda: self._again(grant))

    def _look(self, grant: Grant, at_once: int = PARALLEL) -> list[str]:
        """Ask, and tell while the term lasts."""
        missing = self._ask(grant.stamp.token, at_once=at_once)
        if self._selftest.described is not None:  # otherwise no policies at all are named already
            missing += self._term.missing()
        if not grant.closed:
            self._count += 1
            self._tell("" if missing else f"{grant.stamp.token}-{self._count}")
            self._fence.known.unfit = dict(self._selftest.unfit)
            self._journal.not_enforced(missing)
            test = self._selftest
            self._journal.enforced(level_of(test.described, test.lacking, self._term, test.unfit))
            # A term asks for a kind's schema once. It stamps these in their annotations, which no rule compares, and
            # which the policies refuse. Its barrier has to stamp them, too (I4), so the mended kind needs a new term.
            if mended := sorted(test.stamped & self._fence.known.unstamped_kinds()):
                cause = f"{', '.join(mended)} had no status.fencing when this term began, and has it now"
                self._begin_again(grant, ByChoice(cause, MENDED))
        return missing

    def _ask(self, token: int, *, timeout: float = TIMEOUT, whole: bool = True, at_once: int = PARALLEL) -> list[str]:
        """Ask about each kind that is known to be stamped, too. What nobody waits for is asked one after the other."""
        began, kinds = self._clock(), self._fence.known.stamped_kinds()
        try:
            missing = self._selftest.ask(token, timeout, kinds=kinds, whole=whole, at_once=at_once)
        except RuntimeError as error:
            if not self._stopped:
                raise
            # The process ends, and the interpreter takes no job of a pool and starts no thread any more.
            raise Unreached(STOPPED, definite=True) from error
        if whole:
            self._asked = began
        return missing

    def _warn(self, error: Exception) -> None:
        level = logging.DEBUG if self._stopped else logging.WARNING
        logger.log(level, "unknown whether the API server enforces the fence: %s", error)
