"""Handlers that do harm when a claim's annotation asks for it, beside those of the reference operator.

`faults/do` on a claim: `block` stops the event loop for `faults/seconds`; `wait` is a handler that never ends; `sleep` is
one that never ends in a thread. Event handlers write nothing by themselves.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import kopf

DO, SECONDS = "faults/do", "faults/seconds"
CLAIMS = ("ipam.kopf-ha.dev", "v1", "addressclaims")


@kopf.on.event(*CLAIMS, annotations={DO: "block"})
async def block(annotations: kopf.Annotations, **_: Any) -> None:
    """Block the event loop."""
    time.sleep(float(annotations[SECONDS]))  # noqa: ASYNC251  that is the fault


@kopf.on.event(*CLAIMS, annotations={DO: "wait"})
async def wait(**_: Any) -> None:
    """Never end."""
    await asyncio.Event().wait()


@kopf.on.event(*CLAIMS, annotations={DO: "sleep"})
def sleep(annotations: kopf.Annotations, **_: Any) -> None:
    """Never end, in a thread."""
    time.sleep(float(annotations[SECONDS]))
