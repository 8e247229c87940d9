"""`kopf-ha`, with a process that stops itself at the worst moment: a write is decided, and not yet sent.

A SIGSTOP from outside would have to be lucky to hit that moment. This one comes between the fence and the
socket, in the thread that writes: for the process it is what a paused machine, a long garbage collection or
a stuck disk would be. Nothing of kopf-ha is changed for it.
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

#: While this file exists, the next allocation of several addresses stops the process; the request is left in it.
TRIGGER = "DEMO_TRIGGER"

_send = HTTPAdapter.send


def allocates_many(request: PreparedRequest) -> bool:
    """Whether a request gives several addresses in one write of a pool's status."""
    if request.method != "PATCH" or "/addresspools/" not in (request.url or ""):
        return False
    allocations = (json.loads(request.body or b"{}").get("status") or {}).get("allocations") or {}
    return sum(1 for owner in allocations.values() if owner) >= 3


def send(self: HTTPAdapter, request: PreparedRequest, **options: Any) -> Response:
    """Send, unless the trigger is set: then stop first."""
    trigger = Path(os.environ[TRIGGER])
    if trigger.exists() and allocates_many(request):
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
        note = trigger.with_suffix(".note")
        note.write_text(json.dumps({"pid": os.getpid(), "url": request.url, "body": json.loads(body)}))
        trigger.unlink()
        # To this very thread: a signal to the process may be taken by another one, and this one would go on a while.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return _send(self, request, **options)


def main() -> None:
    """Run `kopf-ha` with the arguments of this process."""
    HTTPAdapter.send = send  # type: ignore[method-assign, assignment]
    from kopf_ha.cli import main as kopf_ha

    kopf_ha(prog_name="kopf-ha")


if __name__ == "__main__":
    main()
