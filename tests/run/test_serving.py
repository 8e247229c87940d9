"""The health and the metrics port against whoever may connect to them: none keeps a probe from being answered (I10)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import MetricsHandler

from devcluster.waiting import until
from kopf_ha.run.serving import BATCH, SLOTS, Answer, Server, answering
from testbed.ports import free_port
from testbed.replica import SOURCE
from tests.run.support import LONG

MANY = 400
#: More than the process has open at any time, or threads.
FILES = 100

SERVE = """
import sys, threading
from kopf_ha.run.health import Health, Vitals
from kopf_ha.election.signs import Signs
from kopf_ha.settings import Settings
vitals = Vitals(Signs(alive=True), "lost", stopping="no")
Health(Settings(health_port=int(sys.argv[1])), lambda: vitals, lambda: 0.0).serve()
threading.Event().wait()
"""


@pytest.fixture
def process() -> Iterator[tuple[int, int]]:
    """A process of its own that serves its health: its port and its id."""
    port = free_port()
    args = [sys.executable, "-c", SERVE, str(port)]
    child = subprocess.Popen(args, env=os.environ | {"PYTHONPATH": str(SOURCE)})
    try:
        until("it to serve", lambda: livez(port), LONG)
        yield port, child.pid
    finally:
        child.kill()
        child.wait()


def livez(port: int) -> str:
    """Ask as a kubelet does: once, by a connection of its own. Empty when there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=LONG) as one:
            one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            return b"".join(iter(lambda: one.recv(4096), b"")).decode()
    except OSError:
        return ""


def test_slow_connections_use_nothing_up(process: tuple[int, int]) -> None:
    port, pid = process
    with contextlib.ExitStack() as held:
        for number in range(MANY):
            one = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LONG))
            with contextlib.suppress(OSError):  # it was hung up on already
                one.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            if number % 20 == 19:
                assert livez(port).startswith("HTTP/1.0 200 "), number
                assert len(os.listdir(f"/proc/{pid}/fd")) < FILES
                assert len(os.listdir(f"/proc/{pid}/task")) < FILES
        assert livez(port).endswith("\r\n\r\nok\n")


class Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/fails":
            raise ValueError("a fault of ours")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serves(handler: type[BaseHTTPRequestHandler] = Echo, **more: Any) -> Iterator[int]:
    server = Server("health", free_port(), handler, **more)
    try:
        yield server.port
    finally:
        server.close()


def test_the_deadline_is_the_whole_request_s() -> None:
    """A byte now and then does not put it off."""
    with serves(patience=0.3) as port, socket.create_connection(("127.0.0.1", port), timeout=LONG) as one:
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.05):
                    one.sendall(b"x")

        dripping = threading.Thread(target=drip)
        one.sendall(b"GET /a HTTP/1.1\r\nX-Slow: ")
        dripping.start()
        try:
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(1) == b"", "hung up on, without an answer"
        finally:
            over.set()
            dripping.join()


def test_who_does_not_read_is_hung_up_on() -> None:
    class Long(Echo):
        def do_GET(self) -> None:
            self.wfile.write(b"x" * 64_000_000)

    with serves(Long, patience=0.3) as port, socket.create_connection(("127.0.0.1", port), timeout=LONG) as one:
        one.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        until("it to hang up", lambda: hung_up(one), LONG)


def hung_up(one: socket.socket) -> bool:
    """Whether the other side is gone; nothing is read."""
    try:
        one.sendall(b"x")
    except OSError:
        return True
    return False


def test_when_all_places_are_taken_the_oldest_goes() -> None:
    with serves(patience=LONG, slots=3) as port, contextlib.ExitStack() as held:
        made = [held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LONG)) for _ in range(3)]
        assert livez(port)
        with contextlib.suppress(ConnectionResetError):
            assert made[0].recv(1) == b""
        made[2].sendall(b"GET /late HTTP/1.1\r\n\r\n")
        assert made[2].recv(4096).startswith(b"HTTP/1.0 200 ")


def test_who_only_connects_does_not_keep_a_slow_probe_from_its_answer() -> None:
    begun, may_end = threading.Event(), threading.Event()

    async def before(path: str) -> None:
        begun.set()
        await asyncio.to_thread(may_end.wait, LONG)

    server = Server("test", 0, answering(lambda path: Answer(200, "alive")), before=before, slots=2)
    try:
        with contextlib.ExitStack() as stack:
            asking = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=LONG))
            asking.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert begun.wait(LONG)
            idle = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=LONG))
                for _ in range(10)
            ]
            assert idle[0].recv(1) == b"", "the oldest of them goes"
            may_end.set()
            assert b"alive" in b"".join(iter(lambda: asking.recv(4096), b""))
    finally:
        server.close()


def test_a_request_that_is_too_long_is_none() -> None:
    with serves() as port, socket.create_connection(("127.0.0.1", port), timeout=LONG) as one:
        with contextlib.suppress(OSError):
            for _ in range(1000):
                one.sendall(b"x" * 1000)
        with contextlib.suppress(OSError):
            assert one.recv(1) == b""
        assert "/livez" in livez(port)


def test_a_fault_of_ours_ends_one_request(caplog: pytest.LogCaptureFixture) -> None:
    with serves() as port:
        with socket.create_connection(("127.0.0.1", port), timeout=LONG) as one:
            one.sendall(b"GET /fails HTTP/1.1\r\n\r\n")
            assert one.recv(1) == b""
        assert "/livez" in livez(port)
    assert "a fault of ours" in caplog.text


def test_prometheus_own_handler() -> None:
    registry = CollectorRegistry()
    Gauge("a_gauge", "x", registry=registry).set(3)
    with serves(MetricsHandler.factory(registry)) as port:
        assert "a_gauge 3.0" in livez(port)


def test_what_it_may_open_is_little() -> None:
    assert SLOTS + 3 * BATCH < FILES
