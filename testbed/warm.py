"""Replicas as forks of a process that has imported the libraries, since imports are most of what a start costs.

Tests that are about the start itself, or about what is imported, start a process the usual way.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from devcluster import DevclusterError, Process


class Forked:
    """A fork, with the methods of `subprocess.Popen` that `Process` calls."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        told = line.recv(64)
        if not told:
            raise DevclusterError("the process that forks replicas is gone")
        self.pid = int(told)
        self._status: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 1.0 if end is None else min(1.0, end - time.monotonic())
            if (status := self._look(max(left, 0.0))) is not None:
                return status
            if left <= 0:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)

    def _look(self, seconds: float) -> int | None:
        with self._lock:
            if self._status is None and select.select([self._line], [], [], seconds)[0]:
                told = self._line.recv(64)
                # Without a word the process that forked it is gone, and its forks with it.
                self._status = int(told) if told else -signal.SIGKILL
                self._line.close()
            return self._status

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, if it runs."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that forks. It is started at the first fork, and ends with the process that asks.

    Args:
        environment: that it is started with; `fork` gives each fork its own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        argv = [sys.executable, str(Path(__file__).with_name("zygote.py")), str(theirs.fileno())]
        self._process = Process("warm", argv, environment, passed=(theirs.fileno(),))
        with theirs:
            self._process.start()

    def fork(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path | None, output: BinaryIO
    ) -> Forked:
        """Run ``python argv…`` in a fork.

        Args:
            argv: the program: ``-m`` and the name of a module, or a script, and its arguments.
            environment: all of it.
            folder: where it is started; None for where this process is.
            output: what it writes goes there.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = {"argv": list(argv), "environment": dict(environment), "folder": str(folder or Path.cwd())}
        with theirs, self._lock:
            socket.send_fds(self._ours, [json.dumps(asked).encode()], [theirs.fileno(), output.fileno()])
        return Forked(ours)
