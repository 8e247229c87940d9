"""A cell: a set of Linux namespaces (network, mounts, process ids) that ends with one process, its init.

When the init dies, the kernel ends all processes inside, also shims and containers. Mounts, the network namespace and
its interfaces go with them. The init dies with its parent. So nothing of a node survives the cluster, however the
cluster ends. It needs root and Linux.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.process import Process
from devcluster.waiting import until

#: Folders that are separate and empty in each cell. A node's programs use fixed paths in them: /run/containerd,
#: /var/lib/kubelet, /var/lib/cni, /var/log/containers.
HIDDEN = ("/run", "/var/lib", "/var/log")

_INIT = Path(__file__).with_name("cell_init.py")


class Cell(Process):
    """A cell, represented by its init. `Inside` and `enter` run programs in it."""

    def __init__(self, name: str, log_path: Path) -> None:
        argv = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "--"]
        super().__init__(
            f"cell {name}", [*argv, sys.executable, "-I", "-S", str(_INIT), name, *HIDDEN], environment(), log_path
        )

    def start(self) -> None:
        """Create the cell. Raises DevclusterError if the kernel or the user's rights do not allow it."""
        super().start()
        until(f"{self.name} to be created", lambda: self.log_tail(1) == "ready", 20, watched=[self])

    @property
    def init(self) -> int:
        """The process id of the init, as seen from outside."""
        path = _children_of(self._started().pid)
        return int(until(f"{self.name} to have an init", lambda: _words(path), 10, 0.01, watched=[self])[0])

    def enter(self, argv: Sequence[str], *, only_net: bool = False) -> list[str]:
        """Return the command line that runs `argv` in the cell; with `only_net`, only in its network."""
        return entering(self.init, argv, only_net=only_net)

    def run(self, *argv: str, only_net: bool = False, timeout: float = 120.0) -> str:
        """Run a program in the cell, and return its stdout. Raises DevclusterError if it fails."""
        return run(*self.enter(argv, only_net=only_net), timeout=timeout)


class Inside(Process):
    """A program in a cell. It sees the cell's process ids.

    Outside, nsenter waits for the program, and ends, stops and continues with it. Signals go to the program.
    """

    def __init__(self, cell: Cell, name: str, argv: Sequence[str], log_path: Path) -> None:
        super().__init__(name, cell.enter(argv), environment(), log_path)

    @property
    def inner(self) -> int | None:
        """The program's process id as seen from outside; None if it does not run."""
        if self.pid is None:
            return None
        path = _children_of(self.pid)
        children = until(f"{self.name} to start", lambda: _words(path) or not self.running, 10, 0.01)
        return int(children[0]) if isinstance(children, list) else None

    def signal(self, number: int) -> None:
        """Send the program a signal. Raises DevclusterError if it does not run."""
        self.check_running()
        if number == signal.SIGCONT:
            super().signal(number)  # nsenter passes it on
        else:
            self._send(number)

    def terminate(self) -> None:
        """Send SIGTERM, without waiting. Does nothing if the program does not run."""
        self._send(signal.SIGTERM)
        if self.running:
            super().signal(signal.SIGCONT)

    def kill(self) -> int | None:
        """Send SIGKILL, and wait. Returns the exit status, or None if it was never started."""
        if self.pid is None:
            return None
        self._send(signal.SIGKILL)
        try:
            return self.wait(5.0)  # nsenter reaps the program; if nsenter were killed, process 1 would have to
        except DevclusterError:
            return super().kill()

    def _send(self, number: int) -> None:
        inner = self.inner
        if inner is not None:
            try:
                os.kill(inner, number)
            except ProcessLookupError:
                pass  # it has ended already


def environment() -> dict[str, str]:
    """Return this process's environment, with /usr/sbin and /sbin in PATH.

    containerd looks for runc there, and kube-proxy for iptables. `su` without a dash and services leave them out.
    """
    return os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def entering(init: int, argv: Sequence[str], *, only_net: bool = False) -> list[str]:
    """Return the command line that runs `argv` in the cell of this init."""
    where = ["--net"] if only_net else ["--net", "--mount", "--pid", "--uts"]
    return ["nsenter", f"--target={init}", *where, "--", *argv]


def _children_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/task/{pid}/children")


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def run(*argv: str, timeout: float = 60.0) -> str:
    """Run a program, and return its stdout. Raises DevclusterError with its output if it fails."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, env=environment()
        )
    except FileNotFoundError:
        raise DevclusterError(f"program {argv[0]} was not found") from None
    except subprocess.TimeoutExpired:
        raise DevclusterError(f"{' '.join(argv)} took longer than {timeout:g} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise DevclusterError(f"{' '.join(argv)} failed with status {done.returncode}: {said}")
    return done.stdout
