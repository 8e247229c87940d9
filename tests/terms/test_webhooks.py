"""I9: the webhooks of an operator that knows nothing of kopf-ha: each replica answers, and only the leader writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from devcluster import Cluster
from devcluster.waiting import until
from testbed.ports import free_port
from tests.kit.client import administrator
from tests.run.support import GROUP, LONG, Replica, World
from tests.terms.webhooks import Certificates, until_rejected

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"

OPERATOR = """
import os
import kubernetes

@kopf.on.startup()
def configure(settings, memo, **_):
    tls = os.environ["TLS"]
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1", port=int(os.environ["PORT"]), certfile=tls + "/tls.crt", pkeyfile=tls + "/tls.key",
        cafile=tls + "/ca.crt",
    )
    settings.admission.managed = os.environ["MANAGED"]
    memo.who = os.environ["WHO"]
    client = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())
    body = {"metadata": {"name": "started-" + os.environ["WHO"]}}
    client.create_namespaced_config_map(os.environ["NAMESPACE"], body)

@kopf.index(GROUP, "v1", "things")
def by_key(name, spec, **_):
    return {spec.get("key"): name}

@kopf.on.validate(GROUP, "v1", "things", id="unique", operations=["CREATE"])
def unique(spec, by_key, memo, **_):
    if spec.get("key") == "write":
        client = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())
        client.create_namespaced_config_map(os.environ["NAMESPACE"], {"metadata": {"name": "by-webhook"}})
    if spec.get("key") in by_key:
        raise kopf.AdmissionError(f"{memo.who} says that {spec['key']} is taken", code=409)

@kopf.on.create(GROUP, "v1", "things")
def created(patch, **_):
    patch.status["by"] = os.environ["WHO"]
"""


class Site(Replica):
    """A replica of the operator, with an address at which its webhooks are served."""

    def __init__(self, world: World, folder: Path, certificates: Certificates, managed: str) -> None:
        self.who, self.port, self.ca = folder.name, free_port(), certificates.ca
        env = {"TLS": str(certificates.cert.parent), "PORT": str(self.port), "WHO": self.who, "POD_NAME": self.who}
        env |= {"MANAGED": managed, "NAMESPACE": world.namespace}
        super().__init__(world, OPERATOR, folder, "op.py", "--after-loss=follow", env=env)

    def judges(self, thing: dict[str, Any]) -> str:
        """Ask as an API server would; give what it has against the object."""
        resource = {"group": GROUP, "version": "v1", "resource": "things"}
        asked = {"uid": "u", "operation": "CREATE", "resource": resource, "userInfo": {}, "object": thing}
        url = f"https://127.0.0.1:{self.port}/unique"
        answer = requests.post(url, json={"request": asked}, verify=str(self.ca), timeout=LONG)
        return str(answer.json()["response"].get("status", {}).get("message", ""))


class Users:
    """They create things all the time, by dry run; each of the replicas has to allow it."""

    def __init__(self, cluster: Cluster, world: World) -> None:
        self.failures: list[str] = []
        self.count = 0
        self._api, self._path = administrator(cluster), world.path("things") + "?dryRun=All"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        while not self._over.wait(0.05):
            body = {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"generateName": "u-"}, "spec": {}}
            answer = self._api("POST", self._path, body | {"spec": {"key": f"free-{self.count}"}})
            self.count += 1
            if not answer.ok:
                self.failures.append(answer.message)

    def more(self) -> None:
        """Wait until some more were answered."""
        wanted = self.count + 5
        until("more requests", lambda: self.count >= wanted, LONG)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def sites(cluster: Cluster, world: World, certificates: Certificates, tmp_path: Path) -> Iterator[list[Site]]:
    """Three replicas that are ready, behind one configuration that names all of them."""
    managed = f"{world.namespace}.managed.test"
    made = [Site(world, tmp_path / f"r{n}", certificates, managed) for n in range(3)]
    name = f"{world.namespace}.all.test"
    try:
        for site in made:
            site.see("kopf_ha.everywhere is up")
        rule = {"apiGroups": [GROUP], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["things"]}
        hooks = [
            {
                "name": f"{site.who}.{name}",
                "clientConfig": {"url": f"https://127.0.0.1:{site.port}/unique", "caBundle": certificates.bundle},
                "rules": [rule],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
            for site in made
        ]
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        cluster.kubectl("apply", "-f", "-", input=json.dumps(kind | {"metadata": {"name": name}, "webhooks": hooks}))
        yield made
    finally:
        for site in made:
            site.kill()
            print(f"--- {site.who}", site.log, sep="\n")
        for one in (name, managed):
            cluster.kubectl("delete", "validatingwebhookconfiguration", one, "--ignore-not-found")


def holder(world: World) -> str:
    return str(world.lease().get("holderIdentity") or "").partition("_")[0]


def taken(site: Site, thing: dict[str, Any]) -> bool:
    return site.judges(thing) == f"{site.who} says that {thing['spec']['key']} is taken"


def leader_of(world: World, sites: list[Site], *but: Site) -> Site:
    """Wait for a leader, another than these."""
    names = [site.who for site in sites if site not in but]
    until("a leader", lambda: holder(world) in names, LONG)
    return next(site for site in sites if site.who == holder(world))


def test_each_replica_answers_through_a_takeover(cluster: Cluster, world: World, sites: list[Site]) -> None:
    def thing(key: str) -> dict[str, Any]:
        meta = {"name": "x", "namespace": world.namespace}
        return {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": meta, "spec": {"key": key}}

    def status_of(name: str) -> Any:
        return (world.get("things", name).get("status") or {}).get("by")

    def told(site: Site) -> bool:
        """Whether the configuration that Kopf manages names the replica's server."""
        hooks = world.read(f"{CONFIGURATIONS}/{world.namespace}.managed.test").get("webhooks") or []
        return [hook["clientConfig"]["url"] for hook in hooks] == [f"https://127.0.0.1:{site.port}/unique"]

    leader = leader_of(world, sites)
    world.create("Thing", "a", key="k")
    until("the leader's handler", lambda: status_of("a") == leader.who, LONG)
    until_rejected(cluster, thing("k"), "k is taken")
    for site in sites:
        until(f"{site.who} to have it in its index", partial(taken, site, thing("k")), LONG)
        assert site.judges(thing("free")) == ""
        assert "runs on every replica and in no term" in site.judges(thing("write"))
    until("the configuration to be the leader's", lambda: told(leader), LONG)

    # The leader loses its Lease and follows. All of them go on answering.
    users = Users(cluster, world)
    users.more()
    old = leader
    while leader is old:
        world.take_lease()
        until("a leader", lambda: holder(world) in [site.who for site in sites], LONG)
        leader = leader_of(world, sites)
    users.more()
    world.create("Thing", "b", key="l")
    until("the next leader's handler", lambda: status_of("b") == leader.who, LONG)
    until("the configuration to be the next leader's", lambda: told(leader), LONG)
    assert taken(old, thing("k"))
    # It stops, and leaves the configuration behind.
    leader.terminate()
    until("another leader", lambda: holder(world) not in ("", leader.who), LONG)
    assert world.read(f"{CONFIGURATIONS}/{world.namespace}.managed.test")["webhooks"], "the others go on serving"
    users.stop()
    assert [f for f in users.failures if str(leader.port) not in f] == []

    # What startup handlers write is written by leaders only, and is no fault of the code.
    maps = world.ask("GET", f"/api/v1/namespaces/{world.namespace}/configmaps")["items"]
    made = {one["metadata"]["name"] for one in maps}
    assert {f"started-{one.who}" for one in (old, leader)} <= made
    assert "by-webhook" not in made
    for site in sites:
        assert site.said("handler configure writes, which only the leader may")
        assert not site.said("a write that is refused in every term: kubernetes: NoTerm: POST configmaps .*started")
