"""What is to be seen in the picture: three replicas, and what may happen to them within five minutes.

They have the credentials of the Deployment's pods, the default durations, and the policies in force. Between them and
the API server is a proxy that can be away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.outage import Proxy
from dashboard.files import ROOT
from demo.replica import TRIGGER
from devcluster import ControlPlane
from devcluster.waiting import until
from faults.admin import IPAM, Admin
from kopf_ha.core.lease import HANDOVER
from kopf_ha.core.orders import ANY
from testbed import deployment
from testbed.deployment import NAME
from testbed.ports import free_port
from testbed.replica import ABSENT, SOURCE, Replica

#: Seconds of peace between two events, and for which the API server is away, the operator is paused, or a replica that
#: stands still stays so after another one took over.
PEACE, AWAY, REPAIR, LATE = 30.0, 12.0, 25.0, 5.0
#: Claims that live at a time, and seconds between two new ones.
LIVING, EVERY = 15, 1.5
#: Seconds after which a process that ended is started again, as by a kubelet after some crashes.
AGAIN = 10.0
CLAIMS = f"{IPAM}/namespaces/default/addressclaims"


class Story:
    """Replicas that go through it.

    Args:
        plane: their cluster.
        folder: for logs.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane, self._folder = plane, folder
        self.ports: dict[str, int] = {}  #: of metrics, by pod
        self._replicas: dict[str, Replica] = {}
        self._proxy = Proxy(plane.servers[0])
        self._admin = Admin(plane)

    @contextmanager
    def replicas(self) -> Iterator[None]:
        """Install the operator, and run its replicas meanwhile."""
        deployment.install(self._plane)
        container = deployment.container(self._plane)
        for pod in deployment.pods(self._plane):
            name = pod["metadata"]["name"]
            config = self._plane.kubeconfig_for(deployment.pod_token(self._plane, pod), name=name)
            config.write_text(
                config.read_text().replace(self._plane.servers[0], f"https://127.0.0.1:{self._proxy.port}")
            )
            self.ports[name] = free_port()
            env = deployment.variables(container, pod) | {
                "KOPF_HA_METRICS_PORT": str(self.ports[name]), "KOPF_HA_HEALTH_PORT": "0",
                "KOPF_HA_RUN_DIR": str(self._folder), "PYTHONPATH": f"{ABSENT}:{SOURCE}:{ROOT}",
                TRIGGER: str(self._trigger(name)),
            }  # fmt: skip
            self._replicas[name] = Replica(
                name, config, container["args"], self._folder / f"{name}.log", times={}, env=env,
                program=("-m", "demo.replica"), cwd=ROOT,
            )  # fmt: skip
        try:
            for replica in self._replicas.values():
                replica.start()
            self._wait_leader(0)
            yield
        finally:
            for replica in self._replicas.values():
                replica.kill()
            self._proxy.close()

    def tell(self) -> None:
        """Let it happen."""
        done = threading.Event()
        others = [threading.Thread(target=run, args=(done,), daemon=True) for run in (self._claim, self._start_again)]
        for other in others:
            other.start()
        try:
            for event in (self._stands_still, self._handover, self._outage, self._pause, self._kill):
                time.sleep(PEACE)
                print(event.__name__.strip("_").replace("_", " "), flush=True)
                event()
            time.sleep(PEACE)
        finally:
            done.set()
            for other in others:
                other.join(60)

    # --- the events

    def _stands_still(self) -> None:
        """The leader stops in the middle of a write, and goes on when another one has taken over."""
        pod, token = self._leader()
        for number in range(6):
            self._post(CLAIMS, "AddressClaim", f"late-{number}", {"poolName": "late"})
        self._trigger(pod).touch()
        self._post(f"{IPAM}/addresspools", "AddressPool", "late", {"cidr": "10.91.0.0/24"})
        until("the leader to stand still", self._trigger(pod).with_suffix(".note").exists, timeout=60)
        self._wait_leader(token)
        time.sleep(LATE)
        self._replicas[pod].resume()

    def _handover(self) -> None:
        token = self._leader()[1]
        self._plane.kubectl("annotate", "lease", NAME, "-n", NAME, f"{HANDOVER}={ANY}")
        self._wait_leader(token)

    def _outage(self) -> None:
        self._proxy.cut()
        time.sleep(AWAY)
        self._proxy.mend()

    def _pause(self) -> None:
        token = self._leader()[1]
        self._kopf_ha("pause", "--reason=a repair", "--by=somebody on call", "--no-wait")
        time.sleep(REPAIR)
        self._kopf_ha("resume")
        self._wait_leader(token)

    def _kill(self) -> None:
        pod, token = self._leader()
        self._replicas[pod].signal(signal.SIGKILL)
        self._wait_leader(token)

    # --- around them

    def _claim(self, done: threading.Event) -> None:
        """People make claims and delete old ones, all the time."""
        pool = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": "main"}}
        self._admin.ask("POST", f"{IPAM}/addresspools", pool | {"spec": {"cidr": "10.90.0.0/20"}})
        claim = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "spec": {"poolName": "main"}}
        number = 0
        while not done.wait(EVERY):
            self._admin.ask("POST", CLAIMS, claim | {"metadata": {"name": f"claim-{number}"}})
            if number >= LIVING:
                self._admin.ask("DELETE", f"{CLAIMS}/claim-{number - LIVING}")
            number += 1

    def _start_again(self, done: threading.Event) -> None:
        """A kubelet starts what ended."""
        ended: dict[str, float] = {}
        while not done.wait(1):
            for pod, replica in self._replicas.items():
                if not replica.running and time.monotonic() - ended.setdefault(pod, time.monotonic()) > AGAIN:
                    del ended[pod]
                    replica.start()

    def _leader(self) -> tuple[str, int]:
        spec = self._admin.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAME}/leases/{NAME}").get("spec", {})
        return (spec.get("holderIdentity") or "").split("_")[0], spec.get("leaseTransitions") or 0

    def _wait_leader(self, after: int) -> None:
        def look() -> bool:
            pod, token = self._leader()
            return bool(pod) and token > after

        until(f"a leader with a token above {after}", look, timeout=120)

    def _trigger(self, pod: str) -> Path:
        return self._folder / f"{pod}.trigger"

    def _kopf_ha(self, *arguments: str) -> None:
        argv = [sys.executable, "-m", "kopf_ha", *arguments, f"--namespace={NAME}"]
        env = os.environ | {"KUBECONFIG": str(self._plane.kubeconfig), "PYTHONPATH": str(SOURCE)}
        subprocess.run(argv, check=True, env=env, timeout=180)

    def _post(self, path: str, kind: str, name: str, spec: dict[str, str]) -> None:
        body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self._leader()  # so that the connection is open: only what reads is tried again
        status, answer = self._admin.ask("POST", path, body)
        if status != 201:
            raise RuntimeError(f"{kind} {name}: {status} {answer}")
