"""The supervisor: the process that keeps a cluster in the background.

The supervisor owns the state folder's lock and is the parent of every process of the cluster. So the owner of the lock
runs the cluster, and nothing survives the supervisor. It answers `up` with one line of JSON on its stdout, and writes
to its log after that.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from devcluster.binaries import Binaries, programs
from devcluster.controlplane import ControlPlane
from devcluster.progress import Progress
from devcluster.state import StateDir

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequested(BaseException):
    """A signal asked to stop. It is not an Exception, so that no code handles it as an error."""


@dataclass(frozen=True)
class Size:
    """How many etcd members, API servers and nodes a cluster has."""

    etcd: int = 1
    apiservers: int = 1
    nodes: int = 0


def supervise(state: StateDir, size: Size, ready: Callable[[dict[str, Any]], None], progress: Progress) -> None:
    """Run a cluster in this process until SIGTERM, SIGINT or SIGHUP. Then remove it and its folder.

    `ready` is called with the record once the cluster is ready. Raises DevclusterError if it cannot be started.
    """

    catch_signals()
    try:
        found = Binaries.find(programs(size.nodes), progress)
        with ControlPlane(state.path, size.etcd, size.apiservers, found, keep_state=False, nodes=size.nodes) as plane:
            record = _record(plane)
            plane.state.write(record)
            ready(record)
            _watch(plane, progress)
    except StopRequested:
        pass  # a normal end


def catch_signals() -> None:
    """Have SIGTERM, SIGINT and SIGHUP raise `StopRequested` in the main thread, wherever that is.

    Python calls the handler between two instructions of the main thread. If these are of a finalizer, as the HTTP
    client has them, the exception ends the finalizer only. Then it is raised again a moment later.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in _STOP_SIGNALS:  # one is enough, and a second one must not interrupt the clean-up
            signal.signal(each, signal.SIG_IGN)
        raise StopRequested

    def ignored(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is StopRequested:
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(what)

    sys.unraisablehook = ignored
    for each in _STOP_SIGNALS:
        signal.signal(each, stop)


def _watch(plane: ControlPlane, progress: Progress) -> None:
    reported: set[str] = set()
    while True:
        time.sleep(1.0)  # a signal ends it at once, by its exception
        for process in plane.processes:
            if not process.running and process.name not in reported:
                reported.add(process.name)
                progress.line(f"{process.name} ended with status {process.returncode}; see {process.log_path}")


def _record(plane: ControlPlane) -> dict[str, Any]:
    return {
        "supervisor": os.getpid(),
        "kubeconfig": str(plane.kubeconfig),
        "kubectl": str(plane.kubectl_path),
        "servers": plane.servers,
        "etcd": plane.etcd_endpoints,
        "etcd_ca": str(plane.etcd_ca),
        "etcd_cert": str(plane.etcd_cert),
        "etcd_key": str(plane.etcd_key),
        "audit_logs": [str(path) for path in plane.audit_logs],
        "nodes": {node.name: node.address for node in plane.nodes},
        "cells": {node.name: node.cell.init for node in plane.nodes},
        "processes": {process.name: process.pid for process in plane.processes},
        "versions": plane.versions(),
    }
