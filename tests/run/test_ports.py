"""Ports that the operator opens in a term, and that a later term of the process could not open again."""

from __future__ import annotations

import asyncio
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import kopf
import pytest

from devcluster.waiting import until
from kopf_ha._context import boottime, entered
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.run import ports
from kopf_ha.run.ending import EXIT_LOST
from testbed.ports import free_port
from tests.run.support import LONG, Marks, World, registry
from tests.run.test_terms import Run


@pytest.fixture
def term() -> Grant:
    ports.install()
    return Grant(Stamp(7, "me", "ns/op", "uid"), boottime() + 600)


def server(port: int) -> HTTPServer:
    return HTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler)


def test_what_a_term_opened_and_did_not_close_is_known(term: Grant) -> None:
    before, made = server(0), []
    with entered(term):
        made.append(server(0))
    with entered(Grant(Stamp(8, "me", "ns/op", "uid"), 0.0)):
        other = server(0)
    assert ports.left_open(term) == [f"127.0.0.1:{made[0].server_port}"]
    made[0].server_close()
    assert ports.left_open(term) == []
    before.server_close()
    other.server_close()


def test_asyncio_s_servers_count_until_they_are_closed(term: Grant) -> None:
    async def main() -> None:
        with entered(term):
            made = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        assert len(ports.left_open(term)) == 1
        made.close()
        await made.wait_closed()
        assert ports.left_open(term) == []

    asyncio.run(main())


def test_a_socket_that_nobody_holds_any_more_is_closed(term: Grant) -> None:
    with entered(term):
        made: socket.socket | None = socket.create_server(("127.0.0.1", 0))
    assert len(ports.left_open(term)) == 1
    with pytest.warns(ResourceWarning):
        made = None
    assert made is None
    assert ports.left_open(term) == []


@pytest.mark.parametrize("closes", [False, True])
def test_a_port_that_is_left_open_ends_a_process_that_would_follow(
    run: Run, world: World, marks: Marks, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In the next term Kopf would try the startup handler once a minute, for ever, while nobody else leads."""
    handlers, port, opened = registry(), free_port(), []

    @kopf.on.startup(registry=handlers, id="serve")
    def serve(**_: Any) -> None:
        opened.append(server(port))
        marks.put("served")

    @kopf.on.cleanup(registry=handlers, id="close")
    def close(**_: Any) -> None:
        if closes:
            opened[-1].server_close()

    running = run(handlers, world.settings(after_loss="follow"))
    marks.wait("served")
    try:
        world.take_lease()
        if closes:
            marks.wait("served", 2)
            assert running.stop() == 0
        else:
            until("its end", lambda: running.ended, LONG)
            assert running.wait() == EXIT_LOST
            assert f"127.0.0.1:{port} is still open" in caplog.text
    finally:
        for one in opened:
            one.server_close()
