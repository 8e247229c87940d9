"""The order in which Kopf gets the objects that exist when a term begins.

Kopf lists all objects of a kind at a term's start and runs each through its whole cycle, some milliseconds each, in the
order of their names. With thousands of objects, a new one would wait for all of them. So of the first list, what needs
something goes on at once, and so does each event of the watch. What was handled already comes behind: one object at a
time, whenever the event loop has nothing else to do. Objects that no handler would run for do not go through Kopf's
cycle at all. Handlers run as often as they do otherwise (I9), and each object gets its turn within a bound (I7).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

#: Seconds between two looks at the loop.
TICK = 0.002
#: The loop has nothing else to do if a look comes no later than so many seconds.
LATE = 0.002
#: A busy loop gets one object in so many seconds all the same, about a fifth of its time.
PATIENCE = 0.02
#: Seconds for which objects that need nothing are taken out in one go.
SLICE = 0.005
#: Objects of the first list that are looked at before others get the loop.
CHUNK = 50

Event = Any  #: a watch event, as Kopf has it: `{"type": None | "ADDED" | …, "object": …}`; or a bookmark of Kopf's


class Looks(Protocol):
    """What a kind's handlers want of an object."""

    def is_urgent(self, body: Any) -> bool:
        """Return whether the object needs something, as far as a quick look tells."""

    def is_done(self, body: Any) -> bool:
        """Return whether no handler would run for it, and nothing would be written."""


class Intake:
    """The events of one kind, in one term.

    Args:
        looks: of the kind's handlers.
        left_out: called with each object that does not go through Kopf's cycle, since it needs nothing.
        hidden: says of an event whose turn it is whether no handler needs to see it.
    """

    def __init__(
        self,
        looks: Looks,
        left_out: Callable[[Any], Awaitable[None]],
        hidden: Callable[[Event], bool] = lambda event: False,
    ) -> None:
        self.is_hidden = hidden
        self._looks = looks
        self._left_out = left_out
        self._ready: deque[Event] = deque()  #: goes on at once
        self._behind: dict[str, Event] = {}  #: by uid, in the order of the list
        self._listed: set[str] = set()  #: uids of the list that is under way
        self._uids: dict[tuple[str, str], str] = {}  #: of the objects that wait, by namespace and name
        self._news = asyncio.Event()
        self._last = 0.0  #: when the last object came from behind, on the loop's clock

    async def ordered(self, source: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """Yield the events of a source in their order of urgency. It ends and fails as the source does."""
        # One task reads the whole source, since the source may have timeouts that belong to the task that reads it.
        reader = asyncio.create_task(self._read(source), name="first list")
        reader.add_done_callback(lambda _: self._news.set())
        try:
            while True:
                while self._ready:
                    yield self._ready.popleft()
                if reader.done():
                    reader.result()
                    if not self._behind:
                        return
                if not self._behind:
                    await self._news.wait()
                    self._news.clear()
                elif await self._is_quiet():
                    await self._let_in()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, source: AsyncIterator[Event]) -> None:
        listed = 0
        async for event in source:
            self._take(event)
            self._news.set()
            if _is_listed(event) and (listed := listed + 1) % CHUNK == 0:
                await asyncio.sleep(0)

    def _take(self, event: Event) -> None:
        if not isinstance(event, dict):
            self._list_ends()
            self._ready.append(event)
            return
        uid, name = _uid(event), _name(event)
        waiting = self._behind.pop(uid, None)
        if event["type"] != "DELETED":
            self._behind.pop(self._uids.pop(name, ""), None)  # it is gone if this object has its name
        if not _is_listed(event):
            # What was listed goes first, as it does in Kopf: resume handlers run, and event handlers see both (I9).
            self._ready += [event] if waiting is None else [waiting, event]
            return
        self._listed.add(uid)
        if not uid or self._looks.is_urgent(event["object"]):
            self._ready.append(event)
        else:
            self._behind[uid], self._uids[name] = event, uid

    def _list_ends(self) -> None:
        """Forget what waits since an earlier list and is gone by this one: Kopf gets no event of its deletion."""
        for uid in [uid for uid in self._behind if uid not in self._listed]:
            del self._behind[uid]
        self._listed.clear()

    async def _is_quiet(self) -> bool:
        """Wait a moment; return whether nothing came, and the loop had nothing else to do."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(TICK):
                await self._news.wait()
            self._news.clear()
            return False
        except TimeoutError:
            now = loop.time()
            return now - began - TICK < LATE or now - self._last >= PATIENCE

    async def _let_in(self) -> None:
        """Pass on the next object from behind that needs something, if it is found soon."""
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        while self._behind and loop.time() - self._last < SLICE:
            uid = next(iter(self._behind))
            event = self._behind.pop(uid)
            self._uids.pop(_name(event), None)
            if not self._looks.is_done(event["object"]):
                self._ready.append(event)
                return
            await self._left_out(event["object"])


def _is_listed(event: Event) -> bool:
    return isinstance(event, dict) and event.get("type") is None


def _uid(event: Event) -> str:
    return str(((event.get("object") or {}).get("metadata") or {}).get("uid") or "")


def _name(event: Event) -> tuple[str, str]:
    metadata = (event.get("object") or {}).get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
