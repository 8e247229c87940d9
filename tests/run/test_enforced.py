"""What a new leader says, and does, when the API server does not enforce the fence (trap 13)."""

from __future__ import annotations

import logging
import socket
import sys
import urllib.request
from collections.abc import Callable

import kopf
import pytest

from devcluster.waiting import until
from kopf_ha.run.operator import Runner
from kopf_ha.run.selftest import SelfTest
from tests.run.support import GROUP, LONG, Marks, Running, World, free_port, registry

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
    marks.wait("startup")  # it leads all the same
    assert f"leaseTransitions of Lease {world.namespace}/op can be lowered" in caplog.text
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
    answers: list[list[str] | LookupError] = [["it can be lowered"], ["it can be lowered"], LookupError("busy")]

    def ask(*_: object) -> list[str]:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, LookupError):
            raise answer
        return answer

    monkeypatch.setattr(sys.modules[Runner.__module__], "ASK_AGAIN", 0.1)
    monkeypatch.setattr(SelfTest, "ask", ask)
    running = run(handlers_that_mark(marks), world.settings(deciding=DECIDING))
    marks.wait("startup")
    until("it to be noticed", lambda: "the API server enforces the fence again" in caplog.text, LONG)
    assert caplog.text.count("not enforced by the API server: it can be lowered") == 1
    assert "unknown whether the API server enforces the fence: busy" in caplog.text
    assert running.runner.journal.metrics.registry.get_sample_value("kopf_ha_not_enforced") == 0
    assert world.lease()["leaseTransitions"] == 1


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
