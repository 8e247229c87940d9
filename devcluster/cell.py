"""A cell: network, mounts and process ids of its own, which all end with the one process that keeps them.

That process is the init of its process ids, so when it dies the kernel ends everything inside, shims and
containers too, and with them go the mounts, the network namespace and its interfaces. It dies with its parent.
So nothing of a node survives the cluster, however that ends. Root only, Linux only.
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

#: What a cell has of its own, empty at first: programs of a node have fixed paths there, /run/containerd,
#: /var/lib/kubelet, /var/lib/cni, /var/log/containers.
HIDDEN = ("/run", "/var/lib", "/var/log")

_INIT = Path(__file__).with_name("cell_init.py")


class Cell(Process):
    """A cell, by its init. Programs get into it by `Inside`, or by the command line that `enter` gives."""

    def __init__(self, name: str, log_path: Path) -> None:
        argv = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "--"]
        super().__init__(
            f"cell {name}", [*argv, sys.executable, "-I", "-S", str(_INIT), name, *HIDDEN], environment(), log_path
        )

    def start(self) -> None:
        """Make it. Raises DevclusterError if the kernel or the user's rights do not allow it."""
        super().start()
        until(f"{self.name} to be made", lambda: self.log_tail(1) == "ready", 20, watched=[self])

    @property
    def init(self) -> int:
        """The process id of its init, as seen from outside."""
        path = _children_of(self._started().pid)
        return int(until(f"{self.name} to have an init", lambda: _words(path), 10, 0.01, watched=[self])[0])

    def enter(self, argv: Sequence[str], *, only_net: bool = False) -> list[str]:
        """The command line that runs `argv` inside; with `only_net` just its network is another one."""
        return entering(self.init, argv, only_net=only_net)

    def run(self, *argv: str, only_net: bool = False, timeout: float = 120.0) -> str:
        """Run a program inside to its end, and give what it says. Raises DevclusterError when it fails."""
        return run(*self.enter(argv, only_net=only_net), timeout=timeout)


class Inside(Process):
    """A program inside a cell, which sees the cell's process ids.

    What runs outside is nsenter, waiting; signals are for the program. nsenter ends as the program does, and
    stops and goes on with it.
    """

    def __init__(self, cell: Cell, name: str, argv: Sequence[str], log_path: Path) -> None:
        super().__init__(name, cell.enter(argv), environment(), log_path)

    @property
    def inner(self) -> int | None:
        """The program's process id as seen from outside, None when it does not run."""
        if self.pid is None:
            return None
        path = _children_of(self.pid)
        children = until(f"{self.name} to start", lambda: _words(path) or not self.running, 10, 0.01)
        return int(children[0]) if isinstance(children, list) else None

    def signal(self, number: int) -> None:
        """Send the program a signal. Raises DevclusterError when it does not run."""
        self.check_running()
        if number == signal.SIGCONT:
            super().signal(number)  # nsenter hands it on
        else:
            self._send(number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), without waiting. Does nothing when it does not run."""
        self._send(signal.SIGTERM)
        if self.running:
            super().signal(signal.SIGCONT)

    def kill(self) -> int | None:
        """End it at once (SIGKILL). Returns the exit status, None if never started."""
        if self.pid is None:
            return None
        self._send(signal.SIGKILL)
        try:
            return self.wait(5.0)  # nsenter buries it; killed itself, it would leave that to whoever is process 1
        except DevclusterError:
            return super().kill()

    def _send(self, number: int) -> None:
        inner = self.inner
        if inner is not None:
            try:
                os.kill(inner, number)
            except ProcessLookupError:
                pass  # it ended by itself


def environment() -> dict[str, str]:
    """This process's, with the folders of root's programs, where containerd finds runc and kube-proxy iptables.

    `su` without a dash and services do not name them.
    """
    return os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def entering(init: int, argv: Sequence[str], *, only_net: bool = False) -> list[str]:
    """The command line that runs `argv` in the cell of that init."""
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
    """Run a program to its end, and give its stdout. Raises DevclusterError with its words when it fails."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, env=environment()
        )
    except FileNotFoundError:
        raise DevclusterError(f"there is no program {argv[0]} here") from None
    except subprocess.TimeoutExpired:
        raise DevclusterError(f"{' '.join(argv)} took longer than {timeout:g} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise DevclusterError(f"{' '.join(argv)} failed with status {done.returncode}: {said}")
    return done.stdout
