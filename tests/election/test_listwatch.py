"""What the watch tells, and when it asks again, with a client that follows a script."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from kopf_ha.core.election.events import LeaseSeen, LeaseUnusable
from kopf_ha.election.leasewatch import LeaseNews
from kopf_ha.election.listwatch import SILENCE, ListWatch
from kopf_ha.errors import ApiRefused, Unreached
from tests.election.world import settings


def lease(version: int, holder: str = "a", **spec: Any) -> dict[str, Any]:
    meta = {"name": "op", "namespace": "ns", "resourceVersion": str(version), "uid": "u"}
    return {"metadata": meta, "spec": {"holderIdentity": holder, "leaseTransitions": 1} | spec}


class Scripted:
    """A client. Each round is a list, then the events of a watch; an error in either place is raised."""

    def __init__(self, *rounds: tuple[Any, list[Any]]) -> None:
        self.rounds = iter(rounds)
        self.events: list[Any] = []
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.silences: list[float] = []
        self.closed = queue.SimpleQueue[bool]()

    def pages(self, path: str, query: Mapping[str, str], *, timeout: float) -> Iterator[dict[str, Any]]:
        answer, self.events = next(self.rounds, (Unreached("the end"), []))
        self.asked.append((path, query))
        if isinstance(answer, Exception):
            raise answer
        body, version = answer
        yield {"items": [body] if body else [], "metadata": {"resourceVersion": version}}

    def stream(
        self, path: str, query: Mapping[str, str], *, timeout: float, silence: float
    ) -> Iterator[dict[str, Any]]:
        self.asked.append((path, query))
        self.silences.append(silence)
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self.closed.put(True)


def run(*rounds: tuple[Any, list[Any]], makes: int = 1) -> tuple[list[Any], list[str], Scripted]:
    """Give what was told and what was complained of until the script ended.

    Args:
        rounds: the script.
        makes: how often a client has to be made until there is one.
    """
    told: list[Any] = []
    troubles: list[str] = []
    done = queue.SimpleQueue[bool]()

    def trouble(text: str) -> None:
        troubles.append(text)
        if text == "the end":
            done.put(True)

    made: list[int] = []

    def make() -> Any:
        made.append(1)
        if len(made) < makes:
            raise OSError("no such file")
        return client

    client = Scripted(*rounds)
    fast = settings("x", lease_duration=1, renew_deadline=0.5, retry_period=0.01)
    watch = ListWatch(LeaseNews(fast, told.append, trouble), make, fast, name="watch")
    watch.start()
    done.get(timeout=30)
    watch.stop()
    assert client.closed.get(timeout=30)
    return told, [t for t in troubles if t != "the end"], client


def test_list_then_events_each_with_its_version() -> None:
    changed = {"type": "MODIFIED", "object": lease(8, "b")}
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    gone = {"type": "DELETED", "object": lease(10, "b")}
    told, troubles, client = run(((lease(5), "7"), [changed, bookmark, gone]))
    assert [(s.record and s.record.holder, s.version) for s in told] == [("a", "5"), ("b", "8"), (None, "10")]
    assert troubles == [""]
    assert client.silences == [SILENCE], "silence ends a watch, and the next LIST is the poll"
    path, only = "/apis/coordination.k8s.io/v1/namespaces/ns/leases", {"fieldSelector": "metadata.name=op"}
    assert client.asked[:2] == [(path, only), (path, only | {"resourceVersion": "7"})]


def test_a_client_that_cannot_be_made_is_tried_again() -> None:
    told, troubles, _ = run(((lease(5), "7"), []), makes=3)
    assert [s.version for s in told] == ["5"]
    assert troubles == ["no client can be made: no such file"] * 2 + [""]


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


def test_all_pages_are_one_list() -> None:
    class Two(Scripted):
        def pages(self, *_: Any, **__: Any) -> Iterator[dict[str, Any]]:
            for name in "ab":
                yield {"items": [{"name": name}], "metadata": {"resourceVersion": "7"}}

    class All:
        what, collection = "things", "/things"

        def __init__(self) -> None:
            self.lists = queue.SimpleQueue[tuple[list[dict[str, Any]], str]]()

        def selector(self, api: Any) -> Mapping[str, str] | None:
            return {"labelSelector": "app=x"}

        def listed(self, items: list[dict[str, Any]], version: str) -> None:
            self.lists.put((items, version))

        def changed(self, kind: str, body: dict[str, Any]) -> None: ...

        def trouble(self, cause: str) -> None: ...

    consumer, client = All(), Two()
    watch = ListWatch(consumer, lambda: client, settings("x"), name="watch")  # type: ignore[arg-type, return-value]
    watch.start()
    assert consumer.lists.get(timeout=30) == ([{"name": "a"}, {"name": "b"}], "7")
    watch.stop()
    assert client.closed.get(timeout=30)
