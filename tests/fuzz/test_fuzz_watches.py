"""What lists and watches bring: the Lease's watch goes on, and Kopf's first list loses nothing and ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import kopf
from hypothesis import given
from hypothesis import strategies as st

from kopf_ha import _kopf
from kopf_ha.api import _parsed
from kopf_ha.core.election.events import LeaseSeen, LeaseUnusable
from kopf_ha.election.leasewatch import LeaseNews
from kopf_ha.election.listwatch import ListWatch
from kopf_ha.errors import Unreached
from kopf_ha.run.intake import Intake
from kopf_ha.settings import Settings
from tests.fuzz.fuzzing import anything, fuzzed, nearly
from tests.fuzz.test_fuzz_core import A_LEASE

SETTINGS = Settings(lease_namespace="ns", lease_name="op", identity="x", pod_uid="u")
events = nearly(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "NEW"]), "object": st.just(A_LEASE)}
    )
)
pages = nearly(st.just({"metadata": {"resourceVersion": "5"}, "items": [A_LEASE]}))


@fuzzed(40)
@given(st.lists(pages, min_size=1, max_size=2), st.lists(events, max_size=4))
def test_the_watch_of_the_lease_survives_whatever_it_is_sent(listed: list[Any], sent: list[Any]) -> None:
    """What it cannot read is a trouble that it tells of, after which it lists again."""
    told: list[Any] = []
    troubles: list[str] = []

    class Api:
        def pages(self, *_: Any, **__: Any) -> Iterator[dict[str, Any]]:
            yield from (_parsed(json.dumps(page).encode(), "it") for page in listed)

        def stream(self, *_: Any, **__: Any) -> Iterator[dict[str, Any]]:
            yield from (_parsed(json.dumps(event).encode(), "it") for event in sent)
            watch._stopping.set()

    def trouble(cause: str) -> None:
        if cause:
            troubles.append(cause)
            watch._stopping.set()  # a test does not wait for the next list

    watch = ListWatch(LeaseNews(SETTINGS, told.append, trouble), Api, SETTINGS, name="fuzz")  # type: ignore[arg-type]
    watch._go_on(Api())  # type: ignore[arg-type]
    assert watch._stopping.is_set()
    assert all(isinstance(news, (LeaseSeen, LeaseUnusable)) for news in told)
    assert told or troubles, "something is always said"


@fuzzed(30)
@given(st.binary(max_size=30) | anything.map(lambda one: json.dumps(one).encode()) | st.just(b'{"a":' * 3_000))
def test_a_line_of_a_watch_is_an_object_or_no_api_server_sent_it(line: bytes) -> None:
    try:
        assert isinstance(_parsed(line, "it"), dict)
    except Unreached:
        pass


def a_kind() -> _kopf.Kind:
    registry = kopf.OperatorRegistry()

    @kopf.on.create("t.dev", "widgets", registry=registry)
    @kopf.on.update("t.dev", "widgets", field="spec.x", registry=registry)
    @kopf.on.delete("t.dev", "widgets", optional=True, annotations={"a": kopf.PRESENT}, registry=registry)
    def handle(**_: Any) -> None: ...

    @kopf.on.event("t.dev", "widgets", when=lambda spec, **_: spec["x"] > 1, registry=registry)
    def watch(**_: Any) -> None: ...

    from kopf._cogs.structs import references

    resource = references.Resource("t.dev", "v1", "widgets", kind="Widget", namespaced=True)
    parts = {"memories": None, "memobase": None, "indexers": None}
    return _kopf.Kind(resource, registry, kopf.OperatorSettings(), parts)


KIND = a_kind()
notes = st.dictionaries(
    st.sampled_from(["kopf.zalando.org/last-handled-configuration", "kopf.zalando.org/handle", "a"]),
    st.text(max_size=8) | anything.map(json.dumps) | st.just('{"spec": {"x": 1}}'),
    max_size=3,
)
bodies = nearly(
    st.fixed_dictionaries(
        {
            "metadata": st.fixed_dictionaries(
                {"name": st.sampled_from("ab"), "uid": st.sampled_from(["1", "2", "3"]), "annotations": notes},
                optional={"namespace": st.just("ns"), "resourceVersion": st.integers(1, 9).map(str)},
            )
        },
        optional={"spec": st.dictionaries(st.just("x"), anything), "status": anything},
    )
)


@fuzzed(40)
@given(bodies)
def test_what_kopf_keeps_in_an_object_may_be_anything(body: Any) -> None:
    """In doubt the object goes through Kopf's own cycle, which has errors of its own, for this object alone (I10)."""
    assert KIND.is_urgent(body) in (True, False)
    assert KIND.is_done(body) in (True, False)
    assert KIND.is_idle({"type": "MODIFIED", "object": body}) in (True, False)


def has_metadata(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("metadata"), dict)


@fuzzed(15)
@given(st.lists(bodies.filter(has_metadata), max_size=5, unique_by=lambda body: str(body["metadata"].get("uid"))))
def test_a_first_list_of_any_objects_is_passed_on_and_ends(listed: list[Any]) -> None:
    left_out: list[Any] = []

    async def source() -> AsyncIterator[Any]:
        for body in listed:
            yield {"type": None, "object": body}
        yield object()
        for body in listed:
            yield {"type": "MODIFIED", "object": body}

    async def leave_out(body: Any) -> None:
        left_out.append(body)

    async def run() -> list[Any]:
        async with asyncio.timeout(60):
            return [event async for event in Intake(KIND, leave_out).ordered(source())]

    passed = asyncio.run(run())
    objects = [event["object"] for event in passed if isinstance(event, dict)]
    for body in listed:
        assert any(body is one for one in [*objects, *left_out]), "each gets its turn (I7)"
