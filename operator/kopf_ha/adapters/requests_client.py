"""The adapter for requests: the method of its adapters that every attempt passes, also after a redirect.

An operator may use requests for other services, too. Their requests pass untouched (`_servers`). pykube-ng and other
clients are built on it.
"""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import Retry, Timeout

from kopf_ha.adapters._bearer import renew
from kopf_ha.adapters._clusters import origin_of
from kopf_ha.adapters._servers import is_api_server
from kopf_ha.adapters._wiring import drive, headers_for, media_type, note_read
from kopf_ha.core.wire import WRITES, Request, Response

#: The method without the fence.
plain_send = HTTPAdapter.send


def install() -> None:
    """Fence what requests sends to the API server, also by sessions that exist already."""
    HTTPAdapter.send = _send  # type: ignore[method-assign, assignment]


@functools.wraps(plain_send)
def _send(adapter: HTTPAdapter, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
    url = urlsplit(request.url or "")
    if not is_api_server(url.scheme, url.hostname or "", url.port, url.path):
        return plain_send(adapter, request, *args, **options)
    options |= dict(zip(("stream", "timeout", "verify", "cert", "proxies"), args, strict=False))
    return send_fenced("requests", adapter, request, **options)


def send_fenced(
    client: str, adapter: HTTPAdapter, prepared: requests.PreparedRequest, **options: Any
) -> requests.Response:
    """Send one request. Each attempt of a write goes through the fence.

    urllib3 would try again below the fence, so the adapter's own policy is followed here (I8).

    Args:
        client: its name in metrics and the log.
        adapter: whose policy and connections are used.
        prepared: the request.
        options: of `HTTPAdapter.send`.
    """
    renew(prepared.headers)
    method, url = (prepared.method or "").upper(), prepared.url or ""
    if method not in WRITES:
        note_read(urlsplit(url).path)
        return plain_send(adapter, prepared, **options)
    policy, once = adapter.max_retries, _trying_once(adapter)
    while True:
        try:
            response = _attempt(client, once, prepared, options)
        except (requests.ConnectionError, requests.Timeout) as error:
            policy = _next(policy, method, url, error, error=_cause(error))
            policy.sleep()
            continue
        if not policy.is_retry(method, response.status_code, "Retry-After" in response.headers):
            return response
        try:
            policy = policy.increment(method, url, response=response.raw)
        except urllib3.exceptions.MaxRetryError as error:
            if policy.raise_on_status:
                raise requests.exceptions.RetryError(error, request=prepared) from error
            return response
        policy.sleep(response.raw)


def _attempt(
    client: str, adapter: HTTPAdapter, prepared: requests.PreparedRequest, options: dict[str, Any]
) -> requests.Response:
    parts = urlsplit(prepared.url or "")
    body, own = prepared.body, options.get("timeout")
    asked = Request(
        method=(prepared.method or "").upper(),
        path=parts.path,
        query=parts.query,
        content_type=media_type(prepared.headers),
        body=body.encode() if isinstance(body, str) else bytes(body or b""),
        timeout=own.total if isinstance(own, Timeout) and isinstance(own.total, int | float) else None,
    )

    def send(out: Request) -> Response:
        copy = prepared.copy()
        copy.method = out.method
        copy.url = urlunsplit(parts._replace(path=out.path, query=out.query))
        if out is not asked:
            copy.headers = CaseInsensitiveDict(headers_for(out, asked, prepared.headers.items()))
            copy.prepare_body(out.body or None, None)
        if out.timeout is not None and out.timeout <= 0:
            raise requests.ReadTimeout("the write took longer than its total timeout", request=prepared)
        got = plain_send(adapter, copy, **{**options, "timeout": _timeout(own, out.timeout)})
        return Response(got.status_code, got.content, got)

    response: requests.Response = drive(client, asked, send, origin_of(prepared.url or "")).raw
    return response


def _trying_once(adapter: HTTPAdapter) -> HTTPAdapter:
    """Return the same adapter, with the same connections, without attempts of its own."""
    once: HTTPAdapter = object.__new__(type(adapter))
    once.__dict__.update(adapter.__dict__)
    once.max_retries = Retry(0, read=False)
    return once


def _next(policy: Retry, method: str, url: str, raised: Exception, *, error: Exception) -> Retry:
    """Return the policy for one more attempt.

    Raises:
        Exception: `raised`, if there is none.
    """
    try:
        return policy.increment(method, url, error=error)
    except (urllib3.exceptions.MaxRetryError, type(error)):
        raise raised from None


def _cause(error: Exception) -> Exception:
    """Return what urllib3 raised, by which its policies decide."""
    cause = error.args[0] if error.args else error
    if isinstance(cause, urllib3.exceptions.MaxRetryError) and cause.reason is not None:
        return cause.reason
    return cause if isinstance(cause, Exception) else error


def _timeout(given: Any, limit: float | None) -> Any:
    """Return the client's timeouts, with the limit of the fence's request as the total."""
    if limit is None or isinstance(given, Timeout):
        return given if limit is None else Timeout(connect=given._connect, read=given._read, total=limit)
    connect, read = given if isinstance(given, tuple) else (given, given)
    return Timeout(connect=connect, read=read, total=limit)
