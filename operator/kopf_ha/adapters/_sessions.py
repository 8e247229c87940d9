"""What the adapters for Kopf and for the async Kubernetes clients share: a middleware in an aiohttp session."""

from __future__ import annotations

from typing import Any

import aiohttp
from yarl import URL

from kopf_ha.adapters._bearer import renew
from kopf_ha.adapters._waiting import while_held
from kopf_ha.adapters._wiring import adrive, headers_for, media_type, note_read
from kopf_ha.core.wire import WRITES, Request, Response


class FenceMiddleware:
    """Sends one attempt of a request through the fence. Reads and watches are not fenced.

    While the gate is held, those of the fenced operator's own Kopf wait: most of the time the API server does not
    answer then, and Kopf would sleep for up to 21 s before its next attempt. So its watches go on at once afterwards.

    Args:
        client: the client's name in metrics and the log.
        saw: the client is Kopf; see `adrive`.
    """

    def __init__(self, client: str, *, saw: bool = False) -> None:
        self.client, self.saw = client, saw

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Be called by aiohttp for each attempt, also for those of a redirect."""
        renew(request.headers)
        if request.method not in WRITES:
            note_read(request.url.raw_path)
            if self.saw:
                await while_held()
            return await handler(request)
        body = request.body
        asked = Request(
            method=request.method,
            path=request.url.raw_path,
            query=request.url.raw_query_string,
            content_type=media_type(request.headers),
            body=body if isinstance(body, bytes) else await body.as_bytes(),
        )

        async def send(out: Request) -> Response:
            # What the client asked for with this one request; the rest is the session's.
            options: dict[str, Any] = {"ssl": request.ssl, "server_hostname": request.server_hostname}
            if request.proxy is not None and request.proxy_auth is None:
                options |= {"proxy": request.proxy, "proxy_headers": request.proxy_headers}
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
                raise_for_status=False,  # the fence looks at the answer, then the session at what the fence makes of it
                middlewares=(),
                **options,
            )
            return Response(response.status, await response.read(), response)

        answer = await adrive(self.client, asked, send, str(request.url.origin()), saw=self.saw)
        response: aiohttp.ClientResponse = answer.raw
        if self.client == "kopf" and response.status == 409 and asked.is_json_patch:
            # For a JSON patch, Kopf takes 422 as a conflict and patches again in its next cycle. A 409 would make it
            # run the handlers again.
            response.status = 422
        return response


def fence_session(session: aiohttp.ClientSession, middleware: FenceMiddleware) -> None:
    """Fence a session that somebody else has made. A second call has no effect."""
    # aiohttp would send a PUT or DELETE again on a dropped connection, below the middlewares (I8).
    session._retry_connection = False
    if not any(isinstance(one, FenceMiddleware) for one in session._middlewares):
        # The fence comes last, so it judges requests as the operator's own middlewares have changed them.
        session._middlewares = (*session._middlewares, middleware)
