"""An administrator's requests, by one connection that is made again whenever it breaks."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from typing import Any
from urllib.parse import urlsplit

from devcluster import ControlPlane

MERGE, JSON = "application/merge-patch+json", "application/json"
IPAM = "/apis/ipam.kopf-ha.dev/v1"
#: Seconds that an answer may take.
TIMEOUT = 15.0


class Admin:
    """Sends requests to one API server; several threads may use it.

    Args:
        plane: the control plane.
        server: the number of the API server.
        bearer: a token of somebody else, in place of the administrator's certificate.
    """

    def __init__(self, plane: ControlPlane, server: int = 0, bearer: str = "") -> None:
        self._at = urlsplit(plane.servers[server])
        self._context = ssl.create_default_context(cafile=str(plane.ca_file))
        if not bearer:
            pki = plane.folder / "pki"
            self._context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        self._local = threading.local()

    def ask(self, method: str, path: str, body: Any = None, kind: str = JSON) -> tuple[int, dict[str, Any]]:
        """Send a request; give status and body. The status is 0 if there was no answer."""
        data = None if body is None else json.dumps(body)
        # What may have become stale since the last request is tried a second time, if that does no harm.
        for _ in range(2 if method == "GET" else 1):
            connection = self._connection()
            try:
                connection.request(method, path, data, self._headers | {"Content-Type": kind})
                answer = connection.getresponse()
                text = answer.read()
                return answer.status, _parsed(text)
            except (OSError, http.client.HTTPException):
                connection.close()
                del self._local.connection
        return 0, {}

    def get(self, path: str) -> dict[str, Any]:
        """Give an object or a list; an empty one without an answer, or if there is none."""
        status, body = self.ask("GET", path)
        return body if status == 200 else {}

    def _connection(self) -> http.client.HTTPSConnection:
        made: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if made is None:
            made = http.client.HTTPSConnection(
                self._at.hostname or "", self._at.port, timeout=TIMEOUT, context=self._context
            )
            self._local.connection = made
        return made


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": text.decode(errors="replace")[:300]}
