"""The example, as a user would run it: two replicas, both ask-able, one leader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from devcluster.ports import Ports
from devcluster.waiting import until
from tests.run.support import LONG, TIMES, environment
from tests.terms.webhooks import Certificates, reject, until_rejected

EXAMPLES = Path(__file__).parents[2] / "examples"
SITES = "sites.example.dev"


class Site:
    """One replica of the example."""

    def __init__(self, cluster: Cluster, namespace: str, tls: Path, log: Path) -> None:
        ports = Ports()
        self.port = ports.take()
        ports.close()
        self.log = log
        times = [f"--{k.replace('_', '-')}={v:g}" for k, v in TIMES.items()]
        lease = ["--lease-name=op", f"--lease-namespace={namespace}", "-n", namespace]
        code = str(EXAMPLES / "webhook_operator.py")
        more = {"WEBHOOK_TLS": str(tls), "WEBHOOK_PORT": str(self.port)}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kopf_ha", "run", code, *times, *lease],
                env=environment(cluster.kubeconfig) | more,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def see(self, text: str) -> None:
        def look() -> bool:
            assert self.process.poll() is None or text in self.log.read_text(), self.log.read_text()
            return text in self.log.read_text()

        until(f"{text!r} in the log", look, LONG)


@pytest.fixture
def start(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Callable[[], Site]]:
    made: list[Site] = []

    def one() -> Site:
        made.append(Site(cluster, namespace, tmp_path, tmp_path / f"log-{len(made)}"))
        return made[-1]

    yield one
    for site in made:
        site.process.kill()
        site.process.wait()


def test_the_example(cluster: Cluster, namespace: str, tmp_path: Path, start: Callable[[], Site]) -> None:
    certificates = Certificates(tmp_path)
    crd, service, config = yaml.safe_load_all((EXAMPLES / "webhook_operator.yaml").read_text())
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(crd))
    until("the kind", lambda: cluster.kubectl("get", SITES, "-A", check=False).returncode == 0, LONG)
    one, two = start(), start()
    for site in (one, two):
        site.see("kopf_ha.everywhere is up")
        site.see("new leader")
    leader, follower = (one, two) if "leading: token 1" in one.log.read_text() else (two, one)

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

    def state(name: str) -> tuple[str, str]:
        get = ("get", f"{SITES}/{name}", "-n", namespace, "-o", "jsonpath={.status.state} {.status.fencing.token}")
        return tuple(cluster.kubectl(*get).stdout.split())

    cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(site("a", "a.example")))
    until("the leader's decision", lambda: state("a") == ("Active", "1"), LONG)
    until_rejected(cluster, site("x", "a.example"), f"host a.example belongs to {namespace}/a already")
    assert reject(cluster, site("x", "x.example")) == ""

    # The leader dies; nobody leads, and the webhook is answered all the same.
    leader.process.send_signal(signal.SIGKILL)
    leader.process.wait()
    assert "belongs to" in reject(cluster, site("x", "a.example"))
    cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(site("b", "b.example")))
    until("the next leader's decision", lambda: state("b") == ("Active", "2"), LONG)
    assert "belongs to" in reject(cluster, site("x", "b.example"))
    os.kill(follower.process.pid, signal.SIGTERM)
    follower.see("webhooks are served for 5 s more")
    assert "belongs to" in reject(cluster, site("x", "a.example"))
    assert follower.process.wait(LONG) == 0
    assert "NoTerm" not in leader.log.read_text() + follower.log.read_text()
