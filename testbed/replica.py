"""The one launcher of an operator's process."""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from devcluster import PodIdentity, Process
from devcluster.process import Child
from devcluster.waiting import until
from testbed.deployment import ROOT
from testbed.warm import Warm

#: Where the packages under test are.
SOURCE = ROOT / "operator"
#: Hides a package that a checkout has and an operator's image has not.
ABSENT = ROOT / "testbed" / "absent"
#: Of a replica's Lease, in seconds, by the names that `Settings` has for them. Short, since tests wait for the end of
#: Leases; and so long that a replica on a busy machine renews in time: a renewal may be late by five seconds.
TIMES = {"lease_duration": 6.0, "renew_deadline": 5.0, "retry_period": 0.5}
#: Seconds that are waited for what has to come, at most. It says nothing about how long that takes.
PATIENCE = 150.0
#: Arguments that run the reference operator in all namespaces.
IPAM = (
    "run", "-A", "-m", "kopf_ha_ipam.handlers", "--deciding=addresspools.ipam.kopf-ha.dev", "--barrier=each",
    "--after-loss=follow",
)  # fmt: skip
#: What an interpreter tells at once, and when it crashes.
_TOLD = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
_LOCK = threading.Lock()
#: Ways to run the command; a path to a script takes the place of the last.
KOPF_HA = ("-m", "kopf_ha")


def environment(kubeconfig: Path | str, times: Mapping[str, float] | None = None) -> dict[str, str]:
    """Give this process's environment with a cluster's credentials, and with no settings but these times.

    Should the interpreter itself crash, it writes to the log where its threads were.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KOPF_", "POD_", "KUBE"))}
    short = {f"KOPF_HA_{name.upper()}": f"{seconds:g}" for name, seconds in (times or {}).items()}
    return kept | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": f"{ABSENT}:{SOURCE}"} | _TOLD | short


def as_pod(pod: PodIdentity, namespace: str) -> dict[str, str]:
    """Give the variables that tell a replica in which pod it is."""
    return {"POD_NAME": pod.name, "POD_UID": pod.uid, "POD_NAMESPACE": namespace}


@functools.cache
def _warm(path: str) -> Warm:
    return Warm(environment(os.devnull) | {"PYTHONPATH": path})


class Replica(Process):
    """A replica in a process. Its log is kept over restarts.

    Args:
        name: of the process.
        kubeconfig: of the cluster, with the credentials that the replica has.
        arguments: of the program.
        log: the file for its output.
        times: of its Lease, in seconds; an empty mapping leaves the defaults. Arguments and `env` win over them.
        env: further variables, on top of `environment`.
        program: what Python runs: `-m kopf_ha`, or a script.
        cwd: where it is started.
        warm: start it as a fork of a process that has imported the libraries, see `testbed.warm`.
    """

    def __init__(
        self,
        name: str,
        kubeconfig: Path | str,
        arguments: Sequence[str],
        log: Path,
        *,
        times: Mapping[str, float] = TIMES,
        env: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = KOPF_HA,
        cwd: Path | None = None,
        warm: bool = False,
    ) -> None:
        argv = [sys.executable, *program, *arguments]
        super().__init__(name, argv, environment(kubeconfig, times) | dict(env or {}), log, cwd)
        self.warm = warm
        self._path = dict(self.env or {})["PYTHONPATH"]

    def start(self) -> None:
        """Start it; see `Process.start`."""
        if self.warm:
            with _LOCK:  # and not in the thread that starts processes, which has to start this one first
                _warm(self._path)
        super().start()

    def _spawn(self, program: str, output: BinaryIO) -> Child:
        if not self.warm:
            return super()._spawn(program, output)
        return _warm(self._path).fork(self.argv[1:], self.env or {}, self.cwd, output)

    @property
    def log(self) -> str:
        """What it said so far."""
        return self.log_path.read_text(errors="replace") if self.log_path and self.log_path.exists() else ""

    def said(self, pattern: str) -> bool:
        """Whether it said something that matches."""
        return re.search(pattern, self.log) is not None

    def see(self, pattern: str, count: int = 1, timeout: float = PATIENCE) -> str:
        """Wait until `count` lines of its log match; give the last of these.

        Raises:
            AssertionError: it ended without them.
            DevclusterError: it did not say them within `timeout` seconds.
        """

        def look() -> str:
            ended = not self.running  # before the log is read, which is whole then
            found = [match[0] for match in re.finditer(f"(?m)^.*{pattern}.*$", self.log)]
            if len(found) < count and ended:
                raise AssertionError(f"{self.name} ended with {self.returncode} before {pattern!r}:\n{self.log}")
            return found[count - 1] if len(found) >= count else ""

        return until(f"{count} × {pattern!r} in the log of {self.name}", look, timeout)

    def wait(self, timeout: float | None = PATIENCE) -> int | None:
        """Wait for its end; see `Process.wait`."""
        return super().wait(timeout)
