"""What probes are answered: each state of a replica, over HTTP, and while the operator's code blocks its loop."""

from __future__ import annotations

import dataclasses
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf
import kubernetes
import pytest

from devcluster.waiting import until
from kopf_ha._context import boottime
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.election import Elector
from kopf_ha.election.signs import Signs
from kopf_ha.errors import ConfigurationError
from kopf_ha.run import health
from kopf_ha.run.everywhere import Everywhere
from kopf_ha.run.health import Health, Vitals, answer, liveness, readiness
from kopf_ha.settings import Settings
from testbed.ports import free_port
from tests.run.support import GROUP, LONG, Marks, Rival, Running, World, registry

Run = Callable[..., Running]

SETTINGS = Settings(lease_namespace="ns", lease_name="op")
NOW = 10_000.0
#: A follower to which a bookmark came half a minute ago.
WELL = Signs(alive=True, turned=NOW - 1, watching=True, watch_turned=NOW - 30, heard=NOW - 30)


def grant(deadline: float = NOW + 5, closed: str = "", held: str = "") -> Grant:
    one = Grant(Stamp(7, "me", "ns/op", "uid"), deadline)
    one.held = held
    if closed:
        one.close(closed)
    return one


def vitals(phase: str = "following", signs: dict[str, Any] | None = None, **more: Any) -> Vitals:
    return Vitals(dataclasses.replace(WELL, **(signs or {})), phase, **more)


def leads(**more: Any) -> Vitals:
    given: dict[str, Any] = {"grant": grant(), "began": NOW - 100, "signs": {"beat": NOW - 1}} | more
    return vitals("leading", **given)


# What it is: its vitals, what is said of its readiness, and of its liveness. Empty is well.
STATES: dict[str, tuple[Vitals, str, str]] = {
    "follows": (vitals(), "", ""),
    "leads": (leads(), "", ""),
    "is paused": (vitals(paused="paused by ann: etcd"), "", ""),
    "renews": (dataclasses.replace(leads(), phase="renewing"), "", ""),
    "has just begun, without a beat": (leads(began=NOW, signs={"beat": -math.inf}), "", ""),
    "was not started yet": (Vitals(Signs(), "following"), "Lease ns/op has not been seen yet", ""),
    "has a runner that hangs before it starts the election": (
        Vitals(Signs(), "following", step=NOW - 86), "Lease ns/op has not been seen yet",
        "the runner has been busy with one event for 86 s; 80 s are allowed",
    ),
    "was just started": (
        vitals(signs={"watching": False, "watch_turned": -math.inf, "heard": -math.inf}),
        "Lease ns/op has not been seen yet", "",
    ),
    "cannot reach the API server": (
        vitals(signs={"trouble": "cannot reach the API server", "heard": NOW - 86_400, "watch_turned": NOW - 2}),
        "cannot reach the API server", "",
    ),
    "hears nothing, and does not know why": (
        vitals(signs={"heard": NOW - 120}), "the watch of Lease ns/op has been silent for 120 s", "",
    ),
    "is asked to stop": (leads(stopping="SIGTERM"), "stopping: SIGTERM", ""),
    "has no webhooks yet": (
        vitals(everywhere=False), "kopf_ha.everywhere is not ready: its webhooks or indices", "",
    ),
    "stopped": (vitals("stopped", {"alive": False}, stopping="SIGTERM"), "stopping: SIGTERM; the election ended", ""),
    "stopped, and serves webhooks for a moment more": (
        leads(grant=grant(closed="stopped"), signs={"alive": False, "beat": NOW - 16}, stopping="SIGTERM"),
        "stopping: SIGTERM", "",
    ),
    "lost the Lease and drains": (
        leads(grant=grant(closed="lost"), draining=NOW - 9), "handlers of a term that ended are still running", "",
    ),
    "waits after failed terms": (
        vitals("lost"), "waiting after a term that ended, before taking part in the election again", "",
    ),
    "drains for too long": (
        leads(grant=grant(closed="lost"), draining=NOW - 16), "handlers of a term that ended are still running",
        "handlers of a term that ended have run for 16 s; 10 s are allowed",
    ),
    "was not renewed, and the election closed it": (leads(grant=grant(NOW - 60, "overdue")), "", ""),
    "cannot renew and keeps its grant": (
        leads(grant=grant(NOW - 21)), "", "leads by a Lease that expired 21 s ago",
    ),
    "may still recover": (
        vitals("regaining", {"beat": NOW - 1}, grant=grant(NOW - 14, held="not renewed"), began=NOW - 100),
        "writes wait: not renewed", "",
    ),
    "blocks its loop": (
        leads(signs={"beat": NOW - 16}), "",
        "the event loop has been blocked for 16 s; move blocking code to a sync handler or a thread",
    ),
    "blocked its loop in an earlier term": (vitals(signs={"beat": NOW - 500}), "", ""),
    "lost its election": (vitals(signs={"alive": False}), "", "the election's thread ended"),
    "has an election that hangs": (
        vitals(signs={"turned": NOW - 71}), "", "the election's thread has hung for 71 s",
    ),
    "waits for a name to be resolved": (vitals(signs={"turned": NOW - 40}), "", ""),
    "lost its watch": (vitals(signs={"watching": False}), "", "the thread of the Lease's watch ended"),
    "has a watch that hangs": (
        vitals(signs={"watch_turned": NOW - 161}), "", "the thread of the Lease's watch has hung for 161 s",
    ),
    "has a runner that hangs": (
        vitals(step=NOW - 86), "", "the runner has been busy with one event for 86 s; 80 s are allowed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_each_state(state: str) -> None:
    v, unready, unlive = STATES[state]
    assert "; ".join(why for _, why in readiness(v, SETTINGS, NOW) if why) == unready
    assert "; ".join(why for _, why in liveness(v, SETTINGS, NOW) if why) == unlive


def test_answers_are_written_as_kubernetes_writes_them() -> None:
    good, bad = [("a", ""), ("b", "")], [("a", ""), ("b", "b is broken"), ("c", "so is c")]
    assert answer("/readyz", good, verbose=False) == (200, "ok\n")
    assert answer("/readyz", bad, verbose=False) == (503, "b is broken\nso is c\n")
    assert answer("/readyz", good, verbose=True) == (200, "[+]a ok\n[+]b ok\nreadyz check passed\n")
    assert answer("/livez", bad, verbose=True)[1].splitlines() == [
        "[+]a ok", "[-]b failed: b is broken", "[-]c failed: so is c", "livez check failed",
    ]  # fmt: skip


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{host}:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=LONG) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_paths_and_methods() -> None:
    port = free_port()
    server = Health(SETTINGS.changed(health_port=port), lambda: vitals("lost"), lambda: NOW).serve()
    assert server is not None
    try:
        assert ask(port, "/livez") == ask(port, "/livez/") == ask(port, "/healthz") == (200, "ok\n")
        assert ask(port, "/livez?verbose")[1].endswith("livez check passed\n")
        assert ask(port, "/readyz")[0] == 503
        assert "[+]election ok\n[-]term failed: waiting" in ask(port, "/readyz?verbose")[1]
        assert ask(port, "/readyz", "HEAD") == (503, "")
        assert ask(port, "/metrics")[0] == 404
        assert ask(port, "/livez", "POST")[0] == 501
        if socket.has_dualstack_ipv6():
            assert ask(port, "/livez", host="[::1]") == (200, "ok\n")
        with socket.create_connection(("127.0.0.1", port)):  # one that never asks keeps nobody waiting
            assert ask(port, "/livez") == (200, "ok\n")
    finally:
        server.close()
    assert Health(SETTINGS, lambda: vitals(), lambda: NOW).serve() is None, "port 0 is nowhere"


def test_a_follower_without_an_api_server_is_not_killed() -> None:
    """A restart would not bring the API server back."""
    fast = SETTINGS.changed(lease_duration=1, renew_deadline=0.5, retry_period=0.1)

    def nowhere() -> kubernetes.client.ApiClient:
        configuration = kubernetes.client.Configuration()
        configuration.host = f"http://127.0.0.1:{free_port()}"
        return kubernetes.client.ApiClient(configuration)

    elector = Elector(fast, nowhere, on_started=lambda g: None, on_stopped=lambda g, cause: None)
    checks = Health(fast, lambda: Vitals(elector.signs, elector.state), boottime).checks
    assert answer("/livez", checks("/livez") or (), verbose=False) == (200, "ok\n")  # the port answers before it starts
    elector.start()
    try:
        said = dict(checks("/readyz") or ())["election"]
        assert "has not been seen yet" in said or "connection refused" in said, said  # its thread may be fast
        until("the trouble", lambda: "connection refused" in dict(checks("/readyz") or ())["election"], LONG)
        turned = elector.signs.watch_turned
        until("another attempt", lambda: elector.signs.watch_turned > turned, LONG)
        assert answer("/livez", checks("/livez") or (), verbose=False) == (200, "ok\n")
    finally:
        elector.stop()
    until("the thread's end to be noticed", lambda: dict(checks("/livez") or ())["election"], LONG)


def test_an_election_is_not_taken_for_one_that_ended_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is served before; who asks in the middle of the start must not have the replica killed."""
    elector = Elector(
        SETTINGS, lambda: pytest.fail("no client"), on_started=lambda g: None, on_stopped=lambda g, cause: None
    )
    checks = Health(SETTINGS, lambda: Vitals(elector.signs, elector.state), boottime).checks
    said: list[tuple[int, str]] = []
    monkeypatch.setattr(
        elector._thread, "start", lambda: said.append(answer("/livez", checks("/livez") or (), verbose=False))
    )
    elector.start()
    assert said == [(200, "ok\n")]


def test_probes_are_answered_while_the_runner_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    port = free_port()
    said: list[Any] = []

    def start(_: Everywhere) -> None:
        said.extend([ask(port, "/livez"), running.runner.vitals().step])
        raise ConfigurationError("enough")

    monkeypatch.setattr(Everywhere, "start", start)
    running = Running(SETTINGS.changed(health_port=port), idle(), "ns")
    assert str(running.wait()) == "enough"
    status, began = said
    assert status == (200, "ok\n")
    assert began is not None, "a start that hangs is noticed"


# --- on a real API server


def idle() -> kopf.OperatorRegistry:
    handlers = registry()
    kopf.on.event(GROUP, "v1", "things", registry=handlers)(lambda **_: None)
    return handlers


def test_leader_and_follower_are_ready(run: Run, world: World) -> None:
    port = free_port()
    rival = Rival(world.settings())
    try:
        until("the rival to lead", lambda: rival.grants, LONG)
        running = run(idle(), world.settings(health_port=port))
        until("the follower to be ready", lambda: _try(port, "/readyz") == (200, "ok\n"), LONG)
        assert not running.runner.elector.leading
        assert ask(port, "/livez") == (200, "ok\n")
    finally:
        rival.stop()
    until("it to lead", lambda: running.runner.elector.leading, LONG)
    until("the leader to be ready", lambda: ask(port, "/readyz") == (200, "ok\n"), LONG)
    assert ask(port, "/livez?verbose")[0] == 200
    assert running.stop() == 0
    with pytest.raises(OSError, match="refused"):
        ask(port, "/livez")  # the port is given back


def test_a_blocked_loop_keeps_nobody_from_answering(
    run: Run, world: World, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MARGIN", 0.5)
    port, metrics = free_port(), free_port()
    go_on, handlers = threading.Event(), registry()

    @kopf.on.event(GROUP, "v1", "things", registry=handlers)
    async def block(**_: Any) -> None:
        marks.put("blocked")
        end = time.monotonic() + LONG
        while not go_on.is_set() and time.monotonic() < end:
            time.sleep(0.05)  # noqa: ASYNC251  the fault

    world.create("Thing", "a")
    settings = world.settings(health_port=port, metrics_port=metrics, drain_timeout=2 * LONG)
    run(handlers, settings)
    marks.wait("blocked")
    try:
        until("livez to say so", lambda: "the event loop has been blocked" in ask(port, "/livez")[1], LONG)
        until(
            "it to be unready",
            lambda: "handlers of a term that ended are still running" in ask(port, "/readyz")[1],
            LONG,
        )
        assert "leader_election_master_status" in ask(metrics, "/metrics")[1]
    finally:
        go_on.set()
    until("it to live", lambda: ask(port, "/livez") == (200, "ok\n"), LONG)


def test_what_stops_is_not_ready(run: Run, world: World, marks: Marks) -> None:
    port, go_on, handlers = free_port(), threading.Event(), registry()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def wait(**_: Any) -> None:
        marks.put("handling")
        go_on.wait(LONG)

    world.create("Thing", "a")
    running = run(handlers, world.settings(health_port=port, drain_timeout=LONG))
    marks.wait("handling")
    assert ask(port, "/readyz") == (200, "ok\n")
    running.runner.quit("SIGTERM")
    try:
        status, text = ask(port, "/readyz")
        assert (status, text.splitlines()[0]) == (
            503,
            "stopping: SIGTERM",
        )  # it may drain already, which is a line more
        assert ask(port, "/livez") == (200, "ok\n")
    finally:
        go_on.set()
    assert running.wait() == 0


def test_the_port_is_taken(run: Run, world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        running = run(idle(), world.settings(health_port=taken.getsockname()[1]))
        assert "health cannot be served at port" in str(running.wait())


def _try(port: int, path: str) -> tuple[int, str]:
    try:
        return ask(port, path)
    except OSError:
        return 0, ""
