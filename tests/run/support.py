"""What the tests of terms share: two kinds, the world as an administrator sees it, and an operator to run.

`Running` runs the runner in a thread of the test's process, which is quick and lets handlers talk to the test;
`Replica` runs the command in a process of its own, for signals and ends that no process survives.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf

import kopf_ha
from devcluster.waiting import until
from kopf_ha._kopf import new_registry
from kopf_ha.api import Api
from kopf_ha.core.grant import Grant
from kopf_ha.election import Elector
from kopf_ha.run.build import build
from kopf_ha.run.credentials import make_client
from kopf_ha.run.entry import options_for
from kopf_ha.settings import Settings

#: Where the package under test is.
SOURCE = Path(kopf_ha.__file__).parents[1]
#: Makes a policy: its name, the resource, what must hold, the message, and an object that it must refuse.
Policy = Callable[[str, str, str, str, str], None]

GROUP = "run.kopf-ha.test"
DURATION = 3
TIMES = {"lease_duration": DURATION, "renew_deadline": 2, "retry_period": 0.5}
#: What a test waits for, at most; generous, since other work shares the machine.
LONG = 12 * DURATION
MERGE = "application/merge-patch+json"

FENCING = {
    "type": "object",
    "required": ["lease", "token", "holder", "podUID"],
    "properties": {
        "lease": {"type": "string"},
        "token": {"type": "integer", "format": "int32", "minimum": 1},
        "holder": {"type": "string"},
        "podUID": {"type": "string"},
    },
}


def crd(kind: str, *, fencing: bool = True) -> dict[str, Any]:
    """A namespaced kind, with or without a stamp."""
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    status = {**loose, "properties": {"fencing": FENCING}} if fencing else loose
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": loose, "status": status}}},
                }
            ],
        },
    }


class World:
    """One test's namespace and Lease, seen with an administrator's unfenced client."""

    def __init__(self, namespace: str, kubeconfig: Path) -> None:
        self.namespace = namespace
        self.kubeconfig = kubeconfig
        self.api = Api(make_client("tests", fenced=False))
        self.lease_path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/op"

    def settings(self, **more: Any) -> Settings:
        given = {"lease_name": "op", "lease_namespace": self.namespace, "after_loss": "follow", **TIMES}
        return Settings(**(given | more))

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "") -> Any:
        answer = self.api.request(method, path, body, content_type)
        assert answer.ok, f"{method} {path}: {answer.status} {answer.message}"
        return answer.json

    def path(self, plural: str, name: str = "") -> str:
        return f"/apis/{GROUP}/v1/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def create(self, kind: str, name: str, **spec: Any) -> Any:
        body = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.ask("POST", self.path(f"{kind.lower()}s"), body)

    def get(self, plural: str, name: str) -> Any:
        return self.ask("GET", self.path(plural, name))

    def stamp(self, plural: str, name: str, token: int, *, lease: str = "", holder: str = "somebody") -> None:
        """Write a stamp as another process would."""
        fencing = {"lease": lease or f"{self.namespace}/op", "token": token, "holder": holder, "podUID": "u"}
        self.ask("PATCH", self.path(plural, name) + "/status", {"status": {"fencing": fencing}}, MERGE)

    def stamp_of(self, plural: str, name: str) -> Any:
        return (self.get(plural, name).get("status") or {}).get("fencing") or {}

    def lease(self) -> Any:
        return self.ask("GET", self.lease_path)["spec"]

    def edit_lease(self, **spec: Any) -> None:
        self.ask("PATCH", self.lease_path, {"spec": spec}, MERGE)

    def take_lease(self, holder: str = "somebody", seconds: int = 1) -> int:
        """Make another process the holder, as an election of its own would; give its token."""
        token = int(self.lease()["leaseTransitions"]) + 1
        self.edit_lease(holderIdentity=holder, leaseTransitions=token, leaseDurationSeconds=seconds)
        return token

    def events(self) -> dict[str, str]:
        """The last event of each reason on the Lease."""
        items = self.ask("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return {e["reason"]: e["message"] for e in items if e["involvedObject"]["name"] == "op"}

    def clear(self) -> None:
        """Remove the test's objects, with finalizers nobody is left to remove."""
        for plural in ("roots", "things"):
            for item in self.ask("GET", self.path(plural))["items"]:
                path = self.path(plural, item["metadata"]["name"])
                self.api.request("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
                self.api.request("DELETE", path)


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


class Replica:
    """The command `kopf-ha run`, in a process of its own."""

    def __init__(self, world: World, code: str, folder: Path, *args: str, env: dict[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "op.py").write_text(PREAMBLE + code)
        self.log_path = folder / f"log-{time.monotonic_ns()}"
        times = [f"--{k.replace('_', '-')}={v:g}" for k, v in TIMES.items()]
        lease = ["--lease-name=op", f"--lease-namespace={world.namespace}", "-n", world.namespace]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kopf_ha", "run", *times, *lease, *(args or ("op.py",))],
                cwd=folder,
                env=environment(world.kubeconfig) | (env or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def see(self, pattern: str, count: int = 1) -> str:
        """Wait for a line of the log."""

        def look() -> str:
            found = re.findall(f"(?m)^.*{pattern}.*$", self.log)
            if len(found) < count and self.process.poll() is not None and len(re.findall(pattern, self.log)) < count:
                raise AssertionError(f"ended with {self.process.returncode} before {pattern!r}:\n{self.log}")
            return found[count - 1] if len(found) >= count else ""

        try:
            return until(f"{pattern!r} in the log", look, LONG)
        except Exception:
            print(self.log)
            raise

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(LONG)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LONG)
        if os.environ.get("SHOW_LOGS"):
            print(self.log)


def environment(kubeconfig: Path | str) -> dict[str, str]:
    """The environment of a replica: nothing of the caller's settings."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("KOPF_", "POD_", "KUBE"))}
    return keep | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"}


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def caught(fn: Callable[[], Any]) -> BaseException | None:
    """Give what `fn` raises."""
    try:
        fn()
    except BaseException as error:
        return error
    return None
