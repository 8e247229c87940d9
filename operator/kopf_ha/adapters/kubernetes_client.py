"""The adapter for the `kubernetes` client: a connection pool whose `urlopen` calls the fence at each attempt.

`PoolManager.urlopen` would see a request only once, while urllib3 below it sends PUT and DELETE again after a dropped
connection. So writes are retried here, by the retry policy that the caller configured, and each attempt is judged.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util.retry import Retry

from kopf_ha.adapters._bearer import renew
from kopf_ha.adapters._changed import change, is_changed
from kopf_ha.adapters._clusters import origin_of
from kopf_ha.adapters._wiring import drive, headers_for, media_type, note_read
from kopf_ha.core.wire import WRITES, Request, Response

#: An attribute of `RESTClientObject`: whether its pools are fenced. It is missing until `_fence` or `exempt` ran.
_FENCED = "_kopf_ha_fenced"


class _Fenced(HTTPConnectionPool):
    """A connection pool that sends every write through the fence."""

    def urlopen(  # type: ignore[override]
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        retries: Any = None,
        **options: Any,
    ) -> urllib3.BaseHTTPResponse:
        """Send one request. Each attempt of a write goes through the fence."""
        headers = HTTPHeaderDict(headers or self.headers)
        renew(headers)
        if method.upper() not in WRITES:
            note_read(urlsplit(url).path)
            return super().urlopen(method, url, body=body, headers=headers, retries=retries, **options)
        policy = retries if isinstance(retries, Retry) else Retry.from_int(retries, default=self.retries)
        while True:
            try:
                response = self._attempt(method.upper(), url, body, headers, options)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                policy = policy.increment(method, url, error=error, _pool=self)
                policy.sleep()
                continue
            if policy.is_retry(method, response.status, "Retry-After" in response.headers):
                policy = policy.increment(method, url, response=response, _pool=self)
                policy.sleep(response)
                continue
            return response

    def _origin(self, url: str) -> str:
        # Through a proxy, plain HTTP names the whole URL, and the pool is that of the proxy.
        if "://" in url:
            return origin_of(url)
        host = self.host.strip("[]")
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def _attempt(
        self, method: str, url: str, body: Any, headers: HTTPHeaderDict, options: dict[str, Any]
    ) -> urllib3.BaseHTTPResponse:
        given = options.get("timeout")
        own = given if isinstance(given, urllib3.Timeout) else urllib3.Timeout.from_float(_number(given))
        parts = urlsplit(url)
        preload = options.get("preload_content", True)

        def send(out: Request) -> Response:
            limit = own
            if out.timeout is not None:
                if out.timeout <= 0:
                    raise urllib3.exceptions.ReadTimeoutError(self, url, "the write took longer than its total timeout")
                limit = urllib3.Timeout(connect=own._connect, read=own._read, total=out.timeout)
            got = super(_Fenced, self).urlopen(
                out.method,
                urlunsplit(parts._replace(path=out.path, query=out.query)),
                body=out.body or None,
                headers=headers_for(out, asked, headers.items()),
                retries=False,
                **{**options, "timeout": limit, "preload_content": True},
            )
            return Response(got.status, got.data, got)

        asked = Request(
            method=method,
            path=parts.path,
            query=parts.query,
            content_type=media_type(headers),
            body=body.encode() if isinstance(body, str) else bytes(body or b""),
            timeout=_number(own.total),
        )
        got: urllib3.BaseHTTPResponse = drive("kubernetes", asked, send, self._origin(url)).raw
        if preload:
            return got
        # The caller wants to read the body as a stream, but the fence has read it already.
        return urllib3.HTTPResponse(
            body=io.BytesIO(got.data),
            headers=got.headers,
            status=got.status,
            reason=got.reason,
            version=got.version,
            preload_content=False,
            decode_content=False,
        )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


@functools.cache
def fenced_pool(plain: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """Return a subclass of a pool class, with the fence in it. TLS and proxies work as in the given class."""
    return type(f"Fenced{plain.__name__}", (_Fenced, plain), {"plain": plain})


def install() -> None:
    """Fence every `ApiClient`, also those that exist already. A second call has no effect."""
    from kubernetes.client import rest

    change(rest.RESTClientObject, "__init__", _making)
    change(rest.RESTClientObject, "request", _sending)


def _making(init: Callable[..., Any]) -> Callable[..., Any]:
    def made(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        _fence(self)

    return made


def _sending(send: Callable[..., Any]) -> Callable[..., Any]:
    def request(self: Any, *args: Any, **options: Any) -> Any:
        _fence(self)
        return send(self, *args, **options)

    return request


def installed() -> bool:
    """Return whether the clients of this process are fenced."""
    from kubernetes.client import rest

    return is_changed(rest.RESTClientObject.request)


def _fence(rest_client: Any) -> None:
    if hasattr(rest_client, _FENCED):
        return
    manager = rest_client.pool_manager
    manager.clear()
    manager.pool_classes_by_scheme = {s: fenced_pool(pool) for s, pool in manager.pool_classes_by_scheme.items()}
    setattr(rest_client, _FENCED, True)


def exempt(api_client: Any) -> Any:
    """Take one `ApiClient` out of the fence: that of the election, which writes only the Lease."""
    manager = api_client.rest_client.pool_manager
    manager.clear()
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: getattr(pool, "plain", pool) for scheme, pool in pools.items()}
    setattr(api_client.rest_client, _FENCED, False)
    return api_client
