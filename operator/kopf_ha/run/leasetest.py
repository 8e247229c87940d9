"""Which policies are in force, asked by dry-run updates of the Lease, which the replica may send anyway.

All policies of a Lease are generated from one description, and the Lease's own policy reveals that description. So the
code that generates policies also generates the questions, one for each rule. A question is a dry run that changes
nothing, and whose field manager names a rule. The rule's policy refuses it. That shows that the policy, its binding and
the rule are in force for this replica.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from kopf_ha._context import boottime
from kopf_ha.api import Api, refusal
from kopf_ha.core.lease import lease_path
from kopf_ha.core.refusal import by_policy, denial_of
from kopf_ha.core.wire import Response
from kopf_ha.errors import ConfigurationError, MalformedLease
from kopf_ha.manifests.cel import QUESTION, Policy, Rule
from kopf_ha.manifests.description import Description
from kopf_ha.manifests.lease import DESCRIBE, DESCRIBED
from kopf_ha.manifests.policies import all_policies
from kopf_ha.manifests.questions import counting, question
from kopf_ha.run.namespaces import Namespaces
from kopf_ha.settings import Settings

#: What to do about a protection that is missing.
HELP = "apply the policies that `kopf-ha manifests` writes for this Lease and service account"


class LeaseTest:
    """One round of questions. They may be asked from several threads.

    Args:
        api: of an unfenced client: the fence lets nobody write the Lease.
        settings: name the Lease.
        patience: seconds for which each question is asked again when others change the Lease in between. Such a
            conflict says nothing about enforcement, and on a busy machine there may be one after the other.
        clock: gives seconds.
    """

    def __init__(
        self, api: Api, settings: Settings, *, patience: float = 10.0, clock: Callable[[], float] = boottime
    ) -> None:
        self._api = api
        self._patience = patience
        self._clock = clock
        self._name = settings.lease
        self._path = lease_path(settings.lease_namespace, settings.lease_name)
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}

    def description(self) -> Description | None:
        """Return what the policies were generated from; None if no policies of this version answer this replica.

        Raises:
            ApiRefused: it cannot be found out.
        """
        answer = self._put(manager=QUESTION + DESCRIBE)
        if answer.ok:
            return None
        denial = denial_of(answer)
        if answer.status != 403 or denial is None or not denial.message.startswith(DESCRIBED):
            raise refusal(f"cannot find out what protects Lease {self._name}", answer)
        try:
            return Description.from_json(denial.message.removeprefix(DESCRIBED))
        except ConfigurationError:
            return None

    def has(self, policy: Policy, rule: Rule) -> bool:
        """Return whether a rule is in force for this replica. Only a refusal by its own policy counts.

        Raises:
            ApiRefused: something else refused.
        """
        answer = self._put(manager=rule.asked(policy.name))
        if answer.ok:
            return False
        if by_policy(answer, policy.name):
            return True
        raise refusal(f"cannot find out whether {policy.name} is in force", answer)

    def can_be_lowered(self) -> bool:
        """Return whether the count of terms can be lowered (I2).

        Raises:
            ApiRefused: something else than a policy refused.
        """
        answer = self._put(lower=1)
        if not answer.ok and not by_policy(answer):
            raise refusal(f"cannot find out whether Lease {self._name} is protected", answer)
        return answer.ok

    def _put(self, manager: str = "", lower: int = 0) -> Response:
        """Update the Lease by a dry run; again on the new revision if a renewal came in between."""
        body, until = self._read(), self._clock() + self._patience
        while True:
            count = (body.get("spec") or {}).get("leaseTransitions")
            if not count:
                raise MalformedLease(f"Lease {self._name} counts no terms: leaseTransitions is {count}")
            answer = self._api.request("PUT", self._path + question(manager), counting(body, lower))
            if answer.status != 409 or self._clock() >= until:
                return answer
            body = self._read(other_than=body)

    def _read(self, other_than: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._lock:
            if not self._known or self._known is other_than:
                self._known = self._api.call("GET", self._path)
            return self._known


def missing_policies(pool: Executor, lease: LeaseTest, described: Description, whole: bool) -> dict[str, list[str]]:
    """Ask about each policy; return what is missing, in sentences, by the policy's name.

    Args:
        pool: asks several questions at once.
        lease: asks.
        described: what the policies were generated from.
        whole: ask about each rule; otherwise about one rule of each policy.
    """
    asking: list[tuple[Policy, Rule, Future[bool]]] = [
        (policy, rule, pool.submit(lease.has, policy, rule))
        for policy in all_policies(described)
        for rule in (policy.rules if whole else policy.rules[:1])
        if not rule.question  # which was answered before
    ]
    lacking: dict[str, list[Rule]] = {}
    answered = set()
    for policy, rule, has in asking:
        if has.result():
            answered.add(policy.name)
        else:
            lacking.setdefault(policy.name, []).append(rule)
    return {
        name: [f"policy {name} lacks its rule {r.name} ({r.message}); {HELP}" for r in rules]
        if name in answered
        else [f"policy {name} is not in force, or its binding is not; {HELP}"]
        for name, rules in lacking.items()
    }


def missing_of_lease(
    lowered: bool, described: Description | None, missing: dict[str, list[str]], settings: Settings
) -> Iterator[str]:
    """Yield sentences about the Lease itself, and about deciding kinds that its policies do not cover.

    Args:
        lowered: whether its count of terms can be lowered.
        described: what its policies were generated from; None if none answer.
        missing: what is missing already, by the policy's name, so that nothing is said twice.
        settings: name the Lease and the deciding kinds.
    """
    if lowered and (described is None or f"{described.prefix}-lease" not in missing):
        yield f"leaseTransitions of Lease {settings.lease} can be lowered, so tokens could be given twice; {HELP}"
    elif described is None:
        yield f"the policies of Lease {settings.lease} do not answer: other version, account or Lease; {HELP}"
    if described is not None:
        kinds = {f"{k.plural}.{described.group}" for k in described.stamped} | {c.kind for c in described.noted}
        for kind in settings.deciding:
            if kind not in kinds:
                yield f"{kind}: a deciding kind that no policy of Lease {settings.lease} covers; {HELP}"


def missing_namespaces(described: Description | None, namespaces: Namespaces, settings: Settings) -> Iterator[str]:
    """Yield a sentence if the policies were written for fewer namespaces than the operator serves.

    Args:
        described: what the policies were generated from; None if none answer.
        namespaces: those that the operator serves.
        settings: name the Lease.
    """
    if described is not None and (left := namespaces.uncovered(described.namespaces)):
        served = "all namespaces" if left == ("*",) else " and ".join(f"-n {one}" for one in left)
        yield (
            f"the policies of Lease {settings.lease} cover {', '.join(described.namespaces)}, and the operator serves"
            f" {served}; {HELP}, with --namespace for each, or without it"
        )
