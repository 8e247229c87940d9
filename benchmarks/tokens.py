"""One term that outlives its tokens: `python -m benchmarks.tokens [--minutes 25]`.

The API server's tokens live for ten minutes here, and are not extended. As in a pod, the folder of the service account
gets a new one in time, every eight minutes. One replica leads, and each client (benchmarks.tokens_operator) writes
every five seconds, with a token that some of them read only once, when the term began.

The exit status is 1 when a client stopped writing, when anybody got a 401, or when there was a second term. Linux only;
without root it needs user namespaces.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.tokens_operator import MAKERS
from devcluster import ControlPlane, PodIdentity
from devcluster.errors import DevclusterError
from devcluster.waiting import until
from testbed.account import project, seen_in
from testbed.deployment import pod_token
from testbed.replica import PATIENCE, Replica, as_pod

NAME = "tokens"
OPERATOR = Path(__file__).with_name("tokens_operator.py")
#: Of a token: the shortest that an API server accepts. It may be used for a minute more.
LIFE = "10m"
#: Seconds after which a kubelet would ask for the next one.
RENEWAL = 480.0
#: Seconds for which a client that writes may seem silent.
SILENCE = 30.0
CLIENTS = ["kopf", *MAKERS]


class World:
    """The cluster, the pod and the replica in it.

    Args:
        plane: the control plane.
        folder: for the log and the service account.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.account = plane, folder / "account"
        self.account.mkdir()
        plane.kubectl("create", "namespace", NAME)
        plane.kubectl("create", "serviceaccount", NAME, "-n", NAME)
        plane.kubectl(
            "create", "clusterrolebinding", NAME, "--clusterrole=cluster-admin", f"--serviceaccount={NAME}:{NAME}"
        )
        self.pod = plane.pod_identity(NAME, NAME, "replica")
        maps = [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"by": name}}}
            for name in CLIENTS
        ]
        plane.kubectl(
            "create", "-n", NAME, "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": maps})
        )
        self.first = self.renew()
        self.replica = self._replica(folder / "replica.log", self.pod)

    def _replica(self, log: Path, pod: PodIdentity) -> Replica:
        server = urlsplit(self.plane.servers[0])
        env = as_pod(pod, NAME) | {"KUBERNETES_SERVICE_HOST": str(server.hostname), "HOME": str(log.parent)}
        env |= {"KUBERNETES_SERVICE_PORT": str(server.port), "KUBECONFIG": ""}
        arguments = ["run", "-n", NAME, f"--lease-name={NAME}", str(OPERATOR)]
        replica = Replica(NAME, self.plane.kubeconfig, arguments, log, times={}, env=env)
        replica.argv = seen_in(self.account, replica.argv)
        return replica

    def renew(self) -> str:
        """Do what a kubelet does in time; give the new token."""
        pod = self.get("pod", self.pod.name)
        token = pod_token(self.plane, pod, LIFE)
        project(self.account, {"token": token, "namespace": NAME, "ca.crt": self.plane.ca_file.read_text()})
        return token

    def get(self, *args: str) -> Any:
        """Give an object, or a list."""
        return json.loads(self.plane.kubectl("get", "-n", NAME, "-o", "json", *args).stdout)

    def term(self) -> tuple[str, int]:
        """Give the Lease's holder and its token."""
        spec = self.get("lease", NAME)["spec"]
        return spec.get("holderIdentity") or "", spec["leaseTransitions"]

    def silence(self) -> dict[str, float]:
        """Give for each client how many seconds ago it wrote."""
        maps, now = self.get("configmaps", "-l", "by")["items"], time.time()
        return {m["metadata"]["name"]: now - float((m.get("data") or {}).get("at", 0)) for m in maps}

    def unknown(self) -> float:
        """Count the requests so far whose credentials the API server did not know."""
        metrics = self.plane.kubectl("get", "--raw", "/metrics").stdout
        found = re.findall(r'^authentication_attempts{result="(?:failure|error)"} (\S+)$', metrics, re.M)
        return sum(map(float, found))


def wrong(world: World, began: tuple[str, int]) -> Iterator[str]:
    """Give what is wrong in the end."""
    now = world.term()
    if now != began:
        yield f"the term of {began} has become one of {now}"
    for name, seconds in world.silence().items():
        if seconds > SILENCE:
            yield f"{name} has not written for {seconds:.0f} s"
    if unknown := world.unknown():
        yield f"{unknown:g} requests were answered with 401"
    for line in world.replica.log.splitlines():
        if " failed: " in line:
            yield line


def main() -> int:
    """Run it, and give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--output", type=Path, default=Path("build/tokens"), help="where the replica's log is kept")
    args = parser.parse_args()
    flags = ["--service-account-extend-token-expiration=false"]
    with tempfile.TemporaryDirectory() as folder, ControlPlane(apiserver_args=flags) as plane:
        world = World(plane, Path(folder))
        with world.replica:
            try:
                complaints = watch(world, args.minutes * 60)
            except (AssertionError, DevclusterError) as error:
                complaints = [f"{type(error).__name__}: {error}"]
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "replica.log").write_text(world.replica.log)
    for sentence in complaints:
        print(f"WRONG: {sentence}")
    print(f"the replica's log is in {args.output}", flush=True)
    return 1 if complaints else 0


def watch(world: World, seconds: float) -> list[str]:
    """Renew tokens for so long, and give what is wrong then."""
    until("every client to write", lambda: max(world.silence().values()) < SILENCE, PATIENCE, 1, [world.replica])
    began, start = world.term(), time.monotonic()
    renewed = minute = 0
    while (passed := time.monotonic() - start) < seconds:
        if passed >= (renewed + 1) * RENEWAL:
            renewed += 1
            world.renew()
        if passed >= minute * 60:
            longest = max(world.silence().items(), key=lambda item: item[1])
            print(f"minute {minute}: token {renewed + 1}; {longest[0]} wrote {longest[1]:.0f} s ago", flush=True)
            minute += 1
        world.replica.check_running()
        time.sleep(1)
    complaints = list(wrong(world, began))
    known = world.plane.kubectl("auth", "whoami", token=world.first, check=False).returncode == 0
    first = f"the first token is {'still' if known else 'no longer'} valid"
    print(f"{renewed + 1} tokens, {len(CLIENTS)} clients, term {began[1]}; {first}")
    if known and seconds > 12 * 60:
        complaints.append("the API server still takes the first token, so the run says nothing")
    return complaints


if __name__ == "__main__":
    sys.exit(main())
