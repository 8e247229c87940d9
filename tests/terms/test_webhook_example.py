"""The example, as a user would run it: two replicas, both ask-able, one leader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from devcluster.waiting import until
from testbed.ports import free_port
from testbed.replica import PATIENCE, Replica
from tests.terms.webhooks import Certificates, reject, until_rejected

EXAMPLES = Path(__file__).parents[2] / "examples"
SITES = "sites.example.dev"


class Site(Replica):
    """One replica of the example."""

    def __init__(self, cluster: Cluster, namespace: str, tls: Path, log: Path) -> None:
        self.port = free_port()
        arguments = ["run", str(EXAMPLES / "webhook_operator.py"), "-n", namespace]
        lease = ["--lease-name=op", f"--lease-namespace={namespace}"]
        env = {"WEBHOOK_TLS": str(tls), "WEBHOOK_PORT": str(self.port)}
        super().__init__(log.name, cluster.kubeconfig, [*arguments, *lease], log, env=env)


@pytest.fixture
def start(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Callable[[], Site]]:
    made: list[Site] = []

    def one() -> Site:
        made.append(Site(cluster, namespace, tmp_path, tmp_path / f"log-{len(made)}"))
        made[-1].start()
        return made[-1]

    yield one
    for site in made:
        site.kill()


def test_the_example(cluster: Cluster, namespace: str, tmp_path: Path, start: Callable[[], Site]) -> None:
    certificates = Certificates(tmp_path)
    crd, service, config = yaml.safe_load_all((EXAMPLES / "webhook_operator.yaml").read_text())
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(crd))
    until("the kind", lambda: cluster.kubectl("get", SITES, "-A", check=False).returncode == 0, PATIENCE)
    one, two = start(), start()
    for site in (one, two):
        site.see("kopf_ha.everywhere is up")
        site.see("new leader")
    leader, follower = (one, two) if "leading: token 1" in one.log else (two, one)

    # No pod network here: the follower by its address, in place of the Service that leads to both.
    (hook,) = config["webhooks"]
    path = hook["clientConfig"].pop("service")["path"]
    assert service["spec"]["ports"][0]["targetPort"] == 9443
    hook["clientConfig"] = {"url": f"https://127.0.0.1:{follower.port}{path}", "caBundle": certificates.bundle}
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(config))
    try:
        check(cluster, namespace, leader, follower)
    finally:
        cluster.kubectl("delete", "validatingwebhookconfiguration/site-operator")
        cluster.kubectl("delete", f"crd/{SITES}", "--wait=false")


def check(cluster: Cluster, namespace: str, leader: Site, follower: Site) -> None:
    def site(name: str, host: str) -> dict[str, Any]:
        meta = {"name": name, "namespace": namespace}
        return {"apiVersion": "example.dev/v1", "kind": "Site", "metadata": meta, "spec": {"host": host}}

    def state(name: str) -> tuple[str, ...]:
        get = ("get", f"{SITES}/{name}", "-n", namespace, "-o", "jsonpath={.status.state} {.status.fencing.token}")
        return tuple(cluster.kubectl(*get).stdout.split())

    cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(site("a", "a.example")))
    until("the leader's decision", lambda: state("a") == ("Active", "1"), PATIENCE)
    until_rejected(cluster, site("x", "a.example"), f"host a.example belongs to {namespace}/a already")
    assert reject(cluster, site("x", "x.example")) == ""

    # The leader dies; nobody leads, and the webhook is answered all the same.
    leader.kill()
    assert "belongs to" in reject(cluster, site("x", "a.example"))
    cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(site("b", "b.example")))
    until("the next leader's decision", lambda: state("b") == ("Active", "2"), PATIENCE)
    assert "belongs to" in reject(cluster, site("x", "b.example"))
    follower.terminate()
    follower.see("webhooks are served for 5 s more")
    assert "belongs to" in reject(cluster, site("x", "a.example"))
    assert follower.wait() == 0
    assert "NoTerm" not in leader.log + follower.log
