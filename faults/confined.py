"""Runs `kopf-ha` in the cgroup whose folder is FAULTS_GROUP."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path


def main() -> None:
    """Run it. On SIGUSR2 it writes where its threads are."""
    faulthandler.register(signal.SIGUSR2)
    Path(os.environ["FAULTS_GROUP"], "cgroup.procs").write_text(str(os.getpid()))
    from kopf_ha.cli import entry

    entry()


if __name__ == "__main__":
    main()
