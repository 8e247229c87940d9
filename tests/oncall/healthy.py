"""An operator whose installation is well, as plain facts. Tests break them."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kopf_ha.manifests.documents import Document
from kopf_ha.manifests.policies import all_policies
from kopf_ha.oncall.checks import gather, rights, roles
from kopf_ha.oncall.checks.facts import (
    EVENTS,
    LEASES,
    NETWORK_POLICIES,
    PODS,
    Asked,
    Facts,
    Object,
    Operator,
    Tried,
)
from kopf_ha.oncall.checks.finding import When
from kopf_ha.oncall.checks.operators import operators
from kopf_ha.oncall.checks.result import Result, run
from kopf_ha.oncall.cluster import Unknown
from tests.oncall.checked import fenced, operator

NAMESPACE, GROUP, NOW = "play", "toys.example.com", 1_800_000_000.0
HOLDER = "toys-6f-a_uid-0_1"


class Healthy:
    """Everything that the checks are told; change it, and ask what they find.

    Args:
        options: further ones of `kopf-ha manifests`.
    """

    def __init__(self, *options: str) -> None:
        self.documents: list[Any] = copy.deepcopy(_made(options))
        self.objects: dict[str, Any] = {
            LEASES: [self._lease()],
            PODS: [self._pod(n) for n in range(2)],
            EVENTS: [],
            NETWORK_POLICIES: [],
        }
        self.facts: dict[str, Any] = {"version": (1, 35), "samples": {}, "now": NOW, "from_files": False}
        names = "validatingadmissionpolicies", "validatingadmissionpolicybindings"
        self.facts["served"] = frozenset(f"admissionregistration.k8s.io/v1/{n}" for n in names)
        self.asked: dict[str, Any] = {"latencies": (0.01, 0.02), "term": self._term(), "objects": {}}
        self.tried: dict[str, Any] = {"flow_schema": "uid-of-schema"}
        self.may: dict[Any, bool] = {}
        self.find("FlowSchema")["metadata"]["uid"] = "uid-of-schema"
        for one in self.documents:
            if one["kind"] == "CustomResourceDefinition":
                one["status"] = {"conditions": [{"type": "Established", "status": "True"}]}

    # --- parts

    def find(self, kind: str, name: str = "") -> Any:
        """One of the documents."""
        return next(d for d in self.documents if d["kind"] == kind and d["metadata"]["name"].endswith(name))

    def drop(self, kind: str, name: str = "") -> None:
        """Leave one out."""
        self.documents.remove(self.find(kind, name))

    @property
    def deployment(self) -> Any:
        """The operator's."""
        return self.find("Deployment")

    @property
    def pod(self) -> Any:
        """The Pod's spec in its template."""
        return self.deployment["spec"]["template"]["spec"]

    @property
    def container(self) -> Any:
        """The operator's."""
        return self.pod["containers"][0]

    def env(self, name: str, value: str | None) -> None:
        """Set a variable, or remove it."""
        self.container["env"] = [e for e in self.container["env"] if e["name"] != name]
        self.container["env"] += [{"name": name, "value": value}] if value is not None else []

    def versions(self, kind: str = "racks") -> Any:
        """The versions of a CRD."""
        return self.find("CustomResourceDefinition", f"{kind}.{GROUP}")["spec"]["versions"]

    @property
    def lease(self) -> Any:
        """The Lease."""
        return self.objects[LEASES][0]

    # --- what the checks find

    def results(self, when: When = When.INSTALLED) -> list[Result]:
        """All results."""
        documents = [Document("there", "", copy.deepcopy(d)) for d in self.documents]
        told = gather.of_files(documents, "", NAMESPACE)
        facts = replace(told, objects={**told.objects, **self.objects}, **self.facts)
        found = [replace(o, asked=self._asked(facts, o)) for o in operators(facts)]
        return run(facts, found, when)

    def found(self, when: When = When.INSTALLED) -> dict[str, str]:
        """The worst of each check that found something."""
        return {r.check.name: r.mark.value for r in self.results(when) if r.findings}

    def _asked(self, facts: Facts, one: Operator) -> Asked:
        may = roles.may(facts, one.account, rights.asked(one))
        if not isinstance(may, Unknown):
            may = {**may, **{right: self.may[right] for right in self.may if right in may}}
        refused = {}
        if not isinstance(one.expected, Unknown):
            refused = {(p.name, r.name): True for p in all_policies(one.expected) for r in p.rules if not r.question}
        tried: Any = Tried(**{"refused": refused, **self.tried})
        return Asked(**{"may": may, "tried": tried, **self.asked})

    def _lease(self) -> Object:
        spec = {"holderIdentity": HOLDER, "leaseTransitions": 7, "leaseDurationSeconds": 15, "renewTime": at(NOW - 1)}
        notes = {"kopf-ha.dev/operator": "toys"}
        return {"metadata": {"name": "toys", "namespace": NAMESPACE, "annotations": notes}, "spec": spec}

    def _term(self) -> Object:
        return {"spec": {"token": 7, "holder": HOLDER, "podUID": "uid-0"}}

    def _pod(self, number: int) -> Any:
        meta = {"name": f"toys-6f-{number}", "namespace": NAMESPACE, "uid": f"uid-{number}", "labels": {"app": "toys"}}
        status: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        status["containerStatuses"] = [{"name": "operator"}]
        return {"metadata": meta, "spec": {"serviceAccountName": "toys"}, "status": status}


@functools.cache
def _made(options: tuple[str, ...]) -> list[Any]:
    """What `kopf-ha manifests` writes, which takes a while."""
    deciding = () if "--level=term" in options else (f"--deciding=racks.{GROUP}",)
    return fenced(operator(NAMESPACE, GROUP), *deciding, *options)


def at(seconds: float) -> str:
    """A MicroTime."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
