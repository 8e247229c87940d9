"""Whether the API server enforces the fence: what the leader found by dry runs, and which policies are there.

The leader asks each minute, and notes in the Lease if nothing was missing. A person can see which policies and bindings
exist, which does not show that they refuse anything; `kopf-ha check` asks that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.description import Description
from kopf_ha.manifests.lease import DESCRIBED
from kopf_ha.manifests.policies import all_policies
from kopf_ha.oncall.cluster import Cluster, Unknown

_API = "/apis/admissionregistration.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of the cluster, as far as one may list them.

    Args:
        policies: as read; `Unknown` if they may not be listed.
        bindings: as read; `Unknown` if they may not be listed.
    """

    policies: list[dict[str, Any]] | Unknown
    bindings: list[dict[str, Any]] | Unknown

    @classmethod
    def read(cls, cluster: Cluster) -> Policies:
        """List them.

        Raises:
            ApiError: the API server does not answer.
        """
        return cls(
            cluster.items(f"{_API}/validatingadmissionpolicies"),
            cluster.items(f"{_API}/validatingadmissionpolicybindings"),
        )


@dataclass(frozen=True, slots=True)
class Protection:
    """What is known about the enforcement of one operator's fence.

    Args:
        noted: the leader's dry runs found nothing missing in its present term, as it notes in the Lease.
        described: what the policies were written from; None if there are none, `Unknown` if that cannot be read.
        expected: the names of the policies that belong to it.
        missing: those among them that do not exist, or that no binding of the same name puts in force.
    """

    noted: bool
    described: Description | Unknown | None
    expected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def level(self) -> str | None:
        """The level that the leader found, one of those in docs/terms.md; None if it found another, or none so far."""
        if not self.noted:
            return None
        return self.described.level if isinstance(self.described, Description) else "full"


def protection_of(record: LeaseRecord | None, lease: str, found: Policies) -> Protection:
    """Return what is known about one operator.

    Args:
        record: its Lease; None if there is none.
        lease: ``namespace/name`` of it.
        found: the policies of the cluster.
    """
    # It begins with the token of the term in which the leader asked.
    noted = record is not None and record.enforced.partition("-")[0] == str(record.transitions)
    if isinstance(found.policies, Unknown) or isinstance(found.bindings, Unknown):
        why = found.policies if isinstance(found.policies, Unknown) else found.bindings
        return Protection(noted, why if isinstance(why, Unknown) else None)
    described = description_of(lease, found.policies)
    if described is None:
        return Protection(noted, None)
    expected = tuple(policy.name for policy in all_policies(described))
    there = {p["metadata"]["name"] for p in found.policies} & set(_in_force(found.bindings))
    return Protection(noted, described, expected, tuple(name for name in expected if name not in there))


@dataclass(frozen=True, slots=True)
class Described:
    """What one policy says that all policies of its operator were written from.

    Args:
        policy: its name.
        description: None if this version cannot read it.
        trouble: why it cannot.
    """

    policy: str
    description: Description | None
    trouble: str = ""


def described(policies: Iterable[Mapping[str, Any]]) -> Iterator[Described]:
    """Give what each policy of a Lease says that all of its operator were written from."""
    for policy in policies:
        for rule in (policy.get("spec") or {}).get("validations") or ():
            message = str(rule.get("message") or "")
            if message.startswith(DESCRIBED):
                name = str(policy["metadata"]["name"])
                try:
                    yield Described(name, Description.from_json(message.removeprefix(DESCRIBED)))
                except ConfigurationError as error:
                    yield Described(name, None, str(error))


def description_of(lease: str, policies: Iterable[Mapping[str, Any]]) -> Description | None:
    """Return what the policies of a Lease were written from, as its own policy says; None if there is none."""
    found = (one.description for one in described(policies))
    return next((one for one in found if one is not None and one.lease == lease), None)


def _in_force(bindings: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield the names of policies that a binding puts in force."""
    for binding in bindings:
        spec = binding.get("spec") or {}
        if "Deny" in (spec.get("validationActions") or ()):
            yield str(spec.get("policyName"))
