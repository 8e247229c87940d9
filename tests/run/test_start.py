"""What must not keep handlers waiting: what Kopf may not read, what is down, and how Kopf looks at daemons."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import kopf
import pytest
import yaml

from devcluster.waiting import until
from kopf_ha import _kopf
from kopf_ha.run.kopf_thread import KopfOptions, KopfThread
from tests.run.support import GROUP, LONG, Running, World, registry

DEAD = "dead.kopf-ha.test"


class Asked:
    """Kopf as a term starts it. Its requests are noted."""

    def __init__(self, world: World, token: str, **where: Any) -> None:
        self.requests: list[tuple[str, int]] = []  #: path and status of each, in order
        self.handled = threading.Event()
        self.overs: list[BaseException | None] = []
        handlers = _kopf.new_registry()
        config = yaml.safe_load(world.cluster.kubeconfig.read_text())
        server = str(config["clusters"][0]["cluster"]["server"])

        async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            response = await handler(request)
            watch = "?watch" if "watch" in request.url.query else ""
            self.requests.append((request.url.path + watch, response.status))
            return response

        @kopf.on.login(registry=handlers)
        async def login(**_: Any) -> kopf.AiohttpSession:
            connector = aiohttp.TCPConnector(ssl=False)
            headers = {"Authorization": f"Bearer {token}"}
            session = aiohttp.ClientSession(connector=connector, headers=headers, middlewares=(note,))
            return kopf.AiohttpSession(server=server, aiohttp_session=session)

        @kopf.on.event("things", registry=handlers)  # of whatever group, so that Kopf looks at all of them
        def seen(**_: Any) -> None:
            self.handled.set()

        self.thread = KopfThread(
            name="asked",
            inside=contextlib.nullcontext,
            main=self._main,
            root_ended=lambda _: None,
            over=self.overs.append,
        )
        self._options = KopfOptions(registry=handlers, **where)

    async def _main(self) -> None:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        operator = await self.thread.spawn(self._options, settings, "me")
        await operator.run()


@pytest.fixture
def dead_api(world: World) -> Iterator[str]:
    """An aggregated API without a backend, which discovery lists all the same."""
    body = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"v1.{DEAD}"},
        "spec": {
            "group": DEAD, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": True, "service": {"name": "nobody", "namespace": world.namespace},
        },
    }  # fmt: skip
    path = "/apis/apiregistration.k8s.io/v1/apiservices"
    world.ask("POST", path, body)
    until("discovery to list it", lambda: DEAD in json.dumps(world.read("/apis")), LONG)
    yield f"/apis/{DEAD}/v1"
    world.ask("DELETE", f"{path}/v1.{DEAD}")


@pytest.fixture
def token(world: World) -> str:
    """Of an account with a Role in its namespace, and no other rights."""
    world.kubectl("create", "serviceaccount", "op")
    world.kubectl("create", "role", "op", "--verb=*", f"--resource=things.{GROUP}")
    world.kubectl("create", "rolebinding", "op", "--role=op", f"--serviceaccount={world.namespace}:op")
    return world.kubectl("create", "token", "op").stdout.strip()


def test_a_role_in_one_namespace_and_a_dead_api_delay_no_handler(world: World, dead_api: str, token: str) -> None:
    world.create("Thing", "a")
    asked = Asked(world, token, namespaces=(world.namespace,))
    asked.thread.start()
    assert asked.handled.wait(LONG)
    before = list(asked.requests)
    asked.thread.stop()
    assert asked.thread.join(LONG)
    assert asked.overs == [None]
    assert before.count((dead_api, 503)) == 1
    assert before.count(("/api/v1/namespaces", 403)) == 1


def test_a_sync_daemon_that_ends_a_moment_late_does_not_delay_a_deletion(
    run: Callable[..., Running], world: World
) -> None:
    handlers, running = registry(), threading.Event()

    @kopf.on.startup(registry=handlers)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.background.cancellation_polling = 3600

    @kopf.daemon(GROUP, "v1", "things", registry=handlers)
    def stay(stopped: kopf.DaemonStopped, **_: Any) -> None:
        running.set()
        stopped.wait()
        time.sleep(0.02)

    world.create("Thing", "a")
    run(handlers)
    assert running.wait(LONG)
    until("the finalizer", lambda: world.get("things", "a")["metadata"].get("finalizers"), LONG)
    world.ask("DELETE", world.path("things", "a"))
    until("the object to be gone", lambda: not world.read(world.path("things", "a")), LONG)
