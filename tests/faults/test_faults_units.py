"""The parts of the fault matrix that need no cluster: the link, the clocks, the rule of the soak run, and the page."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from devcluster.waiting import until
from faults import report, soak
from faults.__main__ import PAGE, ROWS, chosen
from faults.answers import status
from faults.clock import Clock, library
from faults.link import Link, Request
from faults.runner import Outcome


class Served(BaseHTTPRequestHandler):
    """Stores what is written, and sends an event of a watch each time."""

    protocol_version = "HTTP/1.1"

    def do_PATCH(self) -> None:
        stored = self.server.stored  # type: ignore[attr-defined]
        stored.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._tell(b"done")

    def do_GET(self) -> None:
        if "watch" not in self.path:
            self._tell(b"read")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(2):
            self.server.events.acquire()  # type: ignore[attr-defined]
            self.wfile.write(b"5\r\nevent\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _tell(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Place:
    """A server, a link in front of it, and clients of the link."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        pair = ca.issue_cert("127.0.0.1")
        cert, key, self.ca = folder / "cert", folder / "key", folder / "ca"
        cert.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        key.write_bytes(pair.private_key_pem.bytes())
        ca.cert_pem.write_to_path(str(self.ca))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
        self.server.daemon_threads = True
        self.stored: list[str] = []
        self.events = threading.Semaphore(0)
        self.server.stored, self.server.events = self.stored, self.events  # type: ignore[attr-defined]
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.link = Link(f"https://127.0.0.1:{self.server.server_port}", str(cert), str(key), str(self.ca))
        self.link.start()

    def connect(self) -> http.client.HTTPSConnection:
        port = int(self.link.url.rpartition(":")[2])
        return http.client.HTTPSConnection("127.0.0.1", port, context=ssl.create_default_context(cafile=self.ca))

    def patch(self, text: str) -> tuple[int, bytes]:
        connection = self.connect()
        connection.request("PATCH", "/pools/p", text)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self.link.stop()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        made.close()


def is_write(request: Request) -> bool:
    return request.is_write


@pytest.mark.parametrize("after", [False, True])
def test_a_write_is_held_before_or_after_it_is_stored(place: Place, after: bool) -> None:
    trap = place.link.arm(is_write, after=after)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(place.patch, "a")
        assert trap.hit.wait(30)
        assert place.stored == (["a"] if after else [])
        assert not answer.done()
        place.link.release(trap)
        assert answer.result(30) == (200, b"done")
    assert place.stored == ["a"]


def test_what_is_held_can_be_lost(place: Place) -> None:
    trap = place.link.arm(is_write, nth=2)
    assert place.patch("first") == (200, b"done")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(place.patch, "second")
        assert trap.hit.wait(30)
        place.link.release(trap, deliver=False)
        with pytest.raises((OSError, http.client.HTTPException)):
            answer.result(30)
    assert place.stored == ["first"]


def test_an_answer_is_lost_and_the_write_is_stored(place: Place) -> None:
    place.link.loses = is_write
    with pytest.raises((OSError, http.client.HTTPException)):
        place.patch("a")
    assert place.stored == ["a"]


def test_a_write_arrives_after_the_partition_though_its_client_is_gone(place: Place) -> None:
    place.link.hears = False
    connection = place.connect()
    connection.request("PATCH", "/pools/p", "late")
    connection.close()
    assert place.stored == []
    place.link.heal()
    until("the late write", lambda: place.stored == ["late"], 30)


def test_it_answers_in_the_servers_place(place: Place) -> None:
    place.link.answers = lambda request: status(429, "TooManyRequests", "later", "Retry-After: 1")
    code, body = place.patch("a")
    assert (code, place.stored) == (429, [])
    assert b'"reason":"TooManyRequests"' in body


def test_an_open_watch_is_silent_and_a_new_one_is_not(place: Place) -> None:
    old = place.connect()
    old.request("GET", "/pools?watch=true")
    answer = old.getresponse()
    until("the watch to be open", lambda: bool(place.link._streams), 30)
    place.link.silence(lambda request: request.is_watch)
    until("it to be silent", lambda: bool(place.link._silent), 30)
    place.events.release(2)  # its two events
    new = place.connect()
    new.request("GET", "/pools?watch=true")
    place.events.release(2)
    assert new.getresponse().read() == b"eventevent"
    old.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        answer.read(1)
    place.link.cut(lambda request: request.is_watch)
    until("it to be closed", lambda: not place.link._streams, 30)


def test_each_clock_is_changed_by_itself(tmp_path: Path) -> None:
    made = library(tmp_path)
    if made is None:
        pytest.skip("no C compiler")
    clock = Clock(tmp_path / "clock")
    clock.wall(ahead=86_400)
    clock.boot(ahead=-1000)
    code = (
        "import time; print(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic(),"
        " __import__('datetime').datetime.now().timestamp())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | clock.environment(made),
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    wall, boot, mono, date = (float(word) for word in said.split())
    assert 86_000 < wall - time.time() < 87_000
    assert 86_000 < date - time.time() < 87_000
    assert -1100 < boot - time.clock_gettime(time.CLOCK_BOOTTIME) < -900
    assert abs(mono - time.monotonic()) < 100


def samples(rise: float, noise: float = 0.0, count: int = 361) -> tuple[list[float], list[float]]:
    """An hour of samples that rise so much in it."""
    times = [10.0 * n for n in range(count)]
    return times, [100 + rise * t / 3600 + noise * (n * 7919 % 11 - 5) for n, t in enumerate(times)]


@pytest.mark.parametrize(
    ("rise", "noise", "expected"),
    [(0, 0, True), (0, 2, True), (4, 0, True), (7, 0, False), (7, 2, False), (-20, 0, True)],
)
def test_what_is_flat(rise: float, noise: float, expected: bool) -> None:
    times, values = samples(rise, noise)
    assert soak.flat("memory, MB", times, values)[0] is expected


def test_what_grew_in_the_first_half_only_is_flat() -> None:
    times, _ = samples(0)
    assert soak.flat("memory, MB", times, [min(t, 1800) / 10 for t in times])[0]


def test_requests_must_not_become_fewer() -> None:
    times, values = samples(-20)
    assert not soak.flat("requests a minute", times, values)[0]


def test_one_more_file_now_and_then_is_a_leak() -> None:
    times, _ = samples(0)
    assert not soak.flat("open files", times, [20 + t // 600 for t in times])[0]


def test_names_are_unique_and_choose() -> None:
    names = [f"{f.name} [{f.where.value}]" for f in ROWS]
    assert len(set(names)) == len(names)
    assert [f.name for f in chosen(["429 to the Lease"], quick=False)] == ["429 to the Lease"]
    assert chosen([], quick=True)


def test_the_page_states_each_bound() -> None:
    page = PAGE.read_text()
    lease = 5
    missing = [
        f.name
        for f in ROWS
        if f"| {f.name} | {f.where.value} | {report.bound(Outcome(f, f.limit(lease)), lease)} |" not in page
    ]
    assert missing == []
