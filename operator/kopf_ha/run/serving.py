"""A small HTTP server in threads of its own, which answers whatever the operator's code does to its loop."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

from kopf_ha.errors import ConfigurationError

logger = logging.getLogger("kopf_ha.run")

#: Seconds after which a client that sends nothing is hung up on, so that no thread waits for ever.
PATIENCE = 10.0


class _Server(socketserver.ThreadingTCPServer):
    """Not `http.server`'s own, which asks the DNS for its name before it serves."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # One socket for both: a pod's address may be of either family, and probes go to it.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that hung up."""
        if not isinstance(sys.exception(), OSError):
            logger.error("a request to %s failed", threading.current_thread().name, exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class Server:
    """One port on all addresses, served until `close`.

    Args:
        what: is served, for the sentence when it cannot be.
        port: TCP port; 0 takes a free one, see `port`.
        handler: answers the requests.

    Raises:
        ConfigurationError: the port cannot be had.
    """

    def __init__(self, what: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        # A class of its own, since the time-out is an attribute of the class.
        patient = type(handler.__name__, (handler,), {"timeout": PATIENCE})
        try:
            if socket.has_dualstack_ipv6():
                self._server: _Server = _Server6(("::", port), patient)
            else:
                self._server = _Server(("0.0.0.0", port), patient)  # noqa: S104  the kubelet asks from outside
        except OSError as error:
            raise ConfigurationError(f"{what} cannot be served at port {port}: {error}") from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name=f"kopf-ha-{what}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and give the port back."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(serve: Callable[[], Server | None]) -> Iterator[None]:
    """Serve for the body, if there is a port to serve at."""
    server = serve()
    try:
        yield
    finally:
        if server is not None:
            server.close()
