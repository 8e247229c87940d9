"""Kopf's loggers and formatters."""

from __future__ import annotations

import logging

from kopf._core.actions import loggers
from kopf._core.reactor import running

#: The formatters of `kopf run`: their base class, the one for text, and the mixin that prefixes the object's name.
Formatter = loggers.ObjectFormatter
TextFormatter = loggers.ObjectTextFormatter
ObjectPrefix = loggers.ObjectPrefixingMixin

#: The logger of what Kopf does with objects. The `logger` of handlers writes here, too.
objects_log = loggers.logger
#: The logger of Kopf's start and stop.
running_log = running.logger


def tells_of_handler(record: logging.LogRecord, name: str) -> bool:
    """Return whether the record is one of Kopf's own about this handler."""
    return f"'{name}'" in record.getMessage()


def tells_of_signals(record: logging.LogRecord) -> bool:
    """Return whether the record is Kopf's warning that it handles no signals outside of the main thread."""
    return record.getMessage().startswith("OS signals are ignored")
