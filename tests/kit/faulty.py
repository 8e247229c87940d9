"""Runs kopf-ha with a fault at a certain write; for tests only.

`IPAM_KILL_AFTER=file` ends the process by SIGKILL right after its n-th write was answered, whichever client made it,
from the moment when the file says `n`; the Lease and events do not count. `IPAM_STOP_BEFORE=text` freezes it (SIGSTOP)
once, right before a PATCH or POST leaves whose URL and body contain all words of the text.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import aiohttp
import urllib3.connectionpool

KILL_AFTER = Path(os.environ.get("IPAM_KILL_AFTER", os.devnull))
STOP_BEFORE = os.environ.get("IPAM_STOP_BEFORE", "").split()
_lock = threading.Lock()
_count = 0


def answered(method: str, path: str) -> None:
    global _count
    if method not in ("POST", "PUT", "PATCH", "DELETE") or re.search("/leases|/events|/selfsubject", path):
        return
    with _lock:
        wanted = int(KILL_AFTER.read_text() or "0") if KILL_AFTER.exists() else 0
        _count += wanted > 0
        print(f"write {_count}: {method} {path}", file=sys.stderr, flush=True)
        if wanted and _count == wanted:
            signal.pthread_kill(threading.get_ident(), signal.SIGKILL)


def leaves(method: str, path: str, body: Any) -> None:
    text = path + (body if isinstance(body, str) else (body or b"").decode())
    if (
        STOP_BEFORE
        and method in ("PATCH", "POST")
        and "/events" not in path
        and all(word in text for word in STOP_BEFORE)
    ):
        STOP_BEFORE.clear()
        print("frozen before", path, file=sys.stderr, flush=True)
        # to this very thread: sent to the process, another thread may take it while this one goes on
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


# below the fence in both families of clients, so that its own requests count, too
_make_request = urllib3.connectionpool.HTTPConnectionPool._make_request
_start = aiohttp.ClientResponse.start


def make_request(self: Any, conn: Any, method: str, url: str, body: Any = None, **more: Any) -> Any:
    leaves(method, url, body)
    response = _make_request(self, conn, method, url, body=body, **more)
    answered(method, url)
    return response


async def start(self: Any, connection: Any) -> Any:
    response = await _start(self, connection)
    answered(self.method, self.url.path)
    return response


urllib3.connectionpool.HTTPConnectionPool._make_request = make_request  # type: ignore[method-assign,assignment]
aiohttp.ClientResponse.start = start  # type: ignore[method-assign]

if __name__ == "__main__":
    from kopf_ha.cli import entry

    entry()
