"""The adapter for httpx and httpx2, and so for kr8s, lightkube and easykube: the transports that every attempt passes.

Redirects, attempts after a 401 and transports that try again are all above it. What httpx tries again below it is to
connect, before anything is sent.

An operator may use httpx for other services, too. Their requests pass untouched (`_servers`).
"""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from kopf_ha._context import boottime
from kopf_ha.adapters._bearer import renew
from kopf_ha.adapters._changed import change
from kopf_ha.adapters._clusters import origin_of
from kopf_ha.adapters._imported import when_imported
from kopf_ha.adapters._servers import add, is_api_server
from kopf_ha.adapters._wiring import adrive, drive, headers_for, media_type, note_read
from kopf_ha.core.wire import WRITES, Request, Response

logger = logging.getLogger("kopf_ha.fence")

#: httpx, and the one that took over from it. lightkube uses the second.
PACKAGES = ("httpx", "httpx2")
_PHASES = ("connect", "read", "write", "pool")
#: For each Kubernetes client on httpx: its module, the class, the methods that it calls when it is made or for each
#: request, and where the object then has its server.
CLIENTS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "kr8s._api": ("Api", ("_construct_url",), "auth.server"),
    "lightkube.core.generic_client": ("GenericClient", ("__init__", "build_adapter_request"), "config.cluster.server"),
    "easykube.kubernetes.client.client": ("BaseClient", ("__init__", "build_request"), "base_url"),
}


def install() -> None:
    """Fence both packages' transports, also those that exist already, as soon as the operator imports them."""
    for name in PACKAGES:
        when_imported(name, fence)
    for name in CLIENTS:
        when_imported(name, learn_servers)


def learn_servers(module: ModuleType) -> None:
    """Let a client tell which server it was configured with. A second call has no effect."""
    of, methods, where = CLIENTS[module.__name__]
    cls = getattr(module, of, None)
    for name in methods:
        if cls is None or not hasattr(cls, name):
            _warn(module.__name__, f"{of}.{name}")
        else:
            change(cls, name, functools.partial(_telling, operator.attrgetter(where)))


def _telling(server: Callable[[Any], Any], given: Callable[..., Any]) -> Callable[..., Any]:
    def told(self: Any, *args: Any, **options: Any) -> Any:
        result = given(self, *args, **options)
        try:
            add(str(server(self)))
        except AttributeError as error:
            _warn(given.__module__, str(error))
        return result

    return told


def _warn(module: str, missing: str) -> None:
    # The server may still be known from the environment or a kubeconfig.
    logger.warning("%s has changed (%s): a server that it is given in the code is not fenced", module, missing)


def fence(package: ModuleType) -> None:
    """Fence the transports of a package. A second call has no effect."""
    change(package.HTTPTransport, "handle_request", functools.partial(_blocking, package))
    change(package.AsyncHTTPTransport, "handle_async_request", functools.partial(_waiting, package))


def _blocking(package: ModuleType, send: Callable[..., Any]) -> Callable[..., Any]:
    def handle_request(self: Any, request: Any) -> Any:
        if not _is_write(request):
            return send(self, request)
        one = _Attempt(package, request, request.read())

        def sent(out: Request) -> Response:
            got = send(self, one.made(out, one.checked))
            try:
                return one.answer(got, b"".join(got.stream))
            finally:
                got.close()

        return drive(package.__name__, one.asked, sent, origin_of(str(request.url))).raw

    return handle_request


def _waiting(package: ModuleType, send: Callable[..., Any]) -> Callable[..., Any]:
    async def handle_async_request(self: Any, request: Any) -> Any:
        if not _is_write(request):
            return await send(self, request)
        one = _Attempt(package, request, await request.aread())

        async def sent(out: Request) -> Response:
            got = await send(self, one.made(out, one.achecked))
            try:
                return one.answer(got, b"".join([part async for part in got.stream]))
            finally:
                await got.aclose()

        return (await adrive(package.__name__, one.asked, sent, origin_of(str(request.url)))).raw

    return handle_async_request


def _is_write(request: Any) -> bool:
    """Whether the fence decides about a request. What goes to the API server gets the newest token; reads are noted."""
    url = request.url
    if not is_api_server(url.scheme, url.host, url.port, _path(url)):
        return False
    renew(request.headers)
    if request.method.upper() in WRITES:
        return True
    note_read(_path(url))
    return False


def _path(url: Any) -> str:
    return str(url.raw_path.decode("ascii").partition("?")[0])


class _Attempt:
    """One attempt of one request.

    Args:
        package: httpx or httpx2.
        given: the client's request.
        body: its body.
    """

    def __init__(self, package: ModuleType, given: Any, body: bytes) -> None:
        self.package, self.given = package, given
        self.asked = Request(
            method=given.method.upper(),
            path=_path(given.url),
            query=given.url.query.decode("ascii"),
            content_type=media_type(given.headers),
            body=body,
        )
        self._trace = given.extensions.get("trace")
        self._end = 0.0

    def made(self, out: Request, trace: Callable[[str, Any], Any]) -> Any:
        """Return httpx's request for what the fence sends.

        httpx limits each phase of a request and not the whole of it, so `trace` looks at the time once more right
        before the request leaves.
        """
        extensions = dict(self.given.extensions)
        if out.timeout is not None:
            self._end = boottime() + out.timeout
            given = extensions.get("timeout") or {}
            limits = {phase: [t for t in (given.get(phase), out.timeout) if t is not None] for phase in _PHASES}
            extensions |= {"timeout": {phase: min(times) for phase, times in limits.items()}, "trace": trace}
        target = out.path + (f"?{out.query}" if out.query else "")
        return self.package.Request(
            out.method,
            self.given.url.copy_with(raw_path=target.encode("ascii")),
            headers=headers_for(out, self.asked, self.given.headers.multi_items()),
            content=out.body or None,
            extensions=extensions,
        )

    def checked(self, event: str, info: Any) -> None:
        """Refuse to send after the time limit; called at each step of a blocking request."""
        self._check(event)
        if self._trace is not None:
            self._trace(event, info)

    async def achecked(self, event: str, info: Any) -> None:
        """Refuse to send after the time limit; called at each step of an async request."""
        self._check(event)
        if self._trace is not None:
            traced: Awaitable[None] = self._trace(event, info)
            await traced

    def _check(self, event: str) -> None:
        if event.endswith("send_request_headers.started") and boottime() > self._end:
            raise self.package.ConnectTimeout("the term was over before the request could be sent")

    def answer(self, got: Any, raw: bytes) -> Response:
        """Return the answer for the fence, and with it one for the client, whose body can still be streamed."""
        parts = {"status_code": got.status_code, "headers": got.headers, "extensions": got.extensions}
        body = self.package.Response(**parts, content=raw).content
        return Response(got.status_code, body, self.package.Response(**parts, stream=self.package.ByteStream(raw)))
