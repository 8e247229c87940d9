"""The live view of `kopf-ha status --watch`: with rich if it is installed, otherwise the screen is drawn anew."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kopf_ha.errors import ApiError
from kopf_ha.oncall.cluster import WELL
from kopf_ha.oncall.shown import as_text

if TYPE_CHECKING:
    from kopf_ha.oncall.report import Report

#: Seconds between two looks.
PERIOD = 2.0
#: Each so many looks the operators' objects are listed, too, which may be thousands.
OBJECTS = 15

#: Looks at the cluster; the argument says whether objects are listed, too.
Look = Callable[[bool], "list[Report]"]


def live(look: Look, *, wide: bool, pause: Callable[[float], None] = time.sleep, turns: int | None = None) -> int:
    """Show it until Ctrl-C. An API server that does not answer is shown, too, and asked again.

    Args:
        look: looks at the cluster.
        wide: show more columns.
        pause: waits for so many seconds.
        turns: how often to look; None for no end.
    """
    draw, leave = _screen()
    count = 0
    try:
        while turns is None or count < turns:
            draw(frame(look, count % OBJECTS == 0, wide))
            count += 1
            pause(PERIOD)
    except KeyboardInterrupt:
        pass
    finally:
        leave()
    return WELL


def frame(look: Look, objects: bool, wide: bool) -> str:
    """Return what is shown now."""
    try:
        reports = look(objects)
    except ApiError as error:
        text = f"? {error}"
    else:
        text = as_text(reports, wide=wide) if reports else "no operator"
    return f"{time.strftime('%H:%M:%S')}  kopf-ha status, every {PERIOD:.0f} s; Ctrl-C ends it\n\n{text}"


def _screen() -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """Return what draws a screen, and what leaves it."""
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        return _redraw, lambda: None
    if not sys.stdout.isatty():
        return _redraw, lambda: None
    view = Live(console=Console(), screen=True, auto_refresh=False)
    view.start()
    return lambda text: view.update(_coloured(Text(text)), refresh=True), view.stop


def _coloured(text: Any) -> Any:
    text.highlight_regex(r"(?m)^× .*$", "red")
    text.highlight_regex(r"(?m)^[‼?] .*$", "yellow")
    text.highlight_regex(r"(?m)^Lease .*$", "bold")
    return text


def _redraw(text: str) -> None:
    if sys.stdout.isatty():
        click.clear()
    click.echo(text + "\n")
