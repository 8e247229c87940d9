"""What may run on every replica, and how it ends; without a cluster."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import kopf
import pytest

import kopf_ha
from kopf_ha._context import boottime, entered, entered_everywhere, only_reads
from kopf_ha._kopf import new_registry
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import ConfigurationError, NoTerm
from kopf_ha.run.everywhere import Everywhere, _Server, name_unserved
from kopf_ha.run.kopf_thread import KopfOptions


def make(registry: kopf.OperatorRegistry, failures: list[str]) -> tuple[Everywhere, threading.Event]:
    ended = threading.Event()

    def failed(cause: str) -> None:
        failures.append(cause)
        ended.set()

    return Everywhere(registry, KopfOptions(registry=new_registry(), clusterwide=True), "me", failed), ended


async def nowhere(**_: Any) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(server="https://127.0.0.1:1")


def wrong(registry: kopf.OperatorRegistry) -> dict[str, Any]:
    return {
        "create": kopf.on.create("things", registry=registry, id="h"),
        "resume": kopf.on.resume("things", registry=registry, id="h"),
        "timer": kopf.timer("things", registry=registry, id="h", interval=1),
        "daemon": kopf.daemon("things", registry=registry, id="h"),
    }


@pytest.mark.parametrize("kind", ["create", "resume", "timer", "daemon"])
def test_handlers_that_write_are_refused(kind: str) -> None:
    registry = new_registry()
    wrong(registry)[kind](lambda **_: None)
    with pytest.raises(ConfigurationError, match="handler h cannot run on every replica: Kopf writes the progress"):
        make(registry, [])


def test_nothing_to_run() -> None:
    one, _ = make(new_registry(), [])
    one.start()
    assert one.ready
    one.stop(1)
    assert not any(t.name == "kopf-ha-everywhere" for t in threading.enumerate())


def test_managed_webhook_configurations_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    registry = new_registry()
    failures: list[Any] = []
    # the second waits for its turn and comes after all the others
    calls = iter((kopf.TemporaryError("later", delay=0.01), None))

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        if error := next(calls):
            raise error
        settings.admission.managed = "auto.kopf.dev"

    kopf.on.validate("things", registry=registry)(lambda **_: None)
    one, ended = make(registry, failures)
    one.start()
    assert ended.wait(30)
    one.stop(5, linger=3600)
    assert "settings.admission.managed is set" in failures[0]
    assert "cert-manager" in failures[0]
    assert not one.ready
    assert "kopf_ha.everywhere ended: settings.admission.managed is set" in caplog.text


def test_a_webhook_without_a_server_ends_it() -> None:
    registry = new_registry()
    failures: list[Any] = []
    kopf.on.validate("things", registry=registry)(lambda **_: None)
    kopf.on.login(registry=registry)(nowhere)
    one, ended = make(registry, failures)
    one.start()
    assert ended.wait(30)
    one.stop(5)
    assert "no admission server" in failures[0]


def test_who_serves_the_webhooks_of_the_terms_is_named(caplog: pytest.LogCaptureFixture) -> None:
    registry, everywhere = new_registry(), new_registry()
    kopf.on.validate("things", registry=registry, id="check")(lambda **_: None)
    caplog.set_level(logging.INFO)
    name_unserved(registry, everywhere)
    assert "every replica serves the webhooks check: their handlers and indices run in no term" in caplog.text
    kopf.index("things", registry=everywhere)(lambda **_: None)
    name_unserved(registry, everywhere)
    assert "webhook check is served by the leader only" in caplog.text


@pytest.mark.parametrize("mode", ["full", "rv", "none"])
def test_no_mode_lets_it_write(mode: str) -> None:
    """I8. Events and questions about permissions pass, as everywhere."""
    fence = Fence("ns/op", mode)
    path = "/apis/example.dev/v1/namespaces/ns/things/a"
    with pytest.raises(NoTerm, match=r"PATCH things\.example\.dev ns/a: the calling code runs on every replica"):
        next(fence.flow(Request("PATCH", path), None, lambda: 0.0, only_reads=True))
    for passes in (Request("GET", path), Request("POST", "/api/v1/namespaces/ns/events")):
        assert next(fence.flow(passes, None, lambda: 0.0, only_reads=True)) is passes


def test_a_bound_function_has_its_term_there() -> None:
    grant = Grant(Stamp(7, "me", "ns/op", "u"), boottime() + 600)
    with entered(grant):
        bound = kopf_ha.current_term().bind(lambda: (only_reads(), kopf_ha.current_term().token))
    with entered_everywhere():
        assert only_reads()
        assert bound() == (False, grant.stamp.token)
        with pytest.raises(NoTerm, match="there is no token"):
            kopf_ha.current_term()
    assert not only_reads()


def test_requests_wait_until_the_indices_are_filled() -> None:
    """Else the first ones would be judged by an index with half of the objects in it."""

    async def scenario() -> None:
        given: list[Any] = []

        async def theirs(answer: Any) -> Any:
            given.append(answer)
            yield {"url": "https://here"}

        async def answer(request: str, *, webhook: str) -> str:
            return f"{request} {webhook}"

        server, settings = _Server(), kopf.OperatorSettings()
        settings.admission.server = theirs
        server.configure(settings)
        assert [config async for config in settings.admission.server(answer)] == [{"url": "https://here"}]
        assert server.listening
        asked = asyncio.create_task(given[0]("asked", webhook="w"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not asked.done()
        server.indexed.set()
        assert await asked == "asked w"

    asyncio.run(scenario())
