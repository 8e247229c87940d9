"""The barrier: deciding objects are stamped before any handler runs, or set aside, or the term fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf
import pytest

import kopf_ha
from devcluster.waiting import until
from kopf_ha.run.operator import EXIT_LOST
from tests.run.support import GROUP, LONG, Marks, Policy, Running, World, registry

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
    assert f"roots.{GROUP} {world.namespace}/frozen is set aside" in caplog.text
    assert "frozen by the test" in caplog.text


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
    line = next(r.getMessage() for r in caplog.records if "is set aside" in r.getMessage())
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
        (f"bares.{GROUP}", f"deciding kind bares.{GROUP} has no status.fencing in its schema; add it"),
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
