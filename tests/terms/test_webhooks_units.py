"""How the webhooks of an unchanged operator come to every replica; without a cluster."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

import kopf
import pytest

import kopf_ha
from kopf_ha import _kopf
from kopf_ha._context import only_reads, runs_again
from kopf_ha._kopf import new_registry
from kopf_ha.adapters import Outcome, Wiring, _ports, wired
from kopf_ha.adapters._wiring import drive
from kopf_ha.core.fence import Fence
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import NoTerm
from kopf_ha.run import loading
from kopf_ha.run.everywhere import Everywhere, _Server
from kopf_ha.run.kopf_thread import KopfOptions
from kopf_ha.run.never import is_never
from kopf_ha.run.webhooks import Bridge, are_served_everywhere, for_every_replica, for_terms, warn_of_certificate
from kopf_ha.settings import Settings


@pytest.fixture(autouse=True)
def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ports, "_share", False)


def with_webhook() -> kopf.OperatorRegistry:
    registry = new_registry()
    kopf.on.validate("things", registry=registry, id="check")(lambda **_: None)
    return registry


def options(registry: kopf.OperatorRegistry, **more: Any) -> KopfOptions:
    return KopfOptions(registry=registry, clusterwide=True, **more)


def make(registry: kopf.OperatorRegistry, everywhere: kopf.OperatorRegistry) -> Everywhere:
    return Everywhere(everywhere, options(registry), "me", lambda cause: None)


def test_webhooks_move_unless_the_author_has_decided() -> None:
    registry, none, decided = with_webhook(), new_registry(), new_registry()
    kopf.index("things", registry=decided)(lambda **_: None)
    assert are_served_everywhere(registry, none)
    assert not are_served_everywhere(registry, decided)
    assert not are_served_everywhere(new_registry(), none)
    assert make(registry, none).wanted
    assert not make(new_registry(), none).wanted
    assert make(registry, decided).for_terms.registry is registry


def test_startup_handlers_may_not_write_outside_of_a_term(caplog: pytest.LogCaptureFixture) -> None:
    """I8: whatever they try is refused, is no error, and is no fault of the code: it runs again in each term."""
    caplog.set_level(logging.INFO)
    registry, outcomes, done = with_webhook(), list[Outcome](), list[str]()

    def write() -> None:
        drive(
            "test",
            Request("POST", "/api/v1/namespaces/ns/configmaps"),
            lambda asked: Response(201, b"{}"),
            "http://api",
        )

    @kopf.on.startup(registry=registry, id="blocking")
    def blocking(**_: Any) -> None:
        assert only_reads()
        done.append("blocking")
        write()
        done.append("never")

    @kopf.on.startup(registry=registry, id="async")
    async def waiting(**_: Any) -> None:
        assert runs_again()
        done.append("async")
        kopf_ha.current_term()
        done.append("never")

    @kopf.on.startup(registry=registry, id="wrapping")
    def wrapping(**_: Any) -> None:
        try:
            write()
        except Exception as error:
            raise kopf.PermanentError("the CRD was not made") from error

    @kopf.on.startup(registry=registry, id="retrying")
    async def retrying(**_: Any) -> None:
        try:
            write()
        except Exception:
            raise kopf.TemporaryError("later")  # noqa: B904  as many do

    @kopf.on.startup(registry=registry, id="failing")
    def failing(**_: Any) -> None:
        raise kopf.PermanentError("as ever")

    handlers: dict[str, Any] = {
        str(h.id): h.fn for h in _kopf.activities(for_every_replica(options(registry)).registry)
    }
    with wired(Wiring(Fence("ns/op"), outcomes.append)):
        handlers["blocking"]()
        asyncio.run(handlers["async"]())
        handlers["wrapping"]()
        asyncio.run(handlers["retrying"]())
        with pytest.raises(kopf.PermanentError):
            handlers["failing"]()
    assert done == ["blocking", "async"]
    assert [_kopf.is_async(handlers[name]) for name in ("blocking", "async")] == [False, True]
    assert isinstance(outcomes[0].refused, NoTerm)
    assert not is_never(outcomes[0])
    assert "handler blocking writes, which only the leader may" in caplog.text


def test_each_kopf_has_settings_of_its_own() -> None:
    """An application may give the same settings to each; what one Kopf must not do is no business of the other."""
    given, bridge = kopf.OperatorSettings(), Bridge()
    given.admission.managed, given.admission.server = "auto.test", object()  # type: ignore[assignment]
    given.persistence.finalizer = "theirs"
    mine = options(with_webhook(), make_settings=lambda: given)
    settings = for_every_replica(mine).make_settings()
    _Server(bridge).configure(settings)
    assert settings.admission.managed is None, "the leader writes it"
    assert (given.admission.managed, given.persistence.finalizer) == ("auto.test", "theirs")
    term = for_terms(mine, bridge)
    term.overrule(given)
    assert given.admission.server is bridge


def test_the_term_writes_what_the_server_of_its_replica_says() -> None:
    async def scenario() -> None:
        async def theirs(answer: Any) -> Any:
            yield {"url": "https://one"}
            yield {"url": "https://two"}

        bridge, settings = Bridge(), kopf.OperatorSettings()
        settings.admission.server = theirs
        server = _Server(bridge)
        server.configure(settings)
        told, seen = settings.admission.server(None), bridge(None)
        waiting = asyncio.ensure_future(anext(seen))
        await asyncio.sleep(0)
        assert not waiting.done(), "the server does not listen yet"
        for url in ("https://one", "https://two"):
            await anext(told)
            assert await waiting == {"url": url}
            waiting = asyncio.ensure_future(anext(seen))
        waiting.cancel()

    asyncio.run(scenario())


def test_modules_with_webhooks_are_needed_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf, "get_default_registry", with_webhook)
    assert loading._stays(Settings()) == "its webhooks have to be served before"


@pytest.mark.parametrize(
    ("server", "warned"),
    [
        (lambda: kopf.WebhookServer(), True),
        (lambda: kopf.WebhookServer(insecure=True), False),
        (lambda: kopf.WebhookServer(certfile="tls.crt", pkeyfile="tls.key"), False),
        (lambda: kopf.WebhookServer(context=ssl.create_default_context()), True),
        (lambda: None, False),
    ],
)
def test_a_certificate_of_each_process_is_named(
    caplog: pytest.LogCaptureFixture, server: Callable[[], Any], warned: bool
) -> None:
    warn_of_certificate(server())
    assert ("WebhookServer(certfile=…, pkeyfile=…, cafile=…)" in caplog.text) == warned
