"""Imports the libraries of an operator, and forks whenever it is asked to: see `testbed.warm`.

A fork goes on as ``python -m NAME`` or ``python SCRIPT`` would, with its own arguments, environment, folder, session
and output. What a library reads from the environment when it is imported is read again. The packages under test are
not imported here.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

#: What a fork finds imported: nothing that the tests are about.
LIBRARIES = ("kopf", "kubernetes", "pykube", "aiohttp", "click", "yaml")
#: Of one request, in bytes: arguments and an environment.
_SIZE = 1 << 20


def serve(asking: socket.socket) -> NoReturn:
    """Fork whenever it is asked to; tell each fork's process id, and in the end its exit status."""
    lines: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    both: list[socket.socket | int] = [asking, woken]
    while True:
        ready = select.select(both, [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _collect(lines)
        if asking in ready:
            data, passed, _, _ = socket.recv_fds(asking, _SIZE, 2)
            if not data:
                sys.exit(0)
            line, output = socket.socket(fileno=passed[0]), passed[1]
            me = os.getpid()
            pid = os.fork()
            if pid == 0:
                for other in (asking, line, *lines.values()):
                    other.close()
                os.close(woken)
                os.close(wake)
                become(json.loads(data), output, me)
            os.close(output)
            lines[pid] = line
            line.send(str(pid).encode())


def _collect(lines: dict[int, socket.socket]) -> None:
    while lines:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        with lines.pop(pid) as line, contextlib.suppress(OSError):
            line.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(asked: Mapping[str, Any], output: int, parent: int) -> NoReturn:
    """Go on as the program that was asked for."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    argv = asked["argv"]
    sys.orig_argv[:] = [sys.executable, *argv]
    before, given = (e.get("PYTHONPATH", "").split(":") for e in (_BEFORE, os.environ))
    sys.path[1:] = [*given, *(path for path in sys.path[1:] if path not in before)]
    # read from the environment when it was imported
    sys.modules["kubernetes.config.kube_config"].KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get("KUBECONFIG", "")  # type: ignore[attr-defined]
    if argv[0] == "-m":
        sys.path[0] = os.getcwd()
        sys.argv[:] = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(argv[0])
        sys.argv[:] = argv
        runpy.run_path(argv[0], run_name="__main__")
    sys.exit(0)


_BEFORE = dict(os.environ)

if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # so that a fork shares what was imported
    serve(socket.socket(fileno=int(sys.argv[1])))
