"""A small operator that is started in different ways, as an operator's file, a module, or a program of its own.

It knows nothing of kopf-ha but the name of the library: `PARITY_LIB` is `kopf` or `kopf_ha`, the one word that an
operator with a main of its own changes. What its handlers see goes to the file `PARITY_SEEN`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import asyncio
import importlib
import json
import os
import signal
import sys
import threading

import kopf

from tests.parity.shapes import GROUP

WAY = os.environ.get("PARITY_WAY", "")


def tell(what, **more):
    file = os.open(os.environ["PARITY_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (json.dumps({"ran": what, **more}) + "\n").encode())
    os.close(file)


@kopf.on.startup()
def configure(settings, **_):
    settings.persistence.finalizer = f"{GROUP}/ways"
    settings.scanning.disabled = True
    if WAY == "storages":
        settings.persistence.finalizer = "theirs.example.com/finalizer"
        settings.persistence.progress_storage = kopf.MultiProgressStorage(
            [
                kopf.StatusProgressStorage(field="status.progress"),
                kopf.AnnotationsProgressStorage(prefix="theirs.example.com"),
            ]
        )
        settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
            prefix="theirs.example.com", key="last-configuration"
        )
    tell("startup")


@kopf.on.cleanup()
def end(**_):
    tell("cleanup")


@kopf.on.probe(id="handled")
def handled(memo, **_):
    return "yes"


@kopf.on.create(GROUP, "v1", "cells")
@kopf.on.create(GROUP, "v1", "looses")
async def create(name, resource, retry, spec, **_):
    tell("create", object=f"{resource.plural}/{name}", retry=retry)
    if retry == 0:
        raise kopf.TemporaryError("not yet", delay=0.1)
    return {"size": spec["size"]}


@kopf.on.resume(GROUP, "v1", "cells")
@kopf.on.resume(GROUP, "v1", "looses")
def resume(name, resource, **_):
    tell("resume", object=f"{resource.plural}/{name}")


@kopf.on.update(GROUP, "v1", "cells")
@kopf.on.update(GROUP, "v1", "looses")
def update(name, resource, old, new, **_):
    tell("update", object=f"{resource.plural}/{name}", old=old["spec"]["size"], new=new["spec"]["size"])


@kopf.on.delete(GROUP, "v1", "cells")
@kopf.on.delete(GROUP, "v1", "looses")
def delete(name, resource, **_):
    tell("delete", object=f"{resource.plural}/{name}")


# --- mains, as Kopf's documentation has them


def arguments():
    return {"registry": kopf.get_default_registry(), "namespaces": [os.environ["PARITY_NAMESPACE"]]}


def in_loop(lib):
    """An application with a loop of its own, in which the operator is one task of several."""

    async def application():
        operator = asyncio.create_task(lib.operator(**arguments()))
        other = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.wait({operator, other}, return_when=asyncio.FIRST_COMPLETED)
        other.cancel()
        await operator

    asyncio.run(application())


def in_thread(lib):
    """An application whose main thread does something else, and that stops the operator by its flag."""
    ready, stop = threading.Event(), threading.Event()
    memo, settings = kopf.Memo(), kopf.OperatorSettings()

    def main():
        asyncio.run(lib.operator(**arguments(), ready_flag=ready, stop_flag=stop, memo=memo, settings=settings))

    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    thread = threading.Thread(target=main)
    thread.start()
    ready.wait()
    tell("ready")
    while thread.is_alive():
        thread.join(0.2)


def in_main(lib):
    """A main of its own."""
    lib.run(**arguments(), standalone=True, priority=1)


if __name__ == "__main__":
    kopf.configure(verbose=False)
    mains = {"loop": in_loop, "thread": in_thread, "main": in_main, "exec": in_main}
    mains[WAY](importlib.import_module(os.environ["PARITY_LIB"]))
    sys.exit(0)
