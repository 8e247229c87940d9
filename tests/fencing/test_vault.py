"""The vault owns the sessions that it makes, and nobody else's."""

from __future__ import annotations

import asyncio

import aiohttp
from kopf._cogs.structs.credentials import AiohttpSession, ConnectionInfo

from kopf_ha.adapters.kopf_client import FencedVault


def test_sessions_that_kopf_never_used_are_closed_and_those_of_the_operator_left_alone() -> None:
    async def run() -> tuple[list[bool], bool]:
        theirs = aiohttp.ClientSession()
        vault = FencedVault()
        await vault.populate(
            {
                "pykube": ConnectionInfo(server="https://a"),
                "client": ConnectionInfo(server="https://a"),
                "own": AiohttpSession(server="https://a", aiohttp_session=theirs),
            }
        )
        made = [s async for _, s in _sessions(vault)]
        await vault.close()
        closed = [s.closed for s in made if s is not theirs], theirs.closed
        await theirs.close()
        return closed

    assert asyncio.run(run()) == ([True, True], False)


async def _sessions(vault: FencedVault):  # type: ignore[no-untyped-def]
    for key, item in vault._current.items():
        assert isinstance(item.info, AiohttpSession)
        yield key, item.info.aiohttp_session
