"""A refusal ends the term at once, and is not retried, whichever client met it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf
import kubernetes
import pykube
import pytest

import kopf_ha
from devcluster.waiting import until
from kopf_ha.errors import StaleLeader, TermEnded
from tests.run.support import GROUP, LONG, Marks, Policy, Running, World, caught, registry

Run = Callable[..., Running]


def refused(running: Running) -> dict[str, float | None]:
    value = running.runner.journal.metrics.registry.get_sample_value
    return {line: value("kopf_ha_refused_writes_total", {"line": line}) for line in ("gate", "precondition", "server")}


def write_by(client: str, world: World, name: str) -> None:
    if client == "pykube":
        api = pykube.HTTPClient(pykube.KubeConfig.from_env())
        kind = pykube.object_factory(api, f"{GROUP}/v1", "Thing")
        kind.objects(api, namespace=world.namespace).get(name=name).patch({"spec": {"by": client}})
    else:
        custom = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config())
        custom.patch_namespaced_custom_object(GROUP, "v1", world.namespace, "things", name, {"spec": {"by": client}})


@pytest.mark.parametrize("client", ["kopf", "pykube", "kubernetes"])
def test_a_higher_token_ends_the_term(
    run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture, client: str
) -> None:
    handlers = registry()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(name: str, patch: kopf.Patch, **_: Any) -> None:
        term = kopf_ha.current_term()
        marks.put("term", term)
        if len(marks.all("term")) > 1:
            patch.spec["by"] = "a later term"
            return
        world.stamp("things", name, 500)
        if client == "kopf":
            patch.spec["by"] = client
        else:
            marks.put("error", caught(lambda: write_by(client, world, name)))
            marks.put("left", term.remaining())
            # The handler goes on as if nothing were; nothing of it gets through.
            marks.put("error", caught(lambda: write_by(client, world, name)))

    @kopf.on.cleanup(registry=handlers)
    def end(**_: Any) -> None:
        marks.put("end", kopf_ha.current_term().remaining())

    world.create("Thing", "a")
    running = run(handlers)
    marks.wait("end")
    counts = refused(running)
    assert (counts["precondition"], counts["server"]) == (1, 0)
    assert counts["gate"] or client == "kopf"
    first = marks.all("term")[0]
    assert marks.all("end") == [0.0]
    if client != "kopf":
        assert isinstance(marks.wait("error"), TermEnded)
        assert marks.all("left") == [0.0]
        assert f"term {first.token} is over" in str(marks.wait("error", 2))
    # Of the refused write one line tells; what comes after it meets the gate.
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("refused by precondition")]
    assert len(lines) == 1, lines
    assert f"things.{GROUP} {world.namespace}/a" in lines[0] or f"{world.namespace}/a" in lines[0]
    assert "records token 500" in lines[0]
    assert f", {client}:" in lines[0]
    # The Lease was still this process's, so a floor was lost: it leads again, above it.
    until("a later term's write", lambda: world.get("things", "a")["spec"].get("by"), LONG)
    assert world.get("things", "a")["spec"]["by"] == "a later term"
    assert marks.all("term")[1].token > 500


def test_the_api_server_s_refusal_ends_the_term(
    run: Run, world: World, marks: Marks, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    """I8: line 3. It is logged with request and answer, and such terms are further and further apart."""
    handlers = registry()

    @kopf.on.event(GROUP, "v1", "things", registry=handlers)
    def seen(name: str, **_: Any) -> None:
        marks.put("error", caught(lambda: write_by("kubernetes", world, name)))
        marks.put("left", kopf_ha.current_term().remaining())

    world.create("Thing", "a")
    policy(f"kopf-ha-test-{world.namespace}", "things", "object.metadata.name != 'a'", "not you", "a")
    running = run(handlers)
    marks.wait("error", 2)
    assert all(isinstance(error, StaleLeader) for error in marks.all("error"))
    assert set(marks.all("left")) == {0.0}
    assert "refused by server" in caplog.text
    assert "refused request: PATCH" in caplog.text
    assert "refused answer: 422" in caplog.text
    assert "not you" in caplog.text
    assert "after 1 short terms" in caplog.text
    running.stop()
    assert refused(running) == {"gate": 0, "precondition": 0, "server": len(marks.all("error"))}
    assert world.lease()["leaseTransitions"] <= 4, "terms are not burnt in a hot loop"
