"""Requests and answers as the fence sees them, whichever client sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to the API server.

    Args:
        method: upper case.
        path: from the root, without the query: ``/api/v1/namespaces/x/configmaps/y``.
        query: the raw query string, without ``?``.
        content_type: of the body; its parameters (``; charset``) are cut off.
        body: raw bytes.
        timeout: seconds that it may take at most; None for the client's own.
    """

    method: str
    path: str
    query: str = ""
    content_type: str = ""
    body: bytes = b""
    timeout: float | None = None

    @property
    def json(self) -> Any:
        """Parse the body; None when there is none."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. `raw` is the client's own object, which the fence hands back untouched."""

    status: int
    body: bytes = b""
    raw: Any = field(default=None, compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the server accepted the request."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        """Parse the body; None when it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def message(self) -> str:
        """The sentence of a `Status` answer, or the start of the text."""
        data = self.json
        if isinstance(data, Mapping) and isinstance(data.get("message"), str):
            return str(data["message"])
        return self.body[:300].decode("utf-8", "replace")
