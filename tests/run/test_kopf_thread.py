"""A Kopf in a thread of its own: how it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import aiohttp
import kopf
import pytest

from devcluster.waiting import until
from kopf_ha import _kopf
from kopf_ha._kopf import new_registry
from kopf_ha.adapters.kopf_client import fence_middleware
from kopf_ha.run.kopf_thread import KopfOptions, KopfThread
from tests.kopf_api import AGGREGATED, IN_NS, LIST, METRICS, KopfApi

LONG = 30.0


@pytest.fixture
def api() -> Iterator[KopfApi]:
    served = KopfApi("a")
    yield served
    served.close()


class Seen:
    """A thread, and what it told."""

    def __init__(self, options: KopfOptions | None = None, error: Exception | None = None) -> None:
        self.options, self.error = options, error
        self.inside: list[str] = []
        self.roots: list[asyncio.Task[Any]] = []
        self.overs: list[BaseException | None] = []
        self.thread = KopfThread(
            name="kopf-thread-test",
            inside=self._inside,
            main=self._main,
            root_ended=self.roots.append,
            over=self.overs.append,
        )

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        self.inside.append("entered")
        yield
        self.inside.append("left")

    async def _main(self) -> None:
        self.inside.append("main")
        if self.error is not None:
            raise self.error
        if self.options is None:
            return await self.thread.until_asked()
        settings = self.options.make_settings()
        settings.scanning.disabled = not self.options.namespaces
        operator = await self.thread.spawn(self.options, settings, "me")
        return await operator.run()


def options(api: KopfApi, login: Any = None) -> KopfOptions:
    registry = new_registry()
    kopf.on.login(registry=registry)(login or (lambda **_: kopf.ConnectionInfo(server=api.url)))
    kopf.on.event("things", registry=registry)(lambda **_: None)
    return KopfOptions(registry=registry, clusterwide=True)


def test_who_asks_before_it_begins_is_heard() -> None:
    seen = Seen()
    seen.thread.stop()
    seen.thread.start()
    assert seen.thread.join(LONG)
    assert seen.inside == ["entered", "left"]
    assert seen.overs == [None]
    seen.thread.stop()  # once more, of a loop that is closed


def test_main_runs_inside_and_ends_when_asked() -> None:
    seen = Seen()
    assert not seen.thread.started
    assert seen.thread.join(0)
    seen.thread.start()
    until("main", lambda: "main" in seen.inside, LONG)
    assert not seen.thread.join(0)
    assert not seen.thread.asked
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert seen.inside == ["entered", "main", "left"]
    assert seen.overs == [None]


def test_an_error_is_told() -> None:
    error = ValueError("no")
    seen = Seen(error=error)
    seen.thread.start()
    assert seen.thread.join(LONG)
    assert seen.overs == [error]


def test_it_stops_in_the_middle_of_discovery_without_waiting_for_it(
    api: KopfApi, caplog: pytest.LogCaptureFixture
) -> None:
    """Kopf waits 5 s for it and then says that it hangs."""
    caplog.set_level("DEBUG", "kopf")
    api.held.add("/apis")
    seen = Seen(options(api))
    seen.thread.start()
    until("Kopf to discover", lambda: "/apis" in api.asked, LONG)
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert seen.overs == [None]
    assert len(seen.roots) > 5
    assert "Hung tasks stopping is skipped" in caplog.text


def test_a_login_that_fails_is_told_as_an_end(api: KopfApi) -> None:
    """Kopf would wait for credentials for ever, and the Lease be renewed."""

    def fail(**_: Any) -> None:
        raise kopf.PermanentError("no credentials")

    seen = Seen(options(api, fail))
    seen.thread.start()

    def causes() -> list[str]:
        errors = [task.exception() for task in seen.roots if not task.cancelled()]
        return [str(error.__cause__) for error in errors if error]

    until("the login's end", lambda: "no credentials" in causes(), LONG)
    assert seen.thread.loop is not None
    seen.thread.loop.call_soon_threadsafe(seen.thread.stop_kopf)
    assert seen.thread.join(LONG)
    assert not seen.thread.asked


def test_kopf_is_fenced(api: KopfApi) -> None:
    """I8: the sessions that it uses have the fence's middleware."""
    sessions: list[Any] = []

    async def login(**_: Any) -> kopf.AiohttpSession:
        sessions.append(aiohttp.ClientSession())
        return kopf.AiohttpSession(server=api.url, aiohttp_session=sessions[0])

    seen = Seen(options(api, login))
    seen.thread.start()
    until("Kopf to list", lambda: LIST in api.asked, LONG)
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert fence_middleware in sessions[0]._middlewares


def test_a_token_that_stays_unknown_ends_it_after_longer_and_longer_pauses(
    api: KopfApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The account is deleted, and each login gives the same token again. Kopf alone would log in without a pause."""
    monkeypatch.setattr(_kopf.vault, "PAUSES", (0, 0.01, 0.02, 0.04))
    logins: list[int] = []

    def login(**_: Any) -> kopf.ConnectionInfo:
        logins.append(1)
        return kopf.ConnectionInfo(server=api.url, token="deleted")

    api.unknown = lambda token: True
    seen = Seen(options(api, login))
    seen.thread.start()
    assert seen.thread.join(LONG)
    assert [r.args for r in caplog.records if "does not know the credentials" in r.msg] == [(0.01,), (0.02,), (0.04,)]
    # The first, one after each pause, and the one that was not taken; one more if two requests were under way.
    assert len(logins) in (5, 6)
    assert "Ran out of valid credentials" in str(seen.overs)


def test_a_token_that_is_unknown_for_a_moment_is_tried_again(api: KopfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each passing 401 would end a term otherwise."""
    monkeypatch.setattr(_kopf.vault, "PAUSES", (0, 0.01, 0.01, 0.01))
    logins: list[int] = []

    def login(**_: Any) -> kopf.ConnectionInfo:
        logins.append(1)
        return kopf.ConnectionInfo(server=api.url, token="mine")

    api.unknown = lambda token: LIST in api.asked and len(logins) < 4
    seen = Seen(options(api, login))
    seen.thread.start()
    until("Kopf to watch", lambda: api._watches, LONG)
    assert len(logins) == 4
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert seen.overs == [None]


def test_it_stops_while_it_waits_to_log_in_again(
    api: KopfApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_kopf.vault, "PAUSES", (3600,) * 1000)
    api.unknown = lambda token: LIST in api.asked
    logins: list[int] = []

    def login(**_: Any) -> kopf.ConnectionInfo:
        logins.append(1)
        return kopf.ConnectionInfo(server=api.url, token="deleted")

    seen = Seen(options(api, login))
    seen.thread.start()
    until("the pause", lambda: "waiting 3600 s" in caplog.text, LONG)
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert seen.overs == [None]
    assert len(logins) == 2


def test_a_token_that_expired_is_replaced_by_the_one_of_the_next_login(api: KopfApi) -> None:
    tokens = iter(["expired", "fresh"])
    api.unknown = lambda token: token == "expired"
    seen = Seen(options(api, lambda **_: kopf.ConnectionInfo(server=api.url, token=next(tokens))))
    seen.thread.start()
    until("Kopf to list", lambda: LIST in api.asked, LONG)
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert seen.overs == [None]
    assert api.tokens[-1] == "fresh"


FORBIDDEN = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "namespaces is forbidden"}
NAMESPACES = "/api/v1/namespaces"


def in_namespace(api: KopfApi) -> Seen:
    """Kopf in one namespace, which repeats a refused request after an hour."""

    def make_settings() -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.networking.error_backoffs = [3600, 3600]
        return settings

    given = options(api)
    return Seen(KopfOptions(registry=given.registry, namespaces=("ns",), make_settings=make_settings))


def test_namespaces_that_may_not_be_listed_delay_no_handler(api: KopfApi) -> None:
    """Kopf alone repeats the request for 54 s before it takes the namespaces that it was given."""
    api.refused[NAMESPACES] = (403, FORBIDDEN)
    seen = in_namespace(api)
    seen.thread.start()
    until("Kopf to list", lambda: IN_NS in api.asked, LONG)
    assert api.gets.count(NAMESPACES) == 1
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert seen.overs == [None]


def test_a_namespace_that_is_not_there_is_not_assumed(api: KopfApi) -> None:
    """Who may list namespaces knows."""
    api.refused[NAMESPACES] = (200, {"kind": "NamespaceList", "metadata": {"resourceVersion": "1"}, "items": []})
    seen = in_namespace(api)
    seen.thread.start()
    until("Kopf to watch namespaces", lambda: api.gets.count(NAMESPACES) > 1, LONG)
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert IN_NS not in api.asked


@pytest.mark.parametrize("body", ["service unavailable\n", "error trying to reach service: dial tcp: refused\n"])
def test_an_aggregated_api_whose_server_is_down_neither_delays_nor_ends_anything(
    api: KopfApi, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kopf alone repeats the request for 54 s, and ends. What the server has is found when it is back."""
    monkeypatch.setattr(_kopf.discovery, "AGAIN", (0.01,))
    path = f"/apis/{AGGREGATED}/v1"
    api.refused[path] = (503, body)
    given = options(api)
    kopf.on.event("metrics", registry=given.registry)(lambda **_: None)
    seen = Seen(given)
    seen.thread.start()
    until("Kopf to list", lambda: LIST in api.asked, LONG)
    until("it to ask again", lambda: api.gets.count(path) > 2, LONG)
    assert METRICS not in api.asked
    del api.refused[path]
    until("what was down to be watched", lambda: METRICS in api.asked, LONG)
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert seen.overs == [None]


def test_a_503_of_the_api_server_itself_is_waited_for(api: KopfApi) -> None:
    """Its own kinds are there: handlers would decide without their indices."""
    path = f"/apis/{AGGREGATED}/v1"
    api.refused[path] = (503, {"kind": "Status", "code": 503, "message": "starting"})
    seen = Seen(options(api))
    seen.thread.start()
    until("Kopf to repeat the request", lambda: api.gets.count(path) == 2, LONG)
    assert LIST not in api.asked
    seen.thread.stop()
    assert seen.thread.join(LONG)


def test_it_stops_while_it_asks_for_what_is_down(api: KopfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kopf.discovery, "AGAIN", (0.01,))
    path = f"/apis/{AGGREGATED}/v1"
    api.refused[path] = (503, "service unavailable\n")
    seen = Seen(options(api))
    seen.thread.start()
    until("Kopf to list", lambda: LIST in api.asked, LONG)
    api.held.add(path)
    seen.thread.stop()
    assert seen.thread.join(LONG)
    assert seen.overs == [None]
