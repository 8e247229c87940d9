"""What can be set, checked once, where it comes in."""

from __future__ import annotations

import math
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from kopf_ha.core.election import JITTER_FACTOR, Timing
from kopf_ha.errors import ConfigurationError

FenceMode = Literal["full", "rv", "none"]
AfterLoss = Literal["follow", "exit"]

#: A day; the API server itself would take an int32.
DURATION_MAX = 86_400
#: The longest values that a stamp takes, in characters (`manifests/schema.py`).
LONGEST = {"identity": 320, "pod_uid": 64}

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_KIND = re.compile(r"[a-z0-9]+(\.[a-z0-9][-a-z0-9]*)+")

_EXEMPT = re.compile(r"[a-z0-9]+(\.[a-z0-9][-a-z0-9]*)*(/[a-z]+)?")


def new_identity(environ: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Make a holder identity, ``<pod name>_<pod uid>_<random>``, and give it with the pod's uid.

    `POD_NAME` and `POD_UID` come from the downward API; outside of a pod the host's name and a random uid
    serve. The random part makes it unique per *process*, so that a restarted container acquires anew and
    raises the token (I2).
    """
    env = os.environ if environ is None else environ
    pod = env.get("POD_NAME") or os.uname().nodename
    uid = env.get("POD_UID") or str(uuid.uuid4())
    return f"{pod}_{uid}_{uuid.uuid4().hex[:8]}", uid


def _default_namespace() -> str:
    try:
        return os.environ.get("POD_NAMESPACE") or _NAMESPACE_FILE.read_text().strip() or "default"
    except OSError:
        return "default"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one replica. Durations are in seconds.

    Args:
        lease_name: name of the Lease; one per operator.
        lease_namespace: its namespace; by default the pod's own.
        lease_duration: how long followers wait for a leader that does not renew. client-go's default, 15.
        renew_deadline: how long the leader tries to renew before it gives up. 10.
        retry_period: between two renewals or two attempts. 2.
        deciding: kinds that other objects' state is decided from, ``plural.group``; the barrier stamps all
            of their objects before any handler runs (I4).
        exempt: writes that go out unfenced, ``plural[.group][/subresource]``. Events are always exempt.
        fence: `full`; `rv` and `none` are for comparison only and need `unsafe`.
        unsafe: the switch without which anything but `full` is refused.
        require_policies: refuse to lead while the API server does not enforce the fence (trap 13).
        after_loss: `follow` in the same process, or `exit`, for operators with state in module globals.
        drain_timeout: how long handlers may take to end before the process exits hard; when the process is asked
            to stop, async ones are cancelled after four fifths of it.
        metrics_port: where metrics are served; 0 for nowhere.
        health_port: where `/readyz` and `/livez` are served; 0 for nowhere.
        fast_failover: watch the holder's Pod, and take over at once when it is gone. Its process may still run
            then: its writes are refused, but in effects outside of Kubernetes two leaders may overlap.
        run_dir: a directory that outlives this container, but not its pod: there a restarted process proves that
            the one before is dead; empty for none.
        identity: the holder identity; by default a new one per process.
        pod_uid: uid of this pod; by default ``POD_UID``, outside of a pod a random one.
        pod_name: name of this pod; by default ``POD_NAME``, empty outside of one.
        pod_namespace: namespace of this pod.

    Raises:
        ConfigurationError: a value is out of bounds; the sentence names the bound.
    """

    lease_name: str = "kopf-ha"
    lease_namespace: str = field(default_factory=_default_namespace)
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    deciding: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()
    fence: FenceMode = "full"
    unsafe: bool = False
    require_policies: bool = False
    after_loss: AfterLoss = "exit"
    drain_timeout: float = 10.0
    metrics_port: int = 0
    health_port: int = 0
    fast_failover: bool = True
    run_dir: str = ""
    identity: str = ""
    pod_uid: str = ""
    pod_name: str = ""
    pod_namespace: str = field(default_factory=_default_namespace)

    def __post_init__(self) -> None:
        # What was not given comes from the pod, each for itself: a stamp needs all of it (`core.token.Stamp`).
        identity, uid = new_identity()
        in_pod = bool(os.environ.get("POD_UID"))
        found = {"identity": identity, "pod_uid": uid, "pod_name": os.environ.get("POD_NAME", "") if in_pod else ""}
        for name, value in found.items():
            object.__setattr__(self, name, getattr(self, name) or value)
        self._check_names()
        self._check_durations()
        self._check_ports()
        if self.fence not in ("full", "rv", "none"):
            raise ConfigurationError(f"fence must be full, rv or none, not {self.fence!r}")
        if self.fence != "full" and not self.unsafe:
            raise ConfigurationError(
                f"fence={self.fence} lets a stale leader write; it is for comparison only and needs the unsafe switch"
            )
        if self.after_loss not in ("follow", "exit"):
            raise ConfigurationError(f"after-loss must be follow or exit, not {self.after_loss!r}")

    @property
    def lease(self) -> str:
        """``namespace/name``, as stamps record it."""
        return f"{self.lease_namespace}/{self.lease_name}"

    @property
    def timing(self) -> Timing:
        """The durations of the election."""
        return Timing(self.lease_duration, self.renew_deadline, self.retry_period)

    def _check_names(self) -> None:
        for what in ("lease_name", "lease_namespace"):
            value = getattr(self, what)
            if not _DNS_NAME.fullmatch(value) or len(value) > 253:
                raise ConfigurationError(f"{what.replace('_', ' ')} {value!r} is no Kubernetes name")
        for what, longest in LONGEST.items():
            value = getattr(self, what)
            if len(value) > longest or not value.isprintable():
                raise ConfigurationError(
                    f"{what.replace('_', ' ')} must be at most {longest} printable characters, not {value[:40]!r}"
                )
        for kind in self.exempt:
            if not _EXEMPT.fullmatch(kind):
                raise ConfigurationError(f"exempt kind {kind!r} must be written plural[.group][/subresource]")
        for kind in self.deciding:
            if not _KIND.fullmatch(kind):
                raise ConfigurationError(
                    f"deciding kind {kind!r} must be written plural.group, as in pools.example.dev"
                )

    def _check_durations(self) -> None:
        for what in ("lease_duration", "renew_deadline", "retry_period", "drain_timeout"):
            value = getattr(self, what)
            if not math.isfinite(value):
                raise ConfigurationError(f"{what.replace('_', ' ')} must be a number of seconds, not {value:g}")
        # The inequalities of client-go's NewLeaderElector. Without the first a leader still renews what
        # others already take for expired; without the second it gives up before its second attempt.
        if self.lease_duration <= self.renew_deadline:
            raise ConfigurationError(
                f"lease duration ({self.lease_duration:g} s) must be greater than renew deadline"
                f" ({self.renew_deadline:g} s)"
            )
        if self.renew_deadline <= self.retry_period * JITTER_FACTOR:
            raise ConfigurationError(
                f"renew deadline ({self.renew_deadline:g} s) must be greater than retry period"
                f" ({self.retry_period:g} s) × {JITTER_FACTOR:g}"
            )
        if self.retry_period <= 0:
            raise ConfigurationError(f"retry period must be greater than 0 s, not {self.retry_period:g}")
        if self.lease_duration < 1 or self.lease_duration != int(self.lease_duration):
            raise ConfigurationError(
                f"lease duration must be whole seconds, as the Lease stores it, at least 1, not {self.lease_duration:g}"
            )
        if self.lease_duration > DURATION_MAX:
            raise ConfigurationError(f"lease duration must be at most {DURATION_MAX} s, not {self.lease_duration:.0f}")
        if self.drain_timeout < 0:
            raise ConfigurationError(f"drain timeout must not be negative, not {self.drain_timeout:g}")

    def _check_ports(self) -> None:
        for what in ("metrics_port", "health_port"):
            if not 0 <= getattr(self, what) <= 65535:
                raise ConfigurationError(f"{what.replace('_', ' ')} must be 0 to 65535, not {getattr(self, what)}")
        if self.metrics_port and self.metrics_port == self.health_port:
            raise ConfigurationError(
                f"metrics port and health port are both {self.health_port}: each needs a port of its own"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Make settings from ``KOPF_HA_*`` (`KOPF_HA_LEASE_DURATION=15`); what is given by name wins.

        The identity is not among them: one value in a Deployment would name all of its replicas alike (I2).

        Raises:
            ConfigurationError: a value that cannot be read, or is out of bounds.
        """
        env = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for f in fields(cls):
            if f.name in ("identity", "pod_uid", "pod_name", "pod_namespace"):
                continue
            text = env.get(f"KOPF_HA_{f.name.upper()}")
            if text is not None and given.get(f.name) is None:
                values[f.name] = _parse(f.name, str(f.type), text)
        values |= {k: v for k, v in given.items() if v is not None}
        return cls(**values)

    def changed(self, **values: Any) -> Settings:
        """Give a copy with other values, checked again."""
        return replace(self, **values)


def _parse(name: str, kind: str, text: str) -> Any:
    if kind == "float":
        try:
            return float(text.removesuffix("s"))
        except ValueError:
            raise ConfigurationError(f"KOPF_HA_{name.upper()}={text!r} is no number of seconds") from None
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise ConfigurationError(f"KOPF_HA_{name.upper()}={text!r} is no whole number") from None
    if kind == "bool":
        if text.lower() not in ("1", "true", "yes", "0", "false", "no", ""):
            raise ConfigurationError(f"KOPF_HA_{name.upper()}={text!r} is neither true nor false")
        return text.lower() in ("1", "true", "yes")
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text
