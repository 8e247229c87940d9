"""Operators at work on the cells, and somebody else who writes the same objects right before they do."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.core.notes import as_metadata, is_stamp, notes_of
from kopf_ha.core.token import Stamp
from testbed.deployment import ROOT
from testbed.replica import PATIENCE, SOURCE, Replica
from tests.kit.client import MERGE
from tests.kit.world import World
from tests.parity.shapes import CHILDREN, CONTROLLED, GROUP, KINDS, LATER, SHAPES, THEIRS, Cell

#: As whom the rival stamps.
RIVAL = "other_u_1"
OPERATOR = Path(__file__).with_name("op.py")
#: What each object has of its own.
OWN = {
    *("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "namespace", "fencing"),
    "deployment.kubernetes.io/revision",
}
#: What the next leader's Kopf writes when it handles the object, too, and what a list leaves out.
NOT_THE_WRITES = frozenset({"finalizers", "annotations", "apiVersion", "kind"})


class Stage(World):
    """A namespace with cells, the operator's replicas in it, and the rival.

    Args:
        cluster: the cluster, with the kinds.
        namespace: of the cells and of the Lease.
        folder: for logs and what the operator saw.
    """

    operator = OPERATOR

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        super().__init__(cluster, namespace, GROUP)
        self.folder = folder
        folder.mkdir()
        self.seen_path, self.idle_path = folder / "seen", folder / "idle"
        self.replicas: list[Replica] = []
        #: If set, the rival stamps as a term of this token does, and changes nothing else.
        self.token = 0
        #: While it is clear, the rival lets the operator wait.
        self.go = threading.Event()
        self.go.set()
        #: The objects that the operator is about to write, as the rival left them.
        self.before: dict[str, dict[str, Any]] = {}
        self.rival = _Rival(self)

    # --- objects

    def where(self, plural: str, name: str = "") -> str:
        """Give the path of an object of any of the kinds."""
        version = KINDS[plural][1]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def make(self, cells: Iterable[Cell], prefix: str = "") -> None:
        """Make the cells, and the children that they write."""
        for cell in cells:
            name, shape = prefix + cell.name, SHAPES[cell.shape]
            for child in (name, f"{name}-b") if shape.verb == "collection" else (name,) if shape.child else ():
                meta = {"name": child, "labels": {"cell": name}}
                self.ask("POST", self.where(shape.child), {"metadata": meta, **CHILDREN[shape.child]})
            spec = {"client": cell.client, "shape": cell.shape, "place": cell.place}
            self.create(cell.plural.capitalize()[:-1], name, **spec, theirs="1", list=[1, 2], replicas=1)

    def objects(self) -> dict[str, dict[str, Any]]:
        """Give all objects."""
        found = {}
        for plural in KINDS:
            for item in self.ask("GET", self.where(plural))["items"]:
                found[f"{plural}/{item['metadata']['name']}"] = _written(plural, item)
        return found

    def until_quiet(self) -> dict[str, dict[str, Any]]:
        """Wait until nobody writes anything for a while; give all objects."""
        before: dict[str, str] = {}
        objects: dict[str, dict[str, Any]] = {}

        def check() -> bool:
            nonlocal before, objects
            objects = self.objects()
            versions = {name: item["metadata"]["resourceVersion"] for name, item in objects.items()}
            same, before = versions == before, versions
            return same

        until("writes to stop", check, PATIENCE, every=2)
        return objects

    # --- the rival

    def touch(self, plural: str, name: str) -> None:
        """Write an object right before the operator does, if it is there."""
        if plural != "configmaps" and name.endswith(LATER):
            until(f"Kopf to have handled {name}", lambda: _handled(self.get(plural, name)), PATIENCE)
        path, theirs = self.where(plural, name), {"theirs": "2"}
        patch: Mapping[str, Any] = {**THEIRS.get(plural, {"spec": theirs}), "metadata": {"labels": theirs}}
        if self.token:
            stamp = Stamp(self.token, RIVAL, f"{self.namespace}/op", "u")
            group = KINDS[plural][1].rpartition("/")[0]
            patch = {"metadata": as_metadata(notes_of(stamp, f"{plural}.{group}" if group else plural))}
        answer = self.api("PATCH", path, patch, MERGE)
        assert answer.status in (200, 404), answer
        if answer.ok:
            self.before[f"{plural}/{name}"] = _written(plural, answer.body)
        self.go.wait(PATIENCE)

    # --- the operator

    def start(self, *program: str, count: int = 1) -> None:
        """Start replicas."""
        env = {"PYTHONPATH": f"{SOURCE}:{ROOT}", "PARITY_SEEN": str(self.seen_path), "PARITY_IDLE": str(self.idle_path)}
        env["PARITY_RIVAL"] = f"http://127.0.0.1:{self.rival.server_address[1]}"
        for _ in range(count):
            name = f"r{len(self.replicas)}"
            arguments = ["-n", self.namespace, str(self.operator)]
            self.replicas.append(
                Replica(
                    name,
                    self.cluster.kubeconfig,
                    [*program[2:], *arguments],
                    self.folder / f"{name}.log",
                    env=env | {"POD_NAME": name} | self.environment(name),
                    program=program[:2],
                    times={},
                    warm=True,
                )
            )
            self.replicas[-1].start()

    def environment(self, name: str) -> dict[str, str]:
        """Give what a replica needs besides."""
        return {}

    def seen(self) -> list[dict[str, Any]]:
        """Give what the operator saw so far."""
        text = self.seen_path.read_text() if self.seen_path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]  # the last may be half written

    def written(self, prefix: str = "") -> dict[str, Any]:
        """Give the status of each cell's write."""
        return {
            s["cell"]: s["write"] for s in self.seen() if "write" in s and s["cell"].split("/")[1].startswith(prefix)
        }

    def until_written(self, cells: Iterable[Cell], prefix: str = "") -> dict[str, Any]:
        """Wait until these cells' writes were answered; give their statuses."""
        wanted = {f"{cell.plural}/{prefix}{cell.name}" for cell in cells}
        until(f"{len(wanted)} writes", lambda: wanted <= self.written().keys(), PATIENCE, watched=[self.leader()])
        return {name: status for name, status in self.written().items() if name in wanted}

    def runs(self) -> Counter[tuple[str, str]]:
        """Count how often each handler ran for each cell."""
        return Counter((s["cell"], s["ran"]) for s in self.seen() if "ran" in s)

    def leader(self) -> Replica:
        """Give the replica that leads, or the only one."""
        holder = str(self.lease().get("holderIdentity") or "")
        return next((r for r in self.replicas if holder.startswith(f"{r.name}_")), self.replicas[0])

    def close(self) -> None:
        """End everything, and free what is left from Kopf's finalizers."""
        self.go.set()
        for replica in self.replicas:
            replica.kill()
            print(f"--- {self.namespace} {replica.name}", *replica.log.splitlines()[-60:], sep="\n")
        self.rival.shutdown()
        self.rival.server_close()
        for plural in ("cells", "looses"):
            for item in self.ask("GET", self.where(plural))["items"]:
                if item["metadata"].get("finalizers"):
                    self.api(
                        "PATCH", self.where(plural, item["metadata"]["name"]), {"metadata": {"finalizers": None}}, MERGE
                    )


def _written(plural: str, body: dict[str, Any]) -> dict[str, Any]:
    """Give what operators write of an object: its status is its controller's."""
    return {key: value for key, value in body.items() if key != "status"} if plural in CONTROLLED else body


def _handled(body: Mapping[str, Any]) -> bool:
    return "kopf.zalando.org/last-handled-configuration" in (body["metadata"].get("annotations") or {})


class _Rival(ThreadingHTTPServer):
    """Listens for the operator's word that it is about to write."""

    request_queue_size = 400
    daemon_threads = True

    def __init__(self, stage: Stage) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, plural, name = self.path.split("/")
                stage.touch(plural, name)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def alike(body: Any, own: frozenset[str] = frozenset()) -> Any:
    """Give an object without stamps and without what is its own."""
    if isinstance(body, list):
        return [alike(item, own) for item in body]
    if not isinstance(body, dict):
        return body
    out = {k: alike(v, own) for k, v in body.items() if k not in OWN | own and not is_stamp(k)}
    return {k: v for k, v in out.items() if v != {}}
