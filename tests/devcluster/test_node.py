"""Nodes: real pods on them, and that nothing of them stays, however the cluster ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster import ControlPlane, NoNodeError
from devcluster.node import check_possible
from devcluster.nodeconfig import PAUSE
from devcluster.state import StateDir
from devcluster.waiting import until

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
WORDS = ("/sys/fs/cgroup", "BROADCAST", "kubelet")  #: one for each sort of trace that a running cluster has


def traces(state: Path) -> list[str]:
    """What a cluster with nodes has on this machine, besides its folder and what its processes show."""
    tag = StateDir(state).tag
    found = [line for line in say("ip", "-o", "link").splitlines() if tag in line]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(state) in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{tag}")]
    return found + [f"{pid} {line}" for pid, line in commands() if str(state) in line]


def commands() -> list[tuple[int, str]]:
    made = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                made.append((int(entry.name), (entry / "cmdline").read_text().replace("\0", " ")))
            except OSError:
                pass  # it ended
    return made


def namespaces() -> set[str]:
    """All network and mount namespaces that a process is in."""
    found = set()
    for kind in ("net", "mnt"):
        for path in Path("/proc").glob(f"[0-9]*/ns/{kind}"):
            try:
                found.add(os.readlink(path))
            except OSError:
                pass  # it ended
    return found


def namespaces_of(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt")}


def say(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def run_pod(kubectl: Callable[..., str], name: str, node: str) -> None:
    container = {
        "name": "c",
        "image": PAUSE,
        "command": ["/bin/busybox", "sh", "-c", "echo hello from $HOSTNAME; exec /bin/busybox sleep 1000"],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeSelector": {"kubernetes.io/hostname": node}, "dnsPolicy": "Default", "containers": [container]},
    }
    kubectl("create", "-f", "-", input=json.dumps(pod))
    kubectl("wait", f"pod/{name}", "--for=condition=Ready", f"--timeout={LIMIT:g}s")


@pytest.fixture
def plane(node_binaries: object, tmp_path: Path) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path / "state", binaries=node_binaries, nodes=2) as made:  # type: ignore[arg-type]
        yield made


def test_pods_run_and_nothing_stays(plane: ControlPlane) -> None:
    def kubectl(*args: str, input: str | None = None) -> str:
        return plane.kubectl(*args, input=input, timeout=LIMIT + 10).stdout

    assert [n.name for n in plane.nodes] == ["node-1", "node-2"]
    run_pod(kubectl, "a", "node-1")
    run_pod(kubectl, "b", "node-2")
    # logs and exec go from the API server to the kubelet
    until("its log", lambda: kubectl("logs", "a") == "hello from a\n", LIMIT)
    address = kubectl("get", "pod", "b", "-o", "jsonpath={.status.podIP}")
    # pods of one node reach those of another, and the API server by the service's address
    reach = "for i in 1 2 3; do /bin/busybox nc -w 5 {} {} </dev/null && exit 0; done; exit 1"
    serve = ["/bin/busybox", "sh", "-c", "/bin/busybox nc -l -p 8000 </dev/null >/dev/null 2>&1 & sleep 0"]
    kubectl("exec", "b", "--", *serve)
    kubectl("exec", "a", "--", "/bin/busybox", "sh", "-c", reach.format(address, 8000))
    kubectl("exec", "a", "--", "/bin/busybox", "sh", "-c", reach.format("10.96.0.1", 443))
    state, cells = plane.folder, [namespaces_of(node.cell.init) for node in plane.nodes]
    assert {"/sys/fs/cgroup", "BROADCAST", "kubelet"} <= {w for t in traces(state) for w in WORDS if w in t}
    plane.stop()
    assert traces(state) == []
    assert not set().union(*cells) & namespaces()


def test_a_killed_keeper_leaves_nothing(node_binaries: object, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def devcluster(*args: str, input: str | None = None) -> str:
        argv = [sys.executable, "-m", "devcluster", args[0], f"--state={state}", *args[1:]]
        done = subprocess.run(argv, cwd=ROOT, input=input, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    devcluster("up", "--node")
    run_pod(lambda *args, input=None: devcluster("kubectl", *args, input=input), "a", "node-1")
    record = json.loads((state / "cluster.json").read_text())
    cell = namespaces_of(record["cells"]["node-1"])
    assert any("containerd-shim" in line for _, line in commands())
    os.kill(record["supervisor"], signal.SIGKILL)
    until("all processes to end", lambda: not [t for t in traces(state) if "/sys/fs/cgroup" not in t], LIMIT)
    until("its namespaces to end", lambda: not cell & namespaces(), LIMIT)
    assert state.exists()
    devcluster("down")
    assert traces(state) == []
    assert not state.exists()


def test_why_it_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoNodeError, match="a node needs root"):
        check_possible(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("devcluster.node._path", lambda: str(tmp_path))
    with pytest.raises(NoNodeError, match=r"a node needs containerd, .*scripts/node-packages"):
        check_possible(tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NoNodeError, match="a node needs Linux"):
        check_possible(tmp_path)


def test_hidden_folders_are_refused(node_binaries: object) -> None:
    with pytest.raises(NoNodeError, match="/var/lib/elsewhere"):
        check_possible(Path("/var/lib/elsewhere"))
