"""Follower, leader, follower, leader in one process, and what an old term leaves behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kopf
import kubernetes
import pykube
import pytest

import kopf_ha
from devcluster.waiting import until
from kopf_ha.core.notes import ANNOTATION_TOKEN
from kopf_ha.errors import GateClosed
from kopf_ha.run.ending import EXIT_LOST
from tests.run.support import GROUP, LONG, Marks, Policy, Replica, Rival, Running, World, caught, registry

Run = Callable[..., Running]


def test_leader_follower_leader_in_one_process(run: Run, world: World, marks: Marks) -> None:
    handlers = registry()
    kept: list[Any] = []  # so that no id is used twice

    @kopf.on.startup(registry=handlers)
    def begin(settings: Any, memo: Any, **_: Any) -> None:
        kept.extend((settings, memo))
        marks.put("startup", (kopf_ha.current_term().token, id(settings), id(memo), dict(memo)))
        memo.mine = True

    @kopf.on.cleanup(registry=handlers)
    def end(**_: Any) -> None:
        marks.put("cleanup", (kopf_ha.current_term().token, kopf_ha.current_term().remaining()))

    @kopf.on.event(GROUP, "v1", "things", registry=handlers)
    async def seen(**_: Any) -> None:
        marks.put("seen", kopf_ha.current_term().token)

    world.create("Thing", "a")
    running = run(handlers)
    first = marks.wait("seen")
    assert world.lease()["leaseTransitions"] == first

    other = world.take_lease()
    # The gate is closed before Kopf is stopped, and so before cleanup handlers run.
    assert marks.wait("cleanup") == (first, 0.0)
    # The other holder never renews, so it is this one's turn again.
    until("a second term", lambda: any(t > other for t in marks.all("seen")), LONG)
    second = marks.all("seen")[-1]

    assert running.stop() == 0
    assert world.lease().get("holderIdentity", "") == ""
    assert world.lease()["leaseTransitions"] == second
    assert [t for t, *_ in marks.all("startup")] == [first, second]
    assert [t for t, _ in marks.all("cleanup")] == [first, second]
    (_, *one), (_, *two) = marks.all("startup")
    assert one[0] != two[0], "Kopf's settings are made anew in each term"
    assert one[1] != two[1], "so is the memo"
    assert two[2] == {}


def test_what_outlives_its_term_is_refused(run: Run, world: World, marks: Marks) -> None:
    """I3, I8: also while the same process leads again."""
    handlers, again = registry(), threading.Event()

    def later() -> bool:
        return bool(kopf_ha.current_term().token != marks.all("seen")[0])

    def by_pykube(name: str) -> None:
        api = pykube.HTTPClient(pykube.KubeConfig.from_env())
        kind = pykube.object_factory(api, f"{GROUP}/v1", "Thing")
        kind.objects(api, namespace=world.namespace).get(name=name).patch({"spec": {"by": "pykube"}})

    def by_kubernetes(name: str) -> None:
        client = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config())
        client.patch_namespaced_custom_object(
            GROUP, "v1", world.namespace, "things", name, {"spec": {"by": "kubernetes"}}
        )

    @kopf.on.event(GROUP, "v1", "things", registry=handlers)
    async def seen(name: str, **_: Any) -> None:
        marks.put("seen", kopf_ha.current_term().token)

    @kopf.on.create(GROUP, "v1", "things", registry=handlers, field="spec.by", value="async", retries=1)
    async def an_async_one(name: str, **_: Any) -> None:
        if later():
            return
        marks.put("handling")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            marks.put("async", caught(lambda: by_kubernetes(name)))
            raise

    @kopf.on.create(GROUP, "v1", "things", registry=handlers, field="spec.by", value="sync", retries=1)
    def a_sync_one(name: str, **_: Any) -> None:
        if later():
            return
        marks.put("handling")
        until("the gate to close", lambda: kopf_ha.current_term().remaining() == 0, LONG)
        marks.put("sync", caught(lambda: by_pykube(name)))

    @kopf.on.create(GROUP, "v1", "things", registry=handlers, field="spec.by", value="thread", retries=1)
    async def one_with_threads(name: str, **_: Any) -> None:
        def write(mark: str) -> None:
            again.wait(LONG)
            marks.put(mark, caught(lambda: by_kubernetes(name)))

        async def awrite() -> None:
            await asyncio.to_thread(write, "bound coroutine")

        if later():
            return
        term = kopf_ha.current_term()
        threading.Thread(target=term.bind(write), args=("bound",), daemon=True).start()
        threading.Thread(target=write, args=("thread",), daemon=True).start()
        threading.Thread(target=asyncio.run, args=(term.bind(awrite)(),), daemon=True).start()
        marks.put("handling")

    for name in ("async", "sync", "thread"):
        world.create("Thing", name, by=name)
    run(handlers, world.settings(drain_timeout=5))
    marks.wait("handling", 3)
    first = marks.all("seen")[0]
    world.take_lease()
    for mark in ("async", "sync"):
        assert isinstance(marks.wait(mark), GateClosed), marks.all(mark)
    until("a second term", lambda: marks.all("seen")[-1] > first, LONG)
    again.set()
    for mark in ("thread", "bound", "bound coroutine"):
        error = marks.wait(mark)
        assert isinstance(error, GateClosed), error
        assert f"term {first} is over" in str(error)
    assert world.get("things", "thread")["spec"] == {"by": "thread"}


def test_what_a_handler_starts_writes_in_its_term(run: Run, world: World, marks: Marks) -> None:
    """Nothing is wrapped, as in operators that know nothing of terms."""
    handlers, pool = registry(), ThreadPoolExecutor(1)
    pool.submit(int).result()  # its thread is older than the term
    path = f"/api/v1/namespaces/{world.namespace}/configmaps"

    def core() -> Any:
        return kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())

    def write(name: str) -> None:
        marks.put(name, caught(lambda: core().patch_namespaced_config_map(name, world.namespace, {"data": {"a": "1"}})))

    @kopf.on.startup(registry=handlers, id="start")
    def start(**_: Any) -> None:
        threading.Thread(target=write, args=("startup",), daemon=True).start()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    async def made(**_: Any) -> None:
        threading.Timer(0, write, ("timer",)).start()
        await asyncio.get_running_loop().run_in_executor(pool, write, "executor")
        core().patch_namespaced_config_map("async", world.namespace, {"data": {"a": "1"}}, async_req=True).get()
        marks.put("async")

    names = ("startup", "timer", "executor", "async")
    for name in names:
        world.ask("POST", path, {"metadata": {"name": name}})
    world.create("Thing", "a")
    run(handlers)
    assert [marks.wait(name) for name in names] == [None] * 4
    for name in names:
        found = world.ask("GET", f"{path}/{name}")
        assert found["data"] == {"a": "1"}
        assert ANNOTATION_TOKEN in found["metadata"]["annotations"]


def test_kopfs_threads_end_with_their_term_and_an_operators_own_pool_stays(
    run: Run, world: World, marks: Marks
) -> None:
    """Kopf leaves its pool to the end of the process, which a replica outlives by many terms."""
    handlers = registry()
    with ThreadPoolExecutor(1) as pool:

        @kopf.on.startup(registry=handlers)
        def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
            if marks.all("thread"):
                settings.execution.executor = pool

        @kopf.on.event(GROUP, "v1", "things", registry=handlers)
        def seen(**_: Any) -> None:
            marks.put("thread", (kopf_ha.current_term().token, threading.current_thread()))

        kopf.on.cleanup(registry=handlers, id="end")(lambda **_: marks.put("cleanup"))
        world.create("Thing", "a")
        running = run(handlers)
        first, kopfs = marks.wait("thread")
        other = world.take_lease()
        marks.wait("cleanup")
        until("Kopf's thread to end", lambda: not kopfs.is_alive(), LONG)
        until("a second term", lambda: any(token > other for token, _ in marks.all("thread")), LONG)
        world.take_lease()
        marks.wait("cleanup", 2)
        assert running.stop() == 0
        theirs = [thread for token, thread in marks.all("thread") if token > first]
        assert {thread.name for thread in theirs} == {pool.submit(threading.current_thread).result(LONG).name}
        assert theirs[0].is_alive()


HOLDS = """
import weakref

class Held:
    pass

held = []

def tell():
    while True:
        print(f"{sum(one() is not None for one in held)} of {len(held)}", flush=True)
        time.sleep(0.1)

threading.Thread(target=tell, daemon=True).start()

@kopf.on.startup()
def begin(memo, **_):
    memo.held = Held()
    held.append(weakref.ref(memo.held))

kopf.on.event(GROUP, "v1", "things", id="seen")(lambda **_: None)
"""


def test_nothing_refers_to_a_term_that_is_over(replica: Callable[..., Replica], world: World) -> None:
    """Else a replica keeps memory and connections of each term that it lost. Its watches are open at the end."""
    one = replica(HOLDS, "--after-loss=follow", "op.py")
    for terms in (1, 2):
        one.see(f"^1 of {terms}$")
        world.take_lease(seconds=2)
        one.see(f"^0 of {terms}$")


def test_a_status_that_was_not_stored_is_made_again(
    run: Run, world: World, marks: Marks, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    """A term may end between the two writes of one cycle: what Kopf notes in the object, and the status."""
    handlers = registry()
    world.create("Thing", "a")
    stored = "!has(object.status.x) && !(has(object.status.by) && object.status.by == 'first')"
    policy(f"lost-{world.namespace}", "things/status", stored, "the first term does not get so far", "a")

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(patch: kopf.Patch, **_: Any) -> None:
        first = not marks.all("made")
        marks.put("made")
        patch.status["by"] = "first" if first else "second"

    running = run(handlers)
    until("the status to be refused", lambda: "the first term does not get so far" in caplog.text, LONG)
    world.take_lease()
    marks.wait("made", 2)
    until("the status", lambda: world.get("things", "a").get("status", {}).get("by") == "second", LONG)
    assert running.stop() == 0
    assert len(marks.all("made")) == 2


def test_after_loss_exit(run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    handlers = registry()
    kopf.on.startup(registry=handlers, id="begin")(lambda **_: marks.put("startup"))
    running = run(handlers, world.settings(after_loss="exit"))
    marks.wait("startup")
    token = world.take_lease(seconds=60)
    assert running.wait() == EXIT_LOST
    assert "leaving, since after-loss is exit: Lease" in caplog.text
    assert "is held by somebody" in caplog.text
    events = world.events()
    assert events["Leading"] == f"{running.runner.settings.identity} became leader with token {token - 1}"
    assert "is held by somebody" in events["Lost"], "where kubectl describe shows it"
    assert world.lease()["holderIdentity"] == "somebody"
    assert world.lease()["leaseTransitions"] == token


def test_deleted_lease_ends_the_term(run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    handlers = registry()
    kopf.on.startup(registry=handlers, id="begin")(lambda **_: marks.put("startup", kopf_ha.current_term().token))
    run(handlers)
    first = marks.wait("startup")
    world.ask("DELETE", world.lease_path)
    assert marks.wait("startup", 2) > first
    assert f"Lease {world.namespace}/op was deleted" in caplog.text


def test_failing_startup_steps_down(run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    handlers = registry()

    @kopf.on.startup(registry=handlers)
    def begin(**_: Any) -> None:
        marks.put("startup", kopf_ha.current_term().token)
        if len(marks.all("startup")) == 1:
            raise kopf.PermanentError("no database")

    run(handlers)
    marks.wait("startup")
    until("the Lease to be given back", lambda: "leading again in" in caplog.text, LONG)
    rival = Rival(world.settings())
    try:
        until("another replica to lead", lambda: rival.grants or len(marks.all("startup")) > 1, LONG)
    finally:
        rival.stop()
    # It stays a candidate, and does better the next time.
    assert marks.wait("startup", 2) > marks.all("startup")[0]
    assert "no database" in caplog.text
    assert "the term failed" in caplog.text


def test_failing_login(run: Run, world: World, caplog: pytest.LogCaptureFixture) -> None:
    handlers = registry()

    @kopf.on.login(registry=handlers, errors=kopf.ErrorsMode.PERMANENT)
    def login(**_: Any) -> None:
        raise kopf.PermanentError("no password")

    @kopf.on.event(GROUP, "v1", "things", registry=handlers)
    def seen(**_: Any) -> None: ...

    running = run(handlers)
    until("the failure", lambda: "leading again in" in caplog.text, LONG)
    assert "no password" in caplog.text
    assert running.stop() == 0
    assert world.lease().get("holderIdentity", "") == ""


def test_blocked_event_loop(run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    """A leader that handles nothing does not renew for ever, and what wakes up later is refused."""
    handlers, settings = registry(), world.settings(drain_timeout=LONG)
    rivals: list[Rival] = []

    @kopf.on.event(GROUP, "v1", "things", registry=handlers)
    async def block(name: str, patch: kopf.Patch, **_: Any) -> None:
        if marks.all("blocked"):
            return
        marks.put("blocked", kopf_ha.current_term().token)
        end = time.monotonic() + LONG
        while not (rivals and rivals[0].grants) and time.monotonic() < end:
            time.sleep(0.1)  # noqa: ASYNC251  the fault
        client = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config())
        write = client.patch_namespaced_custom_object
        marks.put("late", caught(lambda: write(GROUP, "v1", world.namespace, "things", name, {"spec": {"late": 1}})))
        patch.spec["late"] = 2

    world.create("Thing", "a")
    run(handlers, settings)
    marks.wait("blocked")
    rivals.append(Rival(settings))
    try:
        assert isinstance(marks.wait("late"), GateClosed)
        assert rivals[0].grants[0].stamp.token > marks.all("blocked")[0]
        until("the end of the term", lambda: "is over" in caplog.text, LONG)
    finally:
        rivals[0].stop()
    assert "event loop blocked" in caplog.text
    assert world.get("things", "a")["spec"] == {}


def test_the_loop_signals_of_kopf_are_not_complained_about(
    run: Run, marks: Marks, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = registry()
    kopf.on.startup(registry=handlers, id="begin")(lambda **_: marks.put("startup"))
    running = run(handlers)
    marks.wait("startup")
    running.stop()
    assert "OS signals" not in caplog.text
