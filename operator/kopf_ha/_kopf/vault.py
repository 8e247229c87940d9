"""Kopf's store of credentials, which prepares each session that Kopf makes."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from kopf._cogs.structs import credentials

from kopf_ha._kopf.logs import running_log

#: Seconds to wait before each further login in a series: a 401 may be passing.
PAUSES: tuple[float, ...] = (0, 1, 2, 4, 8, 16, 32)
#: Credentials that were known for so many seconds end a series.
LASTING = 10.0


class PreparedVault(credentials.Vault):
    """Kopf's store of credentials. It prepares each session that Kopf makes of them.

    So every login handler stays as it is. An additional login handler would not work: of two with the same priority,
    Kopf chooses one at random.

    Args:
        prepare: called with each session and the server's URL before Kopf uses it. Kopf closes the session.
    """

    def __init__(self, prepare: Callable[[aiohttp.ClientSession, str], None]) -> None:
        super().__init__()
        self.prepare = [prepare]  #: what is called with each session
        self._is_unknown = False  #: the API server answered 401 to the present credentials
        self._tries = 0  #: logins in a series of which each soon got a 401
        self._given = -math.inf  #: when the present credentials came, on the loop's clock

    async def take(self, other: credentials.Vault) -> None:
        """Take the credentials that another store was made with."""
        found: dict[str, object] = {str(key): item.info for key, item in other._current.items()}
        if found:
            await self.populate(found)

    def extended(self, factory: Callable[[Any], Any], purpose: str | None = None) -> AsyncIterator[Any]:
        """Give the credentials with what the factory makes of them: their session. Called by Kopf."""

        def prepared(info: Any) -> Any:
            made = factory(info)
            for prepare in self.prepare:
                prepare(made.session, made.server)
            return made

        return super().extended(prepared, purpose)

    async def invalidate(self, *which: Any, exc: Exception | None = None) -> None:
        """Note that the API server does not know these credentials. Called by Kopf.

        Args:
            which: the key; and from Kopf 1.38 on the credentials.
            exc: how the API server refused them.
        """
        self._is_unknown = True
        await super().invalidate(*which, exc=exc)

    async def populate(self, src: Any) -> None:
        """Take the credentials of the login handlers. Called by Kopf.

        Kopf takes none that got a 401 before, and ends: also after one that was only passing. So this forgets the 401,
        waits longer before each further login, as with an account that is deleted, and takes none after the last.
        """
        clock = asyncio.get_running_loop().time
        if self._is_unknown:
            self._is_unknown = False
            self._invalid.clear()
            self._tries = self._tries + 1 if clock() - self._given < LASTING else 0
            if self._tries >= len(PAUSES):
                src = {}  # Kopf says that it ran out of valid credentials, and ends
            elif pause := PAUSES[self._tries]:
                running_log.warning("The API server does not know the credentials; waiting %g s to try again.", pause)
                await asyncio.sleep(pause)
        # Copies: if a login handler gives the same object again, Kopf cannot tell which one got a late 401.
        await super().populate({key: copy.copy(info) for key, info in src.items()})
        self._given = clock()
