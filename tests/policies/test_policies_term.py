"""Line 4: what a pod that is not in the Term is refused, and what it may still send.

The pod `old` led in token 7, and `new` leads in token 8. RBAC allows both everything.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.waiting import until
from kopf_ha.core.notes import as_metadata, notes_of
from kopf_ha.core.refusal import TERM_RULE_MESSAGE
from kopf_ha.manifests import policies
from kopf_ha.manifests.cel import QUESTION
from kopf_ha.manifests.term import KNOWN, KNOWN_TERM
from tests.kit.client import APPLY, MERGE, Answer, Client
from tests.policies.fenced import GROUP, Fenced

ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
ASK = f"?dryRun=All&fieldManager={QUESTION}{KNOWN}"


class Terms:
    """The Term of a fenced group, and what pods are told about it."""

    def __init__(self, fenced: Fenced) -> None:
        self.f = fenced
        self.collection = f"/apis/kopf-ha.dev/v1/namespaces/{fenced.namespace}/terms"
        self.path = f"{self.collection}/leader"
        self.secrets = f"/api/v1/namespaces/{fenced.namespace}/secrets"
        self.policy = f"{fenced.description.prefix}-term"

    def body(self, token: int, by: Client, name: str = "leader", **spec: Any) -> dict[str, Any]:
        spec = {"token": token, "holder": by.stamp(1, "").holder, "podUID": by.uid, **spec}
        return {"apiVersion": "kopf-ha.dev/v1", "kind": "Term", "metadata": {"name": name}, "spec": spec}

    def write(self, token: int, by: Client) -> None:
        """Write the Term as a leader does, anew if the last test ended with a higher token; wait until it is known."""
        made = by("PATCH", self.path, self.body(token, by), MERGE)
        assert made.ok, made.message
        self.until_known(token)

    def reset(self, token: int, by: Client) -> None:
        """Give the Term this token, whatever it had: by an emergency's way."""
        names = [f"{self.policy}-kept", f"{self.policy}-written"]
        self.f.cluster.kubectl("delete", "validatingadmissionpolicybinding", *names, "--ignore-not-found")
        until("the Term to be deleted", lambda: self.f.admin("DELETE", self.path).status in (200, 404))
        bindings = [o for o in policies(self.f.description) if o["kind"].endswith("Binding")]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": bindings})
        self.f.cluster.kubectl("apply", "-f", "-", input=text)
        dry = f"{self.collection}?dryRun=All"
        until("protection of the Term", lambda: not self.f.admin("POST", dry, self.body(1, by)).ok)
        by.must("POST", self.collection, self.body(token, by))
        self.until_known(token)

    def until_known(self, token: int) -> None:
        said = f"denied request: {KNOWN_TERM}{token} of pod "
        until(f"token {token} to be known", lambda: said in self.f.third("PATCH", self.path + ASK, {}, MERGE).message)

    def secret(self, name: str = "", **meta: Any) -> dict[str, Any]:
        return {"metadata": {"name": name or f"s-{self.f.number()}", **meta}}

    def pod(self) -> str:
        name = f"p-{self.f.number()}"
        spec = {"containers": [{"name": "c", "image": "none"}]}
        path = f"/api/v1/namespaces/{self.f.namespace}/pods"
        self.f.admin.must("POST", path, {"metadata": {"name": name}, "spec": spec})
        return f"{path}/{name}"


@pytest.fixture(scope="module")
def term(fenced: Fenced) -> Terms:
    """Token 8 of the pod `new`."""
    made = Terms(fenced)
    # No Term yet: nobody is refused, and the first leader may write it.
    fenced.third.must("POST", made.secrets, made.secret())
    refused = fenced.admin("POST", made.collection, made.body(8, fenced.new))
    assert refused.by == f"{made.policy}-written"
    fenced.new.must("POST", made.collection, made.body(8, fenced.new))
    made.until_known(8)
    return made


@pytest.fixture
def led(term: Terms) -> Terms:
    """The same, whatever the test before has changed."""
    if term.f.read(term.path)["spec"] != term.body(8, term.f.new)["spec"]:
        term.reset(8, term.f.new)
    return term


@dataclass(frozen=True)
class Write:
    """One request, and how the leader is answered."""

    what: str
    method: str
    path: str
    body: Any
    answers: set[int]
    kind: str = "application/json"


def writes(term: Terms) -> Iterator[Write]:
    """Give each verb, on kinds of both scopes, and of subresources."""
    f = term.f
    made = f.admin.must("POST", term.secrets, term.secret())
    path, pod = f"{term.secrets}/{made['metadata']['name']}", term.pod()
    role = {"metadata": {"name": f"{f.namespace}-{f.number()}"}}
    accounts = f"/api/v1/namespaces/{f.namespace}/serviceaccounts/operator/token"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.rpartition("/")[2]}}
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{f.namespace}/leases"
    elsewhere = f"{leases.replace(f.namespace, 'default')}?dryRun=All"
    applied: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"a-{f.number()}"}}
    target = f"{term.secrets}/{applied['metadata']['name']}?fieldManager=x"
    yield Write("create", "POST", term.secrets, term.secret(), {201})
    yield Write("apply", "PATCH", target, applied, {201}, APPLY)
    yield Write("create, cluster-scoped", "POST", ROLES, role, {201})
    yield Write("create, dry run", "POST", f"{term.secrets}?dryRun=All", term.secret(), {201})
    yield Write("replace", "PUT", path, made, {200})
    yield Write("patch", "PATCH", path, {"data": {"a": "MQ=="}}, {200}, MERGE)
    yield Write("subresource", "PATCH", f"{pod}/status", {"status": {"message": "x"}}, {200}, MERGE)
    yield Write("connect", "POST", f"{pod}/exec?command=x&stdout=1", None, {400, 500})
    yield Write("token", "POST", accounts, {"spec": {}}, {201})
    yield Write("evict", "POST", f"{pod}/eviction", eviction, {201})
    yield Write("delete", "DELETE", path, None, {200})
    yield Write("delete, cluster-scoped", "DELETE", f"{ROLES}/{role['metadata']['name']}", None, {200})
    yield Write("another Lease", "POST", leases, {"metadata": {"name": f"l-{f.number()}"}}, {201})
    yield Write("a Lease of its name elsewhere", "POST", elsewhere, {"metadata": {"name": "leader"}}, {201})
    yield Write("another Term", "POST", term.collection, term.body(1, f.old, "another"), {201})


def test_only_the_pod_in_the_term_writes(led: Terms) -> None:
    """Each verb and both scopes, with the very sentence that the fence recognises."""
    f = led.f
    denied = f"ValidatingAdmissionPolicy '{led.policy}' with binding '{led.policy}' denied request: "
    said = f"fencing term of Lease {f.lease}: token 8 leads, in pod {f.new.uid}, and this write is of "
    for one in writes(led):
        for client, whose in ((f.old, f"pod {f.old.uid}"), (f.bare, "no pod")):
            stale = client(one.method, one.path, one.body, one.kind)
            assert stale.status == 403, f"{one.what}: {stale.status} {stale.message}"
            assert stale.body["details"]["causes"] == [{"message": denied + said + whose}], one.what
        leader = f.new(one.method, one.path, one.body, one.kind)
        assert leader.status in one.answers, f"{one.what}: {leader.status} {leader.message}"


def test_only_the_leader_s_pod_writes_the_history(led: Terms) -> None:
    """I10: neither a stale leader nor anybody else makes up how a term ended; the term itself stays as it is."""
    f = led.f
    made_up = {"history": ['{"token":7,"reason":"stopped","cause":"made up"}']}
    for client in (f.old, f.bare, f.admin):
        refused = client("PATCH", led.path, made_up, MERGE)
        assert (refused.status, refused.by) == (403, f"{led.policy}-written"), refused.message
    f.new.must("PATCH", led.path, made_up, MERGE)
    for client in (f.old, f.admin):
        assert client("PATCH", led.path, {"history": None}, MERGE).status == 403, "nor does anybody remove it"
        client.must("PATCH", led.path, {"metadata": {"labels": {"a": "b"}}}, MERGE)
    now = f.read(led.path)
    assert now["spec"] == led.body(8, f.new)["spec"]
    assert now["history"] == made_up["history"]


def test_a_collection_is_deleted_by_the_leader_only(led: Terms) -> None:
    f = led.f
    name = f.admin.must("POST", led.secrets, led.secret(labels={"of": "many"}))["metadata"]["name"]
    refused = f.old("DELETE", f"{led.secrets}?labelSelector=of=many")
    assert (refused.status, refused.by) == (403, led.policy)
    f.read(f"{led.secrets}/{name}")
    f.new.must("DELETE", f"{led.secrets}?labelSelector=of=many")
    assert f.admin("GET", f"{led.secrets}/{name}").status == 404


def test_what_followers_write(led: Terms) -> None:
    """Events, reviews, and the Lease are none of the Term's business, nor is anything of another account."""
    f = led.f
    ref = {"kind": "Secret", "namespace": f.namespace, "name": "x"}
    event: dict[str, Any] = {"metadata": {"name": f"e-{f.number()}"}, "involvedObject": ref}
    newer = {"metadata": {"name": f"e-{f.number()}"}, "regarding": ref, "eventTime": "2026-01-01T00:00:00.000000Z"}
    newer |= {"reportingController": "a/b", "reportingInstance": "c", "action": "d", "reason": "e", "type": "Normal"}
    access = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    f.old.must("POST", f"/api/v1/namespaces/{f.namespace}/events", event)
    f.old.must("POST", f"/apis/events.k8s.io/v1/namespaces/{f.namespace}/events", newer)
    f.old.must("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", access)
    f.old.must("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    f.old.must("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "x"}})
    f.admin.must("POST", led.secrets, led.secret())


def test_the_lease_counts_on_above_the_term(led: Terms) -> None:
    """I2 without stamps: a Lease that was lost does not give tokens again, and nobody who counts on is refused."""
    f = led.f
    spec = {"holderIdentity": f.old.stamp(1, "").holder, "leaseTransitions": 8, "leaseDurationSeconds": 15}
    lost = {"metadata": {"name": "leader"}, "spec": spec}
    wanted = f"{f.description.prefix}-lease-term"
    until("the policy to be in force", lambda: f.old("POST", f"{f.leases}?dryRun=All", lost).by == wanted)
    again = f.old("POST", f.leases, lost)
    assert (again.status, again.by) == (403, wanted)
    said = f"fencing: Term {f.lease} has token 8; a new holder must raise leaseTransitions above it"
    assert again.body["details"]["causes"][0]["message"].endswith(f"denied request: {said}")
    made = f.old.must("POST", f.leases, lost | {"spec": spec | {"leaseTransitions": 9}})
    led.reset(12, f.new)  # a Term above the Lease: a renewal is no acquisition
    renewed = f.old.must("PUT", f"{f.leases}/leader", made)
    released = f.old.must("PUT", f"{f.leases}/leader", {**renewed, "spec": renewed["spec"] | {"holderIdentity": ""}})
    taken = copy.deepcopy(released)
    taken["spec"] |= {"holderIdentity": f.new.stamp(1, "").holder, "leaseTransitions": 12}
    assert f.new("PUT", f"{f.leases}/leader", taken).by == wanted
    taken["spec"]["leaseTransitions"] = 13
    f.new.must("PUT", f"{f.leases}/leader", taken)


# --- one-sided: an API server that has not heard of the new leader


def deleted(f: Fenced, path: str) -> bool:
    """Delete an object as the new leader, unless its controller has just written it."""
    version = f.read(path)["metadata"]["resourceVersion"]
    answer = f.new("DELETE", path, {"preconditions": {"resourceVersion": version}})
    assert answer.ok or answer.status == 409, answer.message
    return answer.ok


def test_a_stamp_above_the_term_is_enough(led: Terms) -> None:
    """I9. The Term is the old leader's here, as where the API server hears late; the new leader has token 8."""
    f = led.f
    led.reset(7, f.old)
    pool, child = f.pool(), f"{f.children}/c-{f.number()}"
    f.stamp(f.new, pool, 8)
    f.new.must("PATCH", pool, {"metadata": {"labels": {"a": "b"}}}, MERGE)
    f.new.must("POST", f.children, f.child_body(child.rpartition("/")[2], f.new.stamp(8, f.lease)))
    where = f"/apis/apps/v1/namespaces/{f.namespace}/deployments"
    notes = as_metadata(notes_of(f.new.stamp(8, f.lease), "deployments.apps"))
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    f.new.must("POST", where, {"metadata": {"name": "d", **notes}, "spec": spec})
    for path in (child, pool, f"{where}/d"):
        until(f"the deletion of {path}", lambda path=path: deleted(f, path))  # type: ignore[misc]
    # What carries no stamp is refused there. The fence recognises it by the token below its own, and sends it again.
    early = f.new("POST", led.secrets, led.secret())
    assert early.message.endswith(f"token 7 leads, in pod {f.old.uid}, and this write is of pod {f.new.uid}")


def test_a_stamp_below_the_term_is_stale(led: Terms) -> None:
    """I3 and I4 beyond their reach: objects that the new leader has not come to, and creations."""
    f = led.f
    fencing = f.old.stamp(7, f.lease).as_status()
    late = [
        f.old("PATCH", f"{f.pool()}/status", {"status": {"free": 1, "fencing": fencing}}, MERGE),
        f.old("POST", f.children, f.child_body(f"c-{f.number()}", f.old.stamp(7, f.lease))),
    ]
    # An object with the new leader's stamp: it is another pod's.
    stamped = f.pool()
    f.stamp(f.new, stamped, 8)
    late.append(f.old("PATCH", stamped, {"metadata": {"labels": {"a": "b"}}}, MERGE))
    assert [a.status for a in late] == [403] * 3
    assert [a.by for a in late[:2]] == [led.policy] * 2


def test_no_shape_of_an_object_lets_a_write_pass(led: Terms) -> None:
    """An expression that cannot be evaluated would."""
    f, own = led.f, led.f.old.stamp(9, led.f.lease).as_status()
    where, name = f"/apis/{GROUP}/v1/namespaces/{f.namespace}/shapes", f"shapes.{GROUP}"
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": loose}}]
    names = {"kind": "Shape", "plural": "shapes", "singular": "shape"}
    definition = {"metadata": {"name": name}, "spec": {"group": GROUP, "scope": "Namespaced", "names": names}}
    definition["spec"] |= {"versions": versions}  # type: ignore[operator]
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    f.admin.must("POST", crds, definition)
    f.cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}")
    shapes: list[Any] = ["text", 7, [1], {}, {"fencing": "text"}, {"fencing": [own]}, {"fencing": {}}]
    shapes += [{"fencing": own | {"token": token}} for token in ("9", [9], {"a": 9}, 9.5, True)]
    shapes += [{"fencing": own | {"lease": 9}}, {"fencing": own | {"podUID": None}}]
    try:
        for shape in shapes:
            body = {"apiVersion": f"{GROUP}/v1", "kind": "Shape", "metadata": {"name": f"s-{f.number()}"}}
            late = f.old("POST", where, body | {"status": shape})
            assert (late.status, late.by) == (403, led.policy), f"{shape}: {late.status} {late.message}"
        notes = [
            f"9 {f.lease} {f.old.uid}",
            f"x {f.lease} {f.old.uid} h",
            "",
            " ",
            f"99999999999 {f.lease} {f.old.uid} h",
        ]
        (note,) = as_metadata(notes_of(f.old.stamp(9, f.lease), "configmaps"))["annotations"].keys() - {
            *("kopf-ha.dev/token", "kopf-ha.dev/holder", "kopf-ha.dev/lease", "kopf-ha.dev/pod-uid")
        }
        for text in notes:
            late = f.old("POST", f.children, {"metadata": {"name": f"c-{f.number()}", "annotations": {note: text}}})
            assert late.status == 403, f"{text}: {late.status} {late.message}"
    finally:
        f.admin("DELETE", f"{crds}/{name}")


# --- the Term itself


def test_the_token_of_a_term_only_rises(led: Terms) -> None:
    """By the schema's rule, whoever writes."""
    f = led.f

    def tried(by: Client, **spec: Any) -> Answer:
        return by("PATCH", f"{led.path}?dryRun=All", {"spec": spec}, MERGE)

    for spec in ({"token": 7}, {"holder": "another"}, {"token": 7, "holder": "x", "podUID": f.new.uid}):
        stale = tried(f.new, **spec)
        assert stale.status == 422
        wanted = [
            {"reason": "FieldValueInvalid", "message": f"Invalid value: {what}{TERM_RULE_MESSAGE}", "field": "<nil>"}
            for what in ("", '"object": ')  # the latter before Kubernetes 1.35
        ]
        (cause,) = stale.body["details"]["causes"]
        assert cause in wanted
    lacking: list[dict[str, Any]] = [
        {"token": None},
        {"podUID": None},
        {"holder": ""},
        {"token": 0},
        {"token": 2_000_000_001},
    ]
    for spec in lacking:
        assert tried(f.new, **spec).status == 422
    assert tried(f.new).ok
    assert tried(f.new, token=9, holder="another").ok


def test_a_replica_writes_only_its_own_pod_into_the_term(led: Terms) -> None:
    """I10: and nobody else writes it at all. Labels are everybody's who may write it."""
    f, prefix = led.f, led.f.description.prefix
    dry = f"{led.path}?dryRun=All"
    assert f.old("PATCH", dry, {"spec": {"token": 9}}, MERGE).by == f"{prefix}-term-written"
    unbound = f.bare("PATCH", dry, {"spec": {"token": 9, "podUID": "x"}}, MERGE)
    assert unbound.by == f"{prefix}-term-written"
    assert "the service account token of this one is not bound to a pod" in unbound.message
    assert f.admin("PATCH", dry, {"spec": {"token": 9}}, MERGE).by == f"{prefix}-term-written"
    assert f.admin("PATCH", dry, {"metadata": {"labels": {"a": "b"}}}, MERGE).ok
    assert f.old("PATCH", dry, {"spec": {"token": 9, "podUID": f.old.uid}}, MERGE).ok
    for client in (f.admin, f.new):
        assert client("DELETE", dry).by == f"{prefix}-term-kept"


# --- pieces that are missing


def test_without_its_binding_the_line_is_not_there(led: Terms) -> None:
    """The emergency's way, and that these tests can fail."""
    f = led.f
    f.cluster.kubectl("delete", "validatingadmissionpolicybinding", led.policy)
    try:
        until("the old pod to write", lambda: f.old("POST", led.secrets, led.secret()).ok)
        assert f.third("PATCH", led.path + ASK, {}, MERGE).ok
    finally:
        (binding,) = (o for o in policies(f.description) if o["kind"].endswith("Binding") if _named(o, led.policy))
        f.cluster.kubectl("apply", "-f", "-", input=json.dumps(binding))
    led.until_known(8)
    assert f.old("POST", led.secrets, led.secret()).by == led.policy


def test_without_the_kind_nobody_is_refused(led: Terms) -> None:
    """The API server looks for the parameter before it evaluates conditions, for everybody's writes."""
    f = led.f
    many = [copy.deepcopy(o) for o in policies(f.description) if _named(o, led.policy)]
    name = f"{led.policy}-of-no-kind"
    many[0]["spec"] |= {"paramKind": {"apiVersion": "kopf-ha.dev/v1", "kind": "Nothing"}}
    many[1]["spec"]["policyName"] = name
    sentinel: list[dict[str, Any]] = copy.deepcopy(many)
    matched = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}
    sentinel[0]["spec"] = {
        "matchConstraints": {"resourceRules": [matched]},
        "validations": [{"expression": f"object.metadata.name != '{name}'"}],
    }
    sentinel[1]["spec"] = {"policyName": f"{name}-sentinel", "validationActions": ["Deny"]}
    for made, called in ((many, name), (sentinel, f"{name}-sentinel")):
        for one in made:
            one["metadata"]["name"] = called
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*many, *sentinel]})
    f.cluster.kubectl("apply", "-f", "-", input=text)
    try:
        until("them to be loaded", lambda: not f.admin("POST", f"{led.secrets}?dryRun=All", led.secret(name)).ok)
        f.admin.must("POST", led.secrets, led.secret())
        f.new.must("POST", led.secrets, led.secret())
        assert f.old("POST", led.secrets, led.secret()).by == led.policy
    finally:
        f.cluster.kubectl("delete", "-f", "-", input=text)


def _named(made: dict[str, Any], name: str) -> bool:
    return bool(made["metadata"]["name"] == name)
