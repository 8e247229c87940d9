"""What many operators have besides: a look at each change of a child."""

from typing import Any

import kopf


@kopf.on.update("configmaps", labels={"app": "shop"})
def child_changed(logger: Any, diff: Any, **_: Any) -> None:
    logger.info("CHANGED %s", diff)
    logger.info("HANDLER child")
