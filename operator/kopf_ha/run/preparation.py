"""Prepares a term before any handler runs: raises the barrier, while it asks whether the fence is enforced.

First of all the Term is written, and handlers wait until the API server has heard of it.

Where the policies are required, it asks first, so that nothing is written under a token that the API server ignores.
They are always required for deciding kinds without `status.fencing` (I4): only a policy keeps users from their stamps.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from kopf_ha._context import boottime
from kopf_ha.api import Api
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.run.aside import try_again
from kopf_ha.run.barrier import find_kinds, raise_barrier
from kopf_ha.run.enforcement import Enforcement
from kopf_ha.run.journal import Journal
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
    """

    api: Api
    fence: Fence
    journal: Journal
    enforcement: Enforcement
    policies_first: bool
    term: TermObject
    namespaces: Namespaces = field(default_factory=Namespaces)

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
        if self.policies_first:
            self._ask(grant)
            self._raise_barrier(grant, None)
            return
        asking = threading.Thread(target=self._ask, args=(grant,), name="kopf-ha-selftest", daemon=True)
        asking.start()
        self._raise_barrier(grant, asking)
        asking.join()

    def _ask(self, grant: Grant) -> None:
        self.term.hear(grant)
        self.enforcement.begin(grant)

    def _raise_barrier(self, grant: Grant, asking: threading.Thread | None) -> None:
        began = boottime()
        kinds = find_kinds(self.api, self.fence)
        if noted := [kind.name for kind in kinds if kind.stamped is False]:
            if asking is not None:
                asking.join()
            self.enforcement.require(noted)
        sweep = Sweep(self.api, self.fence, grant, kinds, self.namespaces)
        raised = raise_barrier(sweep)
        self.journal.barrier_up(boottime() - began, raised.stamped)
        if raised.aside:
            self.journal.set_aside(raised.aside)
        if sweep.left:
            self.journal.not_listed(sweep.left)
        if sweep.trouble:
            logger.warning("%s", sweep.trouble)
        if raised.aside or sweep.left or sweep.trouble:
            again = (sweep, raised.aside, self.journal.set_aside, self.journal.not_listed)
            threading.Thread(target=try_again, args=again, name="kopf-ha-set-aside", daemon=True).start()
