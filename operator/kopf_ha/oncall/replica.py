"""One replica, as its Pod and its own ports show it: its role, and why it cannot lead."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families

from kopf_ha.core.siblings import Pod
from kopf_ha.errors import ApiError
from kopf_ha.manifests import programs
from kopf_ha.manifests.workload import given
from kopf_ha.oncall.cluster import Cluster, Unknown
from kopf_ha.oncall.find import time_of

#: Seconds for an answer of a replica: the API server has to reach it first.
TIMEOUT = 3.0
#: What exit statuses of kopf-ha's own mean; docs/runbook.md has more.
OWN_EXITS = {
    3: "it lost the Lease, and --after-loss is exit",
    4: "handlers did not end within --drain-timeout",
    5: "the handlers that run on every replica ended",
    6: "the operator's code tried a write that is refused in every term, and --on-unfenced is exit",
}
#: What exit statuses of a replica mean.
EXITS = OWN_EXITS | {137: "it was killed (SIGKILL), or used too much memory"}

_MAIN_CONTAINER = "kubectl.kubernetes.io/default-container"

#: Values by a metric's name and its label values.
Samples = Mapping[tuple[str, tuple[str, ...]], float]


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica.

    Args:
        pod: its Pod's name.
        namespace: its Pod's.
        uid: its Pod's.
        node: where it is; empty if it is nowhere yet.
        revision: hash of the template that it was made from; empty for none.
        role: ``leader``, ``follower``, ``leaving`` (its Pod is being deleted) or ``ended``.
        ready: whether its Pod is.
        restarts: of its container.
        made: when its Pod was.
        trouble: why it cannot lead, in a sentence; empty if it can. Of a leader that renews the Lease it says only what
            its Pod or its ports show.
        notes: what is wrong and would be with any other replica, too.
        samples: its metrics; `Unknown` if they could not be read.
        reported: whether a kubelet has reported on its container.
    """

    pod: str
    namespace: str
    uid: str
    node: str
    revision: str
    role: str
    ready: bool
    restarts: int
    made: datetime.datetime | None = None
    trouble: str = ""
    notes: tuple[str, ...] = ()
    samples: Samples | Unknown = field(default_factory=lambda: Unknown("not asked"))
    reported: bool = True

    def metric(self, name: str) -> dict[str, float] | Unknown:
        """Return a metric's values, by the value of its last label; ``""`` for one without labels."""
        if isinstance(self.samples, Unknown):
            return self.samples
        return {labels[-1] if labels else "": value for (n, labels), value in self.samples.items() if n == name}


def look_at(cluster: Cluster, pod: Mapping[str, Any], holder_uid: str, *, ask: bool = True) -> Replica:
    """Return what is known about one replica. What cannot be read is left out, or said.

    Args:
        cluster: where it is.
        pod: its Pod, as read.
        holder_uid: uid of the Pod that the Lease names; empty if nobody leads.
        ask: ask its ports, too, through the API server.

    Raises:
        ApiError: the API server does not answer.
    """
    parsed, container = Pod.parse(pod), operator_container(pod)
    state = _status_of(pod, container)
    trouble = why_not(pod, state)
    notes: tuple[str, ...] = ()
    role = _role(parsed, holder_uid)
    samples: Samples | Unknown = Unknown("nobody asked for its metrics")
    if ask and (state.get("state") or {}).get("running") is not None:
        told = _ready(cluster, pod, container)
        if not isinstance(told, Unknown):
            failed, notes = read_probe(told)
            trouble = trouble if not failed else "; ".join(failed)
        if role == "leader":  # the metrics of others are of their last term
            samples = _metrics(cluster, pod, container)
    return Replica(
        pod=parsed.name,
        namespace=str(pod["metadata"]["namespace"]),
        uid=parsed.uid,
        node=str(pod["spec"].get("nodeName") or ""),
        revision=parsed.revision,
        role=role,
        ready=parsed.ready,
        restarts=int(state.get("restartCount") or 0),
        made=time_of(parsed.created),
        trouble=trouble,
        notes=notes,
        samples=samples,
        reported=bool(state),
    )


def operator_container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the operator's container: the default one by annotation, the one that runs kopf-ha, or the first."""
    containers = pod["spec"].get("containers") or [{}]
    name = (pod["metadata"].get("annotations") or {}).get(_MAIN_CONTAINER)
    chosen = [c for c in containers if c.get("name") == name] or [c for c in containers if programs.is_fenced(c)]
    found: Mapping[str, Any] = (chosen or containers)[0]
    return found


def why_not(pod: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Return why a replica cannot lead, as far as its Pod says; empty if it can.

    Args:
        pod: as read.
        state: the status of its operator's container; empty if it has none yet.
    """
    status = pod.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    if pod["metadata"].get("deletionTimestamp"):
        return "its Pod is being deleted"
    if status.get("phase") in ("Failed", "Succeeded"):
        return f"its Pod is over: {status.get('reason') or status['phase']} {status.get('message') or ''}".rstrip()
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"it has no node: {scheduled.get('message') or scheduled.get('reason')}"
    waiting, ended = ((state.get("state") or {}).get(name) for name in ("waiting", "terminated"))
    before = _ended((state.get("lastState") or {}).get("terminated"))
    if waiting is not None:
        said = waiting.get("message") if waiting.get("reason") != "CrashLoopBackOff" else ""
        return "; ".join(part for part in (_because(waiting.get("reason"), said), before) if part)
    if ended is not None:
        return _ended(ended)
    if not state and not pod["spec"].get("nodeName"):
        return "its Pod has no node, so no kubelet reports on its container"
    if not state:
        return "its kubelet has not reported that its container started"
    ready = conditions.get("Ready") or {}
    if ready.get("status") != "True":
        return "; ".join(part for part in (_because("not ready", ready.get("message")), before) if part)
    return ""


def read_probe(text: str) -> tuple[list[str], tuple[str, ...]]:
    """Read the answer of ``/readyz?verbose``: the sentences of checks that failed, and the notes."""
    lines = text.splitlines()
    failed = [line.partition(" failed: ")[2] for line in lines if line.startswith("[-]")]
    return failed, tuple(line.removeprefix("[!]") for line in lines if line.startswith("[!]"))


def read_metrics(text: str) -> Samples:
    """Read the metrics of kopf-ha in Prometheus' text format; none if it is something else."""
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        return {}
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith(("kopf_ha_", "leader_election_", "process_start_time_seconds"))
    }


# --- its ports


def _ready(cluster: Cluster, pod: Mapping[str, Any], container: Mapping[str, Any]) -> str | Unknown:
    port = _port(container, "--health-port")
    return _get(cluster, pod, port, "readyz?verbose") if port else Unknown("it has no --health-port")


def _metrics(cluster: Cluster, pod: Mapping[str, Any], container: Mapping[str, Any]) -> Samples | Unknown:
    port = _port(container, "--metrics-port")
    text = _get(cluster, pod, port, "metrics") if port else Unknown("it has no --metrics-port")
    return text if isinstance(text, Unknown) else read_metrics(text)


def _get(cluster: Cluster, pod: Mapping[str, Any], port: str, what: str) -> str | Unknown:
    """GET from a port of a Pod, through the API server."""
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{quote(meta['namespace'])}/pods/{quote(meta['name'])}:{quote(port)}/proxy/{what}"
    try:
        answer = cluster.api.request("GET", path, timeout=TIMEOUT)
    except ApiError as error:
        return Unknown(str(error))
    body = answer.json
    if not answer.ok and isinstance(body, dict) and body.get("kind") == "Status":
        # The API server's own answer, and not the replica's, which has the status 503, too.
        return Unknown(str(cluster.api.refused(answer, f"GET {path}")).removesuffix(" (403)"))
    return answer.body.decode("utf-8", "replace")


def _port(container: Mapping[str, Any], flag: str) -> str:
    """Return the port that an option names; empty for none, and for what is no port."""
    text = given(container, flag)
    return text if text.isdigit() and text != "0" else ""


# --- its Pod


def _status_of(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Mapping[str, Any]:
    states = (pod.get("status") or {}).get("containerStatuses") or ()
    found: Mapping[str, Any] = next((s for s in states if s.get("name") == container.get("name")), {})
    return found


def _role(pod: Pod, holder_uid: str) -> str:
    if pod.over:
        return "ended"
    if pod.uid == holder_uid:
        return "leader"
    return "leaving" if pod.deleting else "follower"


def _ended(terminated: Mapping[str, Any] | None) -> str:
    if not terminated:
        return ""
    code = terminated.get("exitCode")
    meaning = EXITS.get(code) if isinstance(code, int) else None
    return f"it ended last with exit status {code}" + (f": {meaning}" if meaning else "")


def _because(reason: object, message: object) -> str:
    return f"{reason}: {message}" if message else str(reason or "")
