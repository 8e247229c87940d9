"""docs/adoption.md, the five minutes: an operator in the style of the field, by its own manifests."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from devcluster import ControlPlane
from devcluster.waiting import until
from kopf_ha.core.notes import note_name
from testbed.deployment import ROOT
from testbed.replica import PATIENCE
from tests.adoption.node import Node, PodReplica, address
from tests.kit.client import administrator
from tests.kit.world import LEASES
from tests.page import Page, shell

NAME = "clustersecret"
FILES = ("crds.yaml", "rbac.yaml", "deployment.yaml")
KIND = "clustersecrets.clustersecret.example.com"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The operator as its author has it, but for a path that there is in its image only."""
    made = tmp_path / NAME
    shutil.copytree(ROOT / "examples" / NAME, made)
    deployment = made / "deployment.yaml"
    deployment.write_text(deployment.read_text().replace("/src/", ""))
    return made


@pytest.fixture
def node(plane: ControlPlane, folder: Path, tmp_path: Path) -> Iterator[Node]:
    logs = tmp_path / "logs"
    logs.mkdir()
    with Node(plane, logs, folder) as made:
        yield made


class World:
    """The cluster as its users see it."""

    def __init__(self, plane: ControlPlane, node: Node) -> None:
        self.plane, self.node = plane, node

    def until(self, what: str, check: Any) -> Any:
        return until(what, check, PATIENCE, 0.2, watched=[self.node])

    def namespace(self, name: str, **labels: str) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.plane.kubectl("create", "-f", "-", input=json.dumps(body))

    def wish(self, name: str, value: str, **labels: str) -> None:
        body = {"apiVersion": "clustersecret.example.com/v1", "kind": "ClusterSecret", "metadata": {"name": name}}
        spec = {"matchLabels": labels, "data": {"password": value}}
        self.plane.kubectl("apply", "-f", "-", input=json.dumps(body | {"spec": spec}))

    def secrets(self) -> list[dict[str, Any]]:
        path = f"/api/v1/secrets?labelSelector={NAME}.example.com/name"
        return list(administrator(self.plane).must("GET", path)["items"])

    def until_copied(self, **wanted: dict[str, str]) -> None:
        """Wait until there are exactly these Secrets: value by name, by namespace."""

        def copied() -> bool:
            found: dict[str, dict[str, str]] = {}
            for secret in self.secrets():
                value = base64.b64decode((secret.get("data") or {}).get("password", "")).decode()
                found.setdefault(secret["metadata"]["namespace"], {})[secret["metadata"]["name"]] = value
            return found == wanted

        self.until(f"the Secrets {wanted}", copied)

    def leader(self) -> PodReplica | None:
        found = administrator(self.plane)("GET", f"{LEASES}/{NAME}/leases/{NAME}")
        holder = found.body["spec"].get("holderIdentity", "") if found.ok else ""
        return next((r for r in self.node.replicas() if holder.startswith(f"{r.name}_{r.uid}_")), None)


def alive(replica: PodReplica) -> bool:
    """Whether a replica answers at the address that its command names, on which the kubelet's probe is."""
    try:
        return requests.get(f"http://{address(replica.uid)}:8080/healthz", timeout=5).ok
    except requests.ConnectionError:
        return False  # not yet


def test_in_five_minutes(plane: ControlPlane, node: Node, folder: Path) -> None:
    world = World(plane, node)
    world.namespace("red", team="web")
    world.namespace("blue", team="web")
    for file in FILES:
        plane.kubectl("apply", "-f", str(folder / file))
    world.wish("login", "first", team="web")
    world.until_copied(red={"login": "first"}, blue={"login": "first"})
    (plain,) = node.replicas()

    page = Page("adoption.md", plane, folder, "In ten minutes")
    diff = page.next("--diff")
    assert "+  replicas: 2\n" in diff
    page.next("scale")
    assert not plain.running
    page.next("apply")
    assert len(node.replicas()) == 2
    leader = world.until("a leader", world.leader)
    for replica in node.replicas():
        world.until(f"the liveness of {replica.name}", partial(alive, replica))
    assert leader.name in page.next("get lease")
    page.check_at_end()

    # It goes on: a change, a copy that somebody else wrote to, and a new namespace.
    plane.kubectl("annotate", "secret/login", "-n", "red", "somebody=else")
    world.wish("login", "second", team="web")
    world.until_copied(red={"login": "second"}, blue={"login": "second"})
    world.namespace("green", team="web")
    world.until_copied(red={"login": "second"}, blue={"login": "second"}, green={"login": "second"})

    # The next leader knows what the module read when it was imported, and what was made since.
    world.wish("late", "third", team="web")
    both = {"login": "second", "late": "third"}
    world.until_copied(red=both, blue=both, green=both)
    plane.kubectl("delete", "pod", leader.name, "-n", NAME, "--timeout=60s", timeout=90)
    second = world.until("another leader", lambda: (r := world.leader()) and r.uid != leader.uid and r)
    world.namespace("grey", team="web")
    world.wish("login", "fourth", team="web")
    both = {"login": "fourth", "late": "third"}
    world.until_copied(red=both, blue=both, green=both, grey=both)
    note = note_name(f"{NAME}/{NAME}", "secrets")
    assert all(second.uid in s["metadata"]["annotations"][note] for s in world.secrets())
    plane.kubectl("delete", "clustersecret/late", "--timeout=60s", timeout=90)
    login = {"login": "fourth"}
    world.until_copied(red=login, blue=login, green=login, grey=login)

    for replica in node.all[1:]:
        assert "refused by" not in replica.log
        assert "was not written" not in replica.log

    # Applied again it changes nothing, and neither does what it is made into.
    said = plane.kubectl("apply", "-f", str(folder / "fenced.yaml")).stdout.splitlines()
    assert {line.rpartition(" ")[2] for line in said} == {"unchanged"}, said
    again = shell(plane, "kopf-ha manifests -f fenced.yaml", folder)
    assert again == (folder / "fenced.yaml").read_text()
