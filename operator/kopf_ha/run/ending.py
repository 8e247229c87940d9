"""How the process ends: its exit statuses, and the ways to end it whatever its threads do.

docs/runbook.md tells operators what each status means.
"""

from __future__ import annotations

import logging
import os
import sys

from kopf_ha.run.threads import later

logger = logging.getLogger("kopf_ha.run")

#: The Lease was lost and `after_loss` is `exit`, so that the pod restarts; or the election ended by itself.
EXIT_LOST = 3
#: Handlers of a term that ended did not end in time.
EXIT_STUCK = 4
#: `kopf_ha.everywhere` ended by itself.
EXIT_EVERYWHERE = 5
#: The operator's code tried what it can never write, and `on_unfenced` is `exit`.
EXIT_UNFENCED = 6
#: After a second signal: this plus the signal's number.
EXIT_SIGNAL = 128


def end_hard(status: int, message: str, *args: object) -> None:
    """Log one line and end the process now: no other way stops a thread."""
    later(1.0, lambda: os._exit(status))  # the thread that hangs may hold the log's lock
    logger.critical(message, *args)
    logging.shutdown()
    os._exit(status)


def end_by(seconds: float, status: int) -> None:
    """End the process after so many seconds, even if threads of the operator's code still run."""

    def end() -> None:
        logger.critical("threads of the operator still run; ending the process")
        os._exit(status)

    later(seconds, end)


def end_quietly(status: int) -> None:
    """End the process without the interpreter's shutdown, which may abort it while threads run."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
