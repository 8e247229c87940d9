"""An operator as anybody writes it with Kopf. README shows what becomes of it when its leader is paused."""

import time

import kopf


@kopf.on.create("example.dev", "v1", "backups")
def back_up(spec, patch, logger, **_):
    logger.info(f"copying {spec['volume']}")
    time.sleep(10)  # the copy
    patch.status["copiedTo"] = f"archive/{spec['volume']}-{time.time():.0f}"
