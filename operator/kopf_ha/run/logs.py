"""Log records that say in which term they were made: `token`, `holder` and `lease`, in Kopf's own formats.

A filter of handlers and no factory of records: a record that is born with a `token` makes every
`logger.info(…, extra={"token": …})` of the operator's code fail.
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

#: What the layer's own threads, which belong to no term, say of themselves.
_speaker: tuple[Settings, Callable[[], Grant | None]] | None = None


class TermFields(logging.Filter):
    """Adds `token`, `holder` and `lease` to records made in a term, and to the layer's own ones in any thread.

    What a record has already stays. Records of others outside of a term stay as they are. For an application's own
    handlers: `handler.addFilter(kopf_ha.run.TermFields())`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
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
            record.message = f"[token {token}] {record.message}"  # made anew by each formatter
        return super().formatMessage(record)


class _PrefixingText(_kopf.ObjectPrefix, _Text):
    """The same with the object's prefix, as Kopf writes it by default."""


def configure(log_format: kopf.LogFormat, log_prefix: bool | None, **options: object) -> None:
    """Configure the log as `kopf run` does, with the term's fields in it.

    In the JSON format all that is logged or raised is one object per line, uncaught errors included.

    Args:
        log_format: plain, full or json.
        log_prefix: whether texts name the object that they are about; None for Kopf's choice.
        options: for `kopf.configure`.
    """
    kopf.configure(log_format=log_format, log_prefix=log_prefix, **options)  # type: ignore[arg-type]
    logging.captureWarnings(True)
    is_json = log_format is kopf.LogFormat.JSON
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, _kopf.Formatter):
            continue  # somebody else's
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
    """Log what nobody caught, as Python would print it."""
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logger.critical("uncaught in thread %s: %s", thread, kind.__name__, exc_info=(kind, error or kind(), trace))


@contextlib.contextmanager
def speaking_for(settings: Settings, present: Callable[[], Grant | None]) -> Iterator[None]:
    """Have the layer's own records name this replica, and its present term, for the body.

    Args:
        settings: the replica's.
        present: gives the grant of the present term; None between terms.
    """
    global _speaker
    _speaker = (settings, present)
    try:
        yield
    finally:
        _speaker = None
