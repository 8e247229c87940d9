"""The barrier: deciding objects are stamped before any handler runs, or set aside, or the term fails."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import kopf
import kubernetes
import pytest

import kopf_ha
from devcluster.waiting import until
from kopf_ha.api import Api
from kopf_ha.run import aside
from kopf_ha.run.behind import Behind
from kopf_ha.run.credentials import make_client
from kopf_ha.run.ending import EXIT_LOST
from tests.kit.client import MERGE
from tests.run.support import GROUP, LONG, Marks, Policy, Running, World, caught, registry

BEHIND = Behind.run
Run = Callable[..., Running]
DECIDING = (f"roots.{GROUP}",)


def handlers_that_look(world: World, marks: Marks) -> kopf.OperatorRegistry:
    handlers = registry()

    @kopf.on.startup(registry=handlers)
    def begin(**_: Any) -> None:
        term = kopf_ha.current_term()
        roots = world.ask("GET", world.path("roots"))["items"]
        stamps = {r["metadata"]["name"]: ((r.get("status") or {}).get("fencing") or {}).get("token") for r in roots}
        marks.put("startup", (term.token, stamps, term.set_aside))

    return handlers


def test_stamped_before_any_handler(run: Run, world: World, marks: Marks) -> None:
    """I4."""
    for name in ("a", "b", "c"):
        world.create("Root", name)
    handlers = handlers_that_look(world, marks)
    running = run(handlers, world.settings(deciding=DECIDING))
    token, stamps, aside = marks.wait("startup")
    assert stamps == dict.fromkeys("abc", token)
    assert aside == frozenset()
    stamp = world.stamp_of("roots", "a")
    assert stamp["holder"] == running.runner.settings.identity
    assert stamp["lease"] == f"{world.namespace}/op"
    world.take_lease()
    token, stamps, _ = marks.wait("startup", 2)
    assert stamps == dict.fromkeys("abc", token)


def test_one_that_cannot_be_stamped_is_set_aside(
    run: Run, world: World, marks: Marks, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    frozen = "frozen"
    for name in ("a", frozen):
        world.create("Root", name)
    policy(
        f"frozen-{world.namespace}", "roots/status", "object.metadata.name != 'frozen'", "frozen by the test", frozen
    )
    run(handlers_that_look(world, marks), world.settings(deciding=DECIDING))
    token, stamps, aside = marks.wait("startup")
    assert stamps == {"a": token, frozen: None}
    assert aside == {world.get("roots", frozen)["metadata"]["uid"]}
    line = next(r.getMessage() for r in caplog.records if "are set aside" in r.getMessage())
    assert f"roots.{GROUP} {world.namespace}/frozen (" in line
    assert f"policy frozen-{world.namespace}" in line  # and not its words, which may quote what a user wrote
    until("the event", lambda: f"{world.namespace}/frozen (" in world.events().get("SetAside", ""), LONG)


def test_nothing_is_decided_from_it_until_it_is_stamped_after_all(
    run: Run, world: World, marks: Marks, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator need not ask what is set aside. And nobody has to restart anything."""
    monkeypatch.setattr(aside, "DELAYS", (0.2, 0.5))
    made = world.create("Root", "frozen")
    unless = "object.metadata.name != 'frozen' || has(object.metadata.labels)"
    policy(f"thawed-{world.namespace}", "roots/status", unless, "frozen by the test", "frozen")
    handlers = registry()

    @kopf.timer("things", interval=0.2, registry=handlers)
    def decide(**_: Any) -> None:
        custom = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config())
        root = custom.get_namespaced_custom_object(GROUP, "v1", world.namespace, "roots", "frozen")
        body = {"metadata": {"resourceVersion": root["metadata"]["resourceVersion"]}, "status": {"given": 1}}
        args = (GROUP, "v1", world.namespace, "roots", "frozen", body)
        term = kopf_ha.current_term()
        error = caught(lambda: custom.patch_namespaced_custom_object_status(*args))
        marks.put("refused" if error else "written", (term, term.set_aside, error))

    world.create("Thing", "a")
    running = run(handlers, world.settings(deciding=DECIDING))
    term, was, error = marks.wait("refused")
    assert was == {made["metadata"]["uid"]}
    assert isinstance(error, kopf_ha.SetAside)
    assert running.runner.journal.metrics.registry.get_sample_value("kopf_ha_set_aside") == 1
    assert "given" not in (world.get("roots", "frozen").get("status") or {})
    world.ask("PATCH", world.path("roots", "frozen"), {"metadata": {"labels": {"thaw": "it"}}}, MERGE)
    later, now, _ = marks.wait("written")
    assert later.token == term.token
    assert now == term.set_aside == frozenset()
    assert running.runner.journal.metrics.registry.get_sample_value("kopf_ha_set_aside") == 0
    assert world.stamp_of("roots", "frozen")["token"] == term.token


def test_a_decision_waits_for_its_own_object_alone(
    run: Run, world: World, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I4, with `--barrier each`: the code waits for the stamp, or the fence refuses. The rest is stamped behind."""
    for name in ("a", "b", "c"):
        world.create("Root", name)
    slow = threading.Event()
    monkeypatch.setattr(Behind, "run", lambda self: slow.wait(LONG) and BEHIND(self))
    handlers = registry()

    @kopf.on.startup(registry=handlers)
    async def begin(**_: Any) -> None:
        term, roots = kopf_ha.current_term(), world.ask("GET", world.path("roots"))["items"]
        marks.put("listed", [one for one in roots if "status" in one])

        def write(body: Any) -> Any:
            custom = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config())
            change = {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "status": {"given": 1}}
            return custom.patch_namespaced_custom_object_status(GROUP, "v1", world.namespace, "roots", "b", change)

        (b,) = (one for one in roots if one["metadata"]["name"] == "b")
        marks.put("too early", caught(lambda: write(b)))
        read = await term.stamped(b)
        marks.put("read", read)
        marks.put("written", caught(lambda: write(read)))

    run(handlers, world.settings(deciding=DECIDING, barrier="each"))
    assert marks.wait("listed") == []
    assert isinstance(marks.wait("too early"), kopf_ha.NotStamped)
    assert marks.wait("read")["status"]["fencing"]["token"] == 1
    assert marks.wait("written") is None
    assert [bool(world.get("roots", name).get("status")) for name in ("a", "b", "c")] == [False, True, False]
    slow.set()
    until("the rest", lambda: all(world.get("roots", name).get("status") for name in ("a", "c")), LONG)


def test_who_edits_an_object_all_the_time_keeps_nobody_from_leading(run: Run, world: World, marks: Marks) -> None:
    """I10: as fast as they can, while a leader starts, and more than once at a time."""
    world.create("Root", "busy")
    over, edits = threading.Event(), itertools.count()

    def edit(who: int) -> None:
        api = Api(make_client("user", fenced=False))
        while not over.is_set():
            assert api.request("PATCH", world.path("roots", "busy"), {"spec": {f"u{who}": next(edits)}}, MERGE).ok

    editors = [threading.Thread(target=edit, args=(who,)) for who in range(4)]
    for one in editors:
        one.start()
    try:
        until("edits", lambda: next(edits) > 20, LONG)
        run(handlers_that_look(world, marks), world.settings(deciding=DECIDING))
        token, stamps, aside = marks.wait("startup")
    finally:
        over.set()
        for one in editors:
            one.join()
    assert token == 1, "the first term"
    assert stamps == {"busy": token}
    assert aside == frozenset()


def test_another_lease_s_objects_are_set_aside(
    run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture
) -> None:
    """Two operators on one kind."""
    world.create("Root", "a")
    world.create("Root", "theirs")
    world.stamp("roots", "theirs", 7, lease="elsewhere/other", holder="them")
    run(handlers_that_look(world, marks), world.settings(deciding=DECIDING))
    token, stamps, aside = marks.wait("startup")
    assert stamps == {"a": token, "theirs": 7}
    assert aside == {world.get("roots", "theirs")["metadata"]["uid"]}
    line = next(r.getMessage() for r in caplog.records if "are set aside" in r.getMessage())
    assert "elsewhere/other" in line
    assert f"{world.namespace}/op" in line


def test_lost_floor_is_raised(run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    """I2: the Lease was deleted and made again. No handler runs below the recorded token."""
    world.create("Root", "a")
    world.stamp("roots", "a", 500)
    # Nothing of the operator ran in the first term, so even after_loss=exit goes on.
    running = run(handlers_that_look(world, marks), world.settings(deciding=DECIDING, after_loss="exit"))
    token, stamps, _ = marks.wait("startup")
    assert token > 500
    assert stamps == {"a": token}
    assert world.lease()["leaseTransitions"] == token
    assert len(marks.all("startup")) == 1
    assert "an object records token 500" in caplog.text
    assert not running.ended


def test_lost_floor_of_another_kind(run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    """It is met by a handler's write; after_loss=exit leaves a Lease behind that is above it."""
    handlers = registry()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(patch: kopf.Patch, **_: Any) -> None:
        patch.spec["by"] = kopf_ha.current_term().token

    world.create("Thing", "a")
    world.stamp("things", "a", 500)
    running = run(handlers, world.settings(after_loss="exit"))
    assert running.wait() == EXIT_LOST
    assert world.lease()["leaseTransitions"] > 500
    assert world.lease().get("holderIdentity", "") == ""
    # As the pod that starts again does.
    run(handlers, world.settings(after_loss="exit"))
    until("the write", lambda: world.get("things", "a")["spec"].get("by", 0) > 500, LONG)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (f"nothings.{GROUP}", f"deciding kind nothings.{GROUP} is not installed in the cluster; apply its CRD first"),
        ("pools.nowhere.test", "deciding kind pools.nowhere.test is not installed in the cluster"),
        (f"bares.{GROUP}", f"deciding kind bares.{GROUP} has no status.fencing, so its objects' stamps are"),
    ],
)
def test_deciding_kind_that_cannot_be(
    run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture, kind: str, sentence: str
) -> None:
    running = run(handlers_that_look(world, marks), world.settings(deciding=(kind,)))
    until("the failure", lambda: "leading again in" in caplog.text, LONG)
    assert sentence in caplog.text
    assert "Traceback" not in caplog.text
    assert marks.all("startup") == []
    assert running.stop() == 0
    assert world.lease().get("holderIdentity", "") == ""
