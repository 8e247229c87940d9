"""The API server of tests/core over HTTP, on a socket that can drop a connection when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kopf_ha.core.wire import WRITES, Request, Response
from tests.core.fake_api import FakeApi

#: Told of each write before it is answered; may answer itself, or drop the connection.
Fault = Callable[[Request], Response | str | None]
DROP = "drop"


class HttpFake:
    """One server on a loopback port; `writes` are those that arrived, answered or not."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.fault: Fault = lambda request: None
        self.arrived: list[tuple[Request, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def writes(self, method: str = "", path: str = "") -> list[Request]:
        return [r for r, _ in self.arrived if r.method in WRITES and r.method.startswith(method) and path in r.path]

    def headers(self, method: str) -> list[dict[str, str]]:
        return [{k.lower(): v for k, v in h.items()} for r, h in self.arrived if r.method == method]

    def answer(self, request: Request, headers: dict[str, str]) -> Response | str:
        with self._lock:
            self.arrived.append((request, headers))
            return self.fault(request) or self.api.handle(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                kind = (self.headers.get("Content-Type") or "").partition(";")[0]
                headers = dict(self.headers.items())
                answer = fake.answer(Request(self.command, path, query, kind, body), headers)
                if isinstance(answer, str):
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.body)))
                for name, value in (answer.raw or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
