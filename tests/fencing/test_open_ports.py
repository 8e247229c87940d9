"""Ports that code of a term opens: known as long as they are open, and shared only where a handler runs twice."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kopf_ha._context import boottime, entered, entered_everywhere
from kopf_ha.adapters import _ports, _threads, open_ports, share_ports
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp


def grant(token: int = 7) -> Grant:
    return Grant(Stamp(token, "me", "ns/op", "u"), boottime() + 600)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    _ports.install()
    monkeypatch.setattr(_ports, "_share", False)


def listen(port: int = 0) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def address(sock: socket.socket) -> str:
    return f"127.0.0.1:{sock.getsockname()[1]}"


def test_a_port_is_the_terms_until_it_is_closed() -> None:
    mine, later = grant(7), grant(9)
    with entered(mine):
        one = listen()
        socket.create_connection(one.getsockname()).close()  # no port of ours
    outside = listen()
    assert open_ports(mine) == [address(one)]
    assert open_ports(later) == []
    one.close()
    assert open_ports(mine) == []
    outside.close()


def test_a_server_in_a_thread_of_the_handler_counts() -> None:
    _threads.install()
    mine, there = grant(), threading.Event()
    servers: list[HTTPServer] = []

    def serve() -> None:
        servers.append(HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler))
        there.set()
        servers[0].serve_forever()

    with entered(mine):
        threading.Thread(target=serve, daemon=True).start()
    assert there.wait(30)
    assert open_ports(mine) == [f"127.0.0.1:{servers[0].server_port}"]
    servers[0].shutdown()
    servers[0].server_close()


def test_a_server_that_nobody_refers_to_does_not_count() -> None:
    mine = grant()
    with entered(mine):
        circle: list[object] = [listen()]
    circle.append(circle)
    del circle
    with pytest.warns(ResourceWarning):
        assert open_ports(mine) == []


def test_only_a_startup_handler_that_runs_twice_shares_its_port() -> None:
    def both(again: bool) -> None:
        with entered_everywhere(again=again):
            first = listen()
        try:
            with entered(grant()):
                listen(first.getsockname()[1]).close()
        finally:
            first.close()

    with pytest.raises(OSError, match="in use"):
        both(again=True)
    share_ports()
    both(again=True)
    with pytest.raises(OSError, match="in use"):
        both(again=False)
