"""The order in which Kopf gets the objects that exist when a term begins.

Kopf lists all objects of a kind at a term's start and runs each through its whole cycle, some milliseconds each, in the
order of their names; its watch begins after that. With thousands of objects, a new one would wait for all of them. So
of the first list, what needs something goes on at once. Objects that no handler would run for do not go through Kopf's
cycle at all. The others come behind: one object at a time, whenever the event loop has nothing else to do. And while
a long list is read, an early watch shows what changes now, and what changed a moment ago. Handlers run as often as they
do otherwise (I9), and each object gets its turn within a bound (I7).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from kopf_ha.core.revisions import newer

logger = logging.getLogger("kopf_ha.run")

#: Seconds between two looks at the loop.
TICK = 0.002
#: The loop has nothing else to do if a look comes no later than so many seconds.
LATE = 0.002
#: A busy loop gets one object in so many seconds all the same, about a fifth of its time.
PATIENCE = 0.02
#: Seconds after its begin in which a flow is more patient, and how much: what changed around the takeover goes first.
HURRY, MORE_PATIENCE = 5.0, 0.2
#: Seconds for which objects of the first list are looked at before others get the loop.
SLICE = 0.005
#: A round of the loop in which others had something to do takes longer than so many seconds.
BUSY = 0.0005
#: Seconds after which a list that is still read counts as long, so that an early watch begins.
LONG = 0.03
#: Seconds without a further event after which an early watch's events are looked at, and seconds that they wait at
#: most. Of several events of one object, which come at once, only the last one says what it is like.
LULL, HOLD = 0.05, 0.3

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
        first: is done beside the request for the list, and before anything of the list is looked at.
    """

    def __init__(
        self,
        looks: Looks,
        left_out: Callable[[Any], Awaitable[None]],
        hidden: Callable[[Event], bool] = lambda event: False,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.is_hidden = hidden
        self._first = first
        self._looks = looks
        self.left_out = left_out
        self._ready: deque[Event] = deque()  #: goes on at once
        self._behind: dict[str, Event] = {}  #: by uid, in the order of the list
        self._listed: set[str] = set()  #: uids of the list that is under way
        self._uids: dict[tuple[str, str], str] = {}  #: of the objects that wait, by namespace and name
        self._news = asyncio.Event()
        self._began = 0.0  #: on the loop's clock
        self._last = 0.0  #: when the last object came from behind, on the loop's clock
        self._lists = 0  #: lists that are over
        #: By uid, the newest resourceVersion that went on while the list was read: an early watch, the list and the
        #: watch after it show the same changes.
        self._passed: dict[str, str] = {}
        self._held: dict[str, Event] = {}  #: by uid, the last events of the early watch that nobody looked at yet

    async def ordered(
        self, source: AsyncIterator[Event], early: Callable[[], AsyncIterator[Event]] | None = None
    ) -> AsyncIterator[Event]:
        """Yield the events of a source in their order of urgency. It ends and fails as the source does.

        Args:
            source: Kopf's list and watch.
            early: begins a watch from a moment ago on. It may end or fail at any time.
        """
        self._began = asyncio.get_running_loop().time()
        first = asyncio.ensure_future(self._first()) if self._first is not None else None
        # One task reads the whole source, since the source may have timeouts that belong to the task that reads it.
        reader = asyncio.create_task(self._read(source, first), name="first list")
        watcher = asyncio.create_task(self._watch_early(early), name="early watch") if early is not None else None
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
            tasks = [task for task in (reader, watcher, first) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, source: AsyncIterator[Event], first: Awaitable[None] | None) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async for event in source:
            if first is not None:
                await first
                first = None
            await self._take(event)
            self._news.set()
            if _is_listed(event) and loop.time() - began > SLICE:
                await self._let_others_work()
                began = loop.time()

    async def _watch_early(self, early: Callable[[], AsyncIterator[Event]]) -> None:
        """Pass on what changes while the first list is read, and what changed a moment before."""
        await asyncio.sleep(LONG)
        if self._lists:
            return
        loop = asyncio.get_running_loop()
        timer, latest = None, 0.0
        try:
            async for event in early():
                if self._lists:
                    return  # the watch that follows the list shows the same
                if self._hold(event):
                    if timer is None or timer.when() <= loop.time():
                        latest = loop.time() + HOLD
                    else:
                        timer.cancel()
                    timer = loop.call_at(min(loop.time() + LULL, latest), self._let_go)
        except Exception as error:  # noqa: BLE001  the list and its watch show all that this shows
            logger.debug("the early watch ended: %r", error)

    def _hold(self, event: Event) -> bool:
        """Pass on the event of an object that is under way already; hold another one, and return whether it is held."""
        uid = _uid(event)
        if not uid or event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
            return False
        if uid in self._passed:
            if self._is_newer(event):
                self._pass(event)
                self._news.set()
            return False
        self._held[uid] = event
        return True

    def _let_go(self) -> None:
        """Pass on those of the held events whose objects need something."""
        held, self._held = self._held, {}
        for uid, event in held.items():
            is_new = not self._lists and event["type"] != "DELETED" and self._is_newer(event)
            if is_new and self._looks.is_urgent(event["object"]):
                self._behind.pop(uid, None)
                self._pass({**event, "type": None})  # as the list would show it a moment later
        self._news.set()

    def _pass(self, event: Event) -> None:
        self._passed[_uid(event)] = _version(event)
        self._ready.append(event)

    def _is_newer(self, event: Event) -> bool:
        """Return whether an object of this uid and resourceVersion, or a newer one, did not go on already."""
        return newer(_version(event), self._passed.get(_uid(event), ""))

    async def _take(self, event: Event) -> None:
        if not isinstance(event, dict):
            self._list_ends()
            self._ready.append(event)
            return
        if _is_listed(event) and self._lists and not self._listed:
            self._passed.clear()  # a further list begins
        uid, name = _uid(event), _name(event)
        if not self._is_newer(event):
            self._listed.add(uid)
            return
        waiting = self._behind.pop(uid, None)
        if event["type"] != "DELETED":
            self._behind.pop(self._uids.pop(name, ""), None)  # it is gone if this object has its name
        if not _is_listed(event):
            # What was listed goes first, as it does in Kopf: resume handlers run, and event handlers see both (I9).
            self._ready += [event] if waiting is None else [waiting, event]
            return
        self._listed.add(uid)
        if not uid:
            self._ready.append(event)
        elif self._looks.is_done(event["object"]):
            await self.left_out(event["object"])
        elif self._looks.is_urgent(event["object"]):
            self._pass(event) if not self._lists else self._ready.append(event)
        else:
            self._behind[uid], self._uids[name] = event, uid

    def _list_ends(self) -> None:
        """Forget what waits since an earlier list and is gone by this one: Kopf gets no event of its deletion."""
        self._lists += 1
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
            return now - began - TICK < LATE or now - self._last >= self._patience(now)

    def _patience(self, now: float) -> float:
        return MORE_PATIENCE if now - self._began < HURRY else PATIENCE

    async def _let_others_work(self) -> None:
        """Give the loop to others while they have something to do, for most of the time but not all of it.

        A request waits for its turn in the loop dozens of times. If each turn came after a slice of the list, the first
        claim that is served would wait longer for the list than for the API server.
        """
        loop = asyncio.get_running_loop()
        began = now = loop.time()
        while now - began < self._patience(now):
            last = now
            await asyncio.sleep(0)
            now = loop.time()
            if now - last < BUSY:
                return

    async def _let_in(self) -> None:
        """Pass on the next object from behind, unless the last one was called forward or went meanwhile."""
        if not self._behind:
            return
        self._last = asyncio.get_running_loop().time()
        uid = next(iter(self._behind))
        event = self._behind.pop(uid)
        self._uids.pop(_name(event), None)
        # It may need nothing by now: what it waited for, or what a filter looks at, was done for another object.
        if self._looks.is_done(event["object"]):
            await self.left_out(event["object"])
        else:
            self._ready.append(event)


def _is_listed(event: Event) -> bool:
    return isinstance(event, dict) and event.get("type") is None


def _uid(event: Event) -> str:
    return str(((event.get("object") or {}).get("metadata") or {}).get("uid") or "")


def _version(event: Event) -> str:
    return str(((event.get("object") or {}).get("metadata") or {}).get("resourceVersion") or "")


def _name(event: Event) -> tuple[str, str]:
    metadata = (event.get("object") or {}).get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
