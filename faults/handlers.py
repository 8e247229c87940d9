"""Handlers that do harm when a claim's annotation asks for it, beside those of the reference operator.

`faults/do` on a claim: `block` stops the event loop for `faults/seconds`; `wait` is a handler that never ends; `sleep`
is one that never ends in a thread. They do so in the pod that `faults/pod` names, so that the next leader is well.
Event handlers write nothing by themselves.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import kopf

DO, SECONDS, POD = "faults/do", "faults/seconds", "faults/pod"
HERE = os.environ.get("POD_NAME", "")
CLAIMS = ("ipam.kopf-ha.dev", "v1", "addressclaims")


@kopf.on.event(*CLAIMS, annotations={DO: "block", POD: HERE})
async def block(annotations: kopf.Annotations, **_: Any) -> None:
    """Block the event loop."""
    time.sleep(float(annotations[SECONDS]))  # noqa: ASYNC251  that is the fault


@kopf.on.event(*CLAIMS, annotations={DO: "wait", POD: HERE})
async def wait(**_: Any) -> None:
    """Never end."""
    await asyncio.Event().wait()


@kopf.on.event(*CLAIMS, annotations={DO: "sleep", POD: HERE})
def sleep(annotations: kopf.Annotations, **_: Any) -> None:
    """Never end, in a thread."""
    time.sleep(float(annotations[SECONDS]))
