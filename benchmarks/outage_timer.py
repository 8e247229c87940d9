"""Beside the reference operator in `benchmarks.outage`: a timer whose count is in Kopf's memory."""

import logging
from typing import Any

import kopf

logger = logging.getLogger("benchmark")


@kopf.timer("ipam.kopf-ha.dev", "v1", "addresspools", interval=1.0)
async def tick(name: str, memo: kopf.Memo, **_: Any) -> None:
    """Count."""
    memo["ticks"] = memo.get("ticks", 0) + 1
    logger.info("tick %s %d", name, memo["ticks"])
