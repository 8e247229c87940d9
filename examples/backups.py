"""Twelve lines of an operator, as anybody writes them with Kopf. README tells what to try with it."""

import time

import kopf


@kopf.on.create("example.dev", "v1", "backups")
def back_up(spec, patch, logger, **_):
    logger.info(f"copying {spec['volume']}")
    time.sleep(10)  # the copy
    patch.status["copiedTo"] = f"archive/{spec['volume']}-{time.time():.0f}"
