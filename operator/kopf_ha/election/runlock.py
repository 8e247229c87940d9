"""Proof that the process before this one in the same pod is dead: a lock that only the kernel drops.

The API server tells pods apart, but not the processes in one pod: its policies let a dead process's successor and the
process itself write alike. So a restarted container may take the Lease over from its predecessor at once only if that
one cannot write any more. Each process holds `flock(2)` on a file for its whole life. Once it has the lock, it writes
its identity into the file. The next process to get the lock knows that all identities in the file are dead. A process
that never got the lock is not in the file, and nothing is proven about it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from kopf_ha.settings import Settings

log = logging.getLogger("kopf_ha.election")

#: How many identities the file keeps: those of the last processes.
KEPT = 32
#: Seconds between two attempts. A blocking call of the kernel would delay signals and `stop`.
ATTEMPTS = 0.1


class RunLock:
    """Takes the lock of this pod in a thread, and tells which identities that proves dead.

    Args:
        settings: the directory, the Lease, the identity.
        dead: takes each identity whose process is proven dead.
    """

    def __init__(self, settings: Settings, dead: Callable[[str], None]) -> None:
        self._settings = settings
        self._dead = dead
        self._stopping = threading.Event()
        # The pod's uid, so that a directory that pods share by mistake proves nothing of other pods.
        self._path = Path(settings.run_dir) / f"kopf-ha-{settings.lease_name}-{settings.pod_uid}.lock"
        self._file = -1

    def start(self) -> None:
        """Begin, if a directory is given. If it cannot be used, a warning says so, and nothing is proven."""
        if not self._settings.run_dir:
            return
        try:
            # Close-on-exec, as all files that Python opens: programs that handlers start do not keep the lock.
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            self._give_up(error)
            return
        if not self._take():
            threading.Thread(target=self._wait, name="kopf-ha-runlock", daemon=True).start()

    def stop(self) -> None:
        """Stop trying. A lock that is held stays held until the process ends, since until then it may write."""
        self._stopping.set()

    def _wait(self) -> None:
        while not self._stopping.wait(ATTEMPTS):
            if self._take():
                return

    def _take(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            before = [line for line in self._read().split("\n") if line][-KEPT:]
            self._write("".join(f"{identity}\n" for identity in [*before, self._settings.identity]))
        except BlockingIOError:
            return False
        except OSError as error:  # a file system without locks, or a full one
            self._give_up(error)
            return True
        for identity in before:
            self._dead(identity)
        return True

    def _give_up(self, error: OSError) -> None:
        log.warning("no lock in run dir %s, so a restarted leader waits for its Lease: %s", self._path.parent, error)

    def _read(self) -> str:
        return os.pread(self._file, os.fstat(self._file).st_size, 0).decode("utf-8", "replace")

    def _write(self, text: str) -> None:
        data = text.encode()
        # In place: if the process is killed in the middle, a line is cut, and a cut line proves nothing.
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))
