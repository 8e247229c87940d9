"""What the fence asks to be sent a moment later (line 4) is sent later, by both sorts of clients. No time passes."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from kopf_ha.adapters import Wiring, _wiring, wired
from kopf_ha.core.wire import Request, Response

ASKED = Request("POST", "/api/v1/namespaces/a/configmaps")
READ = Request("GET", "/apis/coordination.k8s.io/v1/namespaces/a/leases/l", after=0.5)
ORIGIN = "https://one"


class Waits:
    """A fence that reads a moment after the first refusal, and then sends the same again."""

    def flow(self, request: Request, *_: Any, **__: Any) -> Generator[Request, Response, Response]:
        yield request
        yield READ
        return (yield request)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    done: list[Any] = []

    async def sleep(seconds: float) -> None:
        done.append(seconds)

    monkeypatch.setattr("kopf_ha.adapters._wiring.time.sleep", done.append)
    monkeypatch.setattr("kopf_ha.adapters._wiring.asyncio.sleep", sleep)
    return done


WANTED = ["POST", 0.5, "GET", "POST"]


def test_a_blocking_client(told: list[Any]) -> None:
    def send(request: Request) -> Response:
        told.append(request.method)
        return Response(201)

    with wired(Wiring(Waits(), lambda outcome: None)):  # type: ignore[arg-type]
        assert _wiring.drive("kubernetes", ASKED, send, ORIGIN).ok
    assert told == WANTED


def test_an_async_client(told: list[Any]) -> None:
    async def send(request: Request) -> Response:
        told.append(request.method)
        return Response(201)

    with wired(Wiring(Waits(), lambda outcome: None)):  # type: ignore[arg-type]
        assert asyncio.run(_wiring.adrive("kopf", ASKED, send, ORIGIN)).ok
    assert told == WANTED
