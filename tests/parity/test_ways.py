"""I9: one small operator, started in each way that Kopf knows, with kopf-ha and without, and started again.

Each way has a namespace of its own, since each runs a whole operator.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from devcluster import Cluster, DevclusterError
from devcluster.waiting import until
from testbed.deployment import ROOT
from testbed.ports import free_port
from testbed.replica import KOPF_HA, PATIENCE, SOURCE, Replica
from tests.kit.client import MERGE
from tests.kit.world import NAMESPACES, World, fresh_namespace
from tests.parity.shapes import GROUP
from tests.parity.stage import alike

pytestmark = pytest.mark.load_sensitive

FILE = Path(__file__).with_name("op_ways.py")
MODULE = "tests.parity.op_ways"
KINDS = {"cells": "Cell", "looses": "Loose"}
#: With a Role only: what the operator itself needs, without kopf-ha.
RULES = [
    {"apiGroups": [GROUP], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
]
#: And what kopf-ha needs.
LEASES = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}]


class Way(NamedTuple):
    """How an operator is started: arguments of Python for both, and the name of the library for a main of its own."""

    plain: tuple[str, ...]
    fenced: tuple[str, ...]


def _command(*more: str) -> Way:
    return Way(("-m", "kopf", "run", "--standalone", *more), (*KOPF_HA, "run", *more))


_OWN = Way(("-m", MODULE), ("-m", MODULE))
WAYS = {
    "file": _command(str(FILE)),
    "module": _command("-m", MODULE),
    "storages": _command(str(FILE)),
    "role": _command(str(FILE)),
    "liveness": _command(str(FILE), "--liveness=http://127.0.0.1:{port}/healthz"),
    "peering": _command(str(FILE), "--priority=5"),
    "loop": _OWN,
    "thread": _OWN,
    "main": _OWN,
    "exec": Way(("-m", MODULE), (*KOPF_HA, "exec", "--", sys.executable, "-m", MODULE)),
}


class Corner(World):
    """A namespace, and one operator in it, started in one way."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, way: str, fenced: bool) -> None:
        super().__init__(cluster, namespace, GROUP)
        self.way, self.fenced, self.folder, self.port = way, fenced, folder, free_port()
        folder.mkdir(parents=True)
        self.replicas: list[Replica] = []
        self.kubeconfig = self._with_a_role() if way == "role" else cluster.kubeconfig
        self.parts: list[int] = []  #: how many lines were seen before each start
        self.objects: list[dict[str, Any]] = []
        self.statuses: list[int | None] = []
        self.probes: list[Any] = []
        self.error: Exception | None = None  #: what ended its story

    def _with_a_role(self) -> Path:
        where = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"
        rules = RULES + (LEASES if self.fenced else [])
        self.ask("POST", f"{where}/roles", {"metadata": {"name": "op"}, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": self.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "op"}
        self.ask("POST", f"{where}/rolebindings", {"metadata": {"name": "op"}, "roleRef": role, "subjects": [subject]})
        path = f"{NAMESPACES}/{self.namespace}/serviceaccounts/default/token"
        token = self.ask("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        return self.cluster.kubeconfig_for(token)

    def start(self) -> None:
        self.parts.append(len(self.lines()))
        arguments = [part.format(port=self.port) for part in WAYS[self.way][self.fenced]]
        command = arguments[:2] != ["-m", MODULE] and "exec" not in arguments
        if command:
            arguments += ["-n", self.namespace]
        env = {"PYTHONPATH": f"{SOURCE}:{ROOT}", "PARITY_SEEN": str(self.folder / "seen"), "PARITY_WAY": self.way}
        env |= {"PARITY_NAMESPACE": self.namespace, "POD_NAMESPACE": self.namespace, "KOPF_HA_LEASE_NAME": "op"}
        env["PARITY_LIB"] = "kopf_ha" if self.fenced and self.way != "exec" else "kopf"
        log = self.folder / f"{len(self.replicas)}.log"
        name = f"{self.way}-{log.stem}"
        program, arguments = arguments[:2], arguments[2:]
        # A program of its own says itself what it imports.
        replica = Replica(name, self.kubeconfig, arguments, log, env=env, program=program, times={}, warm=command)
        self.replicas.append(replica)
        replica.start()

    def stop(self) -> None:
        self.replicas[-1].signal(signal.SIGTERM)
        self.statuses.append(self.replicas[-1].wait())

    def lines(self) -> list[dict[str, Any]]:
        path = self.folder / "seen"
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []

    def until(self, ran: str, count: int = len(KINDS)) -> None:
        """Wait until a handler ran so often since the start."""

        def done() -> bool:
            return [line["ran"] for line in self.lines()[self.parts[-1] :]].count(ran) >= count

        until(f"{count} × {ran} of {self.way} in {self.namespace}", done, PATIENCE, watched=[self.replicas[-1]])

    def make(self) -> None:
        for kind in KINDS.values():
            self.create(kind, "a", size="1")
            self.create(kind, "b", size="1")

    def edit(self) -> None:
        for plural in KINDS:
            self.ask("PATCH", self.path(plural, "a"), {"spec": {"size": "2"}}, MERGE)
            self.ask("DELETE", self.path(plural, "b"))

    def settle(self) -> None:
        """Wait until Kopf has recorded what it did."""
        before: list[str] = []

        def same() -> bool:
            found = [item for plural in KINDS for item in self.ask("GET", self.path(plural))["items"]]
            now = [item["metadata"]["resourceVersion"] for item in found]
            quiet = before == now
            before[:] = now
            return quiet

        until("writes to stop", same, PATIENCE, every=1)
        self.objects.append(
            {
                f"{plural}/{item['metadata']['name']}": item
                for plural in KINDS
                for item in self.ask("GET", self.path(plural))["items"]
            }
        )

    def probe(self) -> None:
        """Ask the liveness endpoint, once handlers have begun."""
        if self.way == "liveness":
            url = f"http://127.0.0.1:{self.port}/healthz"
            answer = requests.get(url, timeout=PATIENCE)
            self.probes.append((answer.status_code, answer.json()))

    def close(self) -> None:
        for replica in self.replicas:
            replica.kill()
            print(f"--- {self.namespace} {replica.name}", *replica.log.splitlines()[-40:], sep="\n")
        self.clear(*KINDS)


@pytest.fixture(scope="module")
def corners(kinds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Corner, Corner]]]:
    """Each way, without kopf-ha and with it: created, edited, stopped, started again."""
    folder = tmp_path_factory.mktemp("ways")
    with ExitStack() as stack:

        def corner(way: str, fenced: bool) -> Corner:
            namespace = stack.enter_context(fresh_namespace(kinds))
            made = Corner(kinds, namespace, folder / f"{way}-{fenced}", way, fenced)
            stack.callback(made.close)
            return made

        ways = list(WAYS)
        found = {way: (corner(way, False), corner(way, True)) for way in ways}

        def each(ways: list[str], *steps: Callable[[Corner], object]) -> None:
            """Take each of the steps with all of them, so that they wait side by side."""
            for step in steps:
                for one in [one for way in ways for one in found[way] if one.error is None]:
                    try:
                        step(one)
                    except (AssertionError, DevclusterError) as error:
                        one.error = error

        # A few at a time: each start costs a second of a processor.
        for some in (ways[n : n + 3] for n in range(0, len(ways), 3)):
            each(some, Corner.make, Corner.start, lambda one: one.until("create", 4 * len(KINDS)))
            each(some, Corner.settle, Corner.probe, Corner.edit)
            each(some, lambda one: one.until("update"), lambda one: one.until("delete"), Corner.settle)
            each(some, Corner.stop, Corner.start, lambda one: one.until("resume"), Corner.settle, Corner.stop)
        yield found


@pytest.mark.parametrize("way", [pytest.param(way, id=way) for way in WAYS])
def test_a_way_to_start_an_operator(corners: dict[str, tuple[Corner, Corner]], way: str) -> None:
    plain, fenced = corners[way]
    for one in corners[way]:
        if one.error is not None:
            raise one.error

    def runs(one: Corner) -> list[Any]:
        # Objects are handled side by side, so only the order of one object's handlers is the same.
        lines = one.lines()
        parts = [lines[: one.parts[1]], lines[one.parts[1] :]]
        names = sorted({line.get("object", "") for line in lines})
        return [[[line for line in part if line.get("object", "") == name] for name in names] for part in parts]

    assert runs(fenced) == runs(plain)
    assert [alike(found) for found in fenced.objects] == [alike(found) for found in plain.objects]
    assert fenced.statuses == plain.statuses == [0, 0]
    assert fenced.probes == plain.probes
