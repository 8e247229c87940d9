"""A small HTTP server in its own thread, which answers even when the operator's code blocks its event loop.

Any pod may connect to it. So it holds few connections, each for a short time, and closes the oldest for a new one: a
client that keeps connections open cannot keep probes from being answered (I10). One event loop serves all of them,
since threads would be one more thing that clients can use up.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from kopf_ha.errors import ConfigurationError

logger = logging.getLogger("kopf_ha.run")

#: Seconds for a whole request, from the connection to the last byte of the answer.
PATIENCE = 10.0
#: Connections that are held at once. For one more, the oldest is closed.
SLOTS = 32
#: Connections that are accepted in one turn of the loop. So many more than `SLOTS` may be open for a moment.
BATCH = 16
#: Connections that the kernel keeps until they are accepted. A client whose connection it drops waits a second.
WAITING = 128
#: Bytes of a request, with its headers.
REQUEST = 16 * 1024


class Server:
    """One port on all addresses, served until `close`.

    Args:
        what: names what is served, for messages.
        port: TCP port; 0 takes a free one, see `port`.
        handler: answers requests without a body. It runs in the server's event loop, so it must not block.
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
        patience: float = PATIENCE,
        slots: int = SLOTS,
    ) -> None:
        try:
            self._socket = _listen(port)
        except OSError as error:
            raise ConfigurationError(f"{what} cannot be served at port {port}: {error}") from error
        self.port = int(self._socket.getsockname()[1])
        self._handler = handler
        self._patience = patience
        self._slots = slots
        self._open: dict[asyncio.StreamWriter, None] = {}  #: the oldest first
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
        server = await asyncio.start_server(self._connection, sock=self._socket, backlog=BATCH, limit=REQUEST)
        self._socket.listen(WAITING)
        await self._over.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        if len(self._open) > self._slots:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(self._patience):
                asked = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(asked, writer.get_extra_info("peername")))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client hung up, was too slow, or sent something else than HTTP
        finally:
            self._open.pop(writer, None)
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


class _Exchange:
    """A request that was read completely, in the form of the socket that a handler of `http.server` expects."""

    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self.answered = bytearray()

    def makefile(self, mode: str, size: int) -> io.BytesIO:
        return io.BytesIO(self._asked)

    def sendall(self, data: bytes) -> None:
        self.answered += data


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
