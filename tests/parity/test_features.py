"""I9: one operator with each feature of Kopf under `kopf run`, and under `kopf-ha run` with two followers.

First nobody disturbs it. Then plain Kopf is stopped and started again, while the fenced leader is stopped and another
replica takes over; users edit their objects in between. What differs is in `DIFFERS`, and in docs/terms.md.
"""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from devcluster import Cluster, DevclusterError
from devcluster.waiting import until
from testbed.deployment import ROOT
from testbed.ports import free_port
from testbed.replica import PATIENCE, Replica
from tests.kit.client import MERGE
from tests.kit.world import fresh_namespace
from tests.parity.conftest import FENCED, KOPF
from tests.parity.features import BUILT_IN, FEATURES, SIZES, Feature
from tests.parity.shapes import GROUP
from tests.parity.stage import Stage, alike

pytestmark = pytest.mark.load_sensitive

ALL: dict[str, Feature] = {
    **{f"{plural}/{name}": feature for plural in ("cells", "looses") for name, feature in FEATURES.items()},
    **{f"configmaps/{name}": feature for name, feature in BUILT_IN.items()},
}
PHASES = ("made", "edited", "later")


class Bench(Stage):
    """The objects of all features, and the operator's replicas."""

    operator = Path(__file__).with_name("op_features.py")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ports: dict[str, int] = {}
        self.ends = [0]  #: how many lines were seen at the end of each phase
        self.found: list[dict[str, Any]] = []  #: the objects at the end of each phase

    def environment(self, name: str) -> dict[str, str]:
        self.ports[name] = free_port()
        return {"PARITY_PORT": str(self.ports[name])}

    def make_all(self) -> None:
        """Make all objects, of each kind one before the others: when it was handled, the kind is watched."""
        first = ["cells/create", "looses/create", "configmaps/builtin"]
        self._make(first)
        until("the first handlers", lambda: set(first) <= {line["object"] for line in self.seen()}, PATIENCE)
        self._make([path for path in ALL if path not in first])

    def _make(self, paths: Iterable[str]) -> None:
        for path in paths:
            feature = ALL[path]
            plural, name = path.split("/")
            body: dict[str, Any] = {"metadata": {"name": name, "labels": {"feature": name}}}
            if plural == "configmaps":
                body |= {"data": {"size": SIZES[0]}}
            else:
                kind = plural.capitalize()[:-1]
                body |= {"apiVersion": f"{GROUP}/v1", "kind": kind, "spec": {"size": SIZES[0], **feature.spec}}
            self.ask("POST", self.where(plural), body)

    def edit_all(self, size: str) -> None:
        for path, feature in ALL.items():
            plural, name = path.split("/")
            if feature.deletes:
                if size == SIZES[1]:
                    self.ask("DELETE", self.where(plural, name))
                continue
            if name == "delete-later" and size == SIZES[2]:
                self.ask("DELETE", self.where(plural, name))
            elif feature.edits or size == SIZES[1]:
                body: dict[str, Any] = {"data" if plural == "configmaps" else "spec": {"size": size}}
                if name == "filters":
                    body["metadata"] = {"labels": {"size": size}, "annotations": {"size": size}}
                self.ask("PATCH", self.where(plural, name), body, MERGE)

    def lines(self, phase: int) -> dict[str, list[dict[str, Any]]]:
        """Give what ran in a phase, by object; without what no two runs have in common."""
        ends = [*self.ends, None]
        found: dict[str, list[dict[str, Any]]] = {path: [] for path in ALL}
        for line in self.seen()[ends[phase] : ends[phase + 1]]:
            path = line.pop("object")
            found.setdefault(path, []).append({k: v for k, v in line.items() if k not in ("pid", "at")})
        return found

    def until_done(self, phase: int) -> None:
        """Wait until all handlers ran as often as they should, and nobody writes any more."""
        missing: list[str] = []

        def done() -> bool:
            found = self.lines(phase)
            missing[:] = [
                f"{path} {ran}: {have} of {wanted}"
                for path, feature in ALL.items()
                for ran, wanted in getattr(feature, PHASES[phase]).items()
                if (have := sum(line["ran"] == ran for line in found[path])) < wanted
            ]
            return not missing

        try:
            until(f"all handlers of phase {PHASES[phase]}", done, PATIENCE, watched=[self.leader()])
        except DevclusterError:
            print(f"{self.namespace}, {PHASES[phase]}: {missing}")  # each test says what it misses
        self.found.append(self.until_quiet())
        self.ends.append(len(self.seen()))

    def posted(self) -> Counter[tuple[str, ...]]:
        """Count what was posted about the operator's objects."""
        items = self.ask("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        kinds = ("Cell", "Loose", "ConfigMap")
        about = [(item, item["involvedObject"]) for item in items]
        # That timer may fire once more before Kopf sees that it is to stop.
        ours = [item for item, it in about if it["kind"] in kinds and it["name"] != "timer-often"]
        return Counter(
            (
                item["involvedObject"]["kind"],
                item["involvedObject"]["name"],
                item["type"],
                item["reason"],
                item["message"],
            )
            for item in ours
        )

    def review(self, replica: Replica, plural: str, handler: str, size: str) -> dict[str, Any]:
        """Ask a replica's webhook as an API server would; give its answer."""
        meta = {"name": "x", "namespace": "any"}
        body = {"apiVersion": f"{GROUP}/v1", "kind": "Cell", "metadata": meta, "spec": {"size": size}}
        request = {
            "uid": "u",
            "operation": "CREATE",
            "resource": {"group": GROUP, "version": "v1", "resource": plural},
            "userInfo": {"username": "somebody"},
            "object": body,
        }
        url = f"http://127.0.0.1:{self.ports[replica.name]}/{handler}-{plural}"
        return dict(requests.post(url, json={"request": request}, timeout=PATIENCE).json()["response"])


class Results(NamedTuple):
    """What came of it without kopf-ha and with it."""

    plain: Bench
    fenced: Bench
    events: tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]
    answers: list[dict[str, dict[str, Any]]]
    statuses: list[int | None]


def ask_all(benches: tuple[Bench, Bench]) -> dict[str, dict[str, Any]]:
    """Ask the webhooks of each replica."""
    return {
        f"{replica.name} of {bench.namespace}": {
            f"{handler} {plural} {size}": bench.review(replica, plural, handler, size)
            for plural in ("cells", "looses")
            for handler in ("mutate", "validate")
            for size in ("1", "9")
        }
        for bench in benches
        for replica in bench.replicas
        if replica.running
    }


@pytest.fixture(scope="module")
def results(kinds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    with ExitStack() as stack:
        benches = []
        for name in ("plain", "fenced"):
            namespace = stack.enter_context(fresh_namespace(kinds))
            benches.append(Bench(kinds, namespace, tmp_path_factory.mktemp(name) / "stage"))
            stack.callback(benches[-1].close)
        plain, fenced = benches
        plain.start(*KOPF)
        fenced.start(*FENCED, f"--lease-namespace={fenced.namespace}", count=3)
        both = (plain, fenced)

        def each(do: Callable[[Bench], object]) -> None:
            for bench in both:
                do(bench)

        each(lambda bench: until("its startup handler", lambda: bench.seen(), PATIENCE))
        until("a leader", lambda: fenced.lease().get("holderIdentity"), PATIENCE)
        each(Bench.make_all)
        each(lambda bench: bench.until_done(0))
        answers = [ask_all(both)]
        each(lambda bench: bench.edit_all(SIZES[1]))
        each(lambda bench: bench.until_done(1))
        events = (plain.posted(), fenced.posted())

        asked = time.time()
        # Nobody leads while users go on.
        old = fenced.leader()
        followers = [replica for replica in fenced.replicas if replica is not old]
        for follower in followers:
            follower.pause()
        statuses = []
        for replica in (plain.replicas[0], old):
            replica.signal(signal.SIGTERM)
            statuses.append(replica.wait())
        each(lambda bench: bench.edit_all(SIZES[2]))
        for follower in followers:
            follower.resume()
        plain.start(*KOPF)
        plain.replicas.reverse()  # the first is the one that runs
        until("another leader", lambda: fenced.leader() is not old, PATIENCE)
        each(lambda bench: bench.until_done(2))
        answers.append(ask_all(both))
        for bench in both:
            lines = [line for line in bench.seen()[bench.ends[2] :] if line["ran"] in ("update", "resume")]
            first = min((line["at"] for line in lines), default=math.nan)
            print(f"{bench.namespace}: the first handler came {first - asked:.2f} s after the takeover began")
        yield Results(plain, fenced, events, answers, statuses)


def count(bench: Bench, ran: str) -> int:
    return [line["ran"] for line in bench.seen()].count(ran)


def startup_differs(plain: Bench, fenced: Bench) -> bool:
    """Plain Kopf was started twice; three replicas serve webhooks, and two of them led."""
    return (count(plain, "startup"), count(fenced, "startup")) == (2, 5)


def watched_events_differ(plain: Bench, fenced: Bench) -> bool:
    return count(fenced, "MODIFIED") >= count(plain, "MODIFIED") > 0


def posted_events_differ(plain: Bench, fenced: Bench) -> bool:
    return bool(fenced.events()) and not plain.events()


def objects_differ(plain: Bench, fenced: Bench) -> bool:
    return bool(fenced.stamp_of("cells", "patch")) and not plain.stamp_of("cells", "patch")


#: What differs, by the first cell of its line in docs/terms.md, and what shows it.
DIFFERS: dict[str, Callable[[Bench, Bench], bool]] = {
    "`on.startup`, `on.cleanup`": startup_differs,
    "`on.event`": watched_events_differ,
    "Kubernetes events": posted_events_differ,
    "objects": objects_differ,
}


def test_what_differs_is_written_down() -> None:
    _, _, section = (ROOT / "docs" / "terms.md").read_text().partition("\n## What differs from `kopf run`\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[1:]] == list(DIFFERS)


@pytest.mark.parametrize("what", DIFFERS)
def test_what_is_written_down_differs(results: Results, what: str) -> None:
    assert DIFFERS[what](results.plain, results.fenced)


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("phase", PHASES)
def test_handlers_run_alike(results: Results, path: str, phase: str) -> None:
    """As often, in the same order, with the same arguments."""
    plain, fenced = ([*bench.lines(PHASES.index(phase))[path]] for bench in (results.plain, results.fenced))
    if path.endswith("/event"):
        # Each write is an event, and a stamp may be a write of its own.
        plain, fenced = ([line for line in lines if line["ran"] != "MODIFIED"] for lines in (plain, fenced))
    assert fenced == plain
    ran = Counter(line["ran"] for line in plain)
    wanted = getattr(ALL[path], phase)
    assert all(ran[name] >= times for name, times in wanted.items()), "the suite asks for something else than it means"


@pytest.mark.parametrize("path", [*ALL, "configmaps/cells-child", "configmaps/looses-child"])
def test_objects_become_alike(results: Results, path: str) -> None:
    for plain, fenced in zip(results.plain.found, results.fenced.found, strict=True):
        assert alike(fenced.get(path)) == alike(plain.get(path))


def test_events_are_alike(results: Results) -> None:
    plain, fenced = results.events
    assert fenced == plain
    assert plain


def test_each_replica_answers_webhooks_alike(results: Results) -> None:
    for answers in results.answers:
        (_, plain), *fenced = answers.items()
        assert len(fenced) >= 2
        for name, answer in fenced:
            assert answer == plain, name
        assert [answer["allowed"] for answer in plain.values()].count(False) == 2, plain


def test_the_exit_status_is_the_same(results: Results) -> None:
    assert results.statuses == [0, 0]
