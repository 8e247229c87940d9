"""Kopf runs handlers again after a conflict (409) on a JSON patch, so the fence answers 422: tried with Kopf itself."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import kopf
import pytest

from devcluster.waiting import until
from kopf_ha import _kopf, adapters
from kopf_ha._context import entered
from kopf_ha.adapters import Outcome, Wiring, wired
from kopf_ha.adapters.kopf_client import fenced_vault
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.wire import Request
from kopf_ha.errors import StaleLeader
from tests.fencing.conftest import Terms, World
from tests.fencing.kinds import GROUP

GADGETS = f"gadgets.{GROUP}"
#: Given what Kopf asked for, and what the fence is about to send for it.
Before = Callable[[Request, Request], None]


class Meddled(Fence):
    """A fence that lets the test do something right before a request goes out."""

    before: Before = staticmethod(lambda asked, out: None)

    def flow(self, request: Request, *args: Any, **more: Any) -> Generator[Any, Any, Any]:
        flow = super().flow(request, *args, **more)
        try:
            out = next(flow)
            while True:
                self.before(request, out)
                out = flow.send((yield out))
        except StopIteration as end:
            return end.value


class Operator:
    """Kopf in a thread, in one term, with a fenced vault."""

    def __init__(self, world: World, fence: Meddled, grant: Grant) -> None:
        self.world, self.fence, self.grant = world, fence, grant
        self.outcomes: list[Outcome] = []
        self.registry = _kopf.new_registry()
        self.calls: list[str] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stop = asyncio.Event()
        self.thread = threading.Thread(target=self.main, daemon=True)

        @kopf.on.startup(registry=self.registry)
        def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
            settings.posting.enabled = False
            settings.scanning.disabled = True
            settings.persistence.finalizer = f"{GROUP}/finalizer"
            settings.networking.error_backoffs = [0.05]
            settings.queueing.error_delays = [0.05]

    def main(self) -> None:
        with wired(Wiring(self.fence, self.report)), entered(self.grant):
            asyncio.run(self.run())

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        await kopf.operator(
            registry=self.registry,
            namespaces=[self.world.namespace],
            standalone=True,
            vault=fenced_vault(),
            stop_flag=self.stop,
        )

    def report(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if outcome.refused is not None:
            self.grant.close(str(outcome.refused))

    def start(self) -> None:
        self.thread.start()

    def end(self) -> None:
        if self.thread.is_alive() and self.loop is not None:
            self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def operator(world: World, installed: None) -> Iterator[Operator]:
    adapters.install()
    lease = f"{world.namespace}/op"
    made = Operator(world, Meddled(lease), Terms(lease).grant(7))
    yield made
    made.end()
    names = world.kubectl("get", GADGETS, "-o", "name").stdout.split()
    for name in names:
        world.kubectl("patch", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False)


def meddle(operator: Operator, which: Callable[[Request, Request], bool], then: Callable[[], None]) -> list[Request]:
    """Do something right before the first request of a kind leaves; give what was met."""
    met: list[Request] = []

    def before(asked: Request, out: Request) -> None:
        if not met and asked.method == "PATCH" and which(asked, out):
            met.append(out)
            then()

    operator.fence.before = before
    return met


def user_edits(world: World) -> None:
    world.kubectl("patch", GADGETS, "x", "--type=merge", "-p", '{"metadata":{"labels":{"user":"edit"}}}')


def calm(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether Kopf met no error: on one, a 409 among them, it waits and goes through its handlers again."""
    return "Throttling" not in caplog.text


def test_a_conflict_on_kopfs_json_patch_runs_no_handler_twice(
    world: World, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    @kopf.on.create(GROUP, "v1", "gadgets", registry=operator.registry)
    def created(patch: kopf.Patch, **_: Any) -> None:
        operator.calls.append("created")
        patch.fns.append(lambda body: body["spec"].update(by="handler"))

    world.create("Gadget", "x", a=1)
    met = meddle(operator, lambda a, out: out.is_json_patch and b"/spec/" in out.body, lambda: user_edits(world))
    operator.start()
    until("the handler's change", lambda: world.get(GADGETS, "x")["spec"].get("by") == "handler")
    now = world.get(GADGETS, "x")
    assert now["metadata"]["labels"]["user"] == "edit"
    assert len(met) == 1
    assert operator.calls == ["created"]
    assert 422 in [o.status for o in operator.outcomes]
    assert calm(caplog)


def test_a_conflict_of_the_stamp_for_kopfs_json_patch_is_a_422(
    world: World, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    """Kopf's first write is the finalizer's, and the stamp goes before it: a merge patch, whose conflict is a 409.

    Then Kopf's own patch is sent all the same, so that its own test of the revision is what fails.
    """

    @kopf.on.create(GROUP, "v1", "gadgets", registry=operator.registry)
    def created(**_: Any) -> None:
        operator.calls.append("created")

    @kopf.on.delete(GROUP, "v1", "gadgets", registry=operator.registry)
    def deleted(**_: Any) -> None:
        operator.calls.append("deleted")

    world.create("Gadget", "x", a=1)
    met = meddle(operator, lambda a, out: a.is_json_patch and b"podUID" in out.body, lambda: user_edits(world))
    operator.start()
    until("the handler", lambda: operator.calls)
    now = world.get(GADGETS, "x")
    assert now["metadata"]["finalizers"] == [f"{GROUP}/finalizer"]
    assert now["metadata"]["labels"]["user"] == "edit"
    assert len(met) == 1
    assert 422 in [o.status for o in operator.outcomes]
    assert 409 not in [o.status for o in operator.outcomes]
    assert calm(caplog)
    assert operator.calls == ["created"]


def test_a_harmless_edit_below_a_merge_patch_runs_no_handler_twice(
    world: World, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    """I6: it is resolved by the fence; Kopf would run the handlers again on a 409."""

    @kopf.on.create(GROUP, "v1", "gadgets", registry=operator.registry)
    def created(patch: kopf.Patch, **_: Any) -> None:
        operator.calls.append("created")
        patch.status["a"] = "done"

    world.create("Gadget", "x", a=1)
    met = meddle(operator, lambda a, out: b'"done"' in out.body, lambda: user_edits(world))
    operator.start()
    until("the status", lambda: (world.get(GADGETS, "x").get("status") or {}).get("a") == "done")
    now = world.get(GADGETS, "x")
    assert now["metadata"]["labels"]["user"] == "edit"
    assert now["status"]["fencing"]["token"] == 7
    assert len(met) == 1
    assert operator.calls == ["created"]
    assert [o for o in operator.outcomes if o.status in (409, 422)] == []
    assert calm(caplog)


@pytest.mark.parametrize("others", [[], ["test.dev/hold"]])
def test_a_finalizer_comes_and_goes_through_conflicts(world: World, operator: Operator, others: list[str]) -> None:
    """With another's finalizer Kopf removes its own by an index, which says nothing on a newer revision."""

    @kopf.on.delete(GROUP, "v1", "gadgets", registry=operator.registry)
    def deleted(**_: Any) -> None:
        operator.calls.append("deleted")

    world.create("Gadget", "x", a=1)
    if others:
        patch = json.dumps({"metadata": {"finalizers": others}})
        world.kubectl("patch", GADGETS, "x", "--type=merge", "-p", patch)
    operator.start()
    ours = f"{GROUP}/finalizer"
    until("the finalizer", lambda: ours in world.get(GADGETS, "x")["metadata"].get("finalizers", []))
    met = meddle(operator, lambda a, out: out.is_json_patch and b"finalizers" in out.body, lambda: user_edits(world))
    world.kubectl("delete", GADGETS, "x", "--wait=false")
    if others:
        until("ours to go", lambda: world.get(GADGETS, "x")["metadata"]["finalizers"] == others)
    else:
        until("it to be gone", lambda: not world.there(GADGETS, "x"))
    assert len(met) == 1
    assert operator.calls[0] == "deleted"


def test_a_refusal_is_not_retried_by_kopf_and_the_gate_is_closed_before_it(world: World, operator: Operator) -> None:
    @kopf.on.create(GROUP, "v1", "gadgets", registry=operator.registry)
    def created(patch: kopf.Patch, **_: Any) -> None:
        operator.calls.append("created")
        patch.status["a"] = "done"

    def newer() -> None:
        fencing = {"lease": operator.fence.known.lease, "token": 8, "holder": "pod8", "podUID": "u"}
        patch = json.dumps({"status": {"fencing": fencing}})
        world.kubectl("patch", GADGETS, "x", "--subresource=status", "--type=merge", "-p", patch)

    world.create("Gadget", "x", a=1)
    meddle(operator, lambda a, out: b'"done"' in out.body, newer)
    operator.start()
    until("the refusal", lambda: operator.grant.closed)
    operator.end()
    refusals = [o.refused for o in operator.outcomes if o.refused is not None]
    assert isinstance(refusals[0], StaleLeader)
    # What Kopf tries after that meets the gate, and the object shows nothing of it.
    assert {r.line for r in refusals[1:]} <= {"gate"}
    now = world.get(GADGETS, "x")["status"]
    assert now["fencing"]["token"] == 8
    assert "a" not in now
