"""Each check of `kopf-ha check` on plain facts: it finds its mistakes, and nothing where all is well."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from kopf_ha.cli import main
from kopf_ha.core.lease import PAUSED
from kopf_ha.core.notes import notes_of
from kopf_ha.core.token import Stamp
from kopf_ha.manifests import Child, Description, Kind
from kopf_ha.manifests.command import manifests
from kopf_ha.oncall.checks import ask, commands, samples
from kopf_ha.oncall.checks.compare import difference, missing
from kopf_ha.oncall.checks.facts import (
    EVENTS,
    LEASES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    VALIDATING,
    Facts,
    Operator,
    Right,
)
from kopf_ha.oncall.checks.finding import Mark, When
from kopf_ha.oncall.checks.result import as_text, run, status_of
from kopf_ha.oncall.checks.table import CHECKS, SECTIONS, as_markdown
from kopf_ha.oncall.cluster import BAD, UNKNOWN, WELL, Unknown
from testbed.deployment import ROOT
from tests.oncall.checked import fenced, operator
from tests.oncall.healthy import GROUP, HOLDER, NAMESPACE, NOW, Healthy, at
from tests.oncall.test_check_cluster import MISTAKES

LAST = 1_999_999_999
ERROR, WARNING, NOT_KNOWN = (mark.value for mark in (Mark.ERROR, Mark.WARNING, Mark.UNKNOWN))


def set_in(path: str, value: Any) -> Callable[[Healthy], None]:
    """Set an item somewhere below an attribute; None removes it."""

    def change(made: Healthy) -> None:
        first, *parents, last = path.split(".")
        at_: Any = getattr(made, first)
        for key in parents:
            at_ = at_[int(key) if key.isdigit() else key]
        if value is None:
            del at_[last]
        else:
            at_[last] = value

    return change


def env(name: str, value: str | None) -> Callable[[Healthy], None]:
    return lambda made: made.env(name, value)


def add_version(made: Healthy) -> None:
    (v1,) = made.versions()
    loose = {"openAPIV3Schema": {"type": "object", "properties": {"status": {"type": "object"}}}}
    made.versions().append(v1 | {"name": "v2", "storage": False, "schema": loose})


def by_webhook(made: Healthy) -> None:
    (v1,) = made.versions()
    made.versions().append(v1 | {"name": "v2", "storage": False})
    made.find("CustomResourceDefinition", f"racks.{GROUP}")["spec"]["conversion"] = {"strategy": "Webhook"}


def no_rule(made: Healthy) -> None:
    (v1,) = made.versions()
    del v1["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]


def old_term(made: Healthy) -> None:
    (version,) = made.find("CustomResourceDefinition", "terms.kopf-ha.dev")["spec"]["versions"]
    del version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]


def other_format(made: Healthy) -> None:
    rules = made.find("ValidatingAdmissionPolicy", "toys-lease")["spec"]["validations"]
    rules[-1]["message"] = rules[-1]["message"].replace('"format":2', '"format":99')


def warned(made: Healthy) -> None:
    told = {"typeChecking": {"expressionWarnings": [{"warning": "undefined field"}]}}
    made.find("ValidatingAdmissionPolicy", "-stamped")["status"] = told


def nothing_known(made: Healthy) -> None:
    """No policies, and a role that allows everything: nobody can tell what it writes."""
    made.documents = [d for d in made.documents if not d["kind"].startswith("ValidatingAdmission")]
    made.find("ClusterRole", f"{NAMESPACE}-toys")["rules"] = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]


def second(made: Healthy) -> None:
    other = json.loads(json.dumps(made.deployment))
    other["metadata"]["name"] = "zoo"
    made.documents.append(other)


def unnamed(made: Healthy) -> None:
    made.env("KOPF_HA_LEASE_NAME", None)
    made.objects[LEASES].append({"metadata": {"name": "kopf-ha", "namespace": NAMESPACE}, "spec": {}})


def pod(change: Callable[[Any], Any]) -> Callable[[Healthy], None]:
    return lambda made: change(made.objects[PODS][0])


def stranger(made: Healthy) -> None:
    meta = {"name": "job", "namespace": NAMESPACE, "labels": {}}
    made.objects[PODS].append({"metadata": meta, "spec": {"serviceAccountName": "toys"}})


def event(reason: str, seconds: float = 60.0) -> Callable[[Healthy], None]:
    about = {"kind": "Lease", "name": "toys"}
    made = {
        "metadata": {},
        "involvedObject": about,
        "reason": reason,
        "message": "m",
        "lastTimestamp": at(NOW - seconds),
    }
    return lambda h: h.objects[EVENTS].append(made)


def scraped(made: Healthy) -> None:
    only = {"namespaceSelector": {"matchLabels": {"kopf-ha.dev/scrapes": "true"}}}
    meta = {"name": "toys", "namespace": NAMESPACE}
    made.objects[NETWORK_POLICIES] = [{"metadata": meta, "spec": {"ingress": [{"from": [only]}]}}]
    made.objects[NAMESPACES] = [{"metadata": {"name": NAMESPACE, "labels": {}}}]


def stamped(**stamp: Any) -> Callable[[Healthy], None]:
    whole = {"lease": f"{NAMESPACE}/toys", "token": 7, "holder": HOLDER, "podUID": "u"} | stamp
    one = {"metadata": {"name": "one", "namespace": NAMESPACE}, "status": {"fencing": whole}}
    return lambda made: made.asked["objects"].update({f"racks.{GROUP}": [one]})


def noted(kind: str) -> Callable[[Healthy], None]:
    """An object with a stamp of token 8 in its metadata, as kinds without `status.fencing` have it."""
    mine = Stamp(8, HOLDER, f"{NAMESPACE}/toys", "u")
    notes = {note.name: note.text for note in notes_of(mine, kind)}
    one = {"metadata": {"name": "one", "namespace": NAMESPACE, "annotations": notes}}
    return lambda made: made.asked["objects"].update({kind: [one]})


def clocks(holder: float, stored: float) -> Callable[[Healthy], None]:
    """The last renewal, some seconds ago by its holder's clock, and by the API server's."""

    def change(made: Healthy) -> None:
        made.lease["spec"]["renewTime"] = at(NOW - holder)
        fields: dict[str, Any] = {"f:spec": {"f:renewTime": {}}}
        made.lease["metadata"]["managedFields"] = [{"time": at(NOW - stored), "fieldsV1": fields}]

    return change


def led_since(made: Healthy) -> None:
    """A new leader wrote its Term and stamped an object after the first look at the Lease."""
    holder = "toys-6f-b_uid-1_1"
    stamped(token=8, holder=holder)(made)
    newer = json.loads(json.dumps(made.lease))
    newer["spec"].update(leaseTransitions=8, holderIdentity=holder)
    made.asked |= {"lease": newer, "term": {"spec": {"token": 8, "holder": holder, "podUID": "uid-1"}}}


def allowed(*right: str) -> Callable[[Healthy], None]:
    return lambda made: made.may.update({Right(*right): True})


def denied(*right: str) -> Callable[[Healthy], None]:
    return lambda made: made.may.update({Right(*right): False})


def not_refused(made: Healthy) -> None:
    made.tried["refused"] = {(f"kopf-ha-{NAMESPACE}.toys-stamped", "token"): False}


def webhook(selector: Any = None, **rule: Any) -> Callable[[Healthy], None]:
    whole = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "operations": ["*"]} | rule
    one = {"name": "a.b.c", "rules": [whole], "namespaceSelector": selector or {}}
    made = {"metadata": {"name": "watcher"}, "webhooks": [one]}
    return lambda h: h.objects.update({VALIDATING: [made], NAMESPACES: [{"metadata": {"name": NAMESPACE}}]})


def several(made: Healthy) -> None:
    made.pod["containers"].append({"name": "proxy", "image": "p"})


def widow(made: Healthy) -> None:
    made.objects[LEASES] = []


#: What is changed, and what finds it. Nothing else does.
BROKEN: dict[str, tuple[Callable[[Healthy], Any], dict[str, str]]] = {
    "an old API server": (set_in("facts.version", (1, 29)), {"server.version": ERROR}),
    "no version": (set_in("facts.version", Unknown("it does not say")), {"server.version": NOT_KNOWN}),
    "no policies served": (set_in("facts.served", frozenset()), {"server.policies": ERROR}),
    "no operator": (lambda h: h.drop("Deployment"), {"server.operators": ERROR}),
    "a kind that is not installed": (
        lambda h: h.drop("CustomResourceDefinition", f"toys.{GROUP}"), {"definitions.installed": ERROR}),
    "a kind that is not established": (
        lambda h: h.find("CustomResourceDefinition", f"toys.{GROUP}").pop("status"), {"definitions.installed": ERROR}),
    "a second version": (add_version, {"definitions.stamp": ERROR, "definitions.rule": ERROR}),
    "no rule": (no_rule, {"definitions.rule": ERROR}),
    "no status subresource": (lambda h: h.versions()[0].pop("subresources"), {"definitions.status": ERROR}),
    "a conversion webhook": (by_webhook, {"definitions.conversion": WARNING}),
    "no Term": (lambda h: h.drop("CustomResourceDefinition", "terms.kopf-ha.dev"), {"definitions.term": ERROR}),
    "an old Term": (old_term, {"definitions.term": ERROR}),
    "policies that nobody can tell": (
        nothing_known,
        {"policies.known": ERROR, "rights.everything": WARNING}),
    "a policy of another format": (other_format, {"policies.earlier": ERROR, "policies.same": ERROR}),
    "a warning of the API server": (warned, {"policies.typed": WARNING}),
    "another level": (env("KOPF_HA_LEVEL", "term"), {"policies.fit": ERROR}),
    "another exemption": (env("KOPF_HA_EXEMPT", f"toys.{GROUP}/scale"), {"policies.fit": ERROR}),
    "no deciding kind": (env("KOPF_HA_DECIDING", None), {"policies.fit": ERROR}),
    "a legacy lock that the policies do not know": (
        env("KOPF_HA_LEGACY_LOCK", "endpoints/old"), {"policies.same": ERROR, "rights.enough": ERROR}),
    "a rule that does not refuse": (not_refused, {"enforcement.rules": ERROR}),
    "a count that can be lowered": (set_in("tried.lowered", True), {"enforcement.lease": ERROR}),
    "a foreign stamp that is taken": (set_in("tried.foreign", ("racks",)), {"enforcement.stamps": ERROR}),
    "nothing tried": (set_in("asked.tried", Unknown("no token")), {"enforcement.tried": NOT_KNOWN}),
    "a webhook for Leases": (webhook(), {"enforcement.webhooks": WARNING}),
    "a webhook for all stamps": (
        webhook(apiGroups=["*"], resources=["*/status"]), {"enforcement.webhooks": WARNING}),
    "a webhook for other kinds": (webhook(resources=["pods"]), {}),
    "a webhook for other namespaces": (
        webhook(selector={"matchExpressions": [{"key": "name", "operator": "Exists"}]}), {}),
    "a right that is missing": (
        denied("patch", "kopf-ha.dev", "terms", NAMESPACE, "toys"), {"rights.enough": ERROR}),
    "children that cannot be stamped": (denied("patch", "", "configmaps"), {"rights.children": ERROR}),
    "policies that it may write": (
        allowed("patch", "admissionregistration.k8s.io", "validatingadmissionpolicies"), {"rights.policies": WARNING}),
    "definitions that it may write": (
        allowed("patch", "apiextensions.k8s.io", "customresourcedefinitions"), {"rights.definitions": WARNING}),
    "an account that it may become": (allowed("impersonate", "", "users"), {"rights.others": WARNING}),
    "Leases that it may write": (allowed("update", "coordination.k8s.io", "leases"), {"rights.count": WARNING}),
    "everything": (allowed("*", "*", "*"), {"rights.everything": WARNING}),
    "reviews that are not allowed": (
        set_in("asked.may", Unknown("you may not")),
        dict.fromkeys((c.name for c in CHECKS if c.section == "rights"), NOT_KNOWN)),
    "plain Kopf": (set_in("container.command", ["kopf", "run", "-A", "toys.py"]), {"workload.fenced": ERROR}),
    "no uid": (env("POD_UID", None), {"workload.downward": ERROR}),
    "a uid that is a text": (env("POD_UID", "1"), {"workload.downward": ERROR}),
    "a short grace period": (set_in("pod.terminationGracePeriodSeconds", 30), {"workload.grace": ERROR}),
    "a long drain": (env("KOPF_HA_DRAIN_TIMEOUT", "60"), {"workload.grace": ERROR}),
    "a drain that is no number": (env("KOPF_HA_DRAIN_TIMEOUT", "long"), {"workload.grace": ERROR}),
    "a probe of another port": (
        set_in("container.livenessProbe.httpGet.port", 9999), {"workload.probes": ERROR}),
    "a probe of the port that only a variable names": (
        lambda h: h.container["command"].append("--health-port=9000"), {"workload.probes": ERROR}),
    "no probe": (set_in("container.readinessProbe", None), {"workload.probes": WARNING}),
    "a hasty probe": (set_in("container.livenessProbe.failureThreshold", 1), {"workload.patience": WARNING}),
    "one replica": (set_in("deployment.spec.replicas", 1), {"workload.replicas": ERROR}),
    "all at once": (set_in("deployment.spec.strategy", {"type": "Recreate"}), {"workload.strategy": WARNING}),
    "all at once by percent": (
        set_in("deployment.spec.strategy.rollingUpdate.maxUnavailable", "100%"), {"workload.strategy": WARNING}),
    "no budget": (lambda h: h.drop("PodDisruptionBudget"), {"workload.budget": WARNING}),
    "a budget of nothing": (
        lambda h: h.find("PodDisruptionBudget")["spec"].update(maxUnavailable=0), {"workload.budget": WARNING}),
    "the node's network": (set_in("pod.hostNetwork", True), {"workload.place": WARNING}),
    "a class that is not there": (set_in("pod.priorityClassName", "high"), {"workload.place": ERROR}),
    "a CPU limit": (set_in("container.resources", {"limits": {"cpu": "1"}}), {"workload.throttled": WARNING}),
    "several containers": (several, {"workload.main": WARNING}),
    "the account default": (
        set_in("pod.serviceAccountName", "default"),
        {"workload.account": ERROR, "policies.names": ERROR, "election.priority": WARNING}
        | dict.fromkeys((c.name for c in CHECKS if c.section == "rights"), NOT_KNOWN)),
    "no account": (lambda h: h.drop("ServiceAccount"), {"workload.account": ERROR}),
    "no token": (set_in("pod.automountServiceAccountToken", False), {"workload.account": ERROR}),
    "durations that do not fit": (env("KOPF_HA_RENEW_DEADLINE", "20"), {"election.times": ERROR}),
    "no duration": (env("KOPF_HA_LEASE_DURATION", "long"), {"election.times": ERROR}),
    "a slow API server": (set_in("asked.latencies", (3.0, 3.1)), {"election.latency": WARNING}),
    "a very slow one": (set_in("asked.latencies", (6.0, 6.1)), {"election.latency": ERROR}),
    "no FlowSchema": (lambda h: h.drop("FlowSchema"), {"election.priority": WARNING}),
    "another FlowSchema": (
        lambda h: h.find("FlowSchema")["spec"].update(matchingPrecedence=9), {"election.priority": WARNING}),
    "one that comes first": (set_in("tried.flow_schema", "another"), {"election.matched": WARNING}),
    "no count": (set_in("lease.spec.leaseTransitions", None), {"election.usable": ERROR}),
    "tokens that are used up": (
        lambda h: (h.lease["spec"].update(leaseTransitions=LAST), h.asked["term"]["spec"].update(token=LAST)),
        {"election.usable": WARNING}),
    "another operator's Lease": (
        lambda h: h.lease["metadata"]["annotations"].update({"kopf-ha.dev/operator": "zoo"}),
        {"election.owner": ERROR}),
    "two with one Lease": (second, {"election.owner": ERROR}),
    "a Lease of earlier releases": (unnamed, {"election.unnamed": ERROR}),
    "no Lease": (widow, {"election.held": ERROR}),
    "no holder": (set_in("lease.spec.holderIdentity", ""), {"election.held": ERROR}),
    "a pause": (
        lambda h: h.lease["metadata"].setdefault("annotations", {}).update({PAUSED: "true"}),
        {"election.held": WARNING}),
    "nobody who renews": (set_in("lease.spec.renewTime", at(NOW - 100)), {"election.held": ERROR}),
    "a holder whose clock is late": (clocks(holder=3600, stored=1), {}),
    "nobody who renews, by a clock that is ahead": (clocks(holder=-3600, stored=100), {"election.held": ERROR}),
    "no Term object": (set_in("asked.term", None), {"election.term": ERROR}),
    "a Term that is behind": (lambda h: h.asked["term"]["spec"].update(token=6), {"election.term": ERROR}),
    "a Term that is ahead": (lambda h: h.asked["term"]["spec"].update(token=9), {"election.term": ERROR}),
    "a Term that cannot be read": (set_in("asked.term", Unknown("you may not")), {"election.term": NOT_KNOWN}),
    "a replica that is not ready": (pod(lambda p: p["status"].pop("conditions")), {"replicas.ready": ERROR}),
    "a replica that ended": (
        pod(lambda p: p["status"]["containerStatuses"][0].update(lastState={"terminated": {"exitCode": 4}})),
        {"replicas.ended": WARNING}),
    "a stranger": (stranger, {"replicas.account": ERROR}),
    "an event": (event("SetAside"), {"replicas.reported": WARNING}),
    "an old event": (event("SetAside", 4000.0), {}),
    "metrics that nobody may read": (scraped, {"replicas.scraped": WARNING}),
    "an object of this term": (stamped(), {}),
    "an object of another Lease": (stamped(lease="zoo/zoo"), {"objects.foreign": ERROR}),
    "an object that is ahead": (stamped(token=8), {"objects.ahead": ERROR}),
    "an object of this token by another holder": (stamped(holder="h"), {"objects.ahead": ERROR}),
    "an object of a new leader": (led_since, {}),
    "an object that is ahead by its annotations": (noted(f"toys.{GROUP}"), {"objects.ahead": ERROR}),
    "Pods that cannot be listed": (
        set_in("objects.pods", Unknown("you may not")),
        dict.fromkeys(("replicas.ready", "replicas.ended", "replicas.account", "replicas.reported"), NOT_KNOWN)),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_each_mistake_is_found_alone(name: str) -> None:
    change, wanted = BROKEN[name]
    made = Healthy()
    change(made)
    assert made.found() == wanted


@pytest.mark.parametrize("options", [(), ("--child=configmaps:owner=Toy",), ("--level=term",)])
def test_nothing_is_found_where_all_is_well(options: tuple[str, ...]) -> None:
    made = Healthy(*options)
    assert made.found() == {}
    assert status_of(made.results()) == WELL


@pytest.mark.parametrize(
    ("served", "found"),
    [
        (["-n", "play"], {}),
        (["-n", "play", "-n", "other"], {"policies.fit": ERROR}),
        (["-n", "pla*"], {}),
        (["-A"], {"policies.fit": ERROR}),
    ],
)
def test_the_policies_cover_the_namespaces_that_are_served(served: list[str], found: dict[str, str]) -> None:
    made = Healthy("--namespace=play")
    made.container["command"] = ["kopf-ha", "run", *served, "toys.py"]
    assert made.found() == found


def test_what_does_not_fit_is_named_as_it_stands_in_the_workload() -> None:
    def hint(made: Healthy) -> str:
        (finding,) = next(r for r in made.results() if r.check.name == "policies.fit").findings
        return f"{finding.text}; {finding.hint}"

    made = Healthy("--namespace=play")
    made.container["command"] = ["kopf-ha", "run", "-A", "toys.py"]
    assert hint(made) == (
        "the policies were written for -n play, and deployment/toys runs with -A; change the argument -A of container"
        " operator, or write the policies for what it runs with"
    )
    made.container["command"].remove("-A")
    assert "runs with none; add -n to the arguments of container operator, or write" in hint(made)
    made.container["env"].append({"name": "KOPF_RUN_NAMESPACE", "value": "shop"})
    assert "change the variable KOPF_RUN_NAMESPACE of container operator, or" in hint(made)
    made = Healthy()
    env("KOPF_HA_DECIDING", "toys.x")(made)
    assert "change the variable KOPF_HA_DECIDING of container" in hint(made)
    made.container["command"] += [f"--deciding=toys.{GROUP}"]
    assert "change the argument --deciding of container" in hint(made)


def test_objects_of_all_own_kinds_are_looked_at() -> None:
    """Those whose stamp is an annotation, too; only what has `status.fencing` can be asked by dry runs."""
    kinds = Kind("racks"), Kind("toys", annotations=True, cluster=True)
    known = Description(group=GROUP, kinds=kinds, lease="n/l", service_account="n/a", namespaces=("a",))
    operator_ = Operator(namespace="n", lease="n/l", workloads=(), container={}, account="n/a", expected=known)
    assert ask.kinds_of(operator_) == {f"racks.{GROUP}": ("a",), f"toys.{GROUP}": ()}


@pytest.mark.parametrize("options", [(), ("--level=term",), (f"--exempt=toys.{GROUP}/scale",)])
def test_without_policies_the_workload_tells_what_they_should_be(options: tuple[str, ...]) -> None:
    made = Healthy(*options)
    made.documents = [d for d in made.documents if not d["kind"].startswith("ValidatingAdmission")]
    assert made.found() == {"policies.present": ERROR}
    (finding,) = next(r for r in made.results() if r.findings).findings
    assert (options[0].partition("=")[2] if options else "racks") in finding.command


def test_each_check_has_a_mistake_that_it_finds() -> None:
    by_samples = {"server.expressions", "server.rule", "you.install"}  # below
    known = {name for _, wanted in BROKEN.values() for name in wanted} | {n for m in MISTAKES.values() for n in m.found}
    assert known | by_samples == {check.name for check in CHECKS}
    assert {check.section for check in CHECKS} == {*SECTIONS}


# --- before installation


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, {}),
        ({"samples": {samples.EXPRESSIONS: "undeclared reference"}}, {"server.expressions": ERROR}),
        ({"samples": {samples.RULE: "cost"}}, {"server.rule": ERROR}),
        ({"samples": {samples.RULE: Unknown("not tried")}}, {"server.rule": NOT_KNOWN}),
        ({"person": {Right("create", "apps", "deployments"): False}}, {"you.install": ERROR}),
    ],
)
def test_what_is_found_before_installation(facts: dict[str, Any], found: dict[str, str]) -> None:
    taken = dict.fromkeys((samples.EXPRESSIONS, samples.TERM_PARAMETER, samples.RULE), "")
    given: dict[str, Any] = {"samples": taken | facts.pop("samples", {}), **facts}
    served = Healthy().facts["served"]
    results = run(Facts(objects={}, version=(1, 35), served=served, **given), [], When.PRE)
    assert {r.check.name: r.mark.value for r in results if r.findings} == found


# --- exit statuses and output


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["no budget"], WELL),
        (["nothing tried", "no budget"], UNKNOWN),
        (["nothing tried", "no uid"], BAD),
    ],
)
def test_warnings_are_well_and_what_is_unknown_is_not(names: list[str], status: int) -> None:
    made = Healthy()
    for name in names:
        BROKEN[name][0](made)
    assert status_of(made.results()) == status


@pytest.mark.parametrize(
    ("name", "silent"),
    [
        ("nothing tried", {"enforcement.rules", "enforcement.lease", "enforcement.stamps", "election.matched"}),
        ("no count", {"election.held", "election.term", "objects.ahead"}),
        ("no Lease", {"election.usable", "election.term"}),
        ("everything", {"rights.policies", "rights.definitions", "rights.others", "rights.count"}),
        ("a policy of another format", {"enforcement.rules", "enforcement.lease"}),
        ("no FlowSchema", {"election.matched"}),
        ("policies that nobody can tell", {"policies.present", "definitions.stamp", "enforcement.rules"}),
    ],
)
def test_nothing_is_called_well_that_nobody_could_see(name: str, silent: set[str]) -> None:
    made = Healthy()
    BROKEN[name][0](made)
    assert not silent & {r.check.name for r in made.results()}
    assert silent <= {r.check.name for r in Healthy().results()}


def test_people_see_what_mends_it_below_each_finding() -> None:
    made = Healthy()
    BROKEN["one replica"][0](made)
    lines = as_text(made.results()).splitlines()
    at_ = lines.index("× deployment/toys has 1 replica, so nobody can take over (workload.replicas)")
    assert lines[at_ + 2] == "      kubectl -n play scale deployment/toys --replicas=3"
    assert lines[-1].endswith(" checks: 1 error")
    assert "✓ the container runs kopf-ha" in lines


def test_a_text_of_the_cluster_cannot_move_the_cursor() -> None:
    made = Healthy()
    event("SetAside")(made)
    made.objects[EVENTS][0]["message"] = "\x1b[2J gone"
    assert "\x1b" not in as_text(made.results())


# --- files


def check(*args: str) -> Any:
    return CliRunner().invoke(main, ["check", *args])


def test_files_are_checked_without_an_api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    plain, made = tmp_path / "plain.yaml", tmp_path / "fenced.yaml"
    documents = operator(NAMESPACE, GROUP)
    plain.write_text(yaml.safe_dump_all(documents))
    made.write_text(yaml.safe_dump_all(fenced(documents)))
    assert check("-f", str(made)).exit_code == WELL
    done = check("-f", str(plain), "-o", "json")
    assert done.exit_code == BAD
    found = {c["name"]: c["findings"] for c in json.loads(done.stdout)["checks"] if c["findings"]}
    assert {"workload.fenced", "policies.present", "definitions.stamp", "rights.enough"} <= found.keys()
    assert found["policies.present"][0]["command"].startswith(f"kopf-ha manifests -f {plain} --only policies | kubectl")
    assert check("--pre").exit_code == UNKNOWN
    assert check("--installed").exit_code == UNKNOWN


def test_what_is_said_of_files_is_not_said_of_a_cluster(tmp_path: Path) -> None:
    """`kopf-ha check --pre -f FILES` shows both in one text."""
    whole, part = tmp_path / "fenced.yaml", tmp_path / "part.yaml"
    documents = fenced(operator(NAMESPACE, GROUP))
    whole.write_text(yaml.safe_dump_all(documents))
    part.write_text(
        yaml.safe_dump_all(d for d in documents if d["kind"] in ("Deployment", "ValidatingAdmissionPolicy"))
    )
    lines, lacking = (check("-f", str(path)).output.splitlines() for path in (whole, part))
    assert "✓ the definitions of the operator's kinds are in the files" in lines
    assert "✓ all policies and bindings are in the files" in lines
    assert f"policies ({NAMESPACE}/toys, in the files)" in lines
    assert f"× racks.{GROUP} is not in the files (definitions.installed)" in lacking
    for line in (*lines, *lacking):
        assert not re.search(r"installed[^)]|(is|are) there$|not there| in the cluster", line), line
    well = {c["well"] for c in json.loads(check("-f", str(whole), "-o", "json").stdout)["checks"]}
    assert {line[2:] for line in lines if line.startswith("✓")} == well


def test_deploy_is_well_as_files(tmp_path: Path) -> None:
    """What kustomize does to them is checked elsewhere: here are its inputs."""
    parts = [*ROOT.glob("crds/*.yaml"), *ROOT.glob("deploy/base/*.yaml"), *ROOT.glob("deploy/components/p*/*.yaml")]
    parts += [ROOT / "deploy/components/election-priority/flow-schema.yaml"]
    args = [word for path in parts if path.stem != "kustomization" for word in ("-f", str(path))]
    done = check(*args, "-n", "kopf-ha-ipam", "-o", "json")
    found = {c["name"]: c["findings"] for c in json.loads(done.stdout)["checks"] if c["findings"]}
    assert (found, done.exit_code) == ({}, WELL)


# --- parts


def test_a_difference_is_named_and_what_the_api_server_fills_in_is_none() -> None:
    written = {"a": [{"b": 1}], "m": {"resources": ["x"]}}
    stored = {
        "a": [{"b": 1, "scope": "*"}],
        "m": {"resources": ["x"], "matchPolicy": "Equivalent", "objectSelector": {}},
    }
    assert difference(written, stored) == ""
    assert difference(written, {"a": [{"b": 2}], "m": written["m"]}) == "a[0].b"
    assert difference(written, {"a": [], "m": written["m"]}) == "a"
    assert difference(written, stored | {"excludeResourceRules": [{}]}) == "excludeResourceRules"
    assert difference(written, {**stored, "m": stored["m"] | {"matchPolicy": "Exact"}}) == "m.matchPolicy"  # type: ignore[operator]
    assert missing({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}) == ""
    assert missing({"a": {"b": 1}}, {"a": {"c": 2}}) == "a.b"


def test_the_command_of_a_hint_writes_the_same_policies() -> None:
    one = Description(
        group=GROUP,
        kinds=(Kind("racks", cluster=True, deciding=True, maps=("slots",)), Kind("toys", values=("slot",), scale=True)),
        children=(Child("configmaps", "", (("app", "toys"),), "Toy"), Child("pods", "", subresources=("eviction",))),
        lease="play/toys",
        service_account="play/op",
        exempt=(f"toys.{GROUP}/scale",),
        namespaces=("play", "more"),
        legacy_lock="endpoints/old",
    )
    done = CliRunner().invoke(manifests, [*commands.flags(one).split(), "--only=policies"])
    assert done.exit_code == 0, done.output
    from kopf_ha.manifests import policies

    assert list(yaml.safe_load_all(done.stdout)) == policies(one)


def test_the_documentation_has_the_table() -> None:
    """``kopf_ha.oncall.checks.table.as_markdown()`` prints it."""
    assert as_markdown() in (ROOT / "docs" / "oncall.md").read_text()
