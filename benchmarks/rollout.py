"""What claims feel of a rolling update: `python -m benchmarks.rollout [--repeat 2]`.

Two nodes, three replicas, people who make and delete claims all the time; then `kubectl rollout restart`. Counted are
the terms that it took and how long each claim waited for its address, from when a watch showed it. The peers, in
the same run: the same load in peace, and an update of replicas that know nothing of each other's Pods
(`KOPF_HA_FAST_FAILOVER=false`), so that those of the old revision lead again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.result import Row, rounds
from devcluster.waiting import until
from testbed.deployment import NAME
from testbed.load import Load
from testbed.nodes import cluster
from testbed.stage import Stage

CALM = 30  #: claims that are bound before and after


def update(stage: Stage) -> None:
    """Replace all replicas."""
    stage.kubectl("-n", NAME, "rollout", "restart", f"deployment/{NAME}")
    stage.rolled_out()
    until("the old pods to be gone", lambda: len(stage.pods()) == 3, 120, 0.5)


def set_watching(stage: Stage, setting: str) -> None:
    """Say whether replicas look at each other's Pods."""
    stage.kubectl("-n", NAME, "set", "env", f"deployment/{NAME}", f"KOPF_HA_FAST_FAILOVER={setting}")
    stage.rolled_out()


def waits_of(stage: Stage, what: str) -> list[float]:
    """Give how long each claim waited, in peace or while the replicas are replaced."""
    with Load(stage, "load") as load:
        load.wait_for(CALM)
        if what != "in peace":
            update(stage)
        load.wait_for(CALM)
    return load.waits()


def run(stage: Stage, folder: Path, seconds: float) -> list[Row]:
    """Give rows; in each round there is peace, and then an update."""
    set_watching(stage, "true")
    peace, updating, most, calm = [], [], [], []
    for _ in rounds(seconds, least=1, most=5):
        calm += (waits := waits_of(stage, "in peace"))
        peace.append(max(waits))
        updating += (waits := waits_of(stage, "rolling update"))
        most.append(max(waits))
    verdict = stage.verdict()
    if not verdict.ok:
        raise RuntimeError(f"the judge: {verdict}")
    return [
        Row("wait of a claim, rolling update", "s", updating, "in peace", calm),
        Row("longest wait, rolling update", "s", most, "in peace", peace),
    ]


def measure(stage: Stage, repeat: int, console: Console) -> Table:
    """Measure in peace, with replicas that abstain, and with such that do not."""
    table = Table("what", "terms", "claims", "median wait, s", "longest, s", "longest ÷ in peace")
    peace = 0.0
    for what, setting in (("in peace", "true"), ("rolling update", "true"), ("not watching Pods", "false")):
        set_watching(stage, setting)
        for _ in range(repeat):
            _, before = stage.lease()
            waits = waits_of(stage, what)
            peace = peace or max(waits)
            row = (
                what,
                str(stage.lease()[1] - before),
                str(len(waits)),
                f"{statistics.median(waits):.2f}",
                f"{max(waits):.2f}",
                f"{max(waits) / peace:.1f}",
            )
            table.add_row(*row)
            console.print(*row, sep="  ")
    return table


def main() -> None:
    """Set the cluster up, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "state") as stage:
        stage.shell("kubectl apply -k crds/ && kubectl wait --for=condition=Established crd --all")
        stage.shell("kubectl apply -k deploy/")
        stage.rolled_out()
        console.print(measure(stage, args.repeat, console))
        verdict = stage.verdict()
        console.print(f"the judge: {'nothing found' if verdict.ok else verdict}; on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
