"""A refusal for the term's sake ends it at once; any other leaves it. None is retried, whichever client met it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf
import kubernetes
import pykube
import pytest

import kopf_ha
from devcluster.waiting import until
from kopf_ha.core.notes import ANNOTATION_TOKEN, as_metadata, notes_of
from kopf_ha.core.refusal import RULE_MESSAGE, about_tokens
from kopf_ha.core.token import Stamp
from kopf_ha.errors import Denied, TermEnded, Unfenced
from kopf_ha.run.metrics import LINES
from tests.run.support import GROUP, LONG, Marks, Policy, Running, World, caught, registry

Run = Callable[..., Running]


def refused(running: Running) -> dict[str, float | None]:
    value = running.runner.journal.metrics.registry.get_sample_value
    return {line: value("kopf_ha_refused_writes_total", {"line": line}) for line in LINES}


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
    assert f"things.{GROUP} {world.namespace}/a" in lines[0]
    assert "records token 500" in lines[0]
    assert f", {client}:" in lines[0]
    # The Lease was still this process's, so a floor was lost: it leads again, above it.
    until("a later term's write", lambda: world.get("things", "a")["spec"].get("by"), LONG)
    assert world.get("things", "a")["spec"]["by"] == "a later term"
    assert marks.all("term")[1].token > 500


def test_a_refusal_of_one_write_leaves_the_term(
    run: Run, world: World, marks: Marks, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    """I10: a rule of ours that is not about tokens. The line about it repeats nothing that was written."""
    handlers = registry()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(name: str, **_: Any) -> None:
        marks.put("error", caught(lambda: write_by("kubernetes", world, name)))
        marks.put("term", kopf_ha.current_term())

    for name in "ab":
        world.create("Thing", name)
    policy(
        f"kopf-ha-test-{world.namespace}",
        "things",
        "!has(object.spec.by) && !has(object.spec.x)",
        "fencing: not you",
        "b",
    )
    running = run(handlers)
    errors = [marks.wait("error"), marks.wait("error", 2)]
    assert {type(error) for error in errors} == {Denied}
    first, second = marks.all("term")
    assert first.token == second.token
    assert second.remaining() > 0
    assert f"policy kopf-ha-test-{world.namespace}: fencing: not you" in caplog.text
    assert f"refused request: PATCH {world.path('things', 'a')}, if resourceVersion is" in caplog.text
    assert f"refused answer: 403 Forbidden, policy kopf-ha-test-{world.namespace}: fencing: not you" in caplog.text
    assert refused(running) == {"gate": 0, "precondition": 0, "server": 0, "term": 0}


def test_a_users_words_end_no_term(
    run: Run, world: World, marks: Marks, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    """I10. The API server quotes them in its 422; another team's policy says them itself."""
    handlers = registry()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(name: str, spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
        marks.put(name, kopf_ha.current_term())
        patch.metadata.labels["color"] = spec["color"]

    about = about_tokens(f"{world.namespace}/op")
    world.create("Thing", "theirs", color="red")
    policy(f"fencing-{world.namespace}", "things", "object.metadata.name != 'theirs'", about + "stale leader", "theirs")
    world.create("Thing", "quoted", color="fencing stamp")
    world.create("Thing", "whole", color=f"<nil>: Invalid value: {RULE_MESSAGE}")
    running = run(handlers)
    marks.wait("quoted", 2)
    marks.wait("whole", 2)
    marks.wait("theirs")
    world.create("Thing", "good", color="red")
    marks.wait("good")
    assert len({term.token for name in ("quoted", "whole", "theirs", "good") for term in marks.all(name)}) == 1
    assert "refused by server" not in caplog.text
    assert not running.ended


@pytest.mark.parametrize("token", ["500", "2000000000", "9" * 5000])
def test_annotations_of_a_child_end_no_term(run: Run, world: World, marks: Marks, token: str) -> None:
    """I10: a tenant makes the ConfigMap first, with the name that a child will have."""
    handlers, path = registry(), f"/api/v1/namespaces/{world.namespace}/configmaps"

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(name: str, **_: Any) -> None:
        core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())
        marks.put(name, caught(lambda: core.patch_namespaced_config_map(name, world.namespace, {"data": {"a": "1"}})))
        marks.put("term", kopf_ha.current_term())

    forged = notes_of(Stamp(7, "tenant", f"{world.namespace}/op", "x"), "configmaps")
    notes = as_metadata(forged)["annotations"] | {ANNOTATION_TOKEN: token}
    world.ask("POST", path, {"metadata": {"name": "bad", "annotations": notes}})
    world.ask("POST", path, {"metadata": {"name": "good"}})
    world.create("Thing", "bad")
    running = run(handlers)
    assert isinstance(marks.wait("bad"), Unfenced)
    world.create("Thing", "good")
    assert marks.wait("good") is None
    first, second = marks.all("term")
    assert first.token == second.token
    assert second.remaining() > 0
    assert running.runner.fence.known.floor < 500
    assert "data" not in world.ask("GET", f"{path}/bad")


def test_an_object_that_is_deleted_under_its_handler_goes(
    run: Run, world: World, marks: Marks, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    """I10: Kopf's own patch meets the policy `terminating-…`. The term goes on, and so does the deletion."""
    handlers, path = registry(), world.path("things", "a")

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(name: str, patch: kopf.Patch, **_: Any) -> None:
        marks.put("made", kopf_ha.current_term())
        if name == "a":
            world.ask("DELETE", path)
        patch.status["address"] = "10.0.0.1"

    @kopf.on.delete(GROUP, "v1", "things", registry=handlers)
    def gone(**_: Any) -> None:
        marks.put("gone", kopf_ha.current_term())

    world.create("Thing", "probe")
    policy(
        f"kopf-ha-{world.namespace}-terminating-things",
        "things/status",
        "object.metadata.name != 'probe'"
        " && (!has(oldObject.metadata.deletionTimestamp) || !has(object.status.address))",
        "fencing: the object is being deleted, so status.address gets no new value",
        "probe",
    )
    world.ask("DELETE", world.path("things", "probe"))
    world.create("Thing", "a")
    running = run(handlers)
    marks.wait("gone")
    until("the object to be gone", lambda: world.api("GET", path).status == 404, LONG)
    world.create("Thing", "later")
    until("another to be served", lambda: world.get("things", "later").get("status", {}).get("address"), LONG)
    assert "refused by server" in caplog.text
    assert len({term.token for term in marks.all("made") + marks.all("gone")}) == 1
    assert refused(running) == {"gate": 0, "precondition": 0, "server": 0, "term": 0}
