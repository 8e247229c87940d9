"""The demo's output: a line for each event, and a panel with the present state."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

#: Styles by kind of line.
STYLES = {
    "stage": "bold cyan",
    "you": "bold",
    "lead": "green",
    "fault": "bold yellow",
    "refused": "bold red",
    "detail": "dim",
    "good": "bold green",
    "bad": "bold white on red",
    "": "",
}
#: Columns of the picture.
WIDTH = 132


class Timeline:
    """Prints lines with the time since the start. On a terminal, a panel below shows the present state.

    Without a terminal it prints plain lines, so that CI and files get the same output. `picture` is a file that gets it
    as a terminal shows it, as SVG; long lines are cut there.
    """

    def __init__(self, picture: Path | None = None) -> None:
        self.console = Console(highlight=False)
        self._picture = picture
        self._drawn: Console | None = None
        if picture is not None:
            self._drawn = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
        self.began = time.monotonic()
        self.holder = "nobody"
        self.token = 0
        self.bound = 0
        self.claims = 0
        self.refused: Counter[str] = Counter()
        self.names: dict[str, str] = {}  #: short names to print instead of long ones, as of pods
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> Timeline:
        if self.console.is_terminal:
            self._live = Live(self._panel(), console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self.console.print(self._panel())
        if self._drawn is not None and self._picture is not None:
            self._drawn.print(self._panel())
            drawn = self._drawn.export_svg(title="make demo")
            # rich has fonts fetched from elsewhere. Any font of one width will do.
            self._picture.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL))

    def say(self, kind: str, text: str) -> None:
        """Print a line of a kind (`STYLES`)."""
        for name, short in self.names.items():
            text = text.replace(name, short)
        with self._lock:
            seconds = time.monotonic() - self.began
            line = Text(f"{seconds:6.1f}s  ", style="dim")
            line.append(text, style=STYLES[kind])
            self.console.print(line, soft_wrap=True)
            if self._drawn is not None:
                self._drawn.print(line, no_wrap=True, overflow="ellipsis")
            sys.stdout.flush()
            self._refresh()

    def stage(self, text: str) -> None:
        """Print a heading."""
        self.console.print()
        if self._drawn is not None:
            self._drawn.print()
        self.say("stage", text)

    def state(self, *, holder: str, token: int, bound: int, claims: int) -> None:
        """Update the panel."""
        with self._lock:
            self.holder, self.token, self.bound, self.claims = holder, token, bound, claims
            self._refresh()

    def refusal(self, line: str) -> None:
        """Count a refused write by the line of the fence that refused it."""
        with self._lock:
            self.refused[line] += 1
            self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._panel())

    def _panel(self) -> Panel:
        table = Table.grid(padding=(0, 3))
        table.add_row(
            "leader", f"[bold]{escape(self.names.get(self.holder, self.holder))}[/]", "token", f"[bold]{self.token}[/]"
        )
        table.add_row("claims bound", f"{self.bound} of {self.claims}", "writes refused", self.refusals())
        return Panel(Group(table), title="now", border_style="cyan")

    def refusals(self) -> str:
        """Return the numbers of refused writes by line, in words."""
        words = {"gate": "by the gate", "precondition": "by resourceVersion", "server": "by the API server's rule"}
        return ", ".join(f"{n} {words.get(line, line)}" for line, n in sorted(self.refused.items())) or "none"
