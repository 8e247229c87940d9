"""Requests and answers as the fence sees them, whichever client sends them."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to the API server.

    Args:
        method: upper case.
        path: from the root, without the query: ``/api/v1/namespaces/x/configmaps/y``.
        query: the raw query string, without ``?``.
        content_type: of the body; its parameters (``; charset``) are cut off.
        body: raw bytes.
        timeout: seconds that it may take at most. Of a client's: with all that the fence sends for it; None if it sets
            no such limit. Of the fence's: none are left if it is not above 0, and the adapter raises what the client
            does after its timeout.
        after: seconds to wait before it is sent. The fence asks so only for reads: no write may wait behind the gate.
            In front of it, a write waits with `AT_GATE`.
    """

    method: str
    path: str
    query: str = ""
    content_type: str = ""
    body: bytes = b""
    timeout: float | None = None
    after: float = 0.0

    @property
    def json(self) -> Any:
        """Parse the body; None when there is none."""
        return json.loads(self.body) if self.body else None

    @property
    def is_merge_patch(self) -> bool:
        """Whether this is a merge patch, plain or strategic."""
        return self.method == "PATCH" and self.content_type in (MERGE_PATCH, STRATEGIC_MERGE_PATCH)

    @property
    def is_json_patch(self) -> bool:
        """Whether this is a JSON patch (RFC 6902)."""
        return self.method == "PATCH" and self.content_type == JSON_PATCH

    @property
    def is_apply(self) -> bool:
        """Whether this is a server-side apply, which creates the object if it does not exist."""
        return self.method == "PATCH" and self.content_type in APPLY


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. `raw` is the client's own object, which the fence returns untouched."""

    status: int
    body: bytes = b""
    raw: Any = field(default=None, compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the server accepted the request."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        """Parse the body; None when it is no JSON, or nested too deeply for Python."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def message(self) -> str:
        """The message of a `Status` answer, or else the start of the body."""
        data = self.json
        if isinstance(data, Mapping) and isinstance(data.get("message"), str):
            return str(data["message"])
        return self.body[:300].decode("utf-8", "replace")


#: A flow yields it instead of a request: wait until the grant changes or can change no more, send nothing, and answer
#: with `WAITED`. The flow looks at the grant again.
AT_GATE = Request("", "")
WAITED = Response(0)

T = TypeVar("T")

#: A function without I/O that needs answers: it yields each request to send, is sent the answer, and returns a `T`.
Steps: TypeAlias = Generator[Request, Response, T]

#: Steps that return the answer which the client gets.
Flow: TypeAlias = Steps[Response]


def is_conflict(request: Request, answer: Response) -> bool:
    """Whether a precondition of a write failed. The API server answers 422 to the failed `test` of a JSON patch."""
    return answer.status == 409 or (answer.status == 422 and request.is_json_patch)


def is_gone(answer: Response, name: str) -> bool:
    """Whether there is no object of this name. A 404 without its name means that the path is not served (yet)."""
    details = (answer.json or {}).get("details") if answer.status == 404 else None
    return isinstance(details, Mapping) and details.get("name") == name


class OwnRequestRefused(Exception):
    """A request that the fence itself needed was refused (403, 429, 5xx), so that its question is not answered.

    The client gets this answer in place of the one to its own request, so its own error handling deals with it.
    """

    def __init__(self, answer: Response) -> None:
        super().__init__(f"{answer.status} {answer.message}")
        self.answer = answer
