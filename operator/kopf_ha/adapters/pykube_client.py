"""The adapter for pykube-ng: the method of its requests adapter that every attempt passes, also after a 401."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import Timeout

from kopf_ha.adapters._wiring import drive, headers_for, note_read
from kopf_ha.core.wire import WRITES, Request, Response


def fenced_send(adapter: HTTPAdapter, prepared: requests.PreparedRequest, **options: Any) -> requests.Response:
    """Send one attempt of a request. A write goes through the fence."""
    if (prepared.method or "").upper() not in WRITES:
        note_read(urlsplit(prepared.url or "").path)
        return HTTPAdapter.send(adapter, prepared, **options)
    parts = urlsplit(prepared.url or "")
    body = prepared.body
    asked = Request(
        method=(prepared.method or "").upper(),
        path=parts.path,
        query=parts.query,
        content_type=prepared.headers.get("Content-Type", "").partition(";")[0].strip(),
        body=body.encode() if isinstance(body, str) else bytes(body or b""),
    )

    def send(out: Request) -> Response:
        copy = prepared.copy()
        copy.method = out.method
        copy.url = urlunsplit(parts._replace(path=out.path, query=out.query))
        if out is not asked:
            copy.headers = CaseInsensitiveDict(headers_for(out, asked, prepared.headers.items()))
            copy.prepare_body(out.body or None, None)
        got = HTTPAdapter.send(adapter, copy, **{**options, "timeout": _timeout(options.get("timeout"), out.timeout)})
        return Response(got.status_code, got.content, got)

    response: requests.Response = drive("pykube", asked, send).raw
    return response


def _timeout(given: Any, limit: float | None) -> Any:
    """Return the client's timeouts, with what is left of the grant as the total."""
    if limit is None or isinstance(given, Timeout):
        return given if limit is None else Timeout(connect=given._connect, read=given._read, total=limit)
    connect, read = given if isinstance(given, tuple) else (given, given)
    return Timeout(connect=connect, read=read, total=limit)


def install() -> None:
    """Fence every `pykube.HTTPClient`, also those that exist already."""
    from pykube.http import KubernetesHTTPAdapter

    KubernetesHTTPAdapter._do_send = fenced_send
