"""A process that stands still again and again."""

from __future__ import annotations

import os
import signal
import threading
import time


class Stutter:
    """Stops a process and lets it go on, in turns, in a thread of its own.

    Args:
        pid: of the process; None if it does not run. If it ends, so does this.
        still: seconds for which it stands still.
        runs: seconds for which it runs after that.
    """

    def __init__(self, pid: int | None, *, still: float, runs: float) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go, args=(pid, still, runs), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let it run."""
        self._ended.set()
        self._thread.join()

    def _go(self, pid: int | None, still: float, runs: float) -> None:
        while pid and not self._ended.is_set():
            try:
                os.kill(pid, signal.SIGSTOP)
                time.sleep(still)
                os.kill(pid, signal.SIGCONT)
                time.sleep(runs)
            except ProcessLookupError:
                return
