"""The one client of the API server: requests, pages and streams of JSON, by an `ApiClient` of the `kubernetes` package.

One path for all requests, one tree of errors: without an answer `Unreached` is raised, for a refusal `ApiRefused`. Any
other exception is a bug, and is not caught here. The class for each kind in the `kubernetes` package is not used: one
takes 240 models along, 0.3 s of a start and 20 MB, and drops fields that it does not know.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, ApiException
from urllib3 import exceptions as u3

from kopf_ha.core.wire import Response
from kopf_ha.errors import ApiRefused, Unreached

#: Seconds to wait for an answer, where the caller says nothing else.
TIMEOUT = 30.0
#: Objects that a list asks for at a time, as client-go does.
PAGE = 500
#: Seconds between attempts at a page. An API server that meets a custom kind for the first time answers 429.
WAITS = (0.1, 0.2, 0.4, 0.8)

#: How RBAC refuses, for people: which user lacks which permission. No decision is made by it.
_FORBIDDEN = re.compile(
    r'User "([^"]+)" cannot (\w+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)")?'
)


def single_attempts(client: ApiClient) -> ApiClient:
    """Switch the retries of this `ApiClient` off: to send a PUT again is the decision of who sent it."""
    client.configuration.client_go_retries = False
    client.rest_client.pool_manager.connection_pool_kw["retries"] = False
    return client


class Api:
    """Requests by one `ApiClient`.

    All but `stream` may be called from any thread. One `stream` at a time, which `interrupt` ends from any thread.

    Args:
        client: an `ApiClient`; whether it is fenced, and how often it tries, is its own matter.
        remedy: what to do when a permission is missing, for the message; in whole sentences.
    """

    def __init__(self, client: ApiClient, remedy: str = "") -> None:
        self.client = client
        self._remedy = remedy
        self._streaming: Any = None
        self._interrupted = False

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = TIMEOUT
    ) -> Response:
        """Send one request. A refusal is an answer here, for callers that tell one refusal from another.

        Args:
            method: upper case.
            path: from the root, with its query.
            body: an object to send as JSON; None for none.
            content_type: of the body; JSON if it is empty.
            timeout: seconds for the whole answer.

        Raises:
            Unreached: there is no whole answer.
            Refused: the fence refused the write, if the client is fenced.
        """
        try:
            got = self._send(method, path, body, content_type, timeout)
            return Response(got.status, got.read(), got)
        except (u3.HTTPError, OSError) as error:
            raise self._unreached(error, f"{method} {path}", timeout) from error

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Send one request and give the JSON object in the answer; see `request`.

        Raises:
            ApiRefused: the answer is an error status.
            Unreached: there is no whole answer, or it is no JSON object.
            Refused: as with `request`.
        """
        answer = self.request(method, path, body, timeout=timeout)
        if not answer.ok:
            raise self.refused(answer, f"{method} {path}")
        return _parsed(answer.body, f"{method} {path}")

    def pages(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        timeout: float = TIMEOUT,
        waits: Sequence[float] = (),
    ) -> Iterator[dict[str, Any]]:
        """List with a consistent read; give the list objects, page by page.

        Args:
            path: of the collection, without a query.
            query: what to list: a selector.
            timeout: seconds for each page.
            waits: seconds before each further attempt at a page, if the server is about to be ready (429, 503).

        Raises:
            ApiRefused: the list was refused.
            Unreached: as with `call`.
        """
        asked = {**(query or {}), "limit": str(PAGE)}
        while True:
            page = self._page(f"{path}?{urlencode(asked)}", timeout, waits)
            yield page
            after = (page.get("metadata") or {}).get("continue")
            if not after:
                return
            asked["continue"] = after

    def items(self, path: str) -> Iterator[dict[str, Any]]:
        """List with a consistent read; give the objects. A server that is about to be ready is asked again.

        Raises:
            ApiRefused: the list was refused.
            Unreached: as with `call`.
        """
        for page in self.pages(path, waits=WAITS):
            yield from page.get("items") or ()

    def stream(
        self, path: str, query: Mapping[str, str], *, timeout: float, silence: float
    ) -> Iterator[dict[str, Any]]:
        """Watch; give the events, bookmarks too, until the server ends it.

        Args:
            path: of the collection, without a query.
            query: what to watch: a selector, and the ``resourceVersion`` to begin at.
            timeout: seconds to connect.
            silence: seconds without a byte after which the connection is taken for dead.

        Raises:
            ApiRefused: refused, at once or later; `status` 410 when the resourceVersion is too old.
            Unreached: not connected, broken, or silent for too long.
        """
        path = f"{path}?{urlencode({**query, 'watch': 'true', 'allowWatchBookmarks': 'true'})}"
        what = f"GET {path}"
        try:
            got = self._send("GET", path, None, "", (timeout, silence))
            if not 200 <= got.status < 300:
                raise self.refused(Response(got.status, got.read()), what)
        except (u3.HTTPError, OSError) as error:
            raise self._unreached(error, what, silence) from error
        answer = self._streaming = got.response
        with closing(answer):
            if self._interrupted:  # looked at after `_streaming` is set, so that no order of the two threads blocks
                return
            rest = b""
            for chunk in self._chunks(answer, what, silence):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = _parsed(line, what)
                    if event.get("type") == "ERROR":
                        status = event.get("object") or {}
                        said = Response(int(status.get("code") or 0), json.dumps(status).encode())
                        raise refusal(f"the API server ended {what}", said)
                    yield event

    def interrupt(self) -> None:
        """End a `stream` that another thread is blocked in, and any later one."""
        self._interrupted = True
        if self._streaming is not None:
            try:
                self._streaming.shutdown()
            except Exception:  # noqa: BLE001, S110  it had ended, or urllib3 is older: it ends with the next event
                pass

    def close(self) -> None:
        """Drop the connections."""
        self.client.close()

    # --- the one path

    def _send(self, method: str, path: str, body: Any, content_type: str, timeout: float | tuple[float, float]) -> Any:
        """Send it; give the answer with its body unread.

        Raises:
            urllib3.exceptions.HTTPError: no answer.
            OSError: no answer.
        """
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        call = self.client.param_serialize(
            method, path, header_params=headers, query_params=[], body=body, auth_settings=["BearerToken"]
        )
        try:
            return self.client.call_api(*call, _request_timeout=timeout)
        except ApiException as error:  # what the client makes of a TLS error
            raise u3.SSLError(str(error.reason)) from error

    def _page(self, path: str, timeout: float, waits: Sequence[float]) -> dict[str, Any]:
        for wait in waits:
            try:
                return self.call("GET", path, timeout=timeout)
            except ApiRefused as error:
                if error.status not in (429, 503):
                    raise
            time.sleep(wait)
        return self.call("GET", path, timeout=timeout)

    def _chunks(self, answer: urllib3.BaseHTTPResponse, what: str, silence: float) -> Iterator[bytes]:
        try:
            yield from answer.stream(None, decode_content=True)
        # A ValueError is what reading from a connection that was shut down may raise.
        except (u3.HTTPError, OSError, ValueError) as error:
            raise self._unreached(error, what, silence) from error

    # --- errors

    def _unreached(self, error: Exception, what: str, seconds: float) -> Unreached:
        """Say why there is no answer."""
        host = self.client.configuration.host
        if isinstance(error, u3.MaxRetryError) and error.reason is not None:
            error = error.reason  # how a client with a retry policy says it
        if isinstance(error, u3.NameResolutionError):
            return Unreached(f"cannot reach the API server: the name in {host} does not resolve", definite=True)
        if isinstance(error, u3.NewConnectionError):
            why = str(error.__cause__ or error)
            why = "connection refused" if "refused" in why else why
            return Unreached(f"cannot reach the API server at {host}: {why}", definite=True)
        if isinstance(error, u3.ConnectTimeoutError):
            return Unreached(f"cannot reach the API server at {host}: no connection in time", definite=True)
        if isinstance(error, u3.SSLError):
            return Unreached(f"no TLS with the API server at {host}: {error}")
        if isinstance(error, (u3.TimeoutError, TimeoutError)):
            return Unreached(f"the API server at {host} gave no answer to {what} in {seconds:.1f} s")
        return Unreached(f"the connection to the API server at {host} broke in {what}: {error}")

    def refused(self, answer: Response, what: str) -> ApiRefused:
        """Say what a refusal means and what to do about it."""
        message, where = answer.message, re.search("/namespaces/([^/?]+)", what)
        namespace = where[1] if where else ""
        cause = ""
        if answer.status == 401:
            cause = "the API server does not know these credentials (401): expired token, or another cluster's"
        elif answer.status == 403 and "being terminated" in message:
            cause = f"namespace {namespace} is being deleted"
        elif answer.status == 403 and (told := _FORBIDDEN.search(message)):
            user, verb, resource, group, granted = told.groups()
            resource += f".{group}" if group else ""
            resource += f" in namespace {granted}" if granted else ""
            remedy = f": {self._remedy}" if self._remedy else " (403)"
            cause = f"no permission to {verb} {resource} as {user}{remedy}"
        elif answer.status == 404 and "namespaces" in message:
            cause = f"namespace {namespace} does not exist: create it, or name another one"
        return refusal(f"the API server refused {what}", answer, cause)


def refusal(what: str, answer: Response, cause: str = "") -> ApiRefused:
    """Make the error of an answer that is no success.

    Args:
        what: what cannot be done; the status and the server's message follow it.
        answer: the API server's.
        cause: a whole sentence in place of all that.
    """
    data = answer.json
    reason = data.get("reason") if isinstance(data, Mapping) else None
    return ApiRefused(
        cause or f"{what}: {answer.status} {answer.message}",
        answer.status,
        reason=reason if isinstance(reason, str) else "",
        message=answer.message,
        body=answer.body,
    )


def _parsed(data: bytes, what: str) -> dict[str, Any]:
    body = Response(200, data).json
    if not isinstance(body, dict):
        raise Unreached(f"what answered to {what} is no API server: {data[:80]!r}")
    return body
