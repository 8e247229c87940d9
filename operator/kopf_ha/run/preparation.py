"""Prepares a term before any handler runs: raises the barrier. Then it is asked whether the fence is enforced.

First of all the Term is written, and handlers wait until the API server has heard of it.

Where the policies are required, it asks first, so that nothing is written under a token that the API server ignores.
They are always required for deciding kinds without `status.fencing` (I4): only a policy keeps users from their stamps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from kopf_ha._context import boottime
from kopf_ha.api import Api
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.target import Target
from kopf_ha.errors import ConfigurationError, TermEnded
from kopf_ha.run.aside import try_again
from kopf_ha.run.barrier import find_kinds, raise_barrier
from kopf_ha.run.behind import Behind
from kopf_ha.run.deciding import DecidingObject
from kopf_ha.run.enforcement import Enforcement
from kopf_ha.run.journal import Journal
from kopf_ha.run.kinds import ServedKind, schema_of
from kopf_ha.run.namespaces import Namespaces
from kopf_ha.run.sweep import Sweep
from kopf_ha.run.termobject import TermObject

logger = logging.getLogger("kopf_ha.run")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Prepares terms. Call `before_kopf` in the term's thread.

    Args:
        api: of a fenced client.
        fence: of this process.
        journal: is told of the barrier.
        enforcement: asks whether the API server enforces the fence.
        policies_first: whether the barrier waits for the answer.
        term: the Term, by which the API server knows who leads.
        namespaces: where the operator looks.
        each: whether handlers wait for the stamps of what they decide from alone.
    """

    api: Api
    fence: Fence
    journal: Journal
    enforcement: Enforcement
    policies_first: bool
    term: TermObject
    namespaces: Namespaces = field(default_factory=Namespaces)
    each: bool = False

    def before_kopf(self, grant: Grant) -> None:
        """Prepare one term. Without the full fence there is nothing to prepare.

        Raises:
            ConfigurationError: a deciding kind cannot be stamped, or policies are required and missing or unknown.
            FloorLost: an object or the Term records a token at or above mine.
            ApiError, MalformedLease: an answer of the API server is needed and missing.
            TermEnded: the term ended meanwhile.
        """
        if self.fence.mode != "full":
            return
        self.term.write(grant)
        hearing = threading.Thread(target=self.term.hear, args=(grant,), name="kopf-ha-term", daemon=True)
        hearing.start()  # beside the barrier, whose writes carry stamps
        if self.policies_first:
            hearing.join()
            self.enforcement.begin(grant)
        began = boottime()
        kinds = find_kinds(self.api, self.fence)
        noted = [kind.name for kind in kinds if kind.stamped is False]
        if noted:
            if not self.policies_first:
                hearing.join()
                self.enforcement.begin(grant)
            self.enforcement.require(noted)
        self._raise_barrier(grant, kinds, began)
        hearing.join()
        if not noted and not self.policies_first:
            self.enforcement.begin_soon(grant)

    def asks(self, target: Target) -> bool | None:
        """Ask whether a kind is stamped; None if that is unknown, or if it does not matter without the full fence.

        Raises:
            Unfenced: some of its served versions have the stamp, and some have not.
            ApiError: the cluster did not say.
        """
        return schema_of(self.api, target) if self.fence.mode == "full" else None

    def _raise_barrier(self, grant: Grant, kinds: list[ServedKind], began: float) -> None:
        sweep = Sweep(self.api, self.fence, grant, kinds, self.namespaces)
        raised = raise_barrier(sweep, each=self.each)
        behind = Behind(sweep, raised.behind)
        grant.stamper, grant.behind = behind.stamped, self.each
        self.journal.barrier_up(boottime() - began, raised.stamped, len(raised.behind))
        if raised.aside:
            self.journal.set_aside(raised.aside)
        if sweep.left:
            self.journal.not_listed(sweep.left)
        if sweep.trouble:
            logger.warning("%s", sweep.trouble)
        if raised.behind or raised.aside or sweep.left or sweep.trouble:
            work = (sweep, behind, raised.aside)
            threading.Thread(target=self._go_on, args=work, name="kopf-ha-set-aside", daemon=True).start()

    def _go_on(self, sweep: Sweep, behind: Behind, aside: Sequence[DecidingObject]) -> None:
        """Stamp what handlers did not wait for, and then what is set aside, as long as the term lasts (I7)."""
        try:
            self._catch_up(sweep, behind, aside)
        except (TermEnded, ConfigurationError):
            pass  # as in `try_again`
        except RuntimeError:
            if not sweep.grant.closed:
                raise
            # The process ends, and the interpreter takes no job of a pool any more.

    def _catch_up(self, sweep: Sweep, behind: Behind, aside: Sequence[DecidingObject]) -> None:
        began = boottime()
        more = behind.run()
        if more:
            aside = [*aside, *more]
            sweep.finish(aside)
            self.journal.set_aside(aside)
        if self.each:
            self.journal.caught_up(boottime() - began, len(more))
        try_again(sweep, aside, self.journal.set_aside, self.journal.not_listed)
