"""Adds the term to log records: `token`, `holder` and `lease`, in Kopf's own formats.

It filters in handlers instead of making the records: if records had a `token` from the start, every
`logger.info(…, extra={"token": …})` in the operator's code would fail.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

import kopf

from kopf_ha import _kopf
from kopf_ha._context import current_grant
from kopf_ha.core.grant import Grant
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: For records of the layer's own threads, which belong to no term: the replica's settings, and its present grant.
_speaker: tuple[Settings, Callable[[], Grant | None]] | None = None


class TermFields(logging.Filter):
    """Adds `token`, `holder` and `lease` to records made in a term, and to kopf-ha's own records in any thread.

    Fields that a record has already are kept. Other records outside a term are not changed. An application adds it to
    its own handlers: `handler.addFilter(kopf_ha.run.TermFields())`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; return True, since every record passes."""
        grant = current_grant()
        fields: dict[str, object] = {}
        if grant is None and _speaker is not None and record.name.partition(".")[0] == "kopf_ha":
            settings, present = _speaker
            fields = {"holder": settings.identity, "lease": settings.lease}
            grant = present()
        if grant is not None:
            fields = {"token": grant.stamp.token, "holder": grant.stamp.holder, "lease": grant.stamp.lease}
        for name, value in fields.items():
            record.__dict__.setdefault(name, value)
        return True


class _Text(_kopf.TextFormatter):
    """Kopf's text with the token in front, before the object's own prefix."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is the base class's
        token = getattr(record, "token", None)
        if token is not None:
            record.message = f"[token {token}] {record.message}"  # each formatter makes it again
        return super().formatMessage(record)


class _PrefixingText(_kopf.ObjectPrefix, _Text):
    """The same with the object's prefix, which Kopf writes by default."""


def configure(log_format: kopf.LogFormat, log_prefix: bool | None, **options: object) -> None:
    """Configure the log as `kopf run` does, with the term's fields.

    In the JSON format each line is one object, also for errors that nothing catches.

    Args:
        log_format: plain, full or json.
        log_prefix: whether lines of text begin with the object's name; None for Kopf's choice.
        options: for `kopf.configure`.
    """
    kopf.configure(log_format=log_format, log_prefix=log_prefix, **options)  # type: ignore[arg-type]
    logging.captureWarnings(True)
    is_json = log_format is kopf.LogFormat.JSON
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, _kopf.Formatter):
            continue  # not Kopf's
        handler.addFilter(TermFields())
        if not is_json:
            text = _Text if log_prefix is False else _PrefixingText
            handler.setFormatter(text(log_format.value))
    if is_json:
        sys.excepthook = _log_uncaught
        threading.excepthook = lambda args: _log_uncaught(
            args.exc_type, args.exc_value, args.exc_traceback, args.thread.name if args.thread else ""
        )


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, thread: str = "MainThread"
) -> None:
    """Log an error that nothing caught, as Python would print it."""
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logger.critical("uncaught in thread %s: %s", thread, kind.__name__, exc_info=(kind, error or kind(), trace))


@contextlib.contextmanager
def speaking_for(settings: Settings, present: Callable[[], Grant | None]) -> Iterator[None]:
    """Add this replica and its present term to kopf-ha's own records while the body runs.

    Args:
        settings: the replica's.
        present: returns the grant of the present term; None between terms.
    """
    global _speaker
    _speaker = (settings, present)
    try:
        yield
    finally:
        _speaker = None
