"""The health port: whatever a client sends, nothing is logged as an error, and the next probe is answered (I10)."""

from __future__ import annotations

import functools
import http.client
import logging
import socket

from hypothesis import given
from hypothesis import strategies as st

from kopf_ha.run.serving import Answer, Server, answering, path_of
from tests.fuzz.fuzzing import fuzzed

targets = st.sampled_from([b"/livez", b"//[", b"http://[::1", b"*", b"/%ff\x00", b""]) | st.binary(max_size=12)
lines = st.tuples(
    st.sampled_from([b"GET", b"HEAD", b"POST", b"PRI", b"\x16\x03\x01"]) | st.binary(max_size=4),
    targets,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9999999999999.1", b"HTTP/-1.x", b""]),
).map(b" ".join)
headers = st.lists(
    st.sampled_from([b"Expect: 100-continue", b"Content-Length: -1", b"Connection: close", b" folded", b":"])
    | st.binary(max_size=12),
    max_size=4,
).map(b"\r\n".join)
requests = st.one_of(
    st.tuples(lines, headers).map(lambda parts: b"\r\n".join(parts) + b"\r\n\r\n"),
    st.binary(max_size=40),
    st.integers(90, 120).map(lambda n: b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: b\r\n" % i for i in range(n)) + b"\r\n"),
    st.just(b"GET /" + b"a" * 20_000),
)


@functools.cache
def server() -> Server:
    """One for all examples, whoever draws them; it ends with the process."""

    async def before(path: str) -> None:
        assert isinstance(path, str)

    return Server("fuzz", 0, answering(lambda target: Answer(200, path_of(target))), host="127.0.0.1", before=before)


class Failures(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


@fuzzed(25)
@given(asked=requests)
def test_whatever_is_sent_to_the_health_port(asked: bytes) -> None:
    failures, port = Failures(), server().port
    logging.getLogger().addHandler(failures)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            try:
                client.sendall(asked)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except (ConnectionError, OSError):
                pass  # it was closed before it had read all
        probe = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        probe.request("GET", "/livez")
        answer = probe.getresponse()
        assert (answer.status, answer.read()) == (200, b"/livez")
        probe.close()
    finally:
        logging.getLogger().removeHandler(failures)
    assert not failures.seen
