"""The three replicas: processes with the credentials of the Deployment's pods, whose logs go to the timeline."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections import Counter
from pathlib import Path

from demo import replica
from demo.timeline import Timeline
from devcluster import Cluster
from devcluster.process import Process
from devcluster.waiting import until

NAMESPACE = "kopf-ha-ipam"
SELECTOR = "app.kubernetes.io/name=kopf-ha-ipam"
#: How many refusals by one line of the fence are shown for each replica, and the longest text of a line.
SHOWN = 2
WIDTH = 330
ROOT = Path(__file__).resolve().parent.parent

_LINES = (
    (re.compile(r"leading: (token \d+)"), "lead", "{name} leads with {0}"),
    (re.compile(r"\] lost: (.*)"), "fault", "{name} lost the Lease: {0}"),
    (re.compile(r"released: (token \d+)"), "lead", "{name} released the Lease ({0})"),
    (re.compile(r"barrier: (.*)"), "detail", "{name} barrier: {0}"),
    (re.compile(r"refused by (\w+), token (\d+|None), (.*)"), "refused", "{name} REFUSED by {0}, token {1}: {2}"),
    (re.compile(r"refused request: (.*)"), "detail", "{name}   it had sent   {0}"),
    (re.compile(r"refused answer: (.*)"), "detail", "{name}   and was told  {0}"),
    (re.compile(r"(UNSAFE: .*)"), "fault", "{name} {0}"),
)


class Replica:
    """One pod of the Deployment. It runs as a process, since no node runs it."""

    def __init__(self, cluster: Cluster, timeline: Timeline, folder: Path, pod: str, short: str, fence: str) -> None:
        self.cluster, self.timeline, self.folder = cluster, timeline, folder
        self.pod, self.short, self.fence = pod, short, fence
        found = json.loads(cluster.kubectl("get", "pod", pod, "-n", NAMESPACE, "-o", "json").stdout)
        self.uid = str(found["metadata"]["uid"])
        self.account = str(found["spec"]["serviceAccountName"])
        self.env = container_env(found)
        self.trigger = folder / f"{short}.trigger"
        self.trace = folder / f"{short}.trace"
        self.process: Process | None = None
        self.token = cluster.kubectl(
            "create", "token", self.account, "-n", NAMESPACE, "--bound-object-kind", "Pod",
            "--bound-object-name", pod, "--bound-object-uid", self.uid,
        ).stdout.strip()  # fmt: skip
        self._refused: Counter[str] = Counter()
        self.log = folder / f"{short}.log"
        self.log.touch()
        self._read = threading.Thread(target=self._follow, name=f"log of {short}", daemon=True)
        self._done = threading.Event()
        self._read.start()

    def start(self) -> None:
        """Start the process. A second start is like a restarted container: the same pod, another holder identity."""
        env = {
            **os.environ,
            **self.env,
            "POD_NAME": self.pod,
            "POD_UID": self.uid,
            "POD_NAMESPACE": NAMESPACE,
            "KUBECONFIG": str(self.cluster.kubeconfig_for(self.token, name=self.short)),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'operator'}",
            "PYTHONUNBUFFERED": "1",
            "KOPF_HA_LEASE_DURATION": "3",
            "KOPF_HA_RENEW_DEADLINE": "2",
            "KOPF_HA_RETRY_PERIOD": "0.5",
            # these processes share one address, while each pod has another
            "KOPF_HA_METRICS_PORT": "0",
            "KOPF_HA_HEALTH_PORT": "0",
            "KOPF_HA_FENCE": self.fence,
            "KOPF_HA_TRACE": str(self.trace),
            "KOPF_HA_UNSAFE": str(self.fence != "full").lower(),
            replica.TRIGGER: str(self.trigger),
        }
        argv = [sys.executable, "-m", "demo.replica", "run", "-m", "kopf_ha_ipam.handlers", "-A"]
        self.process = Process(self.short, argv, env=env, log_path=self.log)
        self.process.start()

    @property
    def running(self) -> Process:
        """The process."""
        if self.process is None:
            raise RuntimeError(f"{self.short} was not started")
        return self.process

    def end(self) -> None:
        """Send SIGTERM to the process, even if it is paused."""
        if self.process is not None and self.process.running:
            self.process.resume()
            self.process.terminate()

    def close(self) -> None:
        """Wait until the process has ended, and stop reading its log."""
        self.end()
        if self.process is not None:
            self.process.stop()
        self._done.set()
        self._read.join(5)

    def _follow(self) -> None:
        with self.log.open() as lines:
            rest = ""
            while True:
                rest += lines.read()
                *whole, rest = rest.split("\n")
                for line in whole:
                    self._tell(line)
                if not whole and self._done.wait(0.05):
                    return

    def _tell(self, line: str) -> None:
        for pattern, kind, words in _LINES:
            found = pattern.search(line)
            if not found:
                continue
            said = words.format(*found.groups(), name=self.short)
            if kind == "refused":
                by = found[1]
                self.timeline.refusal(by)
                self._refused[by] += 1
                if self._refused[by] > SHOWN:
                    continue
                if self._refused[by] == SHOWN:
                    said += "  (further ones by this line are only counted)"
            self.timeline.say(kind, said if len(said) <= WIDTH else said[:WIDTH] + "…")


def container_env(pod: dict[str, object]) -> dict[str, str]:
    """Return the environment variables of the operator's container, so that the processes run as deployed."""
    spec = pod["spec"]
    if not isinstance(spec, dict):
        raise TypeError("the pod has no spec")
    return {e["name"]: str(e["value"]) for e in spec["containers"][0].get("env") or () if "value" in e}


def start_replicas(cluster: Cluster, timeline: Timeline, folder: Path, fence: str, why: str) -> list[Replica]:
    """Wait for the Deployment's three pods, and start a process for each."""

    def pods() -> list[str]:
        found = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", SELECTOR, "-o", "name").stdout.split()
        return sorted(name.removeprefix("pod/") for name in found)

    until("three pods of the Deployment", lambda: len(pods()) == 3)
    replicas = [
        Replica(cluster, timeline, folder, pod, f"replica-{letter}", fence)
        for pod, letter in zip(pods(), "abc", strict=True)
    ]
    for each in replicas:
        timeline.say("detail", f"{why}: {each.short} is a process with the credentials of pod {each.pod}")
    for each in replicas:
        timeline.names[each.pod] = each.short
        each.start()
    return replicas
