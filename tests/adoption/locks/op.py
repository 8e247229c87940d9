"""An operator that writes a line every 50 ms while it handles its object: when, on the machine's clock, and who."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import kopf


@kopf.on.startup()
def short(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.peering.lifetime = 6  # of a plain Kopf that is killed


@kopf.daemon("configmaps", labels={"handled": "yes"})
async def lead(stopped: Any, **_: Any) -> None:
    while not stopped:
        line()
        await asyncio.sleep(0.05)


def line() -> None:
    with open(os.environ["LINES"], "a") as file:
        file.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME)} {os.environ['WHO']}\n")
