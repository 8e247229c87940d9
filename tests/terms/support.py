"""What handlers of several replicas did, in one order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from devcluster.waiting import until
from testbed.replica import PATIENCE

#: Appended lines are whole and in order, whichever process writes them.
TRACING = """
import json, os

def trace(what, **more):
    term = kopf_ha.current_term()
    line = {"what": what, "who": os.environ["WHO"], "token": term.token, "open": term.remaining() > 0, **more}
    with open(os.environ["TRACE"], "a") as file:
        file.write(json.dumps(line) + "\\n")
"""


class Trace:
    """What the replicas traced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self, what: str = "", **having: Any) -> list[dict[str, Any]]:
        """Those of a sort, oldest first, each with its place `at` in the whole trace."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = [{"at": at, **json.loads(line)} for at, line in enumerate(lines)]
        return [f for f in found if what in ("", f["what"]) and having.items() <= f.items()]

    def wait(self, what: str, count: int = 1, **having: Any) -> dict[str, Any]:
        """Wait until there are so many, and give that one."""
        until(
            f"{count} × {what} {having} in the trace",
            lambda: len(self.all(what, **having)) >= count,
            PATIENCE,
        )
        return self.all(what, **having)[count - 1]
