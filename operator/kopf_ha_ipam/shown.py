"""The addresses that claims show and no pool records for them: no other claim may get one of these (I5).

A claim that was restored from a backup with its status shows such an address. Thousands of claims take seconds to list,
and after a takeover nobody should wait for that. So as long as not all claims are known, the API server is asked about
just those addresses that are about to be given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from kopf_ha_ipam.writes import Api, Rejected

log = logging.getLogger(__name__)
#: Addresses that are asked for in a term. For more of them, a table of all claims costs less.
MANY = 200
#: An address that no pool gives.
NO_ADDRESS = "0.0.0.0"  # noqa: S104  nothing listens there


class Shown:
    """What one term knows about such addresses.

    An answer stays true: only the leader writes claims' statuses, and it records an address in the pool before it shows
    it in a claim. The pool has this term's stamp when it gives an address, so what an earlier leader recorded is known.
    Only users can make an answer untrue, by restoring a claim at this moment; a list of all claims misses that, too.

    Args:
        api: makes the requests.
        held: returns the address that a pool records for each claim, by the claim's uid.
    """

    def __init__(self, api: Api, held: Callable[[], Mapping[str, str]]) -> None:
        self.found: dict[str, str] = {}  #: the addresses, each with the uid of the claim that shows it
        self.whole = True  #: whether no other address is shown
        self._api = api
        self._held = held
        self._asked: set[str] = set()
        self._ready = asyncio.Event()
        self._ready.set()
        self._reading = asyncio.Lock()

    def know(self, found: Mapping[str, str]) -> None:
        """Take in all that is shown, made from all claims."""
        self.found, self.whole = dict(found), True
        self._ready.set()

    def begin(self) -> None:
        """Know nothing. Until `prepare` or `know`, `until_ready` waits."""
        self.whole = False
        self._ready.clear()

    async def prepare(self) -> None:
        """Find out whether addresses can be asked for one by one. If not, read all of them.

        Raises:
            kopf_ha_ipam.writes.Rejected: neither is possible, so `know` has to say it.
        """
        try:
            await self._api.showing(NO_ADDRESS)
        except Rejected as error:
            log.info("a table of all claims is read, since one address cannot be asked for; apply the CRDs: %s", error)
            await self._read_table()
        self._ready.set()

    @property
    def ready(self) -> bool:
        """Whether `look` can tell what it is asked."""
        return self._ready.is_set()

    async def until_ready(self) -> None:
        """Wait until `look` can tell what it is asked. That is soon, except with an old CRD."""
        await self._ready.wait()

    async def look(self, addresses: Collection[str]) -> bool:
        """Look which of the addresses that are about to be given are shown, so that `found` says it.

        Returns:
            Whether that had to be asked for. Then decide again: other things may have changed meanwhile.
        """
        new = set() if self.whole else set(addresses) - self._asked
        if not new:
            return False
        if len(self._asked) + len(new) > MANY:
            await self._read_table()
        else:
            await asyncio.gather(*map(self._ask, new))
        return True

    async def _ask(self, address: str) -> None:
        self.found.update((address, uid) for uid in await self._api.showing(address))
        self._asked.add(address)

    async def _read_table(self) -> None:
        async with self._reading:
            if not self.whole:
                table, held = await self._api.addresses(), self._held()
                self.know({address: uid for address, uid in table if address and held.get(uid) != address})
