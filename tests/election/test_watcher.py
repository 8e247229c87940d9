"""What the watch tells, and when it asks again, with a client that follows a script."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from kopf_ha.core.election.events import LeaseSeen, LeaseUnusable
from kopf_ha.election import watcher as watching
from kopf_ha.election.watcher import Watcher
from kopf_ha.errors import ApiRefused, Unreached
from tests.election.world import settings


def lease(version: int, holder: str = "a", **spec: Any) -> dict[str, Any]:
    meta = {"name": "op", "namespace": "ns", "resourceVersion": str(version), "uid": "u"}
    return {"metadata": meta, "spec": {"holderIdentity": holder, "leaseTransitions": 1} | spec}


class Scripted:
    """Each round is a LIST, then the events of a watch; an error in either place is raised."""

    def __init__(self, *rounds: tuple[Any, list[Any]]) -> None:
        self.rounds = iter(rounds)
        self.events: list[Any] = []
        self.silences: list[float] = []
        self.closed = queue.SimpleQueue[bool]()

    def list(self, timeout: float) -> tuple[dict[str, Any] | None, str]:
        answer, self.events = next(self.rounds, (Unreached("the end"), []))
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def watch(self, version: str, timeout: float, silence: float) -> Iterator[dict[str, Any]]:
        self.silences.append(silence)
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self.closed.put(True)


def run(*rounds: tuple[Any, list[Any]]) -> tuple[list[Any], list[str], Scripted]:
    """Give what was told and what was complained of until the script ended."""
    told: list[Any] = []
    troubles: list[str] = []
    done = queue.SimpleQueue[bool]()

    def trouble(text: str) -> None:
        troubles.append(text)
        if text == "the end":
            done.put(True)

    client = Scripted(*rounds)
    fast = settings("x", lease_duration=1, renew_deadline=0.5, retry_period=0.01)
    watcher = Watcher(fast, client, told.append, trouble)  # type: ignore[arg-type]
    watcher.start()
    done.get(timeout=30)
    watcher.stop()
    assert client.closed.get(timeout=30)
    return told, [t for t in troubles if t != "the end"], client


def test_list_then_events_each_with_its_version() -> None:
    changed = {"type": "MODIFIED", "object": lease(8, "b")}
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    gone = {"type": "DELETED", "object": lease(10, "b")}
    told, troubles, client = run(((lease(5), "7"), [changed, bookmark, gone]))
    assert [(s.record and s.record.holder, s.version) for s in told] == [("a", "5"), ("b", "8"), (None, "10")]
    assert troubles == [""]
    assert client.silences == [watching.SILENCE], "silence ends a watch, and the next LIST is the poll"


def test_no_lease_counts_from_the_lists_version() -> None:
    told, _, _ = run(((None, "7"), []))
    assert told == [LeaseSeen(None, "7")]


def test_a_version_that_is_too_old_lists_again_without_a_word() -> None:
    told, troubles, _ = run(((lease(5), "5"), [ApiRefused("too old", 410)]), ((lease(9), "9"), []))
    assert [s.version for s in told] == ["5", "9"]
    assert troubles == ["", ""]


@pytest.mark.parametrize("error", [Unreached("broken"), RuntimeError("broken")])
def test_a_watch_that_fails_says_so_and_lists_again(error: Exception) -> None:
    told, troubles, _ = run(((lease(5), "5"), [error]), ((lease(9), "9"), []))
    assert [s.version for s in told] == ["5", "9"]
    assert "broken" in troubles[1]
    assert troubles[2] == ""


def test_a_lease_that_cannot_be_understood_is_told_as_such() -> None:
    told, _, _ = run(((lease(5, leaseTransitions=None), "5"), []))
    assert isinstance(told[0], LeaseUnusable)
    assert told[0].version == "5"
