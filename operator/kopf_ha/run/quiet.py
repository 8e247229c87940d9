"""Keeps misleading lines of Kopf out of the log.

These are lines about our own first handler, lines about signals, which the runner handles, and tracebacks of refused
writes.
"""

from __future__ import annotations

import logging

from kopf_ha import _kopf
from kopf_ha.errors import Denied, TermEnded
from kopf_ha.run.observe import HANDLER_ID


def _not_ours(record: logging.LogRecord) -> bool:
    return not _kopf.tells_of_handler(record, HANDLER_ID)


def _not_signals(record: logging.LogRecord) -> bool:
    return not _kopf.tells_of_signals(record)


def _without_trace(record: logging.LogRecord) -> bool:
    """Drop the traceback of a refused write: its message says all, and the cause is not where it was sent."""
    if record.exc_info and isinstance(record.exc_info[1], TermEnded | Denied):
        record.exc_info = None
    return True


def hush() -> None:
    """Add the filters to Kopf's loggers."""
    _kopf.objects_log.addFilter(_not_ours)
    _kopf.objects_log.addFilter(_without_trace)
    _kopf.running_log.addFilter(_not_signals)
