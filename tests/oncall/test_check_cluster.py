"""`kopf-ha check` on a real API server: each mistake is made, found, and mended by the command of its hint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.core.lease import OPERATOR, PAUSED
from kopf_ha.oncall import check as check_command
from kopf_ha.oncall.cluster import BAD, UNKNOWN, WELL
from tests.kit.client import MERGE
from tests.kit.world import fresh_namespace
from tests.oncall.checked import Checked, definition, fenced, operator

#: Seconds for a round of all checks and dry runs, and more, on a busy machine.
SLOW = 120.0
NEARLY_LAST = 1_999_999_990
RACK = "racks.NAMESPACE.kopf-ha.test"
POLICY, BINDING = "validatingadmissionpolicy", "validatingadmissionpolicybinding"


@pytest.fixture(scope="module")
def installed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    with fresh_namespace(cluster) as namespace:
        made = Checked(cluster, namespace, tmp_path_factory.mktemp("checked"))
        try:
            made.install()
            until("all to be well", lambda: not made.findings(), SLOW)
            yield made
        finally:
            made.remove()


@contextmanager
def unbound(world: Checked, policy: str) -> Iterator[None]:
    """Without the binding of a policy, as somebody does for a repair."""
    name = f"{world.prefix}-{policy}"
    world.cluster.kubectl("delete", BINDING, name)
    probe = yaml.safe_dump(
        next(d for d in world.documents if d["kind"].endswith("Binding") and d["metadata"]["name"] == name)
    )
    try:
        yield
    finally:
        world.apply(probe)


def insist(act: Callable[[], Any]) -> None:
    """Do what a policy refuses until its binding is known to be gone."""

    def done() -> bool:
        try:
            act()
        except Exception:  # the policy, or an error that lasts, which times out
            return False
        return True

    until("the policy to be gone", done)


def patched(world: Checked, path: str, body: Any) -> Callable[[], Any]:
    return lambda: world.ask("PATCH", path, body, MERGE)


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Args:
        make: makes it.
        found: the checks that find it, and nothing else does.
        mend: mends it; if None, the commands of the hints do.
        rest: what is to do after the commands.
        tries: dry runs matter. They take most of the time, so they are left out where they do not.
    """

    make: Callable[[Checked], Any]
    found: dict[str, str]
    mend: Callable[[Checked], Any] | None = None
    rest: Callable[[Checked], Any] = field(default=lambda world: None)
    tries: bool = False


# --- policies


def kubectl(*args: str) -> Callable[[Checked], Any]:
    """Run kubectl; ``PREFIX`` and ``NAMESPACE`` stand for the operator's."""
    return lambda w: w.cluster.kubectl(*(a.replace("PREFIX", w.prefix).replace("NAMESPACE", w.namespace) for a in args))


def own(*args: str) -> Callable[[Checked], Any]:
    return kubectl("-n", "NAMESPACE", *args)


def policies_of(world: Checked) -> list[dict[str, Any]]:
    return [d for d in world.documents if d["kind"].startswith("ValidatingAdmissionPolicy")]


def drop_policies(world: Checked) -> None:
    names = sorted({d["metadata"]["name"] for d in policies_of(world)})
    world.cluster.kubectl("delete", f"{POLICY},{BINDING}", *names)


def rename(world: Checked) -> None:
    """As ``namePrefix`` of kustomize does."""
    drop_policies(world)
    made = json.loads(json.dumps(policies_of(world)))
    for one in made:
        one["metadata"] = {"name": f"dev-{one['metadata']['name']}"}
        if "policyName" in one["spec"]:
            one["spec"]["policyName"] = f"dev-{one['spec']['policyName']}"
    world.apply(yaml.safe_dump_all(made))


def move(world: Checked) -> None:
    """The policies of another namespace, as after ``namespace`` of kustomize."""
    drop_policies(world)
    world.apply(elsewhere(world))


def elsewhere(world: Checked) -> str:
    made = fenced(operator(f"{world.namespace}x", world.group), "--deciding", f"racks.{world.group}")
    return yaml.safe_dump_all(d for d in made if d["kind"].startswith("ValidatingAdmissionPolicy"))


def drop_elsewhere(world: Checked) -> None:
    world.cluster.kubectl("delete", "-f", "-", input=elsewhere(world))


def earlier(world: Checked) -> None:
    """Policies with the names of an earlier release, beside the present ones."""
    made = fenced(operator(world.namespace, world.group), "--deciding", f"racks.{world.group}", "--prefix=kopf-ha-toys")
    world.apply(yaml.safe_dump_all(d for d in made if d["kind"].startswith("ValidatingAdmissionPolicy")))


# --- definitions


def crd_path(world: Checked) -> str:
    return f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/racks.{world.group}"


def second_version(world: Checked) -> None:
    found = world.ask("GET", crd_path(world))
    (v2,) = definition(world.group, "Rack", "v2")["spec"]["versions"]
    versions = [*found["spec"]["versions"], v2 | {"storage": False}]
    with unbound(world, "schema"):
        insist(patched(world, crd_path(world), {"spec": {"versions": versions}}))


def without_rule(world: Checked) -> None:
    found = world.ask("GET", crd_path(world))
    for version in found["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"].pop("x-kubernetes-validations", None)
    with unbound(world, "schema"):
        insist(patched(world, crd_path(world), {"spec": {"versions": found["spec"]["versions"]}}))


def apply_all(world: Checked) -> None:
    world.apply(yaml.safe_dump_all(d for d in world.documents if d["kind"] == "CustomResourceDefinition"))


# --- rights


def grant(name: str, *rules: tuple[str, str, str]) -> Callable[[Checked], Any]:
    def make(world: Checked) -> None:
        role: dict[str, Any] = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"{world.namespace}-{name}"},
        }
        role["rules"] = [{"verbs": [v], "apiGroups": [g], "resources": [r]} for v, g, r in rules]
        world.apply(yaml.safe_dump(role))
        bind(name, f"{world.namespace}-{name}")(world)

    return make


def bind(name: str, role: str) -> Callable[[Checked], Any]:
    who = "--serviceaccount=NAMESPACE:toys"
    return kubectl("create", "clusterrolebinding", f"NAMESPACE-{name}", f"--clusterrole={role}", who)


def revoke(name: str) -> Callable[[Checked], Any]:
    return kubectl("delete", "clusterrolebinding", f"NAMESPACE-{name}")


# --- election


def shadow(world: Checked) -> None:
    found = json.loads(world.cluster.kubectl("get", "flowschema", f"{world.prefix}-election", "-o", "json").stdout)
    found["metadata"] = {"name": f"{world.namespace}-shadow"}
    found["spec"] |= {"matchingPrecedence": 140, "priorityLevelConfiguration": {"name": "global-default"}}
    found.pop("status", None)
    world.apply(json.dumps(found))


def lose_count(world: Checked) -> None:
    with unbound(world, "lease"):
        insist(patched(world, world.lease_path, {"spec": {"leaseTransitions": None}}))


def nearly_last(world: Checked) -> None:
    """As by hand, where the policy is not in force: the Term does not follow."""
    with unbound(world, "lease"):
        insist(patched(world, world.lease_path, {"spec": {"leaseTransitions": NEARLY_LAST}}))


def lower(world: Checked) -> None:
    with unbound(world, "lease"):
        insist(patched(world, world.lease_path, {"spec": {"leaseTransitions": world.number}}))


def name_of_earlier_releases(world: Checked) -> None:
    """The workload names no Lease, and so elects by its own name; and one of an earlier release is there."""
    own("set", "env", "deployment/toys", "KOPF_HA_LEASE_NAME-")(world)
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "kopf-ha"}}
    world.kubectl("create", "-f", "-", input=json.dumps(body))


def name_it_again(world: Checked) -> None:
    """The hint is for a Lease that is this operator's. This one is not."""
    own("delete", "lease", "kopf-ha")(world)
    own("set", "env", "deployment/toys", "KOPF_HA_LEASE_NAME=toys")(world)


def second_operator(world: Checked) -> None:
    made = next(d for d in fenced(operator(world.namespace, world.group, "zoo")) if d["kind"] == "Deployment")
    (container,) = made["spec"]["template"]["spec"]["containers"]
    next(e for e in container["env"] if e["name"] == "KOPF_HA_LEASE_NAME")["value"] = "toys"
    made["spec"]["replicas"] = 0
    world.apply(yaml.safe_dump(made))


def beyond(world: Checked) -> None:
    world.lead(write_term=False)


# --- replicas and objects


def first(world: Checked) -> str:
    return str(world.pods()[0]["metadata"]["name"])


def event(world: Checked) -> None:
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": world.namespace, "name": first(world)}
    body = {"metadata": {"name": "reported"}, "involvedObject": about, "reason": "Unfenced", "type": "Warning"}
    body |= {"message": "a write", "reportingComponent": "kopf-ha", "reportingInstance": "x"}
    world.ask("POST", f"/api/v1/namespaces/{world.namespace}/events", body | {"source": {"component": "kopf-ha"}})


def closed_off(world: Checked) -> None:
    """As deploy/components/network-policy does it."""
    only = {"namespaceSelector": {"matchLabels": {"kopf-ha.dev/scrapes": world.namespace}}}
    spec = {"podSelector": {"matchLabels": {"app": "toys"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [only]}]}
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "toys"}}
    world.kubectl("create", "-f", "-", input=json.dumps(body | {"spec": spec}))


def watched(world: Checked) -> None:
    """A webhook that is asked about each renewal. Nobody listens there, and the answer does not matter."""
    rule = {"apiGroups": ["coordination.k8s.io"], "apiVersions": ["*"], "resources": ["leases"], "operations": ["*"]}
    hook: dict[str, Any] = {"name": "leases.kopf-ha.test", "rules": [rule], "failurePolicy": "Ignore"}
    hook["sideEffects"] = "None"
    hook |= {"clientConfig": {"url": "https://127.0.0.1:1/"}, "timeoutSeconds": 1, "admissionReviewVersions": ["v1"]}
    hook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}
    body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    world.apply(json.dumps(body | {"metadata": {"name": f"{world.namespace}-watched"}, "webhooks": [hook]}))


def stamp_two(**other: Any) -> Callable[[Checked], Any]:
    def make(world: Checked) -> None:
        world.create("Rack", "two")
        status = {"status": world.stamp_now(**other)}
        with unbound(world, "stamp"):
            insist(patched(world, world.path("racks", "two") + "/status", status))

    return make


def worse_workload(world: Checked) -> None:
    """Several mistakes at once, each with a command of its own."""
    path = f"/apis/apps/v1/namespaces/{world.namespace}/deployments/toys"
    found = world.ask("GET", path)
    spec = found["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    env = [e | {"value": "fixed"} if e["name"] == "POD_UID" else e for e in container["env"] if e["name"] != "POD_NAME"]
    for entry in env:
        if "value" in entry:
            entry.pop("valueFrom", None)
    container |= {"env": env, "resources": {"limits": {"cpu": "1"}}}
    spec |= {"terminationGracePeriodSeconds": 20, "automountServiceAccountToken": False}
    found["spec"] |= {"strategy": {"type": "Recreate"}}
    world.ask("PUT", path, found)


def hasty_workload(world: Checked) -> None:
    """A probe that gives up soon, and a PriorityClass that does not exist."""
    path = f"/apis/apps/v1/namespaces/{world.namespace}/deployments/toys"
    found = world.ask("GET", path)
    spec = found["spec"]["template"]["spec"]
    spec["containers"][0]["livenessProbe"]["failureThreshold"] = 1
    spec["priorityClassName"] = "none"
    world.ask("PUT", path, found)


def as_installed(world: Checked) -> None:
    """The workload as it was, but that it stays paused."""
    path = f"/apis/apps/v1/namespaces/{world.namespace}/deployments/toys"
    (made,) = (d for d in world.documents if d["kind"] == "Deployment")
    world.ask("PUT", path, made | {"spec": made["spec"] | {"paused": True}})


def one_replica(world: Checked) -> None:
    """The follower goes."""
    world.kubectl("annotate", "pod", world.holder.partition("_")[0], "controller.kubernetes.io/pod-deletion-cost=9")
    world.kubectl("scale", "deployment/toys", "--replicas=1")
    until("one pod", lambda: len(world.pods()) == 1)


def all_ready(world: Checked) -> None:
    """What kubelets say of the replicas that were made; then two again."""
    for pod in until("three pods", lambda: p if len(p := world.pods()) == 3 else None):
        world.set_status(pod["metadata"]["name"])
    world.kubectl("scale", "deployment/toys", "--replicas=2")
    until("two pods", lambda: len(world.pods()) == 2)


ERROR, WARNING = "error", "warning"
MISTAKES = {
    "a binding was deleted": Mistake(
        kubectl("delete", BINDING, "PREFIX-stamped"), {"policies.present": ERROR}, tries=True
    ),
    # What the policies were written from is lost with it, and is read from the workload, the CRDs and the roles.
    "the Lease's policy was deleted": Mistake(kubectl("delete", POLICY, "PREFIX-lease"), {"policies.present": ERROR}),
    "all policies were deleted": Mistake(drop_policies, {"policies.present": ERROR}),
    "a binding only audits": Mistake(
        kubectl("patch", BINDING, "PREFIX-term", "--type=merge", "-p", '{"spec":{"validationActions":["Audit"]}}'),
        {"policies.same": ERROR},
    ),
    "a rule was edited": Mistake(
        kubectl("patch", POLICY, "PREFIX-stamped", "--type=json", "-p",
                '[{"op":"replace","path":"/spec/validations/5/expression","value":"true"}]'),
        {"policies.same": ERROR},
    ),
    "kustomize gave the policies a prefix": Mistake(rename, {"policies.renamed": ERROR}),
    "kustomize moved the operator to another namespace": Mistake(move, {"policies.names": ERROR}, rest=drop_elsewhere),
    "policies of an earlier release are left": Mistake(earlier, {"policies.earlier": WARNING}),
    "the workload has another deciding kind": Mistake(
        own("set", "env", "deployment/toys", "KOPF_HA_DECIDING-"),
        {"policies.fit": ERROR},
        lambda w: own("set", "env", "deployment/toys", f"KOPF_HA_DECIDING=racks.{w.group}")(w),
    ),
    "a second version is served without the stamp": Mistake(
        second_version, {"definitions.stamp": ERROR, "definitions.rule": ERROR}
    ),
    "the CRD lost its rule": Mistake(
        without_rule, {"definitions.rule": ERROR, "enforcement.stamps": ERROR}, apply_all, tries=True
    ),
    "a role binding was deleted": Mistake(own("delete", "rolebinding", "PREFIX-election"), {"rights.enough": ERROR}),
    "the account has too many rights": Mistake(
        grant("more", ("patch", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
              ("impersonate", "", "users"), ("delete", "coordination.k8s.io", "leases"),
              ("patch", "apiextensions.k8s.io", "customresourcedefinitions")),
        dict.fromkeys(("rights.policies", "rights.others", "rights.count", "rights.definitions"), WARNING),
        revoke("more"),
    ),
    "the account may do everything": Mistake(
        bind("all", "cluster-admin"), {"rights.everything": WARNING}, revoke("all")
    ),
    "the FlowSchema was deleted": Mistake(
        kubectl("delete", "flowschema", "PREFIX-election"), {"election.priority": WARNING}
    ),
    "another FlowSchema comes first": Mistake(
        shadow, {"election.matched": WARNING}, kubectl("delete", "flowschema", "NAMESPACE-shadow"), tries=True
    ),
    "the Lease lost its count": Mistake(
        lose_count, {"election.usable": ERROR}, rest=lambda w: w.lead()
    ),
    # The Term is behind, too: the leader did not raise the number.
    "hardly a token is left": Mistake(
        nearly_last, {"election.usable": WARNING, "election.term": ERROR}, lower
    ),
    "a Lease of earlier releases is there": Mistake(
        name_of_earlier_releases, {"election.unnamed": ERROR}, name_it_again
    ),
    "the operator is paused": Mistake(
        own("annotate", "lease", "toys", f"{PAUSED}=true"), {"election.held": WARNING}
    ),
    "nobody holds the Lease": Mistake(
        lambda w: w.edit_lease(holderIdentity=None), {"election.held": ERROR}, lambda w: w.lead()
    ),
    "the Term is behind": Mistake(beyond, {"election.term": ERROR}, lambda w: w.write_term()),
    "two operators have one Lease": Mistake(
        second_operator, {"election.owner": ERROR}, own("delete", "deployment", "zoo")
    ),
    "the Lease is another operator's": Mistake(
        own("annotate", "lease", "toys", f"{OPERATOR}=zoo", "--overwrite"), {"election.owner": ERROR}
    ),
    "a replica is not ready": Mistake(
        lambda w: w.set_status(first(w), ready=False), {"replicas.ready": ERROR}, lambda w: w.set_status(first(w))
    ),
    "a replica ended with status 4": Mistake(
        lambda w: w.set_status(first(w), ended=4), {"replicas.ended": WARNING}, lambda w: w.set_status(first(w))
    ),
    "something else has the account": Mistake(
        lambda w: w.cluster.pod_identity(w.namespace, "toys", "stranger"),
        {"replicas.account": ERROR},
        own("delete", "pod", "stranger"),
    ),
    "a replica reported trouble": Mistake(event, {"replicas.reported": WARNING}, own("delete", "event", "reported")),
    "nobody may read metrics": Mistake(
        closed_off, {"replicas.scraped": WARNING}, own("delete", "networkpolicy", "toys")
    ),
    "a webhook is asked about Leases": Mistake(
        watched,
        {"enforcement.webhooks": WARNING},
        kubectl("delete", "validatingwebhookconfiguration", "NAMESPACE-watched"),
    ),
    "an object is another Lease's": Mistake(
        stamp_two(lease="other/zoo", token=1), {"objects.foreign": ERROR}, own("delete", RACK, "two")
    ),
    "an object is ahead": Mistake(stamp_two(token=1000), {"objects.ahead": ERROR}, own("delete", RACK, "two")),
    "the budget was deleted": Mistake(own("delete", "pdb", "toys"), {"workload.budget": WARNING}),
    "the probes are hasty, and a class is missing": Mistake(
        hasty_workload, {"workload.patience": WARNING, "workload.place": ERROR}, as_installed
    ),
    "one replica is left": Mistake(one_replica, {"workload.replicas": ERROR}, rest=all_ready),
    "the workload was edited": Mistake(
        worse_workload,
        {
            "workload.downward": ERROR,
            "workload.account": ERROR,
            "workload.grace": ERROR,
            "workload.strategy": WARNING,
            "workload.throttled": WARNING,
        },
    ),
}  # fmt: skip


# --- the command


def test_what_is_installed_is_as_the_files_say(installed: Checked) -> None:
    assert installed.check("-f", str(installed.file), "--installed")["exit"] == WELL
    assert installed.check("-f", str(installed.file))["exit"] == WELL
    everywhere = installed.check("-A")
    mine = [c for c in everywhere["checks"] if c["operator"] == f"{installed.namespace}/toys" and c["findings"]]
    assert mine == []
    (one,) = {c["operator"] for c in installed.check("toys")["checks"]} - {None}
    assert one == f"{installed.namespace}/toys"
    assert [c["name"] for c in installed.check("zoo")["checks"] if c["findings"]] == ["server.operators"]


def test_before_installation_the_api_server_is_tried(installed: Checked) -> None:
    done = installed.check("--pre", "-f", str(installed.file))
    assert done["exit"] == WELL, [c for c in done["checks"] if c["findings"]]
    assert "server.expressions" in {c["name"] for c in done["checks"]}
    stored = installed.cluster.kubectl("get", POLICY, "-o", "name").stdout
    assert "kopf-ha-check" not in stored, "a dry run stores nothing"


def test_somebody_with_few_rights_is_told_which_are_missing(installed: Checked) -> None:
    installed.kubectl("create", "serviceaccount", "reader")
    installed.kubectl(
        "create", "rolebinding", "reader", "--clusterrole=view", f"--serviceaccount={installed.namespace}:reader"
    )
    token = installed.kubectl("create", "token", "reader").stdout.strip()
    try:
        done = installed.check(f"--kubeconfig={installed.cluster.kubeconfig_for(token, name='reader')}")
    finally:
        installed.kubectl("delete", "rolebinding/reader", "serviceaccount/reader")
    found = {c["name"]: c["result"] for c in done["checks"] if c["findings"]}
    assert (done["exit"], {*found.values()}) == (UNKNOWN, {"unknown"})
    assert {"policies.known", "enforcement.tried", "rights.enough", "definitions.term"} <= found.keys()
    assert "workload.grace" not in found


def test_it_waits_until_all_is_well(installed: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    def grace(seconds: int) -> None:
        patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": seconds}}}}
        installed.kubectl("patch", "deployment/toys", "-p", json.dumps(patch))

    waited = []

    def mend(seconds: float) -> None:
        waited.append(seconds)
        grace(45)

    monkeypatch.setattr(check_command, "sleep", mend)
    installed.renew()
    grace(20)
    assert (installed.check("--no-dry-runs", "--wait", "--timeout=0")["exit"], waited) == (BAD, [])
    assert installed.check("--no-dry-runs", "--wait")["exit"] == WELL
    assert len(waited) == 1


def test_an_overlay_of_kustomize_is_seen_before_it_is_applied(installed: Checked, tmp_path: Path) -> None:
    (tmp_path / "fenced.yaml").write_text(installed.file.read_text())
    for line, found in (
        ("namePrefix: dev-", {"policies.names", "election.priority"}),
        ("namespace: elsewhere", {"policies.names", "election.priority"}),
        ("commonAnnotations: {a: b}", set()),
    ):
        (tmp_path / "kustomization.yaml").write_text(f"resources: [fenced.yaml]\n{line}\n")
        rendered = installed.cluster.kubectl("kustomize", str(tmp_path)).stdout
        (tmp_path / "rendered").write_text(rendered)
        done = installed.check("-f", str(tmp_path / "rendered"))
        assert {c["name"] for c in done["checks"] if c["findings"]} == found, line


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_found_alone_and_mended(installed: Checked, name: str) -> None:
    mistake = MISTAKES[name]
    args = () if mistake.tries else ("--no-dry-runs",)
    mistake.make(installed)
    seen: dict[str, Any] = {}

    def found() -> bool:
        seen.clear()
        seen.update(installed.findings(*args))
        return {check: f[0]["result"] for check, f in seen.items()} == mistake.found

    try:
        until(f"exactly {mistake.found} to be found", found, SLOW)
    except Exception:
        print(json.dumps(seen, indent=1))
        raise
    commands = [f["command"] for many in seen.values() for f in many]
    if mistake.mend is not None:
        mistake.mend(installed)
    else:
        assert all(commands), seen
        for command in commands:
            installed.run(command.replace('"leaseTransitions":N', '"leaseTransitions":6'))
        mistake.rest(installed)
    until("all to be well again", lambda: not installed.findings(*args), SLOW)
