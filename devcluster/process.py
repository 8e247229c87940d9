"""A child process that can be stopped, paused and started again, and that never outlives its parent.

It runs the control plane's programs, and the operators under test. A child has PR_SET_PDEATHSIG set, so it ends even if
its parent is killed by SIGKILL. The kernel ties that signal to the *thread* that started the child. So each process has
one thread that starts all children and lives as long as the process.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import BinaryIO, Protocol

from devcluster.errors import DevclusterError

# Runs in a new interpreter, which then becomes the program by exec: our code might deadlock in a forked copy of a
# process with threads. It checks the parent, which may have died before prctl was called. It also resets two signals
# that Python ignores, since the program would inherit that.
_BOUND_EXEC = """
import ctypes, os, signal, sys
if ctypes.CDLL(None).prctl(1, signal.SIGKILL) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[3:])
"""


class _Spawner:
    """The thread that starts the children of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="devcluster-spawner", daemon=True).start()

    def run(self, make: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._orders.put((make, done))
        try:
            done.result()
        finally:
            # After Ctrl-C in the wait above, the clean-up must know the child.
            wait([done])

    def _serve(self) -> None:
        while True:
            make, done = self._orders.get()
            try:
                make()
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001  the thread that asked raises it
                done.set_exception(error)


_spawner: _Spawner | None = None
_spawner_lock = threading.Lock()


def _the_spawner() -> _Spawner:
    global _spawner
    with _spawner_lock:
        if _spawner is None or _spawner.pid != os.getpid():  # threads do not survive a fork
            _spawner = _Spawner()
        return _spawner


class Child(Protocol):
    """What a process needs of `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Return its exit status; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it runs."""

    def kill(self) -> None:
        """Send SIGKILL, if it runs."""


def _stands_still(pid: int) -> bool:
    """Return whether all threads are stopped."""
    try:
        return all(
            task.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "T"
            for task in Path(f"/proc/{pid}/task").iterdir()
        )
    except FileNotFoundError:  # a thread ended meanwhile, or all of it
        return False


class Process:
    """A program that can be run any number of times. Its output is appended to `log_path`.

    `env` is its whole environment (None: that of this process), `passed` are file descriptors that it keeps. As a
    context manager, it starts on entry and stops on exit. It runs in a new session. Linux only.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str] | None = None,
        log_path: Path | None = None,
        cwd: Path | None = None,
        passed: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.argv = [os.fspath(arg) for arg in argv]
        self.env = env
        self.log_path = log_path
        self.cwd = cwd
        self._passed = tuple(passed)
        self._child: Child | None = None

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} pid={self.pid} returncode={self.returncode}>"

    @property
    def pid(self) -> int | None:
        """The process id of the newest run, None before the first."""
        return None if self._child is None else self._child.pid

    @property
    def returncode(self) -> int | None:
        """The exit status of the newest run (negative: a signal ended it). None while it runs and before the first."""
        return None if self._child is None else self._child.poll()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended. A paused process counts as running."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the program. Raises DevclusterError if it runs already or does not exist."""
        if self.running:
            raise DevclusterError(f"{self.name} runs already (pid {self.pid})")
        program = shutil.which(self.argv[0])
        if program is None:
            raise DevclusterError(f"cannot run {self.argv[0]}: no such program")
        if not sys.platform.startswith("linux"):
            raise DevclusterError("devcluster needs Linux: its processes are bound to their parent by the kernel")
        with self._output() as output:

            def make() -> None:
                self._child = self._spawn(os.path.abspath(program), output)

            _the_spawner().run(make)

    def _spawn(self, program: str, output: BinaryIO) -> Child:
        bound = [sys.executable, "-I", "-S", "-c", _BOUND_EXEC, str(os.getpid()), program]
        return subprocess.Popen(
            [*bound, *self.argv],
            env=None if self.env is None else dict(self.env),
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C reaches only the parent, which ends its children in order
            pass_fds=self._passed,
        )

    def _output(self) -> BinaryIO:
        if self.log_path is None:
            return open(os.devnull, "wb")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        return self.log_path.open("ab")

    def terminate(self) -> None:
        """Send SIGTERM, without waiting. Does nothing if it does not run."""
        if self._child is not None:  # these do nothing after it has ended
            self._child.send_signal(signal.SIGTERM)
            self._child.send_signal(signal.SIGCONT)  # a paused process would never see the request

    def stop(self, timeout: float = 10.0) -> int | None:
        """Send SIGTERM, then SIGKILL after `timeout` seconds. Return the exit status; None if it was never started."""
        self.terminate()
        try:
            return self.wait(timeout)
        except DevclusterError:
            return self.kill()

    def kill(self) -> int | None:
        """Send SIGKILL, and wait. Returns the exit status, or None if it was never started."""
        if self._child is None:
            return None
        self._child.kill()
        return self._child.wait()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end. Returns the exit status; raises DevclusterError after `timeout` seconds."""
        if self._child is None:
            return None
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DevclusterError(f"{self.name} did not end within {timeout:g} s") from None

    def pause(self) -> None:
        """Freeze it (SIGSTOP); returns when all of its threads stand still."""
        self.signal(signal.SIGSTOP)
        while not _stands_still(self._started().pid):
            self.check_running()
            time.sleep(0.001)
        self.check_running()

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal. Raises DevclusterError if it does not run."""
        self.check_running()
        self._started().send_signal(number)

    def check_running(self) -> None:
        """Raise DevclusterError with the end of its log if it has ended."""
        code = self._started().poll()
        if code is not None:
            raise DevclusterError(f"{self.name} ended with status {code}; its log ends with:\n{self.log_tail()}")

    def _started(self) -> Child:
        if self._child is None:
            raise DevclusterError(f"{self.name} was not started")
        return self._child

    def log_tail(self, lines: int = 10) -> str:
        """Return the last lines of its log, or '' without a log."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 64 * 1024))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
