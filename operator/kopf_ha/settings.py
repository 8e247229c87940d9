"""The configuration of one replica."""

from __future__ import annotations

import math
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kopf_ha.core.election import JITTER_FACTOR, Timing
from kopf_ha.core.legacy_lock import LegacyLock
from kopf_ha.errors import ConfigurationError
from kopf_ha.options import Values, option, options_of

#: A day; the API server itself would take an int32.
DURATION_MAX = 86_400
#: The longest identity that a stamp takes, in characters (`manifests/schema.py`).
LONGEST_IDENTITY = 320
#: A pod's uid as a stamp takes it, also as part of a label (`core/notes.py`).
POD_UID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,35}")

#: What follows the lease duration unless it is given: so many seconds of 15. The first two as in client-go.
_OF_15 = {"renew_deadline": 10, "retry_period": 2, "recovery": 15}

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def new_identity(environ: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Make a holder identity, ``<pod name>_<pod uid>_<random>``, and give it with the pod's uid.

    `POD_NAME` and `POD_UID` come from the downward API. Outside of a pod, the host's name and a random uid
    take their place. The random part makes the identity unique per *process*, so that a restarted container
    acquires the Lease again and raises the token (I2).
    """
    env = os.environ if environ is None else environ
    pod = env.get("POD_NAME") or os.uname().nodename
    uid = env.get("POD_UID") or str(uuid.uuid4())
    return f"{pod}_{uid}_{uuid.uuid4().hex[:8]}", uid


#: The Lease's name outside of a pod, and of earlier releases also in pods, where none is given.
UNNAMED = "kopf-ha"
#: What Kubernetes appends to a Deployment's name for a pod: a hash, and five random letters and digits.
_OF_DEPLOYMENT = re.compile(r"(.+)-[4-9bcdf]{1,10}-[2456789bcdfghjklmnpqrstvwxz]{5}")
_OF_STATEFUL_SET = re.compile(r"(.+)-(?:0|[1-9][0-9]*)")


def workload_of(pod: str) -> str:
    """Return the name of the Deployment or StatefulSet that a pod belongs to, by the pod's name; empty if unclear.

    That needs no permission, and is the same for all replicas and all revisions.
    """
    found = _OF_DEPLOYMENT.fullmatch(pod) or _OF_STATEFUL_SET.fullmatch(pod)
    return found[1] if found else ""


def _default_namespace() -> str:
    try:
        return os.environ.get("POD_NAMESPACE") or _NAMESPACE_FILE.read_text().strip() or "default"
    except OSError:
        return "default"


# --- what values are allowed


def _seconds(must_be: str, takes: Any) -> Values:
    return Values(
        must_be=must_be,
        read=lambda text: float(text.removesuffix("s")),
        takes=lambda value: math.isfinite(value) and takes(value),
        show=lambda value: f"{value:g} s",
        metavar="SECONDS",
    )


def _choice(*names: str) -> Values:
    return Values(
        must_be=f"{', '.join(names[:-1])} or {names[-1]}",
        takes=lambda value: value in names,
        show=lambda value: f"`{value}`",
        metavar=f"[{'|'.join(names)}]",
    )


def _kinds(must_be: str, form: str, pattern: str) -> Values:
    return Values(
        must_be=must_be,
        read=lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
        takes=lambda value: re.fullmatch(pattern, value) is not None,
        show=lambda value: ", ".join(value) or "none",
        metavar=form,
        many=True,
    )


def _read_switch(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "0", "false", "no", ""):
        raise ValueError(text)
    return text.lower() in ("1", "true", "yes")


def _is_lock(text: str) -> bool:
    try:
        lock = LegacyLock.parse(text, "default")
    except ConfigurationError:
        return False
    return all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", part) for part in (lock.name, lock.namespace or "x"))


_NAME = Values(
    must_be="a Kubernetes name: at most 253 lower-case letters, digits, '-' and '.'",
    takes=lambda value: len(value) <= 253 and re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", value) is not None,
    show=lambda value: f"`{value}`",
    metavar="NAME",
)
_PORT = Values(
    must_be="a port from 1 to 65535, or 0 for none",
    read=int,
    takes=lambda value: 0 <= value <= 65535,
    show=lambda value: str(value or "none"),
    metavar="PORT",
)
_LOCK = Values(
    must_be="written RESOURCE/NAME or RESOURCE/NAMESPACE/NAME, with endpoints, configmaps, leases, kopfpeerings or"
    " clusterkopfpeerings",
    takes=lambda value: not value or _is_lock(value),
    show=lambda value: value or "none",
    metavar="RESOURCE/NAME",
)
_FILE = Values(must_be="a file", show=lambda value: value or "none", metavar="FILE")
_DIRECTORY = Values(must_be="a directory", show=lambda value: value or "none", metavar="DIR")
_SWITCH = Values(must_be="true or false", read=_read_switch, show=lambda value: "on" if value else "off", metavar="")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one replica. Durations are in seconds.

    Each option is declared here, once: its type, its default, the values that it takes and its help. The command
    line, the environment variables (`from_env`) and the table in the documentation are made from that.

    Args:
        identity: the holder identity; by default a new one per process. No option: one value in a Deployment would
            give all of its replicas the same identity (I2).
        pod_uid: uid of this pod; by default ``POD_UID``, outside of a pod a random one.
        pod_name: name of this pod; by default ``POD_NAME``, empty outside of a pod.
        pod_namespace: namespace of this pod; by default ``POD_NAMESPACE``, or the service account's.
        operator: the operator that this replica belongs to: the name of the workload that its pod is of; empty outside
            of a pod. It marks the Lease, so that another operator with the same Lease is told.
        earlier_lease: name of the Lease that replicas of earlier releases use if the Lease's name is not given; empty
            if it is.

    Raises:
        ConfigurationError: a value is not allowed; the message names the option and what would be.
    """

    lease_name: str = option(
        "",
        _NAME,
        "Name of the Lease. Each operator needs its own.",
        shown=f"the Deployment's or StatefulSet's name, by `POD_NAME`; outside of a pod `{UNNAMED}`",
    )
    lease_namespace: str = option(_default_namespace, _NAME, "Namespace of the Lease.", shown="the pod's namespace")
    lease_duration: float = option(
        15.0,
        _seconds(
            f"a whole number of seconds from 1 to {DURATION_MAX}",
            lambda value: value == int(value) and 1 <= value <= DURATION_MAX,
        ),
        "How long followers wait for a leader that does not renew the Lease. Whole seconds, since the Lease stores it.",
    )
    renew_deadline: float = option(
        None,
        _seconds("a number of seconds above 0", lambda value: value > 0),
        "How long the leader tries to renew the Lease before it stops leading.",
        shown="10/15 of the lease duration",
    )
    retry_period: float = option(
        None,
        _seconds("a number of seconds above 0", lambda value: value > 0),
        "Time between two attempts to acquire or renew the Lease.",
        shown="2/15 of the lease duration",
    )
    recovery: float = option(
        None,
        _seconds("a number of seconds, 0 or more", lambda value: value >= 0),
        "How long after the renew deadline a term may still go on. Meanwhile writes wait. If the Lease can be renewed"
        " and nobody acquired it in between, they go on in the same term; otherwise the term ends. 0 ends it at the"
        " renew deadline, as does `--legacy-lock`.",
        shown="the lease duration",
    )
    legacy_lock: str = option(
        "",
        _LOCK,
        "The lock by which replicas from before kopf-ha elect their leader. It is waited for, and kept while this"
        " replica leads. Drop the option when no such replica is left.",
    )
    deciding: tuple[str, ...] = option(
        (),
        _kinds("written plural.group, as in pools.example.dev", "PLURAL.GROUP", r"[a-z0-9]+(\.[a-z0-9][-a-z0-9]*)+"),
        "A kind whose objects the operator reads to decide about other objects. A new leader stamps all of its objects"
        " before any handler runs. May be repeated.",
    )
    barrier: Literal["all", "each"] = option(
        "all",
        _choice("all", "each"),
        "Which stamps handlers wait for when a term begins. `all`: every deciding object is stamped first. `each`: they"
        " are listed and then stamped behind, and the operator's code waits for those that it decides from"
        " (`kopf_ha.current_term().stamped`).",
    )
    exempt: tuple[str, ...] = option(
        (),
        _kinds(
            "written plural[.group][/subresource]",
            "PLURAL[.GROUP][/SUB]",
            r"[a-z0-9]+(\.[a-z0-9][-a-z0-9]*)*(/[a-z]+)?",
        ),
        "A kind whose writes are sent without a fence. Events always are. May be repeated.",
    )
    after_loss: Literal["follow", "exit"] = option(
        "exit",
        _choice("follow", "exit"),
        "What to do after the Lease was lost: follow again in the same process, or exit, so that the pod restarts and"
        " module globals are fresh.",
    )
    load: Literal["auto", "start"] = option(
        "auto",
        _choice("auto", "start"),
        "When the operator's modules are loaded. `auto`: at the start; but if a module reads objects while it is"
        " imported, when the term begins, so that what it keeps of them is not as old as the follower. `start`: always"
        " at the start.",
    )
    on_unfenced: Literal["report", "exit"] = option(
        "report",
        _choice("report", "exit"),
        "What to do when the operator's code tries a write that is refused in every term, since it runs in no term or"
        " the fence does not know the write: report it, or also exit with status 6.",
    )
    drain_timeout: float = option(
        10.0,
        _seconds("a number of seconds, 0 or more", lambda value: value >= 0),
        "How long handlers may take to end before the process exits without them. When the process is asked to stop,"
        " async handlers are cancelled after four fifths of that.",
    )
    require_policies: bool = option(
        False,
        _SWITCH,
        "Do not lead while the API server would accept a stale leader's writes. When off, the log names what is"
        " missing.",
    )
    level: Literal["full", "term"] = option(
        "full",
        _choice("full", "term"),
        "The level of the manifests that were applied, by which the replica knows what has to be in force. `term`: the"
        " API server only knows who leads. `full`: it also compares the stamps of objects.",
    )
    fast_failover: bool = option(
        True,
        _SWITCH,
        "Watch the leader's Pod, and take over at once when it is gone. Its process may still run then: its writes are"
        " refused, but its effects outside of Kubernetes are not.",
        flags=("--fast-failover", "--no-fast-failover"),
    )
    run_dir: str = option(
        "",
        _DIRECTORY,
        "A directory that outlives the container but not the pod, such as an emptyDir. A lock in it proves that the"
        " previous process is dead, so that a restarted leader leads again at once.",
    )
    metrics_port: int = option(0, _PORT, "Serve metrics for Prometheus at this port.")
    health_port: int = option(0, _PORT, "Serve `/readyz` and `/livez` for the kubelet at this port.")
    trace: str = option(
        "",
        _FILE,
        "Append what the election and the fence take in and do to this file, one JSON object in each line, for"
        " `python -m replay` of the repository. No contents of objects, no credentials. It grows without a bound.",
    )
    fence: Literal["full", "rv", "none"] = option(
        "full",
        _choice("full", "rv", "none"),
        "How writes are fenced. `rv` (optimistic concurrency alone) and `none` exist for comparison only: both let a"
        " stale leader write.",
    )
    unsafe: bool = option(False, _SWITCH, "Allow a fence other than `full`.", flags=("--unsafe-fence",))
    identity: str = ""
    pod_uid: str = ""
    pod_name: str = ""
    pod_namespace: str = field(default_factory=_default_namespace)
    _follow: tuple[str, ...] = field(init=False, default=(), repr=False, compare=False)  #: not given, so in proportion
    operator: str = ""
    earlier_lease: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_follow", tuple(name for name in _OF_15 if getattr(self, name) is None))
        for name in self._follow:
            object.__setattr__(self, name, self.lease_duration * _OF_15[name] / 15)
        # What was not given comes from the pod, each for itself: a stamp needs all of it (`core.token.Stamp`).
        identity, uid = new_identity()
        in_pod = bool(os.environ.get("POD_UID"))
        found = {"identity": identity, "pod_uid": uid, "pod_name": os.environ.get("POD_NAME", "") if in_pod else ""}
        for name, value in found.items():
            object.__setattr__(self, name, getattr(self, name) or value)
        self._name_lease()
        self._check()

    def _name_lease(self) -> None:
        """Name the operator, and its Lease if that has no name.

        Raises:
            ConfigurationError: this is a pod of nobody knows which workload. One name for all operators would make two
                of them elect one leader, and one would never run.
        """
        pod = self.pod_name or os.environ.get("POD_NAME", "")
        object.__setattr__(self, "operator", self.operator or workload_of(pod))
        if self.lease_name:
            return
        if self.operator:
            object.__setattr__(self, "lease_name", self.operator)
            object.__setattr__(self, "earlier_lease", UNNAMED)
        elif pod or os.environ.get("KUBERNETES_SERVICE_HOST"):
            what = f"pod {pod} is of no Deployment or StatefulSet, by its name" if pod else "POD_NAME is not set"
            raise ConfigurationError(
                f"--lease-name is needed: {what}; choose a name that no other operator in the namespace has"
                + ("" if pod else ", or set POD_NAME by the downward API")
            )
        else:
            object.__setattr__(self, "lease_name", UNNAMED)

    @property
    def lease(self) -> str:
        """``namespace/name``, as stamps record it."""
        return f"{self.lease_namespace}/{self.lease_name}"

    @property
    def timing(self) -> Timing:
        """The durations of the election.

        A term recovers only with the fence. Old replicas know no tokens, and those of a peering go on without a sign
        when nobody renews (`core.election.legacy`), so with their lock it does not recover either.
        """
        recovery = self.recovery if self.fence == "full" and not self.legacy_lock else 0.0
        return Timing(self.lease_duration, self.renew_deadline, self.retry_period, recovery)

    @property
    def legacy(self) -> LegacyLock | None:
        """The lock of replicas from before kopf-ha; None if there are none."""
        return LegacyLock.parse(self.legacy_lock, self.lease_namespace) if self.legacy_lock else None

    def _check(self) -> None:
        """Check each value by itself, and then those that depend on each other."""
        for one in options_of(self):
            one.check(getattr(self, one.name))
        if len(self.identity) > LONGEST_IDENTITY or not self.identity.isprintable():
            raise ConfigurationError(
                f"identity must be at most {LONGEST_IDENTITY} printable characters, not {self.identity[:40]!r}"
            )
        if not POD_UID.fullmatch(self.pod_uid):
            raise ConfigurationError(
                f"pod_uid must be a Pod's uid, at most 36 letters, digits and -_., not {self.pod_uid[:40]!r}"
            )
        # The inequalities of client-go's NewLeaderElector. Without the first a leader still renews a Lease that
        # others already consider expired; without the second it gives up before its second attempt.
        if self.lease_duration <= self.renew_deadline:
            raise ConfigurationError(
                f"--lease-duration ({self.lease_duration:g} s) must be greater than --renew-deadline"
                f" ({self.renew_deadline:g} s); raise the one or lower the other"
            )
        if self.renew_deadline <= self.retry_period * JITTER_FACTOR:
            raise ConfigurationError(
                f"--renew-deadline ({self.renew_deadline:g} s) must be greater than --retry-period"
                f" ({self.retry_period:g} s) × {JITTER_FACTOR:g}; raise the one or lower the other"
            )
        if self.legacy == LegacyLock("leases", self.lease_name, self.lease_namespace):
            raise ConfigurationError(
                f"--legacy-lock names the Lease itself ({self.lease}), in which kopf-ha counts its terms; choose"
                " another --lease-name"
            )
        if self.metrics_port and self.metrics_port == self.health_port:
            raise ConfigurationError(f"--metrics-port and --health-port are both {self.health_port}; choose two ports")
        if self.fence != "full" and not self.unsafe:
            raise ConfigurationError(
                f"--fence={self.fence} lets a stale leader write, and is for comparison only; leave it out, or add"
                " --unsafe-fence"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Make settings from ``KOPF_HA_*`` (`KOPF_HA_LEASE_DURATION=15`); values given by name win.

        Raises:
            ConfigurationError: a value cannot be read, or is not allowed.
        """
        env = os.environ if environ is None else environ
        values = {name: value for name, value in given.items() if value is not None}
        for one in options_of(cls):
            if one.name not in values and one.variable in env:
                values[one.name] = one.read(env[one.variable], one.variable)
        return cls(**values)

    def changed(self, **values: Any) -> Settings:
        """Return a copy with other values, checked again. Durations that were not given follow its lease duration."""
        return replace(self, **{**dict.fromkeys(self._follow), **values})
