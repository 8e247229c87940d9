"""Starts, finds and stops clusters that stay in the background.

`up` starts a supervisor, which runs the cluster until `down` stops it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from devcluster.binaries import Binaries, programs
from devcluster.cluster import ExistingCluster
from devcluster.errors import DevclusterError
from devcluster.node import check_possible
from devcluster.progress import Progress
from devcluster.state import StateDir
from devcluster.supervisor import Size
from devcluster.waiting import until


def up(state: StateDir, size: Size, progress: Progress) -> dict[str, Any]:
    """Start a cluster in the background, or find the one that is up already, and return its record.

    Raises DevclusterError if it cannot be started.
    """
    record: dict[str, Any] | None = None
    while record is None:
        if state.owner() is not None:
            record = _await_other(state, progress)
            if record is not None and len(record.get("nodes", ())) < size.nodes:
                raise DevclusterError(f"the cluster in {state.path} has fewer nodes: take it down first")
            continue
        if (stale := state.read()) is not None and stale.get("existing"):
            if size.nodes:
                raise DevclusterError(
                    f"{state.path} refers to an existing cluster, which gets no nodes: take it down first"
                )
            progress.line("already up")
            return stale
        if size.nodes:
            check_possible(state.path)
        Binaries.find(programs(size.nodes), progress)  # here, where the user sees the progress
        record = _start(state, size, progress)
    return record


def _start(state: StateDir, size: Size, progress: Progress) -> dict[str, Any] | None:
    argv = [sys.executable, "-m", "devcluster", "supervise", f"--state={state.path}"]
    argv += [f"--etcd={size.etcd}", f"--apiservers={size.apiservers}", f"--nodes={size.nodes}"]
    root = str(Path(__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}
    nodes = f", {size.nodes} node{'s' * (size.nodes > 1)}" * bool(size.nodes)
    progress.line(f"starting etcd, API server, controller manager{nodes}")
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        line, said = _answer(child)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if not line and child.wait() == 0:
        raise DevclusterError("the cluster was taken down while it started")
    if not line:
        raise DevclusterError(f"the supervisor ended with status {child.wait()}: {said.decode().strip()}")
    answer: dict[str, Any] = json.loads(line)
    if answer.get("busy"):  # another `up` was faster
        child.wait()
        return None
    if "error" in answer:
        child.wait()
        raise DevclusterError(answer["error"])
    return answer


def _answer(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return its first line, or b'' and what it wrote to stderr."""
    if child.stdout is None or child.stderr is None:
        raise DevclusterError("the supervisor was started without pipes")
    with child.stdout, child.stderr:
        line = child.stdout.readline()
        return line, b"" if line else child.stderr.read()


def _await_other(state: StateDir, progress: Progress) -> dict[str, Any] | None:
    """Return the record of a cluster that another process runs or starts, or None if that process ends first."""
    if state.read() is None:
        progress.line("another process is starting the cluster: waiting")
    until("the cluster that another process starts", lambda: state.read() or state.owner() is None, timeout=180)
    record = state.read()
    if record is not None and state.owner() is not None:
        progress.line(f"already up: etcd {len(record['etcd'])}, API servers {len(record['servers'])}")
        return record
    return None


def adopt(state: StateDir, kubeconfig: Path, progress: Progress) -> dict[str, Any]:
    """Use an existing cluster under this name. Raises DevclusterError if it does not answer."""
    with ExistingCluster(kubeconfig, progress) as cluster:
        version = json.loads(cluster.kubectl("version", "--output=json").stdout)
        record = {
            "existing": True,
            "kubeconfig": str(cluster.kubeconfig),
            "kubectl": str(cluster.kubectl_path),
            "servers": cluster.servers,
            "versions": {"kubernetes": version["serverVersion"]["gitVersion"]},
        }
    state.acquire()
    state.write(record)
    state.release(remove=False)
    return record


def down(state: StateDir, timeout: float = 60.0) -> bool:
    """Stop the cluster, and remove its folder. Returns whether there was one.

    Raises DevclusterError if its supervisor does not end within `timeout` seconds, not even after SIGKILL.
    """
    if not state.exists:
        return False
    while (pid := state.owner()) is not None:
        if pid <= 0:
            raise DevclusterError(
                f"the owner of {state.path} is not visible from here; does it run in another container?"
            )
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if state.owner() != pid:  # the process id may belong to another process by now
                continue
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], timeout)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)  # its children end with it
                if not select.select([handle], [], [], timeout)[0]:
                    raise DevclusterError(f"process {pid} does not end")
        finally:
            os.close(handle)
    if state.exists:
        state.acquire()
        state.release(remove=True)
    return True
