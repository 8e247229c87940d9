"""Runs `kopf-ha` and notes what it spends its CPU on: a script, `FILE ARGUMENTS…`.

A thread looks every few milliseconds at what the others execute, and how much CPU each of them used since. The file has
the seconds for each kind of code, and is written anew every half second. A sample belongs to the innermost function
whose module is known, so what Kopf calls in `json` counts as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from kopf_ha.cli import entry

#: Kinds of code by a part of the file's path; the first that fits counts.
KINDS = (
    ("/kopf_ha_ipam/", "the operator's handlers"),
    ("/kopf_ha/", "kopf-ha"),
    ("/kopf/", "Kopf"),
    ("/json/", "JSON"),
    ("/ssl.py", "TLS"),
    ("/sslproto.py", "TLS"),
    ("/logging/", "logging"),
    ("/aiohttp/", "HTTP clients"),
    ("/urllib3/", "HTTP clients"),
    ("/requests/", "HTTP clients"),
    ("/pykube/", "HTTP clients"),
    ("/kubernetes/", "HTTP clients"),
    ("/http/", "HTTP clients"),
    ("/asyncio/", "event loop and threads"),
    ("/selectors.py", "event loop and threads"),
    ("/threading.py", "event loop and threads"),
    ("/concurrent/", "event loop and threads"),
)
EVERY = 0.008
#: What this takes itself.
LOOKING = "looking"


def kind(frame: FrameType | None) -> str:
    """Give what kind of code a stack executes."""
    while frame is not None:
        path = frame.f_code.co_filename
        for part, name in KINDS:
            if part in path:
                return name
        frame = frame.f_back
    return "other"


def used(thread: int) -> float:
    """Give the seconds of CPU that a thread used; 0 if it has ended."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def sample(file: Path) -> None:
    """Look for as long as the process lives."""
    found: dict[str, float] = dict.fromkeys([*(name for _, name in KINDS), "other"], 0.0)
    before: dict[int, float] = {}
    mine, written = threading.get_native_id(), time.monotonic()
    while True:
        time.sleep(EVERY)
        frames = sys._current_frames()
        natives = {one.ident: one.native_id for one in threading.enumerate()}
        for ident, frame in frames.items():
            native = natives.get(ident)
            if native is None or native == mine:
                continue
            now = used(native)
            if (more := now - before.get(native, 0.0)) > 0:
                found[kind(frame)] += more
            before[native] = now
        del frames
        if time.monotonic() > written + 0.5:
            written = time.monotonic()
            scratch = file.with_suffix(".new")
            scratch.write_text(json.dumps(found | {LOOKING: used(mine)}))
            os.replace(scratch, file)


if __name__ == "__main__":
    # So that a thread that computes is seen where it is, and not where it next waits.
    sys.setswitchinterval(0.0005)
    threading.Thread(target=sample, args=[Path(sys.argv.pop(1))], daemon=True).start()
    entry()
