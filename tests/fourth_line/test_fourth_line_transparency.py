"""I9 at level ``term``: the leader notices nothing of line 4, while the Term passes on again and again under load.

Two API servers are behind a load balancer. One of them learns of a Term a second late, and not before it has refused a
write of the new leader, which shows no token. ``KOPF_HA_TAKEOVERS=100`` runs it for longer.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.deployment import ROOT
from testbed.replica import PATIENCE, TIMES, Replica, as_pod
from testbed.stage import writer
from testbed.terms import Terms
from tests.fourth_line.lateness import Audit, told
from tests.fourth_line.support import GROUP, WIDGETS
from tests.kit import world as kit
from tests.kit.balancer import balanced
from tests.kit.client import Client
from tests.kit.world import apply_kinds

TAKEOVERS = int(os.environ.get("KOPF_HA_TAKEOVERS", "3"))
#: Seconds by which the second API server learns late of Terms, and longer where the leader has not met it by then.
LATE, KEYS = 1.0, "/registry/kopf-ha.dev/terms/"
#: Replicas at a time. One that was the leader is replaced by a new one, which need not wait after a short term.
REPLICAS = 3
#: Seconds between two new widgets, and how many of them live.
PACE, LIVING = 0.25, 20
#: What a handler sees when its own term ends.
ENDED = ("GateClosed", "StaleLeader", "CancelledError")


class World(kit.World):
    """Widgets, and the operator's replicas behind the load balancer."""

    def __init__(self, plane: ControlPlane, terms: Terms, url: str, folder: Path) -> None:
        super().__init__(plane, terms.namespace, GROUP, terms.name)
        self.plane, self.terms, self.folder, self._url = plane, terms, folder, url
        self.seen_path = folder / "seen"
        self.seen_path.touch()
        self.replicas: dict[str, Replica] = {}  #: by the pod's uid
        self.living: list[Replica] = []
        self.leaving: Replica | None = None
        self._numbers = itertools.count()
        self.vacated: dict[int, float] = {}  #: when a term was ended, by its token
        self.waited = 0  #: writes of leaders that went again
        self._late = Audit(plane, 1)
        self.made: list[str] = []
        self.deleted: dict[str, float] = {}  #: when a widget was deleted, by its name
        self._stranger = Client(plane.servers[1], plane.ca_file, terms.pod("stranger").token)

    def start(self) -> None:
        """Start a replica in a pod of its own."""
        name = f"replica-{next(self._numbers)}"
        pod = self.terms.pod(name)
        config = json.loads(self.plane.kubeconfig_for(pod.token).read_text())
        config["clusters"][0]["cluster"]["server"] = self._url
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(config))
        arguments = ["run", "-n", self.namespace, f"--lease-name={self.terms.name}", "--after-loss=follow"]
        arguments += ["--level=term"]
        arguments += [f"--lease-namespace={self.namespace}", str(Path(__file__).with_name("op.py"))]
        identity = as_pod(self.terms.identity(pod), self.namespace)
        env = identity | {"SEEN": str(self.seen_path), "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
        made = Replica(name, path, arguments, self.folder / f"{name}.log", times=TIMES, env=env, warm=True)
        self.replicas[pod.uid] = made
        self.living.append(made)
        made.start()

    def replace(self) -> None:
        """Start a replica in place of the one that led before the present one."""
        if self.leaving is not None:
            self.leaving.kill()
            self.cluster.kubectl(
                "delete", "pod", self.leaving.name, "-n", self.namespace, "--force", "--grace-period=0"
            )
            self.leaving = None
            self.start()

    def close(self) -> None:
        for replica in self.replicas.values():
            replica.kill()
            print(f"--- {replica.name}", *replica.log.splitlines()[-60:], sep="\n")  # pytest shows it on failure

    def seen(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.seen_path.read_text().splitlines()]

    def token(self) -> int:
        """Give the token of the term that is, once somebody leads."""

        def look() -> int:
            spec = self.lease()
            return int(spec["leaseTransitions"]) if spec.get("holderIdentity") else 0

        return until("somebody to lead", look, PATIENCE, 0.02, watched=self.living)

    def take_over(self) -> bool:
        """End a term that has served something; give whether another pod leads now."""
        token = self.token()
        served = lambda: any(one["token"] == token and "wrote" in one for one in self.seen())  # noqa: E731
        until(f"term {token} to serve", served, PATIENCE, 0.05, watched=self.living)
        self.replace()
        before = self.lease()["holderIdentity"].split("_")[1]
        # Frozen before it knows of the first term, it would accept what every pod writes.
        until("the late API server to know of it", lambda: self._knows(token), PATIENCE, 0.05, self.living)
        self.plane.watch_lag.freeze(KEYS)
        self.vacated[token] = time.time()
        self.edit_lease(holderIdentity="")
        until("the next term", lambda: self.token() > token, PATIENCE, 0.02)
        again = self.lease()["holderIdentity"].split("_")[1] == before
        if not again:
            waited = self.waited
            self.leaving = self.replicas[before]
            self.living.remove(self.leaving)
            until("its leader to be refused", lambda: self._refused(token) > waited, PATIENCE, 0.02, self.living)
        self.plane.watch_lag.delay(LATE, KEYS)
        return not again

    def _knows(self, token: int) -> bool:
        """Return whether the late API server knows of this term: it says so to a pod that does not lead."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
        answer = self._stranger("POST", f"/api/v1/namespaces/{self.namespace}/configmaps?dryRun=All", body)
        return f"token {token} leads" in answer.message

    def _refused(self, token: int) -> int:
        """Count the writes of the leader after this term that the late API server refused, as far as is known."""
        leader = self.lease()["holderIdentity"].split("_")[1]
        for event in self._late.new():
            answer = told(event)
            if writer(event) == leader and self.terms.is_refusal(answer.code, answer.message):
                known = re.search(r"token (\d+) leads", answer.message)
                self.waited += known is not None and int(known[1]) <= token and "dryRun" not in event["requestURI"]
        return self.waited

    def load(self, ended: threading.Event) -> None:
        """Make and delete widgets."""
        for number in itertools.count():
            if ended.wait(PACE):
                return
            self.create("Widget", f"w{number}")
            self.made.append(f"w{number}")
            if number >= LIVING:
                self.deleted[f"w{number - LIVING}"] = time.time()
                self.ask("DELETE", self.path("widgets", f"w{number - LIVING}"))

    def settled(self) -> bool:
        """Whether every widget that lives has been served."""
        items = self.ask("GET", self.path("widgets"))["items"]
        living = [item for item in items if not item["metadata"].get("deletionTimestamp")]
        return len(living) == len(items) and all((item.get("status") or {}).get("done") for item in living)


@pytest.fixture
def world(cluster: ControlPlane, terms: Terms, tmp_path: Path) -> Iterator[World]:
    apply_kinds(cluster, WIDGETS)
    with balanced(cluster.servers) as url:
        made = World(cluster, terms, url, tmp_path)
        try:
            yield made
        finally:
            made.close()
            made.clear("widgets")


@pytest.mark.load_sensitive
@pytest.mark.timeout(PATIENCE + 60 + 30 * TAKEOVERS)  # so that `until` says what it waits for
def test_the_current_leader_notices_nothing(cluster: ControlPlane, world: World) -> None:
    cluster.watch_lag.delay(LATE, KEYS)
    ended = threading.Event()
    try:
        for _ in range(REPLICAS):
            world.start()
        first = world.token()
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(world.load, ended)
            try:
                passed = 0
                while passed < TAKEOVERS:
                    passed += world.take_over()
            finally:
                ended.set()
            loading.result()
        until("all widgets to be served", world.settled, PATIENCE, 0.2, watched=world.living)
        last = world.token()
    finally:
        cluster.watch_lag.delay(0.0, KEYS)
    assert last - first == len(world.vacated), "a term ended that nobody had ended"
    check_handlers(world)
    print(f"{passed} takeovers, {len(world.made)} widgets, {world.waited} writes of leaders went again")


def check_handlers(world: World) -> None:
    """Each handler ran once in a term, each write had its outcome, and what failed did so as its term ended.

    A widget that was deleted meanwhile takes no note that it was handled. If a change of it is still on its way to
    Kopf then, that calls the handler once more.
    """
    runs: dict[tuple[str, int], list[float]] = collections.defaultdict(list)
    for one in world.seen():
        if "ran" in one:
            runs[one["name"], one["token"]].append(one["at"])
    for (name, token), times in runs.items():
        again = [at for at in sorted(times)[1:] if at < world.deleted.get(name, float("inf"))]
        assert not again, f"a handler ran twice in term {token}: {name}"
    for one in world.seen():
        if "ended" in one:
            assert one["ended"].startswith(ENDED), one
            assert one["at"] >= world.vacated.get(one["token"], float("inf")), f"before its term ended: {one}"
        if "wrote" in one:
            calls = sum(len(times) for (name, _), times in runs.items() if name == one["name"])
            assert one["status"] in ((201, 409) if calls > 1 else (201,)), one
