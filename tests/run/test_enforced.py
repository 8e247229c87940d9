"""What a new leader says, and does, when the API server does not enforce the fence."""

from __future__ import annotations

import json
import logging
import socket
import urllib.request
from collections.abc import Callable
from typing import Any

import kopf
import pytest

from devcluster.waiting import until
from kopf_ha.errors import ApiRefused
from kopf_ha.run import enforcement
from kopf_ha.run.selftest import SelfTest
from testbed.ports import free_port
from tests.kit.client import MERGE
from tests.kit.world import apply_kinds
from tests.run.support import GROUP, LONG, Marks, Running, World, crd, registry

Run = Callable[..., Running]
DECIDING = (f"roots.{GROUP}",)


def handlers_that_mark(marks: Marks) -> kopf.OperatorRegistry:
    handlers = registry()

    @kopf.on.startup(registry=handlers)
    def begin(**_: object) -> None:
        marks.put("startup")

    return handlers


def test_what_is_missing_is_named_in_the_log_an_event_and_a_metric(
    run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture
) -> None:
    world.create("Root", "a")
    port = free_port()
    run(handlers_that_mark(marks), world.settings(deciding=DECIDING, metrics_port=port))
    marks.wait("startup")  # it leads all the same, and asks after that
    lowered = f"leaseTransitions of Lease {world.namespace}/op can be lowered"
    until("the answer", lambda: lowered in caplog.text, LONG)
    assert "roots" in caplog.text
    assert "is accepted without its writer's own stamp" in caplog.text
    until("the event", lambda: "can be lowered" in world.events().get("NotEnforced", ""), LONG)
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert "kopf_ha_not_enforced 2.0" in metrics
    assert 'leader_election_master_status{name="op"} 1.0' in metrics
    assert 'kopf_ha_writes_total{client="kubernetes",kind="roots.run.kopf-ha.test/status",outcome="2xx"}' in metrics


def test_policies_that_are_applied_again_are_noticed(
    run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator who took one out of force for a repair puts it back while the same leader leads."""
    caplog.set_level(logging.INFO)
    answers: list[list[str] | ApiRefused] = [[], ["it can be lowered"], ["it can be lowered"], ApiRefused("busy", 429)]

    def ask(*_: object, **__: object) -> list[str]:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, ApiRefused):
            raise answer
        return answer

    monkeypatch.setattr(enforcement, "ASK_AGAIN", 0.1)
    monkeypatch.setattr(SelfTest, "ask", ask)
    running = run(handlers_that_mark(marks), world.settings(deciding=DECIDING))
    marks.wait("startup")
    until("it to be noticed", lambda: "the API server enforces the fence again" in caplog.text, LONG)
    assert caplog.text.count("not enforced by the API server: it can be lowered") == 1
    assert "unknown whether the API server enforces the fence: busy" in caplog.text
    assert running.runner.journal.metrics.registry.get_sample_value("kopf_ha_not_enforced") == 0
    assert world.lease()["leaseTransitions"] == 1


def test_a_version_without_the_stamp_that_comes_while_it_leads(
    run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind is written no more, until the version is gone or mended; the term goes on (I1, I10)."""
    monkeypatch.setattr(enforcement, "ASK_AGAIN", 0.1)
    world.create("Root", "a")
    kind, path = DECIDING[0], f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{DECIDING[0]}"
    running = run(handlers_that_mark(marks), world.settings(deciding=DECIDING))
    marks.wait("startup")
    term = world.stamp_of("roots", "a")
    versions = world.ask("GET", path)["spec"]["versions"]
    lacking = crd("Root", fencing=False)["spec"]["versions"][0] | {"name": "v2", "storage": False}
    try:
        world.ask("PATCH", path, {"spec": {"versions": [*versions, lacking]}}, MERGE)
        until("it to be noticed", lambda: kind in running.runner.fence.known.unfit, LONG)
        until("it to be said", lambda: f"{kind}: version v2 is served and lacks status.fencing" in caplog.text, LONG)
    finally:
        world.ask("PATCH", path, {"spec": {"versions": versions}}, MERGE)
    until("it to be mended", lambda: not running.runner.fence.known.unfit, LONG)
    assert world.lease()["leaseTransitions"] == term["token"]
    assert running.runner.grant is not None
    assert not running.runner.grant.closed


def test_a_definition_that_gets_the_stamp_while_a_term_went_without(
    run: Run, world: World, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody applied the policies and forgot the CRD. Once that is mended, objects are stamped in their status."""
    ask = SelfTest.ask

    def ask_about_late(test: SelfTest, token: int, timeout: float = 30.0, **more: Any) -> list[str]:
        return ask(test, token, timeout, **more | {"kinds": [f"lates.{GROUP}"]})  # as if policies named it

    monkeypatch.setattr(enforcement, "ASK_AGAIN", 0.1)
    monkeypatch.setattr(enforcement, "REST", 0.0)
    monkeypatch.setattr(SelfTest, "ask", ask_about_late)
    apply_kinds(world.cluster, crd("Late", fencing=False))
    handlers = handlers_that_mark(marks)

    @kopf.on.create(GROUP, "v1", "lates", registry=handlers)
    def made(name: str, patch: kopf.Patch, **_: object) -> None:
        marks.put("made", name)
        patch.status["done"] = True

    running = run(handlers, world.settings())
    try:
        marks.wait("startup")
        world.create("Late", "a")
        fence = running.runner.fence
        until("it to be noticed", lambda: f"lates.{GROUP}" in fence.known.unfit, LONG)
        world.kubectl("apply", "-f", "-", input=json.dumps(crd("Late")))
        until("a new term", lambda: world.lease()["leaseTransitions"] == 2, LONG)
        world.create("Late", "b")
        until("both to be done", lambda: all(world.get("lates", n).get("status", {}).get("done") for n in "ab"), LONG)
        assert world.stamp_of("lates", "b")["token"] == 2
        assert not running.ended, "it goes on in the same process"
    finally:
        world.clear("lates")


def test_required_policies_that_are_missing_keep_a_replica_from_leading(
    run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture
) -> None:
    world.create("Root", "a")
    caplog.set_level(logging.INFO)
    run(handlers_that_mark(marks), world.settings(deciding=DECIDING, require_policies=True))
    until("the term to fail", lambda: "the API server does not enforce the fence" in caplog.text, LONG)
    until("the backoff", lambda: "leading again in" in caplog.text, LONG)
    assert marks.all("startup") == []
    assert not world.stamp_of("roots", "a")  # nothing was written under a token that nobody checks


def test_the_metrics_port_is_taken(run: Run, world: World, marks: Marks) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        running = run(handlers_that_mark(marks), world.settings(metrics_port=taken.getsockname()[1]))
        assert "metrics cannot be served at port" in str(running.wait())
