"""A small HTTP server in its own thread, which answers even when the operator's code blocks its event loop.

Any pod may connect to it. So it holds few connections, each for a short time, and closes the oldest for a new one: a
client that keeps connections open cannot keep probes from being answered (I10). One event loop serves all of them,
since threads would be one more thing that clients can use up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kopf_ha.errors import ConfigurationError

logger = logging.getLogger("kopf_ha.run")

#: Seconds for a whole request, from the connection to the last byte of the answer.
PATIENCE = 10.0
#: Connections that are held at once. For one more, the oldest is closed.
SLOTS = 32
#: Times as many may wait for an answer that takes long. They were read, so they cost little, and have to be answered.
ASKED = 16
#: Connections that are accepted in one turn of the loop. So many more than `SLOTS` may be open for a moment.
BATCH = 16
#: Connections that the kernel keeps until they are accepted. A client whose connection it drops waits a second.
WAITING = 128
#: Bytes of a request, with its headers.
REQUEST = 16 * 1024


class Answer(NamedTuple):
    """What is answered to a GET."""

    status: int
    text: str
    media_type: str = "text/plain; charset=utf-8"


class Server:
    """One port, served until `close`.

    Args:
        what: names what is served, for messages.
        port: TCP port; 0 takes a free one, see `port`.
        handler: answers requests without a body. It runs in the server's event loop, so it must not block.
        host: a name or an address; all addresses if it is empty.
        before: awaited before the handler answers, with the request's path: the handler itself cannot wait.
        patience: seconds for a whole request.
        slots: connections that are held at once.

    Raises:
        ConfigurationError: the port is not available.
    """

    def __init__(
        self,
        what: str,
        port: int,
        handler: type[BaseHTTPRequestHandler],
        *,
        host: str = "",
        before: Callable[[str], Awaitable[None]] | None = None,
        patience: float = PATIENCE,
        slots: int = SLOTS,
    ) -> None:
        try:
            self._sockets = _listen_at(host, port) if host else [_listen(port)]
        except OSError as error:
            where = f"{host}, port {port}" if host else f"port {port}"
            raise ConfigurationError(f"{what} cannot be served at {where}: {error}") from error
        self.port = int(self._sockets[0].getsockname()[1])
        self._handler = handler
        self._before = before
        self._patience = patience
        self._slots = slots
        self._open: dict[asyncio.StreamWriter, None] = {}  #: connections without a request so far; the oldest first
        self._asked: dict[asyncio.StreamWriter, None] = {}  #: those whose answer takes long; the oldest first
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name=f"kopf-ha-{what}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and close the port."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        servers = [
            await asyncio.start_server(self._connection, sock=one, backlog=BATCH, limit=REQUEST)
            for one in self._sockets
        ]
        for one in self._sockets:
            one.listen(WAITING)
        await self._over.wait()
        for server in servers:
            server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _hold(self._open, writer, self._slots)
        try:
            async with asyncio.timeout(self._patience):
                asked = await reader.readuntil(b"\r\n\r\n")
                if self._before is not None:
                    # Who only connects must not close the connection of who asked, and waits for a slow probe.
                    self._open.pop(writer, None)
                    _hold(self._asked, writer, self._slots * ASKED)
                    await self._before(_path(asked))
                    self._asked.pop(writer, None)
                    _hold(self._open, writer, self._slots)
                writer.write(self._answer(asked, writer.get_extra_info("peername")))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client hung up, was too slow, or sent something else than HTTP
        finally:
            self._open.pop(writer, None)
            self._asked.pop(writer, None)
            writer.transport.abort()

    def _answer(self, asked: bytes, peer: Any) -> bytes:
        """Let the handler read from memory and write to memory, so that it never waits for a client."""
        exchange: Any = _Exchange(asked)
        server: Any = self
        try:
            self._handler(exchange, peer, server)
        except Exception:
            logger.error("a request to %s failed", self._thread.name, exc_info=True)
        return bytes(exchange.answered)


def _hold(held: dict[asyncio.StreamWriter, None], writer: asyncio.StreamWriter, most: int) -> None:
    """Hold a connection, and close the oldest if there are too many."""
    held[writer] = None
    if len(held) > most:
        oldest = next(iter(held))
        del held[oldest]
        oldest.transport.abort()


class _Exchange:
    """A request that was read completely, in the form of the socket that a handler of `http.server` expects."""

    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self.answered = bytearray()

    def makefile(self, mode: str, size: int) -> io.BytesIO:
        return io.BytesIO(self._asked)

    def sendall(self, data: bytes) -> None:
        self.answered += data


def _path(asked: bytes) -> str:
    """Return the path of a request; empty if it is none."""
    words = asked.partition(b"\r\n")[0].decode("latin-1").split(" ")
    return path_of(words[1]) if len(words) > 1 else ""


def path_of(target: str) -> str:
    """Return the path of what stands in a request's first line; empty if it is no URL."""
    try:
        return urlsplit(target).path
    except ValueError:
        return ""


def answering(answer: Callable[[str], Answer]) -> type[BaseHTTPRequestHandler]:
    """Return a handler that answers GET and HEAD with what a function makes of the path and the query."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text, media_type = answer(self.path)
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Cache-Control", "no-cache, no-store, must-revalidate")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  the name is the base class's

        def version_string(self) -> str:
            return "kopf-ha"

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the kubelet asks every few seconds."""

    return Handler


def _listen_at(host: str, port: int) -> list[socket.socket]:
    """Listen on each address of a host. ``localhost`` has one of each family, and a pod may lack a family."""
    made: list[socket.socket] = []
    lacking: OSError | None = None
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                made.append(socket.create_server(address[:2], family=family))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                lacking = error
    except OSError:
        for one in made:
            one.close()
        raise
    if not made and lacking is not None:
        raise lacking
    return made


def _listen(port: int) -> socket.socket:
    """Listen on one socket for IPv4 and IPv6: a pod may have an address of either, and probes use it."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


@contextlib.contextmanager
def serving(serve: Callable[[], Server | None]) -> Iterator[None]:
    """Serve while the body runs. `serve` returns None if there is nothing to serve."""
    server = serve()
    try:
        yield
    finally:
        if server is not None:
            server.close()
