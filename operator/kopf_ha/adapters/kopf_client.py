"""The adapter for Kopf: a middleware in its aiohttp session, whatever credentials the operator logs in with."""

from __future__ import annotations

from typing import Any

import aiohttp
import kopf
from yarl import URL

from kopf_ha._kopf import WrappedVault, with_session
from kopf_ha.adapters._wiring import adrive, headers_for
from kopf_ha.core.wire import WRITES, Request, Response


def fenced_vault() -> WrappedVault:
    """Return a store of credentials for Kopf that fences what the operator's login handlers return."""
    return WrappedVault(fenced_credentials)


def fenced_credentials(info: object) -> object:
    """Return credentials whose session is fenced. Anything else is returned as it is, and Kopf reports it."""
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
            # The fence comes last, so it judges requests as the operator's own middlewares have changed them.
            session._middlewares = (*session._middlewares, fence_middleware)
    return info


async def fence_middleware(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send one attempt of a request through the fence. Reads and watches are not fenced."""
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
            allow_redirects=False,  # a redirect is another request, which has to be judged
            middlewares=(),
            **options,
        )
        return Response(response.status, await response.read(), response)

    answer = await adrive("kopf", asked, send)
    response: aiohttp.ClientResponse = answer.raw
    if response.status == 409 and asked.is_json_patch:
        # For a JSON patch, Kopf takes 422 as a conflict and patches again in its next cycle. A 409 would make it run
        # the handlers again.
        response.status = 422
    return response
