"""Whether the API server enforces the fence, asked by dry runs.

Enforcement can be lost unnoticed: somebody removes a binding for a repair, a namespace overlay does not change the
service account's name inside the policies, or a CRD lacks the rule. So a replica asks for what must be refused, and
names what is accepted. `leasetest` asks about policies, `kindtest` about kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kopf_ha.api import Api
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response
from kopf_ha.errors import Unfenced, Unreached
from kopf_ha.manifests.description import Description
from kopf_ha.run.kindtest import KindTest
from kopf_ha.run.leasetest import LeaseTest, missing_namespaces, missing_of_lease, missing_policies
from kopf_ha.run.level import missing_level
from kopf_ha.run.namespaces import Namespaces
from kopf_ha.settings import Settings

#: Questions that are asked at once, where something waits for the answers.
PARALLEL = 8
#: Seconds for each answer.
TIMEOUT = 30.0
#: Why there is no answer once it was stopped.
STOPPED = "this replica stops, and asks nothing any more"


class SelfTest:
    """Asks for what must be refused to any replica, so followers can ask, too.

    Args:
        api: of an unfenced client with the replica's own credentials, since the fence refuses writes of the Lease.
        settings: the Lease and the deciding kinds.
        namespaces: where the operator looks; nothing is read or tried elsewhere.
    """

    def __init__(self, api: Api, settings: Settings, namespaces: Namespaces | None = None) -> None:
        self._api = api
        self._settings = settings
        self._namespaces = namespaces or Namespaces()
        self._kinds = KindTest(settings.deciding, self._namespaces)
        self._described: Description | None = None  #: what the policies were generated from, when it was asked last
        #: Whether nothing was missing when everything was asked last.
        self.clean = False
        #: Kinds whose stamps in the metadata a policy protected when it was asked last.
        self.protected: frozenset[str] = frozenset()
        #: What the policies were written from, as far as they answered when they were asked last; None if they did not.
        self.described: Description | None = None
        #: The names of those that lacked something then.
        self.lacking: frozenset[str] = frozenset()
        #: Kinds that must not be written because of one of their served versions (I1), and why; as of the same time.
        self.unfit: dict[str, str] = {}
        #: Kinds that carry `status.fencing`, as of the same time.
        self.stamped: frozenset[str] = frozenset()
        self._stopped = False

    def stop(self) -> None:
        """Ask nothing any more, for good. From any thread.

        A call of `ask` that is under way ends after the questions that were sent. The end of the process waits for its
        pool, so the questions that wait there must not be sent one by one.
        """
        self._stopped = True

    def ask(
        self,
        token: int,
        timeout: float = TIMEOUT,
        *,
        kinds: Iterable[str] = (),
        whole: bool = True,
        at_once: int = PARALLEL,
    ) -> list[str]:
        """Return a sentence for each protection that is missing.

        Of a kind without objects, only the policies and the definition are checked: there is nothing to write to.

        Args:
            token: of the term that is about to begin, or the highest known.
            timeout: seconds for each answer.
            kinds: further kinds that have a stamp, beside the deciding ones and those that the policies cover.
            whole: ask about each rule; otherwise only about each policy and the deciding kinds, which is quicker.
            at_once: how many questions are asked at the same time.

        Raises:
            ConfigurationError: a deciding kind is not installed.
            MalformedLease: the Lease counts no terms.
            ApiRefused: the answer to a question is neither yes nor no.
            Unreached: no answer, or it was stopped.
        """
        self.protected, self.described = frozenset(), None
        if whole:
            self.clean = False
        mine = Stamp(token, self._settings.identity, self._settings.lease, self._settings.pod_uid)
        api = _Asking(self._api, timeout, lambda: self._stopped)
        lease = LeaseTest(api, self._settings, patience=min(timeout, self._settings.renew_deadline))
        with ThreadPoolExecutor(at_once, thread_name_prefix="kopf-ha-selftest") as pool:
            lowered = pool.submit(lease.can_be_lowered)
            tried = {k: pool.submit(self._kinds.missing, api, k, mine) for k in self._settings.deciding}
            describing = pool.submit(lease.description)
            # Beside the description, since a takeover waits: it seldom differs from the last one.
            guess = None if whole else self._described
            guessed = missing_policies(pool, lease, guess, whole) if guess is not None else {}
            described = self._described = describing.result()
            seen = set(kinds)
            known = {*self._settings.deciding, *seen}
            policies: dict[str, list[str]] = {}
            noted: set[str] = set()
            if described is not None:
                policies = guessed if described == guess else missing_policies(pool, lease, described, whole)
                known |= {f"{k.plural}.{described.group}" for k in described.stamped}
                # A child of another group may be a stamped kind after all.
                noted = {child.kind for child in described.noted} - seen
                known -= noted
            if whole:
                tried |= {k: pool.submit(self._kinds.missing, api, k, mine) for k in sorted(known - tried.keys())}
                carrying = {k: pool.submit(self._kinds.stamped, api, k) for k in sorted(known)}
                self.unfit = {k: str(e) for k, f in carrying.items() if isinstance(e := f.exception(), Unfenced)}
                self.stamped = frozenset(k for k, f in carrying.items() if k not in self.unfit and f.result())
            self.described, self.lacking = described, frozenset(policies)
            found = list(missing_of_lease(lowered.result(), described, policies, self._settings))
            found += missing_namespaces(described, self._namespaces, self._settings)
            found += missing_level(described, self._settings)
            found += [sentence for many in policies.values() for sentence in many]
            stamped = described is not None and f"{described.prefix}-stamped" in policies
            if described is not None:
                both = ("child", "annotations")
                ok = {k for k in noted if not any(f"{described.prefix}-{p}-{k}" in policies for p in both)}
                self.protected = frozenset(ok)
            for kind, future in tried.items():
                by_policies, by_rule = future.result()
                if kind in noted:
                    continue
                # A policy that is not in force is named already, and so is a kind that must not be written.
                found += [] if stamped else by_policies
                found += [] if kind in self.unfit else by_rule
        found += self.unfit.values()
        if whole:
            self.clean = not found
        return found


class _Asking(Api):
    """The same client with a shorter timeout, until it is stopped."""

    def __init__(self, api: Api, timeout: float, stopped: Callable[[], bool]) -> None:
        super().__init__(api.client)
        self._longest = timeout
        self._stopped = stopped

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = math.inf
    ) -> Response:
        """Send one request; see `Api.request`."""
        if self._stopped():
            raise Unreached(STOPPED, definite=True)
        return super().request(method, path, body, content_type, min(timeout, self._longest))
