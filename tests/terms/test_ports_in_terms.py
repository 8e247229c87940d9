"""A port that a startup handler opens is not bound twice by one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import kopf
import pytest
import requests

from devcluster.waiting import until
from kopf_ha.run.ending import EXIT_LOST
from testbed.ports import free_port
from tests.run.support import GROUP, LONG, Marks, Running, World, registry

Run = Callable[..., Running]


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def opening(marks: Marks, port: int, *, closes: bool) -> kopf.OperatorRegistry:
    """An operator that serves something of its own, as those do that had metrics or probes before Kopf had."""
    made = registry()

    @kopf.on.startup(registry=made, id="serve")
    def serve(memo: kopf.Memo, **_: Any) -> None:
        memo.server = HTTPServer(("127.0.0.1", port), Answer)
        threading.Thread(target=memo.server.serve_forever, daemon=True).start()
        marks.put("startup", memo.server)

    @kopf.on.cleanup(registry=made, id="end")
    def end(memo: kopf.Memo, **_: Any) -> None:
        if closes:
            memo.server.shutdown()
            memo.server.server_close()

    @kopf.on.create(GROUP, "v1", "things", registry=made)
    def created(patch: kopf.Patch, **_: Any) -> None:
        patch.status["done"] = True

    return made


def close(marks: Marks) -> None:
    for server in marks.all("startup"):
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("closes", [True, False])
def test_a_process_leads_again_only_if_the_port_was_closed(
    run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture, closes: bool
) -> None:
    port = free_port()
    running = run(opening(marks, port, closes=closes))
    marks.wait("startup")
    world.take_lease()
    if closes:
        marks.wait("startup", 2)
        assert running.stop() == 0
        return
    assert running.wait() == EXIT_LOST
    assert f"leaving, since code of the term still listens at 127.0.0.1:{port}, which a second term" in caplog.text
    assert len(marks.all("startup")) == 1
    close(marks)


def test_with_webhooks_the_port_is_open_on_each_replica_and_in_the_term(run: Run, world: World, marks: Marks) -> None:
    port = free_port()
    handlers = opening(marks, port, closes=False)
    kopf.on.validate(GROUP, "v1", "things", registry=handlers, id="check")(lambda **_: None)

    @kopf.on.startup(registry=handlers, id="admission")
    def admission(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.admission.server = kopf.WebhookServer(addr="127.0.0.1", port=free_port(), insecure=True)

    running = run(handlers)
    world.create("Thing", "a")
    until("the term's handler", lambda: (world.get("things", "a").get("status") or {}).get("done"), LONG)
    assert len(marks.all("startup")) == 2
    for _ in range(10):  # either server may answer
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=LONG).ok
    assert running.stop() == 0
    close(marks)
