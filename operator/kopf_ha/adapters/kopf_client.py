"""Kopf: a middleware in its aiohttp session, put around whatever credentials the operator logs in with."""

from __future__ import annotations

from typing import Any

import aiohttp
import kopf
from yarl import URL

from kopf_ha._kopf import WrappedVault, with_session
from kopf_ha.adapters._wiring import adrive, headers_for
from kopf_ha.core.wire import WRITES, Request, Response


def fenced_vault() -> WrappedVault:
    """Make Kopf's store of credentials; what the operator's own login handlers return comes out fenced."""
    return WrappedVault(fenced_credentials)


def fenced_credentials(info: object) -> object:
    """Give credentials whose session passes the fence; what is none is handed on for Kopf to complain."""
    if isinstance(info, kopf.ConnectionInfo):
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            middlewares=(fence_middleware,),
        )
        session._retry_connection = False
        return with_session(info, session)
    if isinstance(info, kopf.AiohttpSession):
        session = info.aiohttp_session
        # aiohttp would send a PUT or DELETE again on a dropped connection, below the middlewares (I8).
        session._retry_connection = False
        if fence_middleware not in session._middlewares:
            # Innermost: what the operator's own middlewares do to a request is judged, too.
            session._middlewares = (*session._middlewares, fence_middleware)
    return info


async def fence_middleware(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Let one attempt of one request of Kopf's pass the fence. Reads and watches pass by."""
    if request.method not in WRITES:
        return await handler(request)
    body = request.body
    asked = Request(
        method=request.method,
        path=request.url.raw_path,
        query=request.url.raw_query_string,
        content_type=request.headers.get("Content-Type", "").partition(";")[0].strip(),
        body=body if isinstance(body, bytes) else await body.as_bytes(),
    )

    async def send(out: Request) -> Response:
        options: dict[str, Any] = {}
        if out.timeout is not None:
            options["timeout"] = aiohttp.ClientTimeout(total=out.timeout)
        response = await request.session.request(
            out.method,
            URL.build(
                scheme=request.url.scheme,
                authority=request.url.raw_authority,
                path=out.path,
                query_string=out.query,
                encoded=True,
            ),
            data=out.body or None,
            headers=headers_for(out, asked, request.headers.items()),
            allow_redirects=False,  # another request, to be judged anew
            middlewares=(),
            **options,
        )
        return Response(response.status, await response.read(), response)

    answer = await adrive("kopf", asked, send)
    response: aiohttp.ClientResponse = answer.raw
    if response.status == 409 and asked.is_json_patch:
        # Of a JSON patch's answers Kopf swallows the 422 only and tries in its next cycle; a 409 would run
        # the handlers again (trap 11).
        response.status = 422
    return response
