"""In which order Kopf gets what exists when a term begins, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from kopf_ha.run import intake
from kopf_ha.run.intake import Intake


def in_loop(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(story)
    def run(**given: Any) -> None:
        asyncio.run(story(**given))

    return run


def listed(uid: str, *, urgent: bool = False, done: bool = False, version: int = 1, name: str = "") -> dict[str, Any]:
    metadata = {"uid": uid, "name": name or uid, "namespace": "ns", "resourceVersion": str(version)}
    body = {"metadata": metadata, "urgent": urgent, "done": done}
    return {"type": None, "object": body}


def event(name: str, kind: str = "MODIFIED", version: int = 2) -> dict[str, Any]:
    return {**listed(name, version=version), "type": kind}


def intake_end() -> object:
    """Give Kopf's mark that the list is over."""
    return object()


class Looks:
    def is_urgent(self, body: Any) -> bool:
        return bool(body["urgent"])

    def is_done(self, body: Any) -> bool:
        return bool(body["done"])


class Watched:
    """A flow whose source the test feeds, and what it passed on."""

    def __init__(self, first: Callable[[], Awaitable[None]] | None = None) -> None:
        self.source: asyncio.Queue[Any] = asyncio.Queue()
        self.passed: list[Any] = []
        self.left_out: list[str] = []
        self.flow = Intake(Looks(), self._leave_out, first=first)
        self.early: asyncio.Queue[Any] = asyncio.Queue()  #: of the watch beside the list
        self.began_early = False
        self.closed = False
        self.task = asyncio.create_task(self._run())

    async def _leave_out(self, body: Any) -> None:
        self.left_out.append(body["metadata"]["uid"])

    async def _events(self) -> AsyncIterator[Any]:
        try:
            while (given := await self.source.get()) is not None:
                if isinstance(given, Exception):
                    raise given
                yield given
        finally:
            self.closed = True

    async def _early(self) -> AsyncIterator[Any]:
        self.began_early = True
        while True:
            given = await self.early.get()
            if isinstance(given, Exception):
                raise given
            yield given

    def feed_early(self, *events: Any) -> None:
        for one in events:
            self.early.put_nowait(one)

    async def _run(self) -> None:
        async for given in self.flow.ordered(self._events(), self._early):
            self.passed.append(given)

    def feed(self, *events: Any) -> None:
        for one in events:
            self.source.put_nowait(one)

    def uids(self) -> list[str]:
        return [one["object"]["metadata"]["uid"] for one in self.passed if isinstance(one, dict)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  conditions of lists
                await asyncio.sleep(0.001)


def never_quiet(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Give one whose loop always has something else to do, so that nothing comes from behind."""
    monkeypatch.setattr(intake, "LATE", -1.0)
    monkeypatch.setattr(intake, "PATIENCE", 3600.0)
    monkeypatch.setattr(intake, "HURRY", 0.0)
    watched = Watched()
    watched.flow._last = asyncio.get_running_loop().time()
    return watched


@in_loop
async def test_urgent_objects_and_live_events_go_before_those_that_were_handled() -> None:
    watched = Watched()
    calm = [f"calm-{n}" for n in range(60)]
    watched.feed(*(listed(name) for name in calm), listed("urgent", urgent=True), "bookmark", event("new", "ADDED"))
    await watched.until(lambda: len(watched.uids()) == 62)
    assert watched.uids()[:2] == ["urgent", "new"]
    assert watched.uids()[2:] == calm, "all others come in the order of the list"
    watched.task.cancel()


@in_loop
async def test_a_bookmark_does_not_wait_for_the_objects() -> None:
    watched = Watched()
    watched.feed(*(listed(f"calm-{n}") for n in range(60)), "listed")
    await watched.until(lambda: "listed" in watched.passed)
    assert len(watched.uids()) < 60
    watched.task.cancel()


@in_loop
async def test_what_needs_nothing_is_left_out_and_the_fence_sees_it() -> None:
    watched = Watched()
    watched.feed(listed("a", done=True), listed("b"), listed("c", done=True))
    await watched.until(lambda: watched.uids() == ["b"] and watched.left_out == ["a", "c"])
    watched.task.cancel()


@pytest.mark.parametrize("kind", ["MODIFIED", "DELETED"])
@in_loop
async def test_an_event_of_a_waiting_object_takes_it_along(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = never_quiet(monkeypatch)
    watched.feed(listed("a"), event("a", kind, version=7), event("a", version=8))
    await watched.until(lambda: len(watched.passed) == 3)
    assert [(one["type"], one["object"]["metadata"]["resourceVersion"]) for one in watched.passed] == [
        (None, "1"), (kind, "7"), ("MODIFIED", "8"),
    ]  # fmt: skip
    watched.task.cancel()


@in_loop
async def test_what_is_gone_by_a_later_list_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a gap in the watch no event tells of a deletion. The old object may not be handled after its successor."""
    watched = never_quiet(monkeypatch)
    watched.feed(listed("old", name="a"), listed("gone"), listed("stays"), intake_end())
    watched.feed(listed("new", name="a", urgent=True), listed("stays", version=2), intake_end(), event("last"))
    await watched.until(lambda: "last" in watched.uids())
    monkeypatch.setattr(intake, "PATIENCE", 0.0)
    await watched.until(lambda: len(watched.uids()) == 3)
    assert watched.uids() == ["new", "last", "stays"]
    assert watched.passed[-1]["object"]["metadata"]["resourceVersion"] == "2"
    watched.task.cancel()


@in_loop
async def test_a_busy_loop_gets_waiting_objects_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LATE", -1.0)
    monkeypatch.setattr(intake, "PATIENCE", 0.01)
    watched = Watched()
    watched.feed(*(listed(f"calm-{n}") for n in range(5)))
    await watched.until(lambda: len(watched.uids()) == 5)
    watched.task.cancel()


def new(name: str, kind: str = "ADDED", version: int = 2, *, urgent: bool = True) -> dict[str, Any]:
    """Give an event of a watch."""
    return {**listed(name, urgent=urgent, version=version), "type": kind}


def versions(watched: Watched) -> list[tuple[Any, str, str]]:
    """Give type, uid and resourceVersion of what was passed on."""
    found = [one for one in watched.passed if isinstance(one, dict)]
    return [(o["type"], o["object"]["metadata"]["uid"], o["object"]["metadata"]["resourceVersion"]) for o in found]


@in_loop
async def test_what_changes_while_a_long_list_is_read_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And once only, although the list and the watch after it show it again; and as the list would have shown it."""
    monkeypatch.setattr(intake, "LONG", 0.0)
    watched = never_quiet(monkeypatch)
    watched.feed(listed("a", done=True))
    watched.feed_early(new("new", version=5), new("calm", urgent=False))
    await watched.until(lambda: watched.uids() == ["new"])
    watched.feed_early(new("new", "MODIFIED", version=6))
    await watched.until(lambda: len(watched.passed) == 2)
    watched.feed(listed("new", urgent=True, version=5), listed("z", urgent=True), intake_end())
    watched.feed(new("new", "MODIFIED", version=6), new("new", "MODIFIED", version=7), new("calm", urgent=False))
    await watched.until(lambda: "calm" in watched.uids())
    assert versions(watched) == [
        (None, "new", "5"), ("MODIFIED", "new", "6"), (None, "z", "1"),
        ("MODIFIED", "new", "7"), ("ADDED", "calm", "2"),
    ]  # fmt: skip
    watched.task.cancel()


@in_loop
async def test_of_changes_before_only_the_last_one_of_an_object_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else handlers run for an object as it was, before the last leader had handled it, or after it was gone."""
    monkeypatch.setattr(intake, "LONG", 0.0)
    watched = never_quiet(monkeypatch)
    watched.feed(listed("a", done=True))
    watched.feed_early(new("bound", version=3), new("bound", "MODIFIED", version=4, urgent=False))
    watched.feed_early(new("gone", version=5), new("gone", "DELETED", version=6), new("last", version=7))
    await watched.until(lambda: "last" in watched.uids())
    assert watched.uids() == ["last"]
    watched.task.cancel()


@in_loop
async def test_an_early_watch_that_fails_is_no_loss_and_a_short_list_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LONG", 0.0)
    failing = Watched()
    failing.feed_early(ValueError("410"))
    await failing.until(lambda: failing.early.empty() and failing.began_early)
    failing.feed(listed("a", urgent=True), intake_end(), event("b"))
    await failing.until(lambda: failing.uids() == ["a", "b"])
    failing.task.cancel()
    short = Watched()
    short.feed(listed("a", urgent=True), intake_end())
    monkeypatch.setattr(intake, "LONG", 0.05)
    await short.until(lambda: len(short.passed) == 2)
    await asyncio.sleep(0.2)
    assert not short.began_early
    short.task.cancel()


@in_loop
async def test_the_last_one_behind_is_called_forward_at_the_moment_of_its_turn() -> None:
    """It is taken out while the flow looks whether the loop is quiet. That must not end the term."""
    watched = Watched()
    quiet = watched.flow._is_quiet

    async def changes_meanwhile() -> bool:
        watched.feed(event("calm"))
        await watched.until(lambda: not watched.flow._behind)
        watched.flow._is_quiet = quiet  # type: ignore[method-assign]
        return True

    watched.flow._is_quiet = changes_meanwhile  # type: ignore[method-assign]
    watched.feed(listed("calm"))
    await watched.until(lambda: len(watched.passed) == 2)
    assert [one["type"] for one in watched.passed] == [None, "MODIFIED"]
    watched.task.cancel()


@in_loop
async def test_what_is_done_first_is_done_before_the_list_is_looked_at() -> None:
    done = asyncio.Event()

    async def first() -> None:
        await done.wait()

    watched = Watched(first)
    watched.feed(listed("a", done=True), listed("b", urgent=True))
    await asyncio.sleep(0.01)
    assert watched.left_out == watched.passed == []
    done.set()
    await watched.until(lambda: (watched.left_out, watched.uids()) == (["a"], ["b"]))
    watched.task.cancel()


@in_loop
async def test_a_further_list_shows_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = never_quiet(monkeypatch)
    for _ in range(2):
        watched.feed(listed("a", urgent=True), intake_end())
    await watched.until(lambda: watched.uids() == ["a", "a"])
    watched.task.cancel()


@in_loop
async def test_it_ends_and_fails_as_its_source_does() -> None:
    watched = Watched()
    watched.feed(listed("a"), ValueError("the watch failed"))
    with pytest.raises(ValueError, match="the watch failed"):
        await watched.task
    ended = Watched()
    ended.feed(listed("a"), None)
    await ended.task
    assert ended.uids() == ["a"]


@in_loop
async def test_a_cancelled_reader_closes_the_source() -> None:
    watched = Watched()
    watched.feed(listed("a", urgent=True))
    await watched.until(lambda: watched.uids() == ["a"])
    watched.task.cancel()
    await asyncio.gather(watched.task, return_exceptions=True)
    assert watched.closed
