"""Shows a waiting person what is going on, without filling a log file."""

from __future__ import annotations

import time
from typing import TextIO


class Progress:
    """Writes lines to `stream`, or nothing if it is None. On a terminal, a live line is rewritten in place."""

    def __init__(self, stream: TextIO | None = None, quiet_period: float = 30.0) -> None:
        """`quiet_period`: seconds between two live lines if they cannot be rewritten."""
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
        self._quiet_period = quiet_period
        self._last_live = 0.0
        self._live_shown = False

    def line(self, text: str) -> None:
        """Write a line that stays. It replaces the live line."""
        if self._stream is not None:
            self._stream.write(f"\r\x1b[K{text}\n" if self._live_shown else f"{text}\n")
            self._stream.flush()
        self._live_shown = False
        self._last_live = time.monotonic()

    def live(self, text: str) -> None:
        """Write a line that the next one replaces. Without a terminal, most live lines are left out."""
        if self._stream is None:
            return
        if self._terminal:
            self._stream.write(f"\r\x1b[K{text}")
            self._live_shown = True
        elif time.monotonic() - self._last_live >= self._quiet_period:
            self._stream.write(f"{text}\n")
            self._last_live = time.monotonic()
        self._stream.flush()
