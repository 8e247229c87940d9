"""One pod of the Deployment, and the processes that run in it one after the other."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devcluster import ControlPlane, kubeconfig
from faults import cgroup
from faults.clock import Clock
from faults.link import Link
from testbed.deployment import pod_token, variables
from testbed.ports import free_port
from testbed.replica import KOPF_HA, Replica

#: Seconds until a container that ended is started again.
RESTART = 0.5
_REFUSED = re.compile(r"refused by (\w+), token")


class Seat:
    """A pod, its link, its clock and its process, which is started again when it ended, as a kubelet would.

    Args:
        plane: the control plane.
        folder: for logs, traces and kubeconfigs.
        pod: the Pod.
        container: of the Deployment: arguments and variables.
        env: further variables.
        shim: the library for clocks; None for none.
        link: in front of the API server.
        traced: whether it writes a trace.
    """

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        pod: Mapping[str, Any],
        container: Mapping[str, Any],
        env: Mapping[str, str],
        shim: Path | None,
        link: Link,
        *,
        traced: bool = True,
    ) -> None:
        self.plane, self.folder, self.pod, self.link = plane, folder, dict(pod), link
        self.name, self.uid = str(pod["metadata"]["name"]), str(pod["metadata"]["uid"])
        self.bearer = pod_token(plane, pod)
        self.clock = Clock(folder / f"{self.name}.clock")
        self._config = folder / f"{self.name}.kubeconfig"
        self.write_bearer(self.bearer)
        given = variables(container, pod) | dict(env)
        run = folder / f"{self.name}.run"
        run.mkdir()
        self.trace = folder / f"{self.name}.trace"
        given |= {"KOPF_HA_RUN_DIR": str(run), "KOPF_HA_TRACE": str(self.trace) if traced else ""}
        # Each process has its own ports, since they share one address.
        given |= {"KOPF_HA_METRICS_PORT": str(free_port()), "KOPF_HA_HEALTH_PORT": "0"}
        given |= self.clock.environment(shim) if shim else {}
        self.metrics_port = int(given["KOPF_HA_METRICS_PORT"])
        arguments = [*container["args"], "-m", "faults.handlers", "--log-format=plain"]
        self._arguments = arguments
        #: For its memory; None if there are no cgroups. Its first process is in it, and a twin is not.
        self.group = None if cgroup.missing() else cgroup.Group()
        given |= {"FAULTS_GROUP": str(self.group.folder)} if self.group else {}
        program = ("-m", "faults.confined") if self.group else KOPF_HA
        log = folder / f"{self.name}.log"
        self.replica = Replica(self.name, self._config, arguments, log, times={}, env=given, program=program)
        root = Path(__file__).parents[1]
        self.replica.env = {**(self.replica.env or {}), "PYTHONPATH": f"{self.replica.env['PYTHONPATH']}:{root}"}  # type: ignore[index]
        self.extra: list[Replica] = []  #: other processes in this pod
        self.restarts = 0
        self.ends: Counter[int] = Counter()  #: of processes that were not killed here, by their status
        self.began = 0  #: how long the log was when the process that runs was started
        self._kept = threading.Event()  #: while set, nobody starts it again
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Start the process, and whoever starts it again."""
        self.replica.start()
        self._keeper.start()

    def stop(self) -> None:
        """End all of it for good; `ask` should come before."""
        self._closed.set()
        self._keeper.join(5)
        for each in (self.replica, *self.extra):
            each.kill()
        if self.group:
            self.group.remove()

    def ask(self) -> None:
        """Ask the process to end, as a kubelet does that deletes the pod; nobody starts it again."""
        self._kept.set()
        self.replica.terminate()

    def kill(self, *, again: bool = True) -> None:
        """Kill the process; with `again` it is started again."""
        (self._kept.clear if again else self._kept.set)()
        self._killed = True
        self.replica.kill()

    def revive(self) -> None:
        """Have it started again from now on."""
        self._kept.clear()

    def write_bearer(self, bearer: str) -> None:
        """Write the replica's kubeconfig, with this token; a process that runs does not read it again."""
        entry = kubeconfig.cluster(self.link.url, self.plane.folder / "pki" / "ca.crt")
        kubeconfig.write(self._config, entry, kubeconfig.token_user(bearer))

    def twin(self, **env: str) -> Replica:
        """Start one more process in this pod, with the identity that FAULTS_IDENTITY names, if `env` has it."""
        log = self.folder / f"{self.name}-twin{len(self.extra)}.log"
        program = ("-m", "faults.named") if "FAULTS_IDENTITY" in env else KOPF_HA
        made = Replica(f"twin of {self.name}", self._config, self._arguments, log, times={}, program=program)
        made.env = {**(self.replica.env or {}), **env}
        made.env["KOPF_HA_METRICS_PORT"] = str(free_port())
        made.env["KOPF_HA_TRACE"] = ""
        self.extra.append(made)
        made.start()
        return made

    @property
    def follows(self) -> bool:
        """Whether the process that runs has seen who leads, or leads."""
        return self.replica.running and re.search("leading: |new leader: ", self.said(self.began)) is not None

    @property
    def size(self) -> int:
        """How long the log is, in bytes."""
        path = self.replica.log_path
        return path.stat().st_size if path and path.exists() else 0

    def said(self, since: int) -> str:
        """Give what was logged since it was that long."""
        assert self.replica.log_path is not None  # noqa: S101
        with self.replica.log_path.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def refused(self, since: int) -> Counter[str]:
        """Count the refused writes since then, by the line of the fence."""
        return Counter(_REFUSED.findall(self.said(since)))

    def pids(self) -> list[int]:
        """Give the process that runs, if one does."""
        return [self.replica.pid] if self.replica.running and self.replica.pid else []

    _killed = False

    def _keep(self) -> None:
        while not self._closed.wait(RESTART):
            if self.replica.running or self._kept.is_set():
                continue
            if not self._killed:
                self.ends[self.replica.returncode or 0] += 1
            self._killed = False
            self.restarts += 1
            self.began = self.size
            self.replica.start()


def memory(pid: int) -> int:
    """Give the bytes that a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory")


def descriptors(pid: int) -> int:
    """Count a process's open files."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """Count a process's threads."""
    return len(os.listdir(f"/proc/{pid}/task"))
