"""Kopf: a middleware in its aiohttp session, put around whatever credentials the operator logs in with."""

from __future__ import annotations

import dataclasses
from typing import Any

import aiohttp
from kopf._cogs.structs import credentials  # the vault is a parameter of kopf.operator(), its class is not public
from yarl import URL

from kopf_ha.adapters._wiring import adrive, headers_for
from kopf_ha.core.change import is_json_patch
from kopf_ha.core.wire import WRITES, Request, Response


class FencedVault(credentials.Vault):
    """Kopf's store of credentials; what the operator's own login handlers return comes out fenced.

    Wrapping the result keeps every login handler as it is. A second handler would not do: of two with one
    priority Kopf takes one at random.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: list[aiohttp.ClientSession] = []

    async def populate(self, src: dict[str, object]) -> None:
        """Take the credentials of the login handlers, fenced."""
        fenced = {key: fenced_credentials(info) for key, info in src.items()}
        self._made += [
            new.aiohttp_session
            for key, new in fenced.items()
            if new is not src[key] and isinstance(new, credentials.AiohttpSession)
        ]
        await super().populate(fenced)

    async def close(self) -> None:
        """Close the sessions, those included that Kopf never used, since it takes one of several logins."""
        await super().close()
        for session in self._made:
            await session.close()


def fenced_credentials(info: object) -> object:
    """Give credentials whose session passes the fence; what is none is handed on for Kopf to complain."""
    if isinstance(info, credentials.ConnectionInfo):
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            middlewares=(fence_middleware,),
        )
        session._retry_connection = False
        base = {f.name: getattr(info, f.name) for f in dataclasses.fields(credentials.KubeContext)}
        return credentials.AiohttpSession(**base, aiohttp_session=session)
    if isinstance(info, credentials.AiohttpSession):
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
    if response.status == 409 and is_json_patch(asked):
        # Of a JSON patch's answers Kopf swallows the 422 only and tries in its next cycle; a 409 would run
        # the handlers again (trap 11).
        response.status = 422
    return response
