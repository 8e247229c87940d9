"""The vault owns the sessions that it makes, and nobody else's."""

from __future__ import annotations

import asyncio

import aiohttp
import kopf

from kopf_ha._kopf import WrappedVault
from kopf_ha.adapters.kopf_client import fenced_credentials


def test_sessions_that_kopf_never_used_are_closed_and_those_of_the_operator_left_alone() -> None:
    async def run() -> tuple[list[bool], bool]:
        theirs = aiohttp.ClientSession()
        made: list[aiohttp.ClientSession] = []

        def wrap(info: object) -> object:
            wrapped = fenced_credentials(info)
            assert isinstance(wrapped, kopf.AiohttpSession)
            made.append(wrapped.aiohttp_session)
            return wrapped

        vault = WrappedVault(wrap)
        await vault.populate(
            {
                "pykube": kopf.ConnectionInfo(server="https://a"),
                "client": kopf.ConnectionInfo(server="https://a"),
                "own": kopf.AiohttpSession(server="https://a", aiohttp_session=theirs),
            }
        )
        await vault.close()
        closed = [s.closed for s in made if s is not theirs], theirs.closed
        await theirs.close()
        return closed

    assert asyncio.run(run()) == ([True, True], False)
