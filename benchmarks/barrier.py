"""What the barrier costs a new leader: `python -m benchmarks.barrier [1 100 1000 …]`.

The peer, in the same run on the same pools, is one plain list of them: what any operator has to do before it can
decide. The barrier does that and writes each pool once.
"""

from __future__ import annotations

import json
import os
import sys
import time

from rich.console import Console
from rich.table import Table

from devcluster import ControlPlane
from kopf_ha._context import boottime, entered
from kopf_ha.adapters import Wiring, install, wired
from kopf_ha.api import Api
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.run.barrier import find_kinds, raise_barrier
from kopf_ha.run.credentials import make_client
from kopf_ha.run.sweep import Sweep

PATH = "/apis/ipam.kopf-ha.dev/v1/addresspools"
KIND = "addresspools.ipam.kopf-ha.dev"
LEASE = "default/benchmark"


def pool(number: int) -> dict[str, object]:
    """Give a pool of sixteen addresses."""
    cidr = f"10.{number // 4096}.{number // 16 % 256}.{number % 16 * 16}/28"
    return {
        "apiVersion": "ipam.kopf-ha.dev/v1",
        "kind": "AddressPool",
        "metadata": {"name": f"pool-{number}"},
        "spec": {"cidr": cidr},
    }


def measure(plane: ControlPlane, counts: list[int]) -> Table:
    """Raise the barrier over growing numbers of pools."""
    os.environ["KUBECONFIG"] = str(plane.kubeconfig)
    install()
    plain = Api(make_client("benchmark", fenced=False))
    fenced = Api(make_client("benchmark", fenced=True))
    table = Table("pools", "list, s", "barrier, s", "barrier, ms a pool", "barrier ÷ list")
    made = 0
    for token, count in enumerate(counts, start=1):
        for number in range(made, count):
            answer = plain.request("POST", PATH, pool(number))
            if not answer.ok:
                raise RuntimeError(answer.message)
        made = max(made, count)
        began = time.perf_counter()
        found = len(list(plain.items(PATH)))
        listed = time.perf_counter() - began
        grant = Grant(Stamp(token, "benchmark_uid_1", LEASE, "uid"), boottime() + 600)
        fence = Fence(LEASE, deciding=[KIND])
        with wired(Wiring(fence, lambda outcome: None)), entered(grant):
            began = time.perf_counter()
            stamped = raise_barrier(Sweep(fenced, fence, grant, find_kinds(fenced, fence))).stamped
            took = time.perf_counter() - began
        if stamped != found:
            raise RuntimeError(f"{stamped} of {found} pools were stamped: {json.dumps(sorted(grant.set_aside))}")
        cells = (f"{found}", f"{listed:.3f}", f"{took:.3f}", f"{took / found * 1000:.1f}", f"{took / listed:.0f}")
        table.add_row(*cells)
    return table


def main() -> None:
    """Print the table."""
    counts = sorted(int(arg) for arg in sys.argv[1:]) or [1, 100, 1000]
    with ControlPlane() as plane:
        plane.kubectl("apply", "-k", "crds/")
        plane.wait_established()
        Console().print(measure(plane, counts))


if __name__ == "__main__":
    main()
