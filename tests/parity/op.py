"""An operator as others write it: each object names a write, by whom, and from where.

It knows nothing of kopf-ha, and runs under `kopf run` and `kopf-ha run`. What it saw goes to the file `PARITY_SEEN`, a
line for each write and each run of a handler. Right before each write it asks `PARITY_RIVAL` to write the same object.
If the file `PARITY_IDLE` is there, it does nothing.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import asyncio
import inspect
import json
import os
import threading
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import kopf

from tests.parity.clients import WRITERS, shown
from tests.parity.shapes import CLIENTS, GROUP, JSON_PATCH, LATER, SHAPES, Write

SEEN, RIVAL, IDLE = (os.environ[f"PARITY_{name}"] for name in ("SEEN", "RIVAL", "IDLE"))
#: As many threads as there are cells, since all may wait for the rival at once.
MANY = 300
POOL, WAITING = ThreadPoolExecutor(MANY), ThreadPoolExecutor(MANY)


@kopf.on.startup()
def configure(settings, **_):
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.execution.max_workers = MANY
    # Kopf runs a handler again if its own record of the run is late, as it may be on a busy machine.
    settings.persistence.consistency_timeout = 60


def tell(cell, **what):
    line = json.dumps({"cell": cell, "pid": os.getpid(), **what}) + "\n"
    file = os.open(SEEN, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line.encode())
    os.close(file)


def rival(plural, name):
    with urllib.request.urlopen(f"{RIVAL}/{plural}/{urllib.parse.quote(name)}") as answer:
        answer.read()


async def made(blocking, plural, name, namespace, spec, patch):
    """Make a cell's write. If `blocking`, it never waits, so no event loop is needed."""
    shape, cell = SHAPES[spec["shape"]], f"{plural}/{name}"
    target = shape.write(plural, name)

    async def waited(got):
        return await got if inspect.isawaitable(got) else got

    async def touched():
        asked = (target.plural, target.name)
        return rival(*asked) if blocking else await asyncio.get_running_loop().run_in_executor(WAITING, rival, *asked)

    async def read():
        return await waited(writer(namespace, Write("get", target.plural, target.name)))

    if spec["client"] == "kopf":
        if shape.content_type == JSON_PATCH:
            patch.fns.append(lambda body: body["spec"].update(mine="1"))
        else:
            patch.update(json.loads(json.dumps(shape.change)))
        await touched()
        tell(cell, write="ok")
        return
    writer = WRITERS[spec["client"]]
    try:
        body = await read() if shape.read == "before" else None
        await touched()
        body = await read() if shape.read == "after" else body
        seen = await waited(writer(namespace, shape.write(plural, name, body)))
    except asyncio.CancelledError:
        tell(cell, write="CancelledError: Kopf ended first")
        raise
    except Exception as error:
        seen = shown(error)
    tell(cell, write=seen)


def run(spec, **args):
    """Make a cell's write in this thread."""
    if CLIENTS[spec["client"]]:
        asyncio.run(made(False, spec=spec, **args))
        return
    try:
        made(True, spec=spec, **args).send(None)
    except StopIteration:
        return
    raise RuntimeError("a client that blocks has waited")


def cell(place, kwargs):
    """Note that a handler runs; give what its write needs, or nothing if it is to do nothing."""
    name, plural = kwargs["name"], kwargs["resource"].plural
    if os.path.exists(IDLE):
        return {}
    tell(f"{plural}/{name}", ran=place)
    return {"plural": plural, "name": name} | {key: kwargs[key] for key in ("namespace", "spec", "patch")}


def at(*places):
    return lambda spec, **_: spec.get("place") in places


def handlers(plural):
    resource = (GROUP, "v1", plural)

    @kopf.on.create(*resource, id="handler", when=at("handler"))
    def handler(**kwargs):
        if args := cell("handler", kwargs):
            run(**args)

    @kopf.on.create(*resource, id="async", when=at("async"))
    async def in_loop(**kwargs):
        if args := cell("async", kwargs):
            await made(False, **args)

    @kopf.timer(*resource, id="timer", interval=3600, when=at("timer"))
    def timer(**kwargs):
        if args := cell("timer", kwargs):
            run(**args)

    @kopf.daemon(*resource, id="daemon", when=at("daemon"))
    async def daemon(**kwargs):
        if args := cell("daemon", kwargs):
            await made(False, **args)

    # For it, Kopf records the object as handled.
    @kopf.on.create(*resource, id="created", when=at("timer", "daemon"))
    def created(**kwargs):
        cell("created", kwargs)

    @kopf.on.create(*resource, id="thread", when=at("thread"))
    def thread(**kwargs):
        if args := cell("thread", kwargs):
            threading.Thread(target=run, kwargs=args, daemon=True).start()

    @kopf.on.create(*resource, id="executor", when=at("executor"))
    def executor(**kwargs):
        if args := cell("executor", kwargs):
            POOL.submit(run, **args)

    tasks = set()

    @kopf.on.create(*resource, id="task", when=at("task"))
    async def task(**kwargs):
        if args := cell("task", kwargs):
            tasks.add(asyncio.create_task(made(False, **args)))

    @kopf.on.update(*resource, id="update", when=at("handler", "async"))
    def update(**kwargs):
        cell("update", kwargs)

    # Kopf may see the rival's write and this one as one change, or as two.
    @kopf.on.update(*resource, id="field", field="spec.mine", when=at(*LATER))
    def field(**kwargs):
        cell("field", kwargs)


handlers("cells")
handlers("looses")
