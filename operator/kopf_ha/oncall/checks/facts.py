"""What is known when the checks begin. Nothing here reads anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.siblings import Pod
from kopf_ha.errors import MalformedLease
from kopf_ha.manifests.description import Description
from kopf_ha.oncall.cluster import Unknown

Object = Mapping[str, Any]

#: What nobody has looked at.
NOT_TRIED, NOT_ASKED, NOT_KNOWN = Unknown("not tried"), Unknown("not asked"), Unknown("not known")

CRDS = "customresourcedefinitions"
POLICIES = "validatingadmissionpolicies"
BINDINGS = "validatingadmissionpolicybindings"
VALIDATING = "validatingwebhookconfigurations"
MUTATING = "mutatingwebhookconfigurations"
FLOW_SCHEMAS = "flowschemas"
PRIORITY_CLASSES = "priorityclasses"
DEPLOYMENTS = "deployments"
STATEFUL_SETS = "statefulsets"
PODS = "pods"
ACCOUNTS = "serviceaccounts"
BUDGETS = "poddisruptionbudgets"
LEASES = "leases"
EVENTS = "events"
NETWORK_POLICIES = "networkpolicies"
NAMESPACES = "namespaces"
ROLES = "roles"
CLUSTER_ROLES = "clusterroles"
ROLE_BINDINGS = "rolebindings"
CLUSTER_ROLE_BINDINGS = "clusterrolebindings"


class NotRead(Exception):
    """A check needs what could not be read. The message says why."""


class SaidElsewhere(NotRead):
    """A check can say nothing, not even that all is well, for a reason that another check names."""


class Right(NamedTuple):
    """Something that an account may do, or not.

    Args:
        verb: such as ``patch``.
        group: the API group; empty for the core group.
        resource: plural, also with ``/subresource``.
        namespace: empty for all namespaces, and for what is in none.
        name: of one object; empty for all.
    """

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        plural, slash, sub = self.resource.partition("/")
        kind = f"{plural}.{self.group}" if self.group else plural
        named = f" {self.name}" if self.name else ""
        return f"{self.verb} {kind}{slash}{sub}{named}" + (f" in {self.namespace}" if self.namespace else "")


def in_words(rights: Iterable[Right]) -> str:
    """Return rights as people say them, with all verbs for one thing together."""
    by_what: dict[str, list[str]] = {}
    for right in rights:
        by_what.setdefault(str(right).partition(" ")[2], []).append(right.verb)
    return "; ".join(f"{', '.join(verbs)} {what}" for what, verbs in by_what.items())


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What dry runs by the operator's account found out.

    Args:
        described: what the policies say that they were written from; None if none answered.
        refused: by policy and rule: whether it refused the question about it.
        lowered: whether the Lease's count could be lowered.
        foreign: kinds of which an object takes another pod's stamp.
        sunk: kinds of which an object takes a lower token.
        flow_schema: uid of the FlowSchema that chose the priority of the Lease's requests; empty if it was not told.
    """

    described: Description | None = None
    refused: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    lowered: bool = False
    foreign: Sequence[str] = ()
    sunk: Sequence[str] = ()
    flow_schema: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked about one operator.

    Args:
        may: what its account may do, of what was asked.
        tried: what dry runs found out; None if nobody wants any.
        term: its Term; None if there is none.
        objects: some objects of each own kind, by ``plural.group``.
        lease: its Lease, read after the objects; None if it could not be read.
        latencies: seconds that reads of its Lease took.
    """

    may: Mapping[Right, bool] | Unknown = field(default_factory=dict)
    tried: Tried | Unknown | None = NOT_TRIED
    term: Object | Unknown | None = None
    objects: Mapping[str, Sequence[Object] | Unknown] = field(default_factory=dict)
    lease: Object | None = None
    latencies: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is the same for all operators.

    Args:
        objects: by plural; `Unknown` if they could not be read. Those in namespaces are of the namespaces looked at.
        version: the API server's, as ``(major, minor)``.
        served: ``group/version/plural`` of what it serves, of the groups that matter.
        person: what the person may do, of what was asked.
        samples: why the API server refuses sample policies and definitions, by what they show; empty for "it takes it".
        now: seconds since 1970 by the API server's clock, or by this machine's.
        files: what was given with ``-f``, as words of a command; empty for nothing.
        flags: of kubectl, which lead to the same cluster.
        from_files: the objects are those in files, and not the cluster's.
        looked_at: where operators were looked for, in words.
        lease: ``namespace/name`` of the only Lease that is meant; empty for all.
    """

    objects: Mapping[str, Sequence[Object] | Unknown]
    version: tuple[int, int] | Unknown = NOT_ASKED
    served: frozenset[str] | Unknown = NOT_ASKED
    person: Mapping[Right, bool] | Unknown = field(default_factory=dict)
    samples: Mapping[str, str | Unknown] = field(default_factory=dict)
    now: float = 0.0
    files: str = ""
    flags: str = ""
    from_files: bool = False
    looked_at: str = ""
    lease: str = ""

    def of(self, plural: str, namespace: str = "") -> list[Object]:
        """Return the objects of a kind, in a namespace if one is named.

        Raises:
            NotRead: they could not be read.
        """
        found = self.objects.get(plural, ())
        if isinstance(found, Unknown):
            raise NotRead(found)
        return [o for o in found if not namespace or o["metadata"].get("namespace") == namespace]

    def named(self, plural: str, name: str, namespace: str = "") -> Object | None:
        """Return one object; None if there is none.

        Raises:
            NotRead: it could not be read.
        """
        return next((o for o in self.of(plural, namespace) if o["metadata"]["name"] == name), None)

    @property
    def absent(self) -> str:
        """What is to be said of something that was looked for, and was not found."""
        return f"not in the {'files' if self.from_files else 'cluster'}"

    @property
    def kubectl(self) -> str:
        """The beginning of a command for the same cluster."""
        return f"kubectl {self.flags}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator: what belongs to one Lease.

    Args:
        namespace: of its workload, which is the account's.
        lease: ``namespace/name``.
        workloads: Deployments and StatefulSets that elect their leader by this Lease, as read.
        container: the operator's, of the first workload.
        account: ``namespace/name`` of its service account.
        descriptions: what policies say that they were written from, if they are for this Lease or this account, by the
            name that the policy of the Lease has.
        expected: what policies should be written from; `Unknown` with the reason if nobody can tell.
        asked: see there.
    """

    namespace: str
    lease: str
    workloads: Sequence[Object]
    container: Object
    account: str
    descriptions: Mapping[str, Description] = field(default_factory=dict)
    expected: Description | Unknown = NOT_KNOWN
    asked: Asked = Asked()

    @property
    def workload(self) -> Object:
        """The first one."""
        return self.workloads[0]

    @property
    def lease_parts(self) -> tuple[str, str]:
        """Namespace and name of the Lease."""
        namespace, _, name = self.lease.partition("/")
        return namespace, name

    @property
    def title(self) -> str:
        """The workload, as kubectl names it: ``deployment/NAME``."""
        return f"{str(self.workload['kind']).lower()}/{self.workload['metadata']['name']}"

    @property
    def pod_spec(self) -> Any:
        """The Pod's spec in the workload's template."""
        return self.workload["spec"]["template"]["spec"]

    @property
    def description(self) -> Description:
        """What policies should be written from.

        Raises:
            SaidElsewhere: nobody can tell, which `policies.known` says.
        """
        if isinstance(self.expected, Unknown):
            raise SaidElsewhere(self.expected)
        return self.expected


@dataclass(frozen=True, slots=True)
class Case:
    """What one check is about."""

    facts: Facts
    operator: Operator | None = None

    @property
    def its(self) -> Operator:
        """The operator, for checks about one."""
        assert self.operator is not None  # noqa: S101  the table says so
        return self.operator

    @property
    def lease(self) -> Object | None:
        """The operator's Lease, as read; None if there is none.

        Raises:
            NotRead: it could not be read.
        """
        namespace, name = self.its.lease_parts
        return self.facts.named(LEASES, name, namespace)

    @property
    def record(self) -> LeaseRecord | None:
        """What the operator's Lease says; None if there is none.

        Raises:
            NotRead: it could not be read.
            SaidElsewhere: it cannot be used, which `election.usable` says.
        """
        return self._parsed(self.lease)

    @property
    def newest(self) -> LeaseRecord | None:
        """The same, read after the objects were.

        Raises:
            NotRead: it could not be read.
            SaidElsewhere: it cannot be used, which `election.usable` says.
        """
        return self._parsed(self.its.asked.lease or self.lease)

    @staticmethod
    def _parsed(lease: Object | None) -> LeaseRecord | None:
        try:
            return None if lease is None else LeaseRecord.parse(lease)
        except MalformedLease as problem:
            raise SaidElsewhere(problem) from problem

    @property
    def pods(self) -> list[Object]:
        """The Pods of the operator's workload that are not over, and are not being deleted.

        Raises:
            NotRead: they could not be read.
        """
        selected = (self.its.workload["spec"].get("selector") or {}).get("matchLabels") or {}
        return [
            one
            for one in self.facts.of(PODS, self.its.namespace)
            if selected
            and all((one["metadata"].get("labels") or {}).get(k) == v for k, v in selected.items())
            and not is_over(one)
        ]


def is_over(pod: Object) -> bool:
    """Whether a Pod ended, or is being deleted."""
    found = Pod.parse(pod)
    return found.over or found.deleting
