"""`await kopf_ha.operator()` inside of an application."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import kopf
import pytest

import kopf_ha
from devcluster.waiting import until
from kopf_ha.errors import ConfigurationError, TermEnded
from tests.run.support import GROUP, LONG, Marks, World, registry


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
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == signals
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

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
