"""Proof that the process before mine in the same pod is dead: a lock that the kernel drops, and nobody else (trap 4).

The API server tells pods apart, not the processes in them, so a restarted container may take the Lease over from
its predecessor at once only if that one cannot write any more. A process holds `flock(2)` on a file for life, and
writes its identity there once it has it. Who gets the lock next knows that all identities in the file are dead. One
that never got the lock is not in the file, and nothing is proven of it.
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

#: Identities that the file keeps: those of the last processes.
KEPT = 32
#: Seconds between two attempts, where the kernel would let a signal or a stop wait.
ATTEMPTS = 0.1


class RunLock:
    """Takes the lock of this pod in a thread, and tells of the identities that are dead by that.

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
        """Begin, if a directory is given. One that cannot be used costs the proof, and a warning."""
        if not self._settings.run_dir:
            return
        try:
            # Close-on-exec, as all files of Python's, so that programs that handlers start do not keep it.
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            self._give_up(error)
            return
        if not self._take():
            threading.Thread(target=self._wait, name="kopf-ha-runlock", daemon=True).start()

    def stop(self) -> None:
        """Stop trying; a lock that is held is held until the process ends, since until then it may write."""
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
        # In place and longer than before, if anything: killed in the middle, a line is cut, and proves nothing.
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))
