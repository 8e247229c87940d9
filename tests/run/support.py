"""What the tests of terms share: two kinds, the world as an administrator sees it, and an operator to run.

`Running` runs the runner in a thread of the test's process, which is quick and lets handlers talk to the test;
`Replica` runs the command in a process of its own, for signals and ends that no process survives.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import kopf

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha._kopf import new_registry
from kopf_ha.core.grant import Grant
from kopf_ha.election import Elector
from kopf_ha.run.arguments import options_for
from kopf_ha.run.build import build
from kopf_ha.run.credentials import make_client
from kopf_ha.run.inbox import Inbox
from kopf_ha.run.journal import Journal
from kopf_ha.run.runner import Runner
from kopf_ha.settings import Settings
from testbed import replica as testbed
from testbed.replica import PATIENCE, TIMES
from tests.kit import world as kit
from tests.kit.crd import STAMP, version
from tests.kit.crd import crd as kit_crd

#: Makes a policy: its name, the resource, what must hold, the message, and an object that it must refuse.
Policy = Callable[[str, str, str, str, str], None]

GROUP = "run.kopf-ha.test"
#: What a test waits for, at most; generous, since other work shares the machine.
LONG = PATIENCE


def crd(kind: str, *, fencing: bool = True) -> dict[str, Any]:
    """A kind of the group, with or without a stamp."""
    return kit_crd(GROUP, kind, version(fencing=STAMP if fencing else None))


class World(kit.World):
    """One test's namespace and Lease, with objects of the group."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        super().__init__(cluster, namespace, GROUP)

    def settings(self, **more: Any) -> Settings:
        given: dict[str, Any] = {"lease_name": "op", "lease_namespace": self.namespace, "after_loss": "follow", **TIMES}
        return Settings(**(given | more))


def registry() -> kopf.OperatorRegistry:
    """Fresh handlers' registry, with Kopf's own logins."""
    fresh = new_registry()

    @kopf.on.startup(registry=fresh, id="settings")
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.persistence.finalizer = f"{GROUP}/finalizer"
        settings.posting.enabled = False
        settings.scanning.disabled = True

    return fresh


class Marks:
    """What handlers tell the test."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, Any]] = []

    def put(self, name: str, value: Any = None) -> None:
        self._marks.append((name, value))

    def all(self, name: str) -> list[Any]:
        return [value for n, value in self._marks if n == name]

    def wait(self, name: str, count: int = 1, timeout: float = LONG) -> Any:
        """Wait until there are `count` of them, and give that one."""
        until(f"{count} × {name} (have {self._marks})", lambda: len(self.all(name)) >= count, timeout)
        return self.all(name)[count - 1]


class Running:
    """A runner in a thread."""

    def __init__(
        self,
        settings: Settings,
        handlers: kopf.OperatorRegistry,
        namespace: str,
        everywhere: kopf.OperatorRegistry | None = None,
        **options: Any,
    ) -> None:
        none = new_registry()
        self.runner = build(settings, options_for(handlers, (namespace,), False, **options), everywhere or none)
        self.status: int | BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        try:
            self.status = self.runner.run()
        except BaseException as error:
            self.status = error

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> int | BaseException | None:
        until("the runner's end", lambda: self.ended, LONG)
        return self.status

    def stop(self) -> int | BaseException | None:
        self.runner.quit("the test is over")
        return self.wait()


def make_runner(journal: Journal, **given: Any) -> Runner:
    """A runner without threads; its parts are stand-ins."""
    inbox: Inbox = queue.SimpleQueue()
    some: dict[str, Any] = dict.fromkeys(
        ("elector", "fence", "enforcement", "make_term", "pods", "run_lock", "everywhere"), MagicMock(taken=None)
    )
    some["elector"].pause = None
    return Runner(settings=Settings(**given), inbox=inbox, journal=journal, **some)


class Rival:
    """Another process's election for the same Lease."""

    def __init__(self, settings: Settings) -> None:
        self.grants: list[Grant] = []
        self.elector = Elector(
            settings.changed(identity="rival", pod_uid="r"),
            lambda: make_client("rival", fenced=False),
            on_started=self._started,
            on_stopped=lambda grant, cause: None,
        )
        self._pulse = threading.Event()
        self.elector.start()
        threading.Thread(target=self._beat, daemon=True).start()

    def _started(self, grant: Grant) -> None:
        self.grants.append(grant)

    def _beat(self) -> None:
        while not self._pulse.wait(0.2):
            self.elector.beat()

    def stop(self) -> None:
        self.elector.release(5)
        self._pulse.set()


class Replica(testbed.Replica):
    """The command `kopf-ha run` on an operator's code; it is started at once."""

    def __init__(self, world: World, code: str, folder: Path, *args: str, env: dict[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "op.py").write_text(PREAMBLE + code)
        lease = ["--lease-name=op", f"--lease-namespace={world.namespace}", "-n", world.namespace]
        arguments = ["run", *lease, *(args or ("op.py",))]
        super().__init__(
            folder.name, world.cluster.kubeconfig, arguments, folder / "log", env=env, cwd=folder, warm=True
        )
        self.start()


PREAMBLE = f"""
import asyncio, threading, time
import kopf, kopf_ha
GROUP = {GROUP!r}

@kopf.on.startup(id="settings")
def _configure(settings, **_):
    settings.persistence.finalizer = GROUP + "/finalizer"
    settings.posting.enabled = False
    settings.scanning.disabled = True
"""


def caught(fn: Callable[[], Any]) -> BaseException | None:
    """Give what `fn` raises."""
    try:
        fn()
    except BaseException as error:
        return error
    return None
