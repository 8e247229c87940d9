"""Asks about one operator: what its account may do, and what the API server would refuse to it.

Dry runs are sent with a token of the operator's service account that is bound to one of its Pods, as a replica has. It
is asked for (TokenRequest), used for these questions, and valid for ten minutes at most. No dry run changes anything.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kopf_ha.core.hearing import term_path
from kopf_ha.core.lease import lease_path
from kopf_ha.core.refusal import by_policy, by_rule
from kopf_ha.core.token import MalformedStamp, Stamp, stamp_of
from kopf_ha.core.wire import MERGE_PATCH, Response
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.cel import QUESTION
from kopf_ha.manifests.description import Description
from kopf_ha.manifests.lease import DESCRIBE
from kopf_ha.manifests.policies import all_policies
from kopf_ha.manifests.questions import (
    BY_SELFTEST,
    DRY_RUN,
    another_pods,
    counting,
    described_by,
    lower,
    question,
)
from kopf_ha.oncall.checks import gather
from kopf_ha.oncall.checks.facts import CRDS, Asked, Case, Facts, NotRead, Object, Operator, Right, Tried
from kopf_ha.oncall.cluster import TIMEOUT, Answered, Cluster, Unknown

if TYPE_CHECKING:
    from kopf_ha.api import Api

#: Reads of the Lease by which the latency is measured.
READS = 5
#: Objects of a kind that are looked at.
OBJECTS = 500
#: Seconds for which the token is valid; the API server gives none for less.
VALID = 600
#: Times that a question is asked again because the Lease was renewed in between.
ATTEMPTS = 20


def ask(cluster: Cluster, facts: Facts, operator: Operator, rights: Sequence[Right], *, dry_runs: bool) -> Asked:
    """Ask about one operator.

    Args:
        cluster: where.
        facts: what is known.
        operator: which one.
        rights: what is asked about its account.
        dry_runs: whether to try what must be refused.

    Raises:
        ApiError: the API server does not answer, or does not know the person.
    """
    # Before the Lease is read: it counts the term of whoever stamps objects.
    objects = {kind: _objects(cluster, facts, kind, served) for kind, served in kinds_of(operator).items()}
    path = lease_path(*operator.lease_parts)
    latencies = []
    for _ in range(READS):
        began = time.perf_counter()
        lease = cluster.read(path)
        latencies.append(time.perf_counter() - began)
    term = cluster.read(term_path(*operator.lease_parts))
    return Asked(
        may=gather.may(cluster, operator.account, rights),
        tried=_tried(cluster, facts, operator, _holder(lease), objects) if dry_runs else None,
        term=term.body if isinstance(term, Answered) else term,
        objects=objects,
        lease=lease.body if isinstance(lease, Answered) else None,
        latencies=tuple(latencies),
    )


def kinds_of(operator: Operator) -> dict[str, Sequence[str]]:
    """Return the operator's own kinds, each with the namespaces whose objects are the operator's; none for all."""
    known = operator.expected
    if isinstance(known, Unknown):
        return {}
    return {f"{kind.plural}.{known.group}": () if kind.cluster else known.namespaces for kind in known.kinds}


def _collection(facts: Facts, kind: str) -> str | Unknown:
    """Return the path of a custom kind's objects; empty if there is no such kind."""
    try:
        definition = facts.named(CRDS, kind)
    except NotRead as reason:
        return Unknown(reason)
    versions = [v["name"] for v in definition["spec"]["versions"] if v.get("served")] if definition else []
    plural, _, group = kind.partition(".")
    return f"/apis/{group}/{versions[0]}/{plural}" if versions else ""


def _objects(cluster: Cluster, facts: Facts, kind: str, served: Sequence[str]) -> Sequence[Object] | Unknown:
    """Return those of a kind's first objects that are in namespaces of the operator."""
    path = _collection(facts, kind)
    if isinstance(path, Unknown) or not path:
        return path or ()
    answer = cluster.api.request("GET", f"{path}?limit={OBJECTS}", timeout=TIMEOUT)
    if answer.ok:
        items = (answer.json or {}).get("items") or ()
        return [o for o in items if not served or o["metadata"].get("namespace") in served]
    return () if answer.status == 404 else Unknown(f"objects of {kind} cannot be listed: {answer.message}")


# --- dry runs


def _tried(
    cluster: Cluster,
    facts: Facts,
    operator: Operator,
    holder: str,
    objects: Mapping[str, Sequence[Object] | Unknown],
) -> Tried | Unknown:
    if isinstance(operator.expected, Unknown):
        return operator.expected
    try:
        account = operator.account.partition("/")[2]
        pods = [p for p in Case(facts, operator).pods if p["spec"].get("serviceAccountName") == account]
    except NotRead as reason:
        return Unknown(f"no token can be asked for, since {reason}")
    if not pods:
        return Unknown("there is no Pod of the operator, to which a token could be bound")
    # The holder's, if it is there: a policy about the Term lets only that one write.
    pod = next((p for p in pods if str(p["metadata"]["uid"]) in holder), pods[0])
    token = _token(cluster, operator, pod)
    if isinstance(token, Unknown):
        return token
    api = _as_operator(cluster.api, token)
    try:
        return _ask_all(api, operator, operator.expected, pod, facts, objects)
    finally:
        api.close()


def _holder(lease: Answered | Unknown | None) -> str:
    return str((lease.body.get("spec") or {}).get("holderIdentity") or "") if isinstance(lease, Answered) else ""


def _token(cluster: Cluster, operator: Operator, pod: Object) -> str | Unknown:
    namespace, _, account = operator.account.partition("/")
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": VALID, "boundObjectRef": bound},
    }
    path = f"/api/v1/namespaces/{quote(namespace)}/serviceaccounts/{quote(account)}/token"
    answer = cluster.api.request("POST", path, body, timeout=TIMEOUT)
    if not answer.ok:
        return Unknown(f"no token of {operator.account} bound to a Pod was given: {answer.message}")
    return str(answer.json["status"]["token"])


def _as_operator(api: Api, token: str) -> Api:
    """Return a client of the same API server with this token and no other credentials."""
    import kubernetes

    from kopf_ha.api import Api, single_attempts

    configuration = copy.deepcopy(api.client.configuration)
    configuration.cert_file = configuration.key_file = None
    configuration.username = configuration.password = None
    configuration.refresh_api_key_hook = None
    configuration.api_key = {"BearerToken": token}
    configuration.api_key_prefix = {"BearerToken": "Bearer"}
    client = kubernetes.client.ApiClient(configuration)
    client.user_agent = api.client.user_agent
    return Api(single_attempts(client))


class _Lease:
    """Puts the Lease by dry runs, again on the new revision if it was renewed in between."""

    def __init__(self, api: Api, path: str) -> None:
        self._api, self._path = api, path
        self._body: dict[str, Any] = {}

    def put(self, manager: str = "", less: int = 0) -> Response:
        """Put it as it is, or with a lower count; give the answer."""
        for _ in range(ATTEMPTS):
            if not self._body:
                self._body = self._api.call("GET", self._path, timeout=TIMEOUT)
            answer = self._api.request("PUT", self._path + question(manager), counting(self._body, less), "", TIMEOUT)
            if answer.status != 409:
                break
            self._body = {}
        return answer

    @property
    def counts(self) -> bool:
        """Whether the Lease counts terms."""
        self._body = self._api.call("GET", self._path, timeout=TIMEOUT)
        return bool((self._body.get("spec") or {}).get("leaseTransitions"))


def _ask_all(
    api: Api,
    operator: Operator,
    expected: Description,
    pod: Object,
    facts: Facts,
    objects: Mapping[str, Sequence[Object] | Unknown],
) -> Tried | Unknown:
    path = lease_path(*operator.lease_parts)
    readable = api.request("GET", path, timeout=TIMEOUT)
    if not readable.ok:
        why = "there is no Lease yet" if readable.status == 404 else readable.message
        return Unknown(f"the questions are dry runs of the Lease, and {why}")
    lease = _Lease(api, path)
    if not lease.counts:
        return Unknown("the questions are dry runs of the Lease, and it counts no terms")
    asked = lease.put(QUESTION + DESCRIBE)
    if not asked.ok and not by_policy(asked):
        return Unknown(f"the questions are dry runs of the Lease, and the operator may not write it: {asked.message}")
    try:
        told = described_by(asked)
    except ConfigurationError:
        told = None
    stamped = {f"{kind.plural}.{expected.group}" for kind in expected.stamped}
    refused = {
        (policy.name, rule.name): by_policy(lease.put(rule.asked(policy.name)), policy.name)
        for policy in all_policies(expected)
        for rule in policy.rules
        if not rule.question
    }
    return Tried(
        described=told,
        refused=refused,
        lowered=lease.put(less=1).ok,
        flow_schema=_flow_schema(asked),
        **_wrong_stamps(api, operator, pod, facts, {k: many for k, many in objects.items() if k in stamped}),
    )


def _wrong_stamps(
    api: Api,
    operator: Operator,
    pod: Object,
    facts: Facts,
    objects: Mapping[str, Sequence[Object] | Unknown],
) -> dict[str, Any]:
    meta = pod["metadata"]
    mine = Stamp(1, f"{meta['name']}_{meta['uid']}_check", operator.lease, str(meta["uid"]))
    foreign, sunk = [], []
    for kind, many in objects.items():
        path = _collection(facts, kind)
        if isinstance(many, Unknown) or not many or isinstance(path, Unknown):
            continue
        one = max(many, key=_recorded)
        root, _, plural = path.rpartition("/")
        where = one["metadata"].get("namespace")
        at = f"{root}/namespaces/{where}/{plural}" if where else path
        at = f"{at}/{one['metadata']['name']}/status{DRY_RUN}{BY_SELFTEST}"
        if api.request("PATCH", at, another_pods(_recorded(one), mine), MERGE_PATCH, TIMEOUT).ok:
            foreign.append(kind)
        if _recorded(one) > 1:
            answer = api.request("PATCH", at, lower(_recorded(one), mine), MERGE_PATCH, TIMEOUT)
            # The rule is asked before the policies: where one of these answers, it is not there.
            if not by_rule(answer) and (answer.ok or by_policy(answer)):
                sunk.append(kind)
    return {"foreign": tuple(foreign), "sunk": tuple(sunk)}


def _recorded(one: Object) -> int:
    try:
        found = stamp_of(one)
    except MalformedStamp:
        return 0
    return found.token if found else 0


def _flow_schema(answer: Response) -> str:
    headers = getattr(answer.raw, "headers", None) or {}
    return str(headers.get("X-Kubernetes-PF-FlowSchema-UID") or "")
