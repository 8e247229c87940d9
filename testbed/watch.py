"""What kubectl shows of objects, revision by revision, for as long as one looks."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from testbed.stage import LIMIT, Stage

#: Seconds until a watch that ended begins anew.
PAUSE = 0.2


class Watch:
    """Looks from `start` until `stop`; a watch that ends begins anew, and shows all that there is once more.

    Args:
        stage: the cluster.
        args: for `kubectl get`.
        saw: takes each body, in a thread of the watch's own.
    """

    def __init__(self, stage: Stage, args: tuple[str, ...], saw: Callable[[dict[str, Any]], None]) -> None:
        self._stage, self._args, self._saw = stage, args, saw
        self._stop = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._child is not None:
            self._child.kill()
        self._thread.join(LIMIT)

    def _run(self) -> None:
        decoder = json.JSONDecoder()
        while not self._stop.is_set():
            text = ""
            with self._stage.background("get", *self._args, "--watch", "-o", "json", stdout=subprocess.PIPE) as child:
                self._child = child
                assert child.stdout is not None
                for line in child.stdout:
                    text += line
                    if line == "}\n":  # the end of one document, as kubectl indents
                        self._saw(decoder.decode(text))
                        text = ""
            self._stop.wait(PAUSE)
