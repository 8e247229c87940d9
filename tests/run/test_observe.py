"""What the fence tells Kopf without a request: which events no handler needs to see, and what it was answered (I9)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import kopf
import pytest

from kopf_ha._context import entered
from kopf_ha.adapters import Outcome, Wiring, wired
from kopf_ha.adapters._wiring import adrive
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.target import Target
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import JSON_PATCH, Request, Response
from kopf_ha.errors import Unfenced, Unreached
from kopf_ha.run.observe import is_our_stamp, learn_kind, observe

RESOURCE = kopf.Resource("t.dev", "v1", "widgets")
WIDGET = Target("t.dev", "v1", "widgets", "a", "x")


def event(kind: str | None, version: str, **metadata: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "object": {"metadata": {"namespace": "a", "name": "x", "resourceVersion": version} | metadata},
    }


@pytest.mark.parametrize(
    ("shown", "hidden"),
    [
        (event("MODIFIED", "7"), True),
        (event("MODIFIED", "8"), False),
        (event("MODIFIED", "7", name="y"), False),
        (event("MODIFIED", "7", namespace="b"), False),
        # Handlers have to know of these at any revision.
        (event("DELETED", "7"), False),
        (event(None, "7"), False),
    ],
)
def test_only_the_revision_of_the_stamp_is_hidden(shown: dict[str, Any], hidden: bool) -> None:
    fence = Fence("ns/op")
    fence.known.told.keep(WIDGET.key, "7", Response(200))
    with wired(Wiring(fence, report=lambda outcome: None)):
        assert is_our_stamp(RESOURCE, shown) is hidden


def test_an_answer_without_a_request_reaches_an_async_client() -> None:
    """The end of the steps is a `StopIteration`, which no coroutine may raise."""
    fence, told = Fence("ns/op"), list[Outcome]()
    fence.known.schemas[WIDGET.kind_version] = True
    first = Response(200, json.dumps({"metadata": {"finalizers": ["f"], "resourceVersion": "8"}}).encode())
    fence.known.told.keep(WIDGET.key, "7", first)
    ops = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/metadata/finalizers", "value": ["f"]},
    ]
    asked = Request("PATCH", WIDGET.path, content_type=JSON_PATCH, body=json.dumps(ops).encode())

    async def send(request: Request) -> Response:
        raise AssertionError(request)

    async def ask() -> Response:
        return await adrive("kopf", asked, send, "https://server", saw=True)

    grant = Grant(Stamp(3, "pod", "ns/op", "uid"), 10.0)
    with wired(Wiring(fence, report=told.append, now=lambda: 0.0)), entered(grant):
        assert asyncio.run(ask()) == first
    assert [one.status for one in told] == [200]


@pytest.mark.parametrize("stamped", [True, False])
def test_a_kind_is_known_before_its_objects_so_that_no_write_has_to_read_them(
    stamped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fence, asked = Fence("ns/op"), list[Target]()

    def asks(target: Target) -> bool:
        asked.append(target)
        return stamped

    async def scenario() -> None:
        for _ in range(2):
            await learn_kind(RESOURCE, asks)
        await learn_kind(kopf.Resource("apps", "v1", "deployments"), asks)
        body: Any = {"metadata": {"namespace": "a", "name": "x", "uid": "u", "resourceVersion": "7"}}
        await observe(resource=RESOURCE, body=kopf.Body(body), type=None)

    with wired(Wiring(fence, report=lambda outcome: None)):
        asyncio.run(scenario())
    assert [one.kind for one in asked] == ["widgets.t.dev"], "once, and no kind of Kubernetes itself"
    known = fence.known.objects.get(WIDGET.key)
    assert known is not None
    assert known.version == "7"
    assert ("widgets.t.dev: its CRD has no status.fencing" in caplog.text) is not stamped, "said, since it is weaker"


@pytest.mark.parametrize("trouble", [Unreached("no answer"), Unfenced("one served version lacks it"), None])
def test_a_kind_that_nobody_can_tell_about_is_left_to_the_write(trouble: Exception | None) -> None:
    fence = Fence("ns/op")

    def asks(target: Target) -> None:
        if trouble is not None:
            raise trouble

    with wired(Wiring(fence, report=lambda outcome: None)):
        asyncio.run(learn_kind(RESOURCE, asks))
    assert fence.known.schemas == {}
