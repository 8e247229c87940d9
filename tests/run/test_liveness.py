"""Kopf's liveness endpoint, on leader and followers, and at one port with other things."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import kopf
import pytest
import requests

from devcluster.waiting import until
from kopf_ha.errors import ConfigurationError
from kopf_ha.run.health import Check, Health
from kopf_ha.run.liveness import FRESH, Endpoint, Liveness, Probes, servers
from kopf_ha.run.peering import switch_off
from kopf_ha.run.serving import Server
from kopf_ha.settings import Settings
from testbed import replica as testbed
from testbed.ports import free_port
from tests.run.support import LONG, PREAMBLE, Replica, World


class FakeHealth(Health):
    """Whose checks a test sets."""

    wrong: str = ""

    def __init__(self, port: int = 0) -> None:
        self._settings = Settings(health_port=port)

    def checks(self, path: str) -> list[Check] | None:
        return [("loop", self.wrong)] if path in ("/livez", "/readyz") else None

    def notes(self, path: str) -> list[str]:
        return []


class Asked:
    """A term whose probes end when a test says so."""

    def __init__(self) -> None:
        self.future: Future[Mapping[str, Any]] | None = None

    def __call__(self) -> Future[Mapping[str, Any]] | None:
        return self.future

    def result(self, value: Any) -> None:
        self.future = Future()
        self.future.set_result(value)

    def failure(self, error: Exception) -> None:
        self.future = Future()
        self.future.set_exception(error)


@contextlib.contextmanager
def serving(url: str, health: FakeHealth, asked: Asked, port: int = 0) -> Iterator[None]:
    liveness = Liveness(endpoint=Endpoint.parse(url), health=health, probe=asked)
    made: list[Server] = []
    try:
        made += [server for serve in servers(health, liveness, port) if (server := serve()) is not None]
        yield
    finally:
        for server in made:
            server.close()


def get(url: str) -> requests.Response:
    return requests.get(url, timeout=LONG)


# --- what is served


def test_a_follower_answers_as_kopf_does_without_probes() -> None:
    url = f"http://127.0.0.1:{free_port()}/healthz"
    with serving(url, FakeHealth(), Asked()):
        got = get(url)
        assert (got.status_code, got.text) == (200, "{}")
        assert get(url + "?x=1").status_code == 200
        for other in (url + "/", url.replace("healthz", "livez"), url + "x"):
            assert get(other).status_code == 404
        assert requests.head(url, timeout=LONG).status_code == 200


def test_a_leader_answers_with_the_results(caplog: pytest.LogCaptureFixture) -> None:
    url, asked = f"http://localhost:{free_port()}/healthz", Asked()
    with serving(url, FakeHealth(), asked):
        asked.result({"now": "12:00", "n": 1})
        assert get(url).json() == {"now": "12:00", "n": 1}
        asked.failure(ValueError("the cloud is gone"))
        got = get(url)
        assert (got.status_code, "the cloud is gone" in got.text) == (500, True)
        assert "a probe failed: the cloud is gone" in caplog.text
        asked.result({"x": object()})
        assert get(url).status_code == 500, "as with Kopf: no JSON can be made of it"


def test_a_term_that_ends_meanwhile_costs_no_restart() -> None:
    url, asked = f"http://localhost:{free_port()}/", Asked()
    with serving(url, FakeHealth(), asked):
        asked.future = Future()
        asked.future.cancel()
        assert (get(url).status_code, get(url).text) == (200, "{}")


def test_what_fails_livez_fails_it() -> None:
    url, asked, health = f"http://localhost:{free_port()}/healthz", Asked(), FakeHealth()
    with serving(url, health, asked):
        asked.future = Future()  # it never ends: the loop is blocked
        health.wrong = "the event loop has been blocked"
        got = get(url)
        assert (got.status_code, got.text) == (503, "the event loop has been blocked\n")


def test_at_the_port_of_the_health_endpoint() -> None:
    port, asked = free_port(), Asked()
    asked.result({"alive": True})
    with serving(f"http://0.0.0.0:{port}/healthz", FakeHealth(port), asked, port):
        at = f"http://127.0.0.1:{port}"
        assert get(at + "/healthz").json() == {"alive": True}
        assert (get(at + "/livez").text, get(at + "/readyz").text) == ("ok\n", "ok\n")
        assert get(at + "/other").status_code == 404


def test_a_port_that_is_taken_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    with (
        serving(url, FakeHealth(), Asked()),
        pytest.raises(ConfigurationError, match=r"liveness cannot be served at 127\.0\.0\.1, port \d+: .*in use"),
        serving(url, FakeHealth(), Asked()),
    ):
        pass


# --- where


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://0.0.0.0:8080/healthz", ("0.0.0.0", 8080, "/healthz")),
        ("http://:8080/healthz", ("localhost", 8080, "/healthz")),
        ("http://[::]:8080", ("::", 8080, "/")),
        ("http://host/x/y", ("host", 80, "/x/y")),
    ],
)
def test_a_url_is_read_as_kopf_reads_it(url: str, endpoint: tuple[str, int, str]) -> None:
    assert Endpoint.parse(url) == Endpoint(*endpoint)


@pytest.mark.parametrize("url", ["8080", "https://x:1/", "http:///x", "http://x:port/", "0.0.0.0:8080", "http://[x/"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--liveness must be a URL like http://0\.0\.0\.0:8080/healthz, not"):
        Endpoint.parse(url)


@pytest.mark.parametrize(
    ("url", "settings", "why"),
    [
        ("http://0.0.0.0:1/x", {"metrics_port": 1}, "--liveness and --metrics-port are both at port 1"),
        ("http://127.0.0.1:1/x", {"health_port": 1}, r"choose two ports, or write http://0\.0\.0\.0:1/x"),
        ("http://0.0.0.0:1/readyz", {"health_port": 1}, "both serve /readyz at port 1"),
        ("http://0.0.0.0:1/livez", {"health_port": 1}, "both serve /livez at port 1"),
    ],
)
def test_two_things_at_one_port(url: str, settings: dict[str, int], why: str) -> None:
    given: Any = settings
    with pytest.raises(ConfigurationError, match=why):
        Endpoint.parse(url).check(Settings(**given))


def test_things_that_can_share_a_port() -> None:
    Endpoint.parse("http://0.0.0.0:1/healthz").check(Settings(health_port=1))
    Endpoint.parse("http://127.0.0.1:1/readyz").check(Settings(health_port=2, metrics_port=3))


# --- the results of a term


def test_results_are_given_again_for_ten_seconds_as_by_kopf() -> None:
    now, runs = [0.0], []

    async def run() -> Mapping[str, Any]:
        await asyncio.sleep(0)
        runs.append(1)
        return {"run": len(runs)}

    async def main() -> None:
        probes = Probes(run, lambda: now[0])
        assert await asyncio.gather(probes.results(), probes.results()) == [{"run": 1}] * 2
        now[0] = FRESH
        assert await probes.results() == {"run": 2}

    asyncio.run(main())


# --- peering in the operator's code


def test_peering_stays_off_whatever_startup_handlers_set(caplog: pytest.LogCaptureFixture) -> None:
    settings = kopf.OperatorSettings()
    settings.peering.clusterwide = True  # by Kopf
    switch_off(settings)
    assert not caplog.records
    settings.peering.name, settings.peering.mandatory, settings.peering.standalone = "ours", True, False
    switch_off(settings)
    assert (settings.peering.standalone, settings.peering.mandatory) == (True, False)
    assert "settings.peering.name and settings.peering.mandatory has no effect: the Lease elects" in caplog.text


# --- beside plain Kopf

OPERATOR = """
import os

@kopf.on.startup()
def peering(settings, **_):
    settings.peering.name, settings.peering.mandatory, settings.peering.standalone = "nothing", True, False

@kopf.index(GROUP, "v1", "things")
def names(name, **_):
    return {name: 1}

@kopf.on.event(GROUP, "v1", "things")
def seen(logger, **_):
    logger.info("indexed")

@kopf.on.probe(id="who")
async def who(names, memo, **_):
    return {"names": list(names), "memo": dict(memo), "term": MAYBE}

@kopf.on.probe(id="sync")
def sync(**_):
    return 1
"""


def test_leader_and_follower_beside_plain_kopf(world: World, replica: Callable[..., Replica], tmp_path: Path) -> None:
    """Also with code that demands peering, in a cluster without its kinds: plain Kopf would wait for ever."""
    world.create("Thing", "a")
    ports = [free_port() for _ in range(3)]
    urls = [f"http://127.0.0.1:{port}/healthz" for port in ports]
    arguments = [("--liveness", f"http://0.0.0.0:{port}/healthz", "op.py") for port in ports]

    plain_folder = tmp_path / "plain"
    plain_folder.mkdir()
    code = OPERATOR.replace("MAYBE", "'no term'").replace('"nothing", True, False', '"nothing", False, True')
    (plain_folder / "op.py").write_text(PREAMBLE + code)
    run = ["run", "--standalone", "-n", world.namespace, *arguments[0]]
    plain = testbed.Replica(
        "plain", world.cluster.kubeconfig, run, plain_folder / "log", program=("-m", "kopf"), cwd=plain_folder
    )
    plain.start()
    try:
        plain.see("indexed")  # before anybody asks, since results are kept for ten seconds
        expected = until("Kopf's answer", lambda: answered(urls[0], "who"), LONG)
    finally:
        plain.kill()

    fenced = OPERATOR.replace("MAYBE", "kopf_ha.current_term().token")
    leader = replica(fenced, *arguments[1])
    leader.see("indexed")
    got = until("the leader's answer", lambda: answered(urls[1], "who"), LONG)
    follower = replica(fenced, *arguments[2], env={"KOPF_RUN_PRIORITY": "7"})
    waiting = until("the follower's answer", lambda: answered(urls[2], ""), LONG)

    token = world.lease()["leaseTransitions"]
    assert got.json()["who"].pop("term") == token
    assert expected.json()["who"].pop("term") == "no term"
    assert got.json() | {"who": 0} == expected.json() | {"who": 0} == {"who": 0, "sync": 1}
    assert [one.json()["who"]["names"] for one in (got, expected)] == [["a"]] * 2
    assert got.headers["Content-Type"] == expected.headers["Content-Type"] == waiting.headers["Content-Type"]
    assert (waiting.status_code, waiting.text) == (200, "{}")
    leader.see("settings.peering.name and settings.peering.mandatory has no effect")
    follower.see("priority 7 has no effect")

    leader.terminate()
    took_over = until("the follower's own results", lambda: answered(urls[2], "who"), LONG)
    assert took_over.json()["who"]["term"] == token + 1
    assert leader.wait() == 0


def answered(url: str, key: str) -> requests.Response | None:
    try:
        got = get(url)
    except requests.ConnectionError:
        return None
    return got if got.status_code == 200 and (not key or key in json.loads(got.text)) else None


def test_no_line_of_the_log_for_each_probe(caplog: pytest.LogCaptureFixture) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    caplog.set_level(logging.DEBUG, "kopf_ha")
    with serving(url, FakeHealth(), Asked()):
        get(url)
    assert not [record for record in caplog.records if record.name.startswith("kopf_ha")]
