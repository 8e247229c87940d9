"""Clocks of replicas that jump and drift: a small library of ours (clock.c) that LD_PRELOAD puts before libc.

It is not libfaketime, since that changes all clocks of a process alike. A machine that sleeps is one whose clock of the
boot goes on while the monotonic one stands still, and only the first decides until when a leader may write.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
#: In the file: since, offset and rate, of the wall clock and of the clock of the boot.
FORM = struct.Struct("=6d")
_REAL = (0.0, 0.0, 1.0)


def library(folder: Path) -> Path | None:
    """Compile the library; give None if there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    made = folder / "clock.so"
    argv = [compiler, "-O1", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl"]
    subprocess.run(argv, check=True, capture_output=True)
    return made


class Clock:
    """The clocks of one replica.

    Args:
        path: of the file that tells the replica.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wall, self._boot = _REAL, _REAL
        path.write_bytes(bytes(FORM.size))
        self._write()

    def environment(self, library: Path) -> dict[str, str]:
        """Give the variables that a replica needs."""
        return {"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(self._path)}

    def wall(self, ahead: float = 0.0, rate: float = 1.0) -> None:
        """Have the wall clock jump, and go on at another rate."""
        self._wall = (time.time(), ahead, rate)
        self._write()

    def boot(self, ahead: float = 0.0, rate: float = 1.0) -> None:
        """Have the clock that counts since the boot jump from where it is, and go on at another rate."""
        now, (since, before, old) = time.clock_gettime(time.CLOCK_BOOTTIME), self._boot
        self._boot = (now, before + (old - 1) * (now - since) + ahead, rate)
        self._write()

    def heal(self) -> None:
        """Have the wall clock tell the time, and the other one go on as fast as it should; that one never goes back."""
        self._wall = _REAL
        self.boot()

    def _write(self) -> None:
        with self._path.open("r+b") as file:  # in place: the replica has it in its memory
            file.write(FORM.pack(*self._wall, *self._boot))
