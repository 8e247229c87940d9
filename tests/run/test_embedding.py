"""`kopf_ha.run()`, `operator()` and `spawn_tasks()` inside of an application, called as Kopf's are."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import inspect
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf
import pytest
from kopf._cogs.structs.credentials import Vault

import kopf_ha
from devcluster.waiting import until
from kopf_ha._kopf import PreparedVault
from kopf_ha.adapters import Wiring, wired
from kopf_ha.adapters.kopf_client import fenced_vault
from kopf_ha.core.fence import Fence
from kopf_ha.errors import ConfigurationError, KopfHAError, TermEnded
from kopf_ha.run import nested
from kopf_ha.run.arguments import Arguments, options_from
from kopf_ha.run.flags import raise_flag, watching
from kopf_ha.run.liveness import Endpoint
from kopf_ha.settings import Settings
from testbed import replica as testbed
from tests.run.support import GROUP, LONG, Marks, World, caught, registry


def handlers_that_wait(marks: Marks) -> kopf.OperatorRegistry:
    handlers = registry()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    async def made(patch: kopf.Patch, **_: Any) -> None:
        marks.put("handling")
        await asyncio.sleep(2.5)  # longer than Kopf's own patience of 2 s
        patch.spec["done"] = True

    return handlers


def test_cancelled_it_drains_and_releases(world: World, marks: Marks) -> None:
    world.create("Thing", "a")

    async def app() -> None:
        signals = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
        task = asyncio.create_task(
            kopf_ha.operator(world.settings(), registry=handlers_that_wait(marks), namespaces=(world.namespace,))
        )
        # The application's own loop goes on meanwhile.
        await asyncio.to_thread(marks.wait, "handling")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == signals, "they are given back"

    asyncio.run(app())
    assert world.get("things", "a")["spec"] == {"done": True}
    assert world.lease().get("holderIdentity", "") == ""


def test_after_loss_exit_raises(world: World, marks: Marks) -> None:
    handlers = registry()
    kopf.on.startup(registry=handlers, id="begin")(lambda **_: marks.put("startup"))

    async def app() -> None:
        settings = world.settings(after_loss="exit")
        task = asyncio.create_task(kopf_ha.operator(settings, registry=handlers, namespaces=(world.namespace,)))
        await asyncio.to_thread(marks.wait, "startup")
        world.take_lease()
        with pytest.raises(TermEnded, match="the Lease was lost"):
            await task

    asyncio.run(app())


def test_one_process_one_operator(world: World, marks: Marks) -> None:
    async def app() -> None:
        handlers = registry()
        kopf.on.startup(registry=handlers, id="begin")(lambda **_: marks.put("startup"))
        first = asyncio.create_task(
            kopf_ha.operator(world.settings(), registry=handlers, namespaces=(world.namespace,))
        )
        await asyncio.to_thread(marks.wait, "startup")
        other = world.settings(lease_name="other")
        with pytest.raises(RuntimeError, match="one fenced operator at a time"):
            await kopf_ha.operator(other, registry=handlers, namespaces=(world.namespace,))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(app())


def test_namespaces_or_all(world: World) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        asyncio.run(kopf_ha.operator(world.settings(), namespaces=("a",), clusterwide=True))


def test_no_credentials(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for text in (None, "{", "{}", "[]"):
        path = tmp_path / "config"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        monkeypatch.setenv("KUBECONFIG", str(path))
        with pytest.raises(ConfigurationError, match="no credentials for a cluster"):
            asyncio.run(kopf_ha.operator(world.settings(), clusterwide=True))


def test_hung_release_is_not_waited_for_twice(world: World, marks: Marks) -> None:
    """Cancelled a second time, the task ends at once; the runner goes on in its thread and releases."""
    world.create("Thing", "a")

    async def app() -> None:
        task = asyncio.create_task(
            kopf_ha.operator(world.settings(), registry=handlers_that_wait(marks), namespaces=(world.namespace,))
        )
        await asyncio.to_thread(marks.wait, "handling")
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.get("things", "a")["spec"] == {}

    asyncio.run(app())
    until("the release", lambda: not world.lease().get("holderIdentity"), LONG)


# --- what Kopf's functions take


@pytest.mark.parametrize("name", ["run", "operator", "spawn_tasks"])
def test_each_argument_of_kopf_s_function_is_taken(name: str) -> None:
    """A new release of Kopf may bring one that nobody has decided about."""
    theirs = {p for p in inspect.signature(getattr(kopf, name)).parameters if not p.startswith("_")}
    own = set(inspect.signature(getattr(kopf_ha, name)).parameters) - {"ha", "given"}
    assert theirs <= set(Arguments.__annotations__) | own


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({"no_such": 1}, TypeError, "kopf_ha has no argument 'no_such'"),
        ({"settings": Settings()}, ConfigurationError, r"settings= are Kopf's; pass kopf_ha\.Settings as the first"),
        ({"namespaces": ["a"], "namespace": "b"}, ConfigurationError, "either namespaces or namespace, not both"),
        ({"namespaces": ["a"], "clusterwide": True}, ConfigurationError, "not both"),
        ({"liveness_endpoint": "x"}, ConfigurationError, "--liveness must be a URL"),
        ({"_command": None}, TypeError, "kopf_ha has no argument '_command'"),
    ],
)
def test_arguments_that_are_refused(given: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        kopf_ha.run(Settings(), **given)


def test_what_each_argument_becomes(caplog: pytest.LogCaptureFixture) -> None:
    settings, memo, indexers = kopf.OperatorSettings(), object(), object()
    with pytest.warns(DeprecationWarning, match="namespace= is deprecated"):
        options = options_from(
            {
                "settings": settings,
                "memo": memo,
                "namespace": "a",
                "indexers": indexers,
                "vault": None,
                "liveness_endpoint": "http://x:1/y",
                "peering_name": "p",
                "priority": 3,
                "standalone": False,
                "identity": "me",
            }
        )
    assert (options.make_settings(), options.make_memo()) == (settings, memo)
    assert options.make_settings() is settings, "in each term"
    assert (options.namespaces, options.clusterwide) == (("a",), False)
    assert options.make_parts() == {"indexers": indexers}
    assert options.make_parts() == {}, "later terms begin without"
    assert options.liveness == Endpoint("x", 1, "/y")
    assert "peering 'p' has no effect" in caplog.text
    assert "priority 3 has no effect" in caplog.text


@pytest.mark.parametrize("make", [asyncio.Event, asyncio.Future, threading.Event, concurrent.futures.Future])
def test_flags_of_each_type(make: Callable[[], Any]) -> None:
    errors: list[Any] = []

    async def app() -> None:
        loop, flag, told = asyncio.get_running_loop(), make(), threading.Event()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        with watching(flag, told.set):
            await asyncio.sleep(0)
            assert not told.is_set()
            # From another thread, twice: the operator's terms are not in the application's loop.
            for _ in range(2):
                await asyncio.to_thread(raise_flag, flag, loop)
            assert await asyncio.to_thread(told.wait, LONG)
        late = threading.Event()
        with watching(make(), late.set):
            pass
        raise_flag(flag, loop)
        assert not late.is_set()

    asyncio.run(app())
    assert not errors


def test_what_is_no_flag() -> None:
    with pytest.raises(TypeError, match="a flag is an Event or a Future"), watching(3, print):  # type: ignore[arg-type]
        pass


# --- as Kopf's documentation embeds an operator


def things(marks: Marks) -> kopf.OperatorRegistry:
    handlers = registry()
    kopf.on.startup(registry=handlers, id="begin")(lambda memo, settings, **_: marks.put("startup", (memo, settings)))
    kopf.on.cleanup(registry=handlers, id="end")(lambda **_: marks.put("cleanup"))

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(patch: kopf.Patch, **_: Any) -> None:
        patch.spec["done"] = kopf_ha.current_term().token

    return handlers


def test_in_a_thread_with_flags(world: World, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    ready, stop, memo, settings = threading.Event(), threading.Event(), object(), kopf.OperatorSettings()
    world.create("Thing", "a")
    thread = threading.Thread(
        target=lambda: kopf_ha.run(
            world.settings(),
            registry=things(marks),
            namespace=world.namespace,
            ready_flag=ready,
            stop_flag=stop,
            memo=memo,
            settings=settings,
        )
    )
    thread.start()
    assert ready.wait(LONG)
    assert marks.wait("startup") == (memo, settings)
    until("the handler", lambda: world.get("things", "a")["spec"], LONG)
    stop.set()
    thread.join(LONG)
    assert not thread.is_alive()
    assert marks.all("cleanup")
    assert world.lease().get("holderIdentity", "") == ""
    assert "the stop flag is raised" in caplog.text


def test_in_an_existing_loop_by_tasks(world: World, marks: Marks) -> None:
    """With credentials that the application has got itself, and a loop of its own."""
    world.create("Thing", "a")
    login = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
    handlers = things(marks)
    kopf.on.login(registry=handlers, id="none")(lambda **_: marks.put("login"))

    async def app() -> None:
        ready, stop, existing = asyncio.Event(), asyncio.Event(), asyncio.all_tasks()
        tasks = await kopf_ha.spawn_tasks(
            world.settings(),
            registry=handlers,
            namespaces=[world.namespace],
            ready_flag=ready,
            stop_flag=stop,
            vault=Vault({"mine": login}),
        )
        running = asyncio.create_task(kopf.run_tasks(tasks, ignored=existing | {asyncio.current_task()}))  # type: ignore[arg-type]
        await asyncio.wait_for(ready.wait(), LONG)
        until("the handler", lambda: world.get("things", "a")["spec"], LONG)
        stop.set()
        await running

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(app())
    finally:
        loop.close()
    assert not marks.all("login")
    assert world.lease().get("holderIdentity", "") == ""


MAIN = """
import sys
import kopf, kopf_ha

@kopf.on.startup()
def configure(settings, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True

@kopf.on.cleanup()
def end(**_):
    print("cleaned up", kopf_ha.current_term().remaining() > 0, flush=True)

kopf_ha.run(clusterwide=True)
print("the end of main", flush=True)
sys.exit(7)
"""


def test_a_main_of_its_own_is_interrupted_as_with_kopf(world: World, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    env = {"KOPF_HA_LEASE_NAME": "op", "KOPF_HA_LEASE_NAMESPACE": world.namespace}
    one = testbed.Replica(
        "main", world.cluster.kubeconfig, [], tmp_path / "log", program=["main.py"], env=env, cwd=tmp_path
    )
    one.start()
    try:
        until("its term", lambda: world.lease().get("holderIdentity"), LONG)
        one.signal(signal.SIGINT)
        assert one.wait() == 7, one.log
    finally:
        one.kill()
    assert one.said("the end of main")
    assert world.lease().get("holderIdentity", "") == ""


# --- operators beside the fenced one


def test_an_operator_that_a_handler_starts_belongs_to_its_term(world: World, marks: Marks, run: Any) -> None:
    """I8: also when it calls the API server by another name."""
    world.create("Thing", "a")
    inner = registry()
    stops: list[threading.Event] = []
    server = world.cluster.servers[0].replace("127.0.0.1", "localhost")

    @kopf.on.login(registry=inner, id="login")
    def login(settings: kopf.OperatorSettings, **_: Any) -> Any:
        found = kopf.login_with_kubeconfig(settings=settings)
        assert found is not None
        return dataclasses.replace(found, server=server)

    @kopf.on.create(GROUP, "v1", "things", registry=inner)
    def made(patch: kopf.Patch, **_: Any) -> None:
        patch.spec["by"] = "inner"

    outer = registry()

    @kopf.on.startup(registry=outer, id="begin")
    def begin(**_: Any) -> None:
        stops.append(threading.Event())
        beside = kopf.operator(registry=inner, namespaces=[world.namespace], standalone=True, stop_flag=stops[0])
        threading.Thread(target=lambda: marks.put("ended", caught(lambda: asyncio.run(beside)))).start()
        marks.put("token", kopf_ha.current_term().token)

    nested.install()
    running = run(outer)
    until("the inner handler", lambda: world.get("things", "a")["spec"] == {"by": "inner"}, LONG)
    assert world.get("things", "a")["status"]["fencing"]["token"] == marks.wait("token")
    stops[0].set()
    assert marks.wait("ended") is None
    assert running.stop() == 0


def test_an_operator_is_fenced_that_starts_while_the_fenced_one_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """I8: as `asyncio.gather(kopf_ha.operator(), kopf.operator())` starts them."""
    plain: list[dict[str, Any]] = []

    async def spawn(**given: Any) -> list[Any]:
        plain.append(given)
        return [asyncio.create_task(asyncio.sleep(0))]

    def build(*_: Any) -> Any:
        until("the other one to start", lambda: plain, LONG)
        raise KopfHAError("enough")

    monkeypatch.setattr("kopf_ha._kopf.plain_spawn_tasks", spawn)
    monkeypatch.setattr("kopf_ha.run.entry.build", build)
    monkeypatch.setattr("kopf_ha.adapters.install", lambda: None)  # it cannot be taken back, and is not asked for here

    async def app() -> None:
        fenced = kopf_ha.operator(kopf_ha.Settings(lease_name="op"), registry=registry())
        ends = await asyncio.gather(fenced, kopf.operator(clusterwide=True), return_exceptions=True)
        assert str(ends[0]) == "enough"

    asyncio.run(app())
    assert isinstance(plain.pop()["vault"], PreparedVault)


def test_which_operator_is_kopf_s_own_and_which_is_fenced(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: list[dict[str, Any]] = []
    fenced: list[dict[str, Any]] = []
    over = asyncio.Event()

    async def spawn(**given: Any) -> list[Any]:
        plain.append(given)
        return []

    async def first(**given: Any) -> list[Any]:
        fenced.append(given)
        return [asyncio.create_task(over.wait())]

    async def app() -> None:
        nested.install()
        await kopf.spawn_tasks(clusterwide=True)
        assert plain.pop() == {"clusterwide": True}, "no fenced operator runs"
        with nested.beside_me():
            await kopf.spawn_tasks(clusterwide=True)
            assert isinstance(plain.pop()["vault"], PreparedVault), "beside one that is being built"
        await kopf.spawn_tasks(clusterwide=True)
        assert plain.pop() == {"clusterwide": True}, "after its end"
        with wired(Wiring(Fence("ns/op"), lambda outcome: None)):
            await kopf.spawn_tasks(clusterwide=True)
            assert isinstance(plain.pop()["vault"], PreparedVault), "beside one"
            mine = fenced_vault()
            await kopf.spawn_tasks(vault=mine)
            assert plain.pop() == {"vault": mine}, "the fenced one's"

        nested.install(first)
        await kopf.spawn_tasks(clusterwide=True, _command=None)
        assert fenced.pop() == {"clusterwide": True}, "the program's first"
        await kopf.spawn_tasks(clusterwide=True)
        assert isinstance(plain.pop()["vault"], PreparedVault), "its second"
        over.set()
        await asyncio.gather(*nested._tasks)
        command: Any = object()
        await kopf.spawn_tasks(_command=command)
        assert "vault" not in plain.pop(), "no operator, but a command of Kopf's"
        await kopf.spawn_tasks(clusterwide=True)
        assert fenced.pop() == {"clusterwide": True}, "the next one after its end"

    monkeypatch.setattr(nested, "_first", None)
    monkeypatch.setattr(nested, "_tasks", ())
    monkeypatch.setattr("kopf_ha._kopf.plain_spawn_tasks", spawn)
    asyncio.run(app())
