"""A leader whose API server is away for longer than the renew deadline: its term goes on, unless another one led.

The outage is a paused API server, and the administrator uses the other one. The operator has what an outage could cost
it: memory, a timer, and a daemon that writes all the time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.waiting import until
from testbed.replica import PATIENCE, Replica
from tests.kit.crd import STAMP, version
from tests.kit.crd import crd as kit_crd
from tests.kit.ipam import LEASE
from tests.kit.world import apply_kinds
from tests.survival.support import BEFORE, Site, terms

GROUP = "outage.kopf-ha.test"
#: Long enough for whatever the test does meanwhile.
RECOVERY = {"KOPF_HA_RECOVERY": "300"}
OPERATOR = f"""
import kopf, kopf_ha, kubernetes

kubernetes.config.load_kube_config()
api = kubernetes.client.CustomObjectsApi()

@kopf.on.startup()
def configure(settings, memo, **_):
    settings.persistence.finalizer = "{GROUP}/finalizer"
    settings.posting.enabled = False
    settings.scanning.disabled = True
    print("startup ran", flush=True)

@kopf.on.create("things")
def made(name, patch, **_):
    patch.status["made"] = True
    print("created", name, flush=True)

@kopf.on.resume("things")
def resumed(name, **_):
    print("resumed", name, flush=True)

@kopf.timer("things", interval=0.5)
async def tick(name, memo, **_):
    memo["ticks"] = memo.get("ticks", 0) + 1
    print("tick", name, memo["ticks"], flush=True)

@kopf.daemon("things", cancellation_backoff=1)
def write(name, namespace, stopped, **_):
    token, n = kopf_ha.current_term().token, 0
    while not stopped.wait(0.3):
        n += 1
        try:
            body = {{"spec": {{"by": token, "n": n}}}}
            api.patch_namespaced_custom_object("{GROUP}", "v1", namespace, "things", name, body, _request_timeout=5)
            print("wrote", name, n, flush=True)
        except Exception as error:
            print("failed", name, n, type(error).__name__, flush=True)
"""


@pytest.fixture
def outage(site: Site, bearer: str, tmp_path: Path) -> Iterator[Outage]:
    made = Outage(site, bearer, tmp_path)
    try:
        yield made
    finally:
        made.server.resume()
        made.server.wait_ready()
        for one in made.replicas:
            one.kill()
            print(f"--- {one.name}", *one.log.splitlines()[-100:], sep="\n")
        made.clear()


class Outage:
    """Replicas of the operator, each with an API server of its own, of which the first one can be paused."""

    def __init__(self, site: Site, bearer: str, folder: Path) -> None:
        self.site, self.folder = site, folder
        self.by = [str(site.plane.kubeconfig_for(bearer, server=n)) for n in (0, 1)]
        self.server = site.plane.apiserver(0)
        self.replicas: list[Replica] = []
        apply_kinds(site.plane, kit_crd(GROUP, "Thing", version(fencing=STAMP)))
        site.make_lease(leaseTransitions=BEFORE)
        (folder / "op.py").write_text(OPERATOR)

    def replica(self, name: str, server: int) -> Replica:
        where = [f"--lease-name={LEASE}", f"--lease-namespace={self.site.namespace}", "-n", self.site.namespace]
        made = Replica(
            name, self.by[server], ["run", *where, "--after-loss=follow", "op.py"], self.folder / f"{name}.log",
            env=RECOVERY | {"POD_NAME": name}, cwd=self.folder,
        )  # fmt: skip
        self.replicas.append(made)
        made.start()
        return made

    def kubectl(self, *args: str, **more: Any) -> str:
        """By the server that is never paused."""
        out: str = self.site.plane.kubectl("-n", self.site.namespace, *args, server=1, **more).stdout
        return out

    def make(self, name: str) -> None:
        thing = {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {}}
        self.kubectl("create", "-f", "-", input=json.dumps(thing))

    def clear(self) -> None:
        patch = '{"metadata":{"finalizers":null}}'
        for name in self.kubectl("get", "things", "-o", "name").split():
            self.kubectl("patch", name, "--type=merge", "-p", patch)
            self.kubectl("delete", name, "--wait=false", "--ignore-not-found")

    def writers(self) -> list[int]:
        """Whose writes were accepted, by token, in etcd's order; each only when it changes."""
        found: list[Any] = [c.after["spec"].get("by") for c in self.site.history().of("things") if c.after]
        found = [token for token in found if token]
        return [token for i, token in enumerate(found) if i == 0 or found[i - 1] != token]


def numbers(replica: Replica, what: str) -> list[int]:
    return [int(n) for n in re.findall(rf"(?m)^{what} (\d+)$", replica.log)]


def test_a_term_outlives_its_api_server_and_loses_nothing(outage: Outage) -> None:
    one = outage.replica("one", 0)
    outage.make("x")
    one.see("created x")
    one.see("tick x 3")
    one.see("wrote x 2")
    outage.server.pause()
    one.see(f"held: token {BEFORE + 1}, .* not renewed for")
    outage.make("y")
    outage.server.resume()
    outage.server.wait_ready()
    one.see(f"open again: token {BEFORE + 1}")
    one.see("created y")
    ticks, wrote = numbers(one, "tick x")[-1], numbers(one, "wrote x")[-1]
    until("its timer to go on", lambda: numbers(one, "tick x")[-1] > ticks, PATIENCE)
    until("its daemon to go on", lambda: numbers(one, "wrote x")[-1] > wrote, PATIENCE)
    ticks = numbers(one, "tick x")[-1]
    assert numbers(one, "tick x") == list(range(1, ticks + 1)), "its memory was lost"
    assert terms(one) == [BEFORE + 1]
    assert not one.said("GateClosed|resumed|lost:|Traceback"), "no handler failed since the gate was held"
    assert len(re.findall("startup ran", one.log)) == 1
    assert outage.writers() == [BEFORE + 1]


def test_a_leader_that_wakes_up_after_another_led_writes_nothing(outage: Outage) -> None:
    """I2, I3: its daemon waits at the gate with a write, and is refused."""
    one = outage.replica("one", 0)
    one.see(f"leading: token {BEFORE + 1}")
    two = outage.replica("two", 1)
    outage.make("x")
    one.see("wrote x 2")
    two.see("new leader: one_")
    outage.server.pause()
    one.see(f"held: token {BEFORE + 1}")
    two.see(f"leading: token {BEFORE + 2}")
    two.see("wrote x 2")
    outage.server.resume()
    outage.server.wait_ready()
    one.see(f"lost: token {BEFORE + 1}, .* is held by two_")
    one.see(f"term {BEFORE + 1} of .* is over")
    count = numbers(two, "wrote x")[-1]
    until("two to go on", lambda: numbers(two, "wrote x")[-1] > count, PATIENCE)
    assert outage.writers() == [BEFORE + 1, BEFORE + 2]
    assert not one.said("open again")
