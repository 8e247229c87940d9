"""Runs `kopf-ha` in a process that can stop itself at the worst moment: after a write is decided, before it is sent.

A SIGSTOP from outside would hit that moment only by luck. This one comes between the fence and the socket, in the
thread that writes. To the process it looks like a paused machine or a stuck disk. kopf-ha itself is unchanged.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

#: The variable that names a file. While the file exists, the next write that gives several addresses stops the process,
#: and the request is saved next to the file.
TRIGGER = "DEMO_TRIGGER"

_send = HTTPAdapter.send


def allocates_many(request: PreparedRequest) -> bool:
    """Return whether a request gives several addresses in one write of a pool's status."""
    if request.method != "PATCH" or "/addresspools/" not in (request.url or ""):
        return False
    allocations = (json.loads(request.body or b"{}").get("status") or {}).get("allocations") or {}
    return sum(1 for owner in allocations.values() if owner) >= 3


def send(self: HTTPAdapter, request: PreparedRequest, **options: Any) -> Response:
    """Send a request. If the trigger is set, stop the process first."""
    trigger = Path(os.environ[TRIGGER])
    if trigger.exists() and allocates_many(request):
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
        note = trigger.with_suffix(".note")
        note.write_text(json.dumps({"pid": os.getpid(), "url": request.url, "body": json.loads(body)}))
        trigger.unlink()
        # Sent to this thread: another thread might receive a signal to the process, while this one would go on.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return _send(self, request, **options)


def main() -> None:
    """Run `kopf-ha` with the arguments of this process."""
    HTTPAdapter.send = send  # type: ignore[method-assign, assignment]
    from kopf_ha.cli import main as kopf_ha

    kopf_ha(prog_name="kopf-ha")


if __name__ == "__main__":
    main()
