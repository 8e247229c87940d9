"""Changes a Deployment so that its replicas elect a leader: count, command, variables, probes and grace period."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml.comments import CommentedMap

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests import programs
from kopf_ha.manifests.description import FULL, Description
from kopf_ha.manifests.documents import in_one_line
from kopf_ha.manifests.remarks import Remarks

#: Two: one leads, and one can take over.
REPLICAS = 2
#: In seconds: longer than twice the drain timeout, the renew deadline and the end of other threads take.
GRACE = 45
#: The first port for probes that is tried.
PORT = 8081

_DOWNWARD = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "POD_NAMESPACE": "metadata.namespace"}
_MAIN_CONTAINER = "kubectl.kubernetes.io/default-container"
_COMMAND_OF = "the command of container "
_LEASE = "KOPF_HA_LEASE_NAME"
_LEGACY = "KOPF_HA_LEGACY_LOCK"
_DECIDING = "KOPF_HA_DECIDING"
_EXEMPT = "KOPF_HA_EXEMPT"
_LEVEL = "KOPF_HA_LEVEL"
_SERVED = "KOPF_RUN_NAMESPACE"
_EVERYWHERE, _SOMEWHERE = ("-A", "--all-namespaces"), ("-n", "--namespace")
_SERVING = (*_EVERYWHERE, *_SOMEWHERE)
#: A variable in a command: by the kubelet, or by a shell.
_VARIABLE = re.compile(r"\$\((\w+)\)|\$\{(\w+)\}|\$(\w+)")
_PROBES: Mapping[str, tuple[str, Mapping[str, int]]] = {
    # Probed often, since the other probes start after it. A slow node gets a minute for the imports.
    "startupProbe": ("/livez", {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 60}),
    "readinessProbe": ("/readyz", {"periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2}),
    # Longer than the lease duration: a late leader loses the Lease and stops in order.
    "livenessProbe": ("/livez", {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3}),
}


def pod_of(deployment: Any) -> Any:
    """Return the Pod's spec in a Deployment."""
    return deployment["spec"]["template"]["spec"]


def container_of(deployment: Any, name: str = "") -> Any:
    """Return the operator's container: the named one, the only one, or the only one that runs Kopf.

    Raises:
        ConfigurationError: there is no such container, or it is not clear which one it is.
    """
    containers = pod_of(deployment)["containers"]
    names = ", ".join(str(c["name"]) for c in containers)
    if name:
        found = [c for c in containers if c["name"] == name]
        if not found:
            raise ConfigurationError(f"the Deployment has no container {name}, but {names}; name one with --container")
        return found[0]
    found = [c for c in containers if programs.runs_kopf(c) or programs.is_fenced(c)]
    if len(found) != 1:
        found = containers
    if len(found) != 1:
        raise ConfigurationError(
            f"the Deployment has the containers {names}, and does not say which one runs Kopf; name it with --container"
        )
    return found[0]


def variable(container: Any, name: str) -> str:
    """Return the value of a container's variable; empty without one."""
    return next((str(e.get("value", "")) for e in container.get("env") or () if e.get("name") == name), "")


def given(container: Any, flag: str) -> str:
    """Return the value of an option of `kopf-ha run`; empty for none.

    As for the process the flag wins over the variable, and the last of several flags.
    """
    return [variable(container, _variable_of(flag)), *programs.option(container, flag)][-1]


def given_lease(container: Any) -> str:
    """Return the Lease's name that a container was given; empty for none. Then it was adopted before."""
    return given(container, "--lease-name")


def legacy_lock(container: Any) -> str:
    """Return the legacy lock that a container was given; empty for none."""
    return given(container, "--legacy-lock")


def given_deciding(container: Any) -> list[str]:
    """Return the deciding kinds that a container was given, as ``plural.group``."""
    listed = variable(container, _DECIDING)
    return [*programs.option(container, "--deciding"), *(d.strip() for d in listed.split(",") if d.strip())]


def is_seen(task: str) -> bool:
    """Return whether a task is seen in the Deployment until it is done, so that nobody has to remember it."""
    return task.startswith(_COMMAND_OF)


def served_namespaces(container: Any, namespace: str) -> list[str]:
    """Return the namespaces that a container's command names; none for all.

    Args:
        container: of the Deployment.
        namespace: the Deployment's.

    Returns:
        Names, patterns, and texts with the ``$`` of a variable whose value the Deployment does not show.
    """
    named = programs.option(container, *_SOMEWHERE)
    if any(e.get("name") == _SERVED for e in container.get("env") or ()):
        named.append(f"$({_SERVED})")
    return list(dict.fromkeys(n for name in named for n in _filled_in(name, container, namespace).split()))


def place_of(container: Any, flag: str) -> str:
    """Return in words where a container gives an option of `kopf-ha run`; empty if nowhere.

    The argument is named if there is a variable, too, since it wins. Of ``-n`` its other forms and its opposite count.
    """
    for written in _SERVING if flag == "-n" else (flag,):
        if programs.has_flag(container, written) or programs.option(container, written):
            return f"the argument {written}"
    name = _SERVED if flag == "-n" else _variable_of(flag)
    return f"the variable {name}" if any(e.get("name") == name for e in container.get("env") or ()) else ""


def names_all_namespaces(container: Any) -> bool:
    """Return whether a container's command says that the operator serves all namespaces."""
    return programs.has_flag(container, *_EVERYWHERE)


def _variable_of(flag: str) -> str:
    return "KOPF_HA_" + flag.removeprefix("--").upper().replace("-", "_")


def _filled_in(text: str, container: Any, namespace: str, depth: int = 5) -> str:
    by_name = {e.get("name"): e for e in container.get("env") or ()}

    def value(match: re.Match[str]) -> str:
        entry = by_name.get(match[1] or match[2] or match[3]) or {}
        path = ((entry.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        if path == "metadata.namespace" or (not entry and "POD_NAMESPACE" in match.groups()):  # which is added
            return namespace
        if "value" not in entry or not depth:
            return match[0]
        return _filled_in(str(entry["value"] or ""), container, namespace, depth - 1)

    return _VARIABLE.sub(value, text)


def adopt(
    deployment: Any, container: Any, description: Description, remarks: Remarks, earlier: Description | None = None
) -> None:
    """Change a Deployment for `kopf-ha run`. What it has already stays, but for what an option took back.

    Args:
        deployment: as it was given.
        container: the operator's.
        description: of the operator.
        remarks: what somebody should know is added there.
        earlier: what the operator was described by when this was written before.

    Raises:
        ConfigurationError: it contradicts what kopf-ha needs.
    """
    spec, pod = deployment["spec"], pod_of(deployment)
    first = not given_lease(container)
    _note_tasks(deployment, container, description, remarks)
    if int(spec.get("replicas") or 1) < REPLICAS:
        _put(spec, "replicas", REPLICAS, before="selector")
    if first and (spec.get("strategy") or {}).get("type") != "Recreate":
        # For one update: plain Kopf and kopf-ha must not run side by side.
        _put(spec, "strategy", {"type": "Recreate"}, before="template")
        remarks.once.append(
            "when the new version runs, change spec.strategy of the Deployment back: Recreate is for this update only"
        )
    if programs.runs_kopf(container):
        programs.fence(container)
    if programs.below_a_shell(container):
        remarks.noted.append(
            f"a script runs kopf-ha in container {container['name']}, and a shell does not pass SIGTERM on; write"
            " `exec` in front of it if nothing comes after it"
        )
    _set_variables(container, description, earlier)
    remarks.guessed += _set_probes(pod, container)
    grace = int(pod.get("terminationGracePeriodSeconds") or 0)
    needed = _grace(container)
    if grace < needed:
        _put(pod, "terminationGracePeriodSeconds", needed, before="containers")
    if len(pod["containers"]) > 1:
        metadata = spec["template"].setdefault("metadata", {})
        metadata.setdefault("annotations", {}).setdefault(_MAIN_CONTAINER, str(container["name"]))
    remarks.noted += _told(deployment, pod)


def _note_tasks(deployment: Any, container: Any, description: Description, remarks: Remarks) -> None:
    """Say what is left to do before the Deployment, as it was given, is replaced."""
    name = deployment["metadata"]["name"]
    fenced = programs.is_fenced(container)
    if not fenced and not programs.runs_kopf(container):
        remarks.unfenced.append(
            f"{_COMMAND_OF}{container['name']} is not fenced, since no `kopf run` is seen in it. Before you"
            " apply this, write `kopf-ha run`, or `kopf-ha exec -- …` in front of the program, here or in the image."
            " Plain Kopf would be refused every write, and its probes would fail."
        )
    namespace, served = description.account_parts[0], description.namespaces
    if served and programs.shows_run(container) and not served_namespaces(container, namespace):
        everywhere = place_of(container, "-n").removeprefix("the argument ")
        said = f"says {everywhere}" if everywhere else "names no namespace"
        remarks.unfenced.append(
            f"{_COMMAND_OF}{container['name']} {said}, and the policies hold in {', '.join(served)} only. The API"
            f" server would fence nothing elsewhere. Write {' '.join(f'-n {one}' for one in served)} there, or write"
            " the policies without --namespace."
        )
    if not fenced:
        remarks.once.append(f"the image {container.get('image') or 'of the operator'} must have kopf-ha in it")
    if not given_lease(container):
        remarks.once.append(f"stop the old version first: kubectl -n {namespace} scale deployment/{name} --replicas=0")


def _set_variables(container: Any, description: Description, earlier: Description | None) -> None:
    if not container.get("env"):
        _put(container, "env", [], after=("args", "command", "image", "name"))
    env = container["env"]
    by_name = {e.get("name"): e for e in env}
    for name, path in _DOWNWARD.items():
        if name not in by_name:
            env.append(in_one_line({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}))
        elif ((by_name[name].get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath") != path:
            raise ConfigurationError(
                f"the variable {name} of container {container['name']} is not the Pod's {path}, which kopf-ha needs"
                " there; give yours another name"
            )
    namespace, lease = description.lease_parts
    values = {_LEASE: lease}
    if namespace != description.account_parts[0]:
        values["KOPF_HA_LEASE_NAMESPACE"] = namespace
    if deciding := [f"{k.plural}.{description.group}" for k in description.kinds if k.deciding]:
        values[_DECIDING] = ",".join(deciding)
    if description.exempt:
        values[_EXEMPT] = ",".join(description.exempt)
    if description.legacy_lock:
        values[_LEGACY] = description.legacy_lock
    if description.level != FULL:
        values[_LEVEL] = description.level
    for name in (_DECIDING, _EXEMPT, _LEVEL):
        if name not in values and name in by_name and (name != _EXEMPT or (earlier and earlier.exempt)):
            env.remove(by_name[name])  # an option took it back
    for name, value in values.items():
        flag = "--" + name.removeprefix("KOPF_HA_").lower().replace("_", "-")
        given = programs.option(container, flag)
        if given and set(given) != set(value.split(",")):  # it wins over the variable
            raise ConfigurationError(
                f"the command of container {container['name']} says {flag} {', '.join(given)}, and the policies are for"
                f" {value}; change it there"
            )
        if name in by_name:
            if variable(container, name) != value:
                by_name[name]["value"] = value
        elif not given:
            env.append(in_one_line({"name": name, "value": value}))


def _set_probes(pod: Any, container: Any) -> list[str]:
    """Give the container the probes that it lacks, and return what was guessed.

    A probe at the address of `--liveness` stays, since every replica serves that. A probe of another port of the
    operator is replaced: nobody listens there on a follower, and the kubelet would kill it.
    """
    served = {_port(url) for url in programs.option(container, "-L", "--liveness")}
    health = given(container, "--health-port")
    ours = int(health) if health.isdigit() else 0
    guessed, wanted = [], []
    for name in _PROBES:
        target = _probed(container.get(name) or {}, container)
        if target is None:
            guessed.append(
                f"the {name} runs a program and stays; it must succeed on followers, too, where no handler runs"
            )
        elif not target or target not in served | {ours}:
            wanted.append(name)
    if "livenessProbe" not in wanted and "startupProbe" not in container:
        wanted.remove("startupProbe")  # it protects the liveness probe of ours from a slow start
    if wanted and not ours:
        ours = _free_port(pod, served)
        container["env"].append(in_one_line({"name": "KOPF_HA_HEALTH_PORT", "value": str(ours)}))
    if wanted:
        ports = container.get("ports")
        if not ports:
            _put(container, "ports", [], after=("env",))
        if all(p.get("containerPort") != ours for p in container["ports"]):
            container["ports"].append(in_one_line({"name": "kopf-ha-health", "containerPort": ours}))
    after = ["ports", "env"]
    for name in wanted:
        path, times = _PROBES[name]
        _put(container, name, in_one_line({"httpGet": {"path": path, "port": ours}, **times}), after=after)
        after.insert(0, name)
    return guessed


def _probed(probe: Any, container: Any) -> int | None:
    """Return the port that a probe asks; 0 if there is none, None if the probe runs a program."""
    if probe.get("exec"):
        return None
    way: Any = next((probe[w] for w in ("httpGet", "tcpSocket", "grpc") if probe.get(w)), {})
    port = way.get("port")
    if isinstance(port, str) and not port.isdigit():
        named = [p.get("containerPort") for p in container.get("ports") or () if p.get("name") == port]
        port = named[0] if named else 0
    return int(port or 0)


def _port(url: str) -> int:
    try:
        parts = urlsplit(url)
        return parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError:
        return 0


def _free_port(pod: Any, served: set[int]) -> int:
    taken = served | {int(p["containerPort"]) for c in pod["containers"] for p in c.get("ports") or ()}
    taken |= {int(v) for c in pod["containers"] if (v := variable(c, "KOPF_HA_METRICS_PORT")).isdigit()}
    return next(p for p in range(PORT, 65536) if p not in taken)


def _grace(container: Any) -> int:
    def seconds(flag: str, default: int) -> float:
        text = given(container, flag)
        try:
            return float(text.removesuffix("s"))
        except ValueError:
            return default

    return max(GRACE, int(2 * seconds("--drain-timeout", 10) + seconds("--renew-deadline", 10)) + 15)


def _told(deployment: Any, pod: Any) -> list[str]:
    """Return what somebody should know about several replicas of this Deployment."""
    told = []
    name = deployment["metadata"]["name"]
    if pod.get("hostNetwork"):
        told.append(
            f"Deployment {name} uses the node's network, so each replica needs a node of its own: its ports are the"
            " node's"
        )
    claims = [v["name"] for v in pod.get("volumes") or () if v.get("persistentVolumeClaim")]
    if claims:
        told.append(
            f"all replicas of Deployment {name} mount the volume {', '.join(claims)}; a claim that only one node may"
            " mount (ReadWriteOnce) keeps replicas on one node"
        )
    return told


def _put(data: Any, key: str, value: Any, *, before: str = "", after: Any = ()) -> None:
    """Set a field. If it is new, it stands before or after another one, where a reader expects it."""
    if key in data or not isinstance(data, CommentedMap):
        data[key] = value
        return
    keys = list(data)
    place = next((keys.index(a) + 1 for a in after if a in keys), keys.index(before) if before in keys else len(keys))
    data.insert(place, key, value)
