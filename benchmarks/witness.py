"""Writes down what passes by while benchmarks.chaos does its deeds, and looks for what no history of objects shows.

Replicas write traces into a volume of their pods, which goes with the pod. So they are copied, as logs are.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from testbed.deployment import NAME
from testbed.stage import Stage
from testbed.watch import Watch

#: Makes the replicas write traces.
TRACED = {"spec": {"template": {"spec": {
    "volumes": [{"name": "trace", "emptyDir": {}}],
    "containers": [{
        "name": "operator",
        "env": [{"name": "KOPF_HA_TRACE", "value": "/trace/kopf-ha.trace"}],
        "volumeMounts": [{"name": "trace", "mountPath": "/trace"}],
    }],
}}}}  # fmt: skip
#: Where they are on a node, for a pod's uid.
TRACES = "var/lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir/trace/kopf-ha.trace"

#: Seconds between looks at new logs; a container that lives for less leaves none here.
LOOK = 0.5


class Witness:
    """Sees holders of the Lease, ends of containers, and logs, which otherwise go with their pods.

    Args:
        stage: the cluster.
        folder: for copies of the logs, one for each run of a container, and of the traces, one for each pod.
    """

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        self.terms: list[tuple[float, int, str]] = []  #: when seen, token, holder
        self.ends: dict[str, tuple[str, int, str]] = {}  #: by container's id: uid of its pod, exit code, when
        self._opened: dict[tuple[int, int], tuple[BinaryIO, BinaryIO]] = {}
        self._stop = threading.Event()
        self._copying = threading.Lock()
        self._copier = threading.Thread(target=self._copy, daemon=True)
        self._watches = (
            Watch(stage, ("lease", NAME, "-n", NAME), self._lease),
            Watch(stage, ("pods", "-n", NAME), self._pod),
        )

    def __enter__(self) -> Witness:
        self.folder.mkdir(parents=True, exist_ok=True)
        for each in (*self._watches, self._copier):
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for watch in self._watches:
            watch.stop()
        self._copier.join(10)

    def next_term(self, token: int) -> float | None:
        """Give when a term with a token above this one was first seen."""
        return next((at for at, seen, holder in list(self.terms) if seen > token and holder), None)

    def restarts(self, killed: Counter[str]) -> list[str]:
        """Name the containers that ended otherwise than by a kill of ours, or with status 0."""
        found = []
        for uid, code, when in self.ends.values():
            if code == 137 and killed[uid] > 0:
                killed[uid] -= 1
            # 143: asked to stop while it loaded. Without a time it is the kubelet's guess of a pod that is gone.
            elif code not in (0, 143) and when:
                found.append(f"the container of pod {uid} ended with status {code} at {when}")
        return found

    def warnings(self) -> Counter[str]:
        """Count the events of the namespace that are warnings, by reason and message, numbers taken out."""
        events = self.stage.get("events", "-n", NAME)
        counted: Counter[str] = Counter()
        for event in events:
            if event["type"] != "Normal":
                counted[f"{event['reason']}: {_plain(event['message'])}"] += event.get("count") or 1
        return counted

    def lines(self) -> tuple[list[str], Counter[str]]:
        """Give the logs' tracebacks, by file and line, and count the lines that are warnings or worse."""
        tracebacks, counted = [], Counter[str]()
        for path in sorted(self.folder.glob("*.log")):
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if "Traceback (most recent call last)" in line or "Fatal Python error" in line:
                    tracebacks.append(f"{path.name}:{number}")
                if found := re.search(r"\[(WARNING|ERROR|CRITICAL) *\] (.*)", line):
                    counted[f"{found[1]} {_plain(found[2])}"] += 1
        return tracebacks, counted

    def _lease(self, body: dict[str, Any]) -> None:
        token, holder = body["spec"].get("leaseTransitions") or 0, body["spec"].get("holderIdentity") or ""
        if not self.terms or self.terms[-1][1:] != (token, holder):
            self.terms.append((time.monotonic(), token, holder))

    def _pod(self, body: dict[str, Any]) -> None:
        for status in (body.get("status") or {}).get("containerStatuses") or ():
            for state in (status.get("state") or {}, status.get("lastState") or {}):
                if over := state.get("terminated"):
                    end = (body["metadata"]["uid"], int(over["exitCode"]), over.get("finishedAt") or "")
                    self.ends[over.get("containerID") or f"{end}"] = end

    def traces(self) -> list[Path]:
        """Give the copies of the traces, with all that is written by now."""
        self._look()
        return sorted(self.folder.glob("*.trace"))

    def _copy(self) -> None:
        while not self._stop.wait(LOOK):
            self._look()

    def _look(self) -> None:
        """Copy what is new. An open file stays readable when its name is gone."""
        state = Path(self.stage.record["kubeconfig"]).parent
        with self._copying:
            for path in state.glob(f"node-*/pod-logs/{NAME}_*/*/*.log"):
                self._open(path, f"{path.parts[-3].removeprefix(f'{NAME}_')}_{path.name}")
            for node in state.glob("node-*"):
                for path in self._root(node.name).glob(TRACES):
                    self._open(path, f"{path.parts[-5]}.trace")
            for original, copy in self._opened.values():
                shutil.copyfileobj(original, copy)
                copy.flush()

    def _open(self, path: Path, name: str) -> None:
        try:
            found = path.stat()
            key = found.st_dev, found.st_ino
            if key not in self._opened:
                self._opened[key] = path.open("rb"), (self.folder / name).open("ab")
        except OSError:
            pass  # gone meanwhile

    def _root(self, node: str) -> Path:
        """Give the file system as a node's kubelet sees it: pods' volumes are in a mount of its own."""
        try:
            return Path("/proc") / str(self.stage.program("kubelet", f"--hostname-override={node}")) / "root"
        except LookupError:
            return Path("/nonexistent")  # it is being started again


def _plain(text: str) -> str:
    """Take out what differs each time."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UID", text)
    text = re.sub(rf"{NAME}-[0-9a-f]+-[0-9a-z]{{5}}\w*", "POD", text)
    text = re.sub(r"[0-9a-f]{6}-\d+\b", "CLAIM", text)
    text = re.sub(r"\b[0-9a-f]{8,}\b", "HEX", text)
    return re.sub(r"\d+(\.\d+)*", "N", text)[:200]
