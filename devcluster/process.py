"""One child process that can be stopped, paused and started again, and that never outlives its parent.

The control plane and the operators under test are both run by it. A child gets PR_SET_PDEATHSIG, so that it
ends even when its parent is killed with SIGKILL. The kernel ties that signal to the *thread* which made the
child; so one thread per process makes them all, and lives as long as the process does.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import BinaryIO

from devcluster.errors import DevclusterError

# Runs between fork and exec of the real program, in an interpreter of its own: code of ours in a forked copy
# of a process with threads may deadlock. The parent may have died before the request to the kernel was made.
# Python ignores two signals, which the program would inherit.
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
    """The thread that makes the children of one process."""

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
            # Ctrl-C came while we waited: the child must be known to whoever cleans up now.
            wait([done])

    def _serve(self) -> None:
        while True:
            make, done = self._orders.get()
            try:
                make()
                done.set_result(None)
            except BaseException as error:  # noqa: BLE001  it belongs to the thread that asked
                done.set_exception(error)


_spawner: _Spawner | None = None
_spawner_lock = threading.Lock()


def _the_spawner() -> _Spawner:
    global _spawner
    with _spawner_lock:
        if _spawner is None or _spawner.pid != os.getpid():  # threads do not survive a fork
            _spawner = _Spawner()
        return _spawner


class Process:
    """A program by name, with its output appended to `log_path`, over any number of runs.

    `env` is its whole environment (None: this process's own). Used as a context manager it is started on
    entry and stopped on exit. It runs in a session of its own. Linux only.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        env: Mapping[str, str] | None = None,
        log_path: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = [os.fspath(arg) for arg in argv]
        self.env = env
        self.log_path = log_path
        self.cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None

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
        """How the newest run ended (negative: by that signal), None while it runs or before the first."""
        return None if self._child is None else self._child.poll()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; a paused process runs."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it. Raises DevclusterError if it runs already or there is no such program."""
        if self.running:
            raise DevclusterError(f"{self.name} runs already (pid {self.pid})")
        program = shutil.which(self.argv[0])
        if program is None:
            raise DevclusterError(f"cannot run {self.argv[0]}: no such program")
        if not sys.platform.startswith("linux"):
            raise DevclusterError("devcluster needs Linux: its processes are bound to their parent by the kernel")
        bound = [sys.executable, "-I", "-S", "-c", _BOUND_EXEC, str(os.getpid()), os.path.abspath(program)]
        with self._output() as output:

            def make() -> None:
                self._child = subprocess.Popen(
                    [*bound, *self.argv],
                    env=None if self.env is None else dict(self.env),
                    cwd=self.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C on the terminal is for the parent, who ends it in order
                )

            _the_spawner().run(make)

    def _output(self) -> BinaryIO:
        if self.log_path is None:
            return open(os.devnull, "wb")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        return self.log_path.open("ab")

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), without waiting. Does nothing when it does not run."""
        if self._child is not None:  # these do nothing once it ended
            self._child.send_signal(signal.SIGTERM)
            self._child.send_signal(signal.SIGCONT)  # a paused process would never see the request

    def stop(self, timeout: float = 10.0) -> int | None:
        """End it: SIGTERM, after `timeout` seconds SIGKILL. Returns the exit status, None if never started."""
        self.terminate()
        try:
            return self.wait(timeout)
        except DevclusterError:
            return self.kill()

    def kill(self) -> int | None:
        """End it at once (SIGKILL). Returns the exit status, None if never started."""
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
        # WNOWAIT: its end, should it come first, stays to be collected by Popen
        os.waitid(os.P_PID, self._started().pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.check_running()

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send it a signal. Raises DevclusterError when it does not run."""
        self.check_running()
        self._started().send_signal(number)

    def check_running(self) -> None:
        """Raise DevclusterError, with the end of its log, unless it runs."""
        code = self._started().poll()
        if code is not None:
            raise DevclusterError(f"{self.name} ended with status {code}; its log ends with:\n{self.log_tail()}")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise DevclusterError(f"{self.name} was not started")
        return self._child

    def log_tail(self, lines: int = 10) -> str:
        """The last lines of its log, '' if there is none."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 64 * 1024))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
