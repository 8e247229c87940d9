"""Checks of the Deployment: replicas that can elect a leader, drain, be probed and be replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from kopf_ha.manifests import programs, workload
from kopf_ha.oncall.checks import election
from kopf_ha.oncall.checks.facts import ACCOUNTS, BUDGETS, PRIORITY_CLASSES, Case, Object, SaidElsewhere
from kopf_ha.oncall.checks.finding import Finding, error, warning
from kopf_ha.oncall.checks.operators import is_told

_DOWNWARD: Mapping[str, str] = {
    "POD_NAME": "metadata.name",
    "POD_UID": "metadata.uid",
    "POD_NAMESPACE": "metadata.namespace",
}
_MAIN_CONTAINER = "kubectl.kubernetes.io/default-container"
#: Seconds that the drain takes where nothing is said.
_DRAIN = 10.0
#: Replicas that are needed: one leads, and one can take over.
_ENOUGH = 2


def fenced(case: Case) -> Iterator[Finding]:
    """Give a finding if the container runs plain Kopf."""
    container = case.its.container
    if programs.runs_kopf(container) or not (programs.is_fenced(container) or is_told(container)):
        yield error(
            f"container {container['name']} of {case.its.title} does not run kopf-ha",
            "write `kopf-ha run` in the place of `kopf run`, or `kopf-ha exec -- …` in front of the program. This makes"
            " all changes in manifests",
            f"kopf-ha manifests {case.facts.files or '-f FILE'} --diff",
        )


def downward(case: Case) -> Iterator[Finding]:
    """Give a finding if the container does not know its Pod by the downward API."""
    by_name = {e.get("name"): e for e in case.its.container.get("env") or ()}
    wrong = [
        name
        for name, path in _DOWNWARD.items()
        if ((by_name.get(name, {}).get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath") != path
    ]
    if wrong:
        entries = [{"name": n, "value": None, "valueFrom": {"fieldRef": {"fieldPath": _DOWNWARD[n]}}} for n in wrong]
        yield error(
            f"container {case.its.container['name']} of {case.its.title} does not get {', '.join(wrong)} by the"
            " downward API. The policies compare the Pod's uid with the writer's credentials, and refuse what does"
            " not fit",
            "add them to its env",
            _patch(case, {"containers": [{"name": case.its.container["name"], "env": entries}]}),
        )


def grace(case: Case) -> Iterator[Finding]:
    """Give a finding if the grace period ends before handlers have drained and the Lease is released."""
    container = case.its.container
    text = workload.given(container, "--drain-timeout")
    try:
        renew = election.durations(container)["RENEW_DEADLINE"]
    except ValueError as problem:
        raise SaidElsewhere(problem) from problem
    try:
        needed = renew + 2 * (float(text.removesuffix("s")) if text else _DRAIN)
    except ValueError:
        yield error(f"the drain timeout of {case.its.title} is no number: {text}", "write seconds, such as 10")
        return
    given = case.its.pod_spec.get("terminationGracePeriodSeconds")
    given = 30 if given is None else int(given)
    if given <= needed:
        wanted = max(workload.GRACE, int(needed) + 15)
        yield error(
            f"terminationGracePeriodSeconds of {case.its.title} is {given}. Draining handlers and releasing the Lease"
            f" may take {needed:g} s, and the kubelet would kill the leader before",
            "give it longer than twice the drain timeout plus the renew deadline",
            _patch(case, {"terminationGracePeriodSeconds": wanted}),
        )


def probes(case: Case) -> Iterator[Finding]:
    """Give a finding if a probe is missing, or asks a port at which followers do not answer."""
    container = case.its.container
    health = workload.given(container, "--health-port")
    served = {health, *(_port_of(url) for url in programs.option(container, "-L", "--liveness"))} - {"", "0"}
    for name, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        probe = container.get(name) or {}
        if not probe:
            yield warning(
                f"container {container['name']} of {case.its.title} has no {name}",
                f"ask {path} at the port of --health-port; `kopf-ha manifests -f` adds it",
            )
            continue
        if probe.get("exec"):
            continue
        port = _port(probe, container)
        if port not in served:
            yield error(
                f"the {name} of {case.its.title} asks port {port or 'of no name'}, and kopf-ha serves"
                f" {', '.join(sorted(served)) or 'none'} on every replica. The kubelet takes followers for dead or not"
                " ready",
                f"ask {path} at the port of KOPF_HA_HEALTH_PORT",
            )


def patience(case: Case) -> Iterator[Finding]:
    """Give a finding if the liveness probe kills a leader that is only late."""
    probe = case.its.container.get("livenessProbe")
    if not probe:
        raise SaidElsewhere("there is none")
    allowed = int(probe.get("periodSeconds") or 10) * int(probe.get("failureThreshold") or 3)
    try:
        lease = election.durations(case.its.container)["LEASE_DURATION"]
    except ValueError as problem:
        raise SaidElsewhere(problem) from problem
    if allowed <= lease:
        yield warning(
            f"the livenessProbe of {case.its.title} gives up after {allowed} s, and the lease duration is {lease:g} s",
            "a late leader loses the Lease and stops in order, which a kill is not: make periodSeconds times"
            " failureThreshold longer than the lease duration",
        )


def replicas(case: Case) -> Iterator[Finding]:
    """Give a finding if fewer than two replicas are wanted."""
    found = case.its.workload["spec"].get("replicas")
    count = 1 if found is None else int(found)
    if count < _ENOUGH:
        yield error(
            f"{case.its.title} has {count or 'no'} replica{'' if count == 1 else 's'}, so nobody can take over",
            "one leads and one can take over; a third remains while a node is drained",
            f"{case.facts.kubectl} -n {case.its.namespace} scale {case.its.title} --replicas=3",
        )


def strategy(case: Case) -> Iterator[Finding]:
    """Give a finding if an update stops all replicas before new ones can take over."""
    spec = case.its.workload["spec"]
    if case.its.workload["kind"] != "Deployment":
        return
    found = spec.get("strategy") or {}
    rolling = found.get("rollingUpdate") or {}
    count = int(spec.get("replicas") or 1)
    down = rolling.get("maxUnavailable", "25%")
    most = int(down) if str(down).isdigit() else int(str(down).rstrip("%")) * count // 100
    if found.get("type") == "Recreate" or (count > 1 and most >= count):
        patch = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}
        yield warning(
            f"an update of {case.its.title} stops all replicas at once",
            "Recreate is for the one update that adopts kopf-ha",
            f"{case.facts.kubectl} -n {case.its.namespace} patch {case.its.title} --type=merge -p '{_json(patch)}'",
        )


def budget(case: Case) -> Iterator[Finding]:
    """Give a finding if no PodDisruptionBudget covers the replicas, or one forbids every eviction."""
    labels = (case.its.workload["spec"]["template"].get("metadata") or {}).get("labels") or {}
    found = [b for b in case.facts.of(BUDGETS, case.its.namespace) if _selects(b["spec"].get("selector") or {}, labels)]
    if not found:
        yield warning(
            f"no PodDisruptionBudget covers {case.its.title}, so a drain of several nodes may stop all replicas at"
            " once",
            "allow one voluntary disruption at a time",
            _create_budget(case),
        )
    for one in found:
        spec, name = one["spec"], one["metadata"]["name"]
        count = int(case.its.workload["spec"].get("replicas") or 1)
        least = str(spec.get("minAvailable", ""))
        forbids = str(spec.get("maxUnavailable", "")) in ("0", "0%") or least == "100%"
        if forbids or (least.isdigit() and int(least) >= count):
            yield warning(
                f"PodDisruptionBudget {name} allows no eviction of the {count} replicas, so no node can be drained",
                "allow one",
                f"{case.facts.kubectl} -n {case.its.namespace} patch pdb {name} --type=merge"
                ' -p \'{"spec":{"minAvailable":null,"maxUnavailable":1}}\'',
            )


def place(case: Case) -> Iterator[Finding]:
    """Give a finding if replicas take each other's ports, or their priority does not exist."""
    pod = case.its.pod_spec
    if pod.get("hostNetwork"):
        yield warning(
            f"{case.its.title} uses the node's network, so each replica needs a node of its own: its ports are the"
            " node's",
            "leave hostNetwork out, or see that there are as many nodes as replicas, and one more for updates",
        )
    name = str(pod.get("priorityClassName") or "")
    is_known = not name or name.startswith("system-") or case.facts.from_files
    if not is_known and case.facts.named(PRIORITY_CLASSES, name) is None:
        yield error(
            f"there is no PriorityClass {name}, so no new Pod of {case.its.title} is made",
            "apply it, or remove priorityClassName",
        )


def throttled(case: Case) -> Iterator[Finding]:
    """Give a finding if the container has a CPU limit."""
    limits = (case.its.container.get("resources") or {}).get("limits") or {}
    if "cpu" in limits:
        yield warning(
            f"container {case.its.container['name']} of {case.its.title} has a CPU limit of {limits['cpu']}, and a"
            " throttled leader renews late",
            "remove the limit, and keep the request",
            _patch(
                case, {"containers": [{"name": case.its.container["name"], "resources": {"limits": {"cpu": None}}}]}
            ),
        )


def main_container(case: Case) -> Iterator[Finding]:
    """Give a finding if it is not clear which of several containers is the operator's."""
    notes = (case.its.workload["spec"]["template"].get("metadata") or {}).get("annotations") or {}
    if len(case.its.pod_spec["containers"]) > 1 and _MAIN_CONTAINER not in notes:
        name = case.its.container["name"]
        patch = {"spec": {"template": {"metadata": {"annotations": {_MAIN_CONTAINER: name}}}}}
        yield warning(
            f"the Pods of {case.its.title} have several containers, and do not say that {name} is the operator's. When"
            " the leader's container crashes, the next leader waits for the Lease to expire",
            "name it in an annotation",
            f"{case.facts.kubectl} -n {case.its.namespace} patch {case.its.title} -p '{_json(patch)}'",
        )


def account(case: Case) -> Iterator[Finding]:
    """Give a finding if the service account is nobody's, everybody's, or its token is not mounted."""
    namespace, _, name = case.its.account.partition("/")
    if name == "default":
        yield error(
            f"{case.its.title} runs as the service account default, as all Pods do that name none; the policies would"
            " judge their writes, too",
            "give it an account of its own in serviceAccountName",
        )
        return
    found = case.facts.named(ACCOUNTS, name, namespace)
    if found is None and not case.facts.from_files:
        yield error(
            f"there is no service account {case.its.account}, so no Pod of {case.its.title} can be made",
            "create it",
            f"{case.facts.kubectl} -n {namespace} create serviceaccount {name}",
        )
    mounted = case.its.pod_spec.get("automountServiceAccountToken")
    if mounted is False or (mounted is None and (found or {}).get("automountServiceAccountToken") is False):
        volumes = json.dumps(case.its.pod_spec.get("volumes") or [], default=str)
        if "serviceAccountToken" not in volumes:
            yield error(
                f"the Pods of {case.its.title} get no token of their service account",
                "let it be mounted",
                _patch(case, {"automountServiceAccountToken": True}),
            )


def _port_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        return str(parts.port or {"https": 443}.get(parts.scheme, 80))
    except ValueError:
        return ""


def _port(probe: Any, container: Any) -> str:
    way: Any = next((probe[w] for w in ("httpGet", "tcpSocket", "grpc") if probe.get(w)), {})
    port = str(way.get("port") or "")
    if port and not port.isdigit():
        named = [str(p.get("containerPort")) for p in container.get("ports") or () if p.get("name") == port]
        return named[0] if named else ""
    return port


def _selects(selector: Any, labels: Mapping[str, Any]) -> bool:
    wanted = selector.get("matchLabels") or {}
    return bool(wanted or selector.get("matchExpressions")) and all(labels.get(k) == v for k, v in wanted.items())


def _create_budget(case: Case) -> str:
    labels = (case.its.workload["spec"].get("selector") or {}).get("matchLabels") or {}
    selector = ",".join(f"{k}={v}" for k, v in labels.items())
    name = case.its.workload["metadata"]["name"]
    return (
        f"{case.facts.kubectl} -n {case.its.namespace} create poddisruptionbudget {name} --max-unavailable=1"
        f" --selector={selector}"
    )


def _patch(case: Case, pod: Object) -> str:
    """Return the command that patches the Pod's spec in the template."""
    patch = _json({"spec": {"template": {"spec": pod}}})
    return f"{case.facts.kubectl} -n {case.its.namespace} patch {case.its.title} -p '{patch}'"


def _json(data: Object) -> str:
    return json.dumps(data, separators=(",", ":"))
