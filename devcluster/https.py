"""A small HTTPS client for probes of the control plane: faster than starting kubectl for each."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devcluster.certs import Pair


class Client:
    """A client for servers whose certificates are signed by `ca`. It authenticates by the certificate `pair`."""

    def __init__(self, ca: Path, pair: Pair, timeout: float = 5.0) -> None:
        self._context = ssl.create_default_context(cafile=str(ca))
        self._context.load_cert_chain(pair.cert, pair.key)
        self._timeout = timeout

    def ask(self, url: str, method: str = "GET", body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Send one request, without redirects and proxies. Return status and body, or (0, reason) if no answer came."""
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=self._timeout, context=self._context
        )
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()
