"""Faults on real nodes, one after the other and at once: `python -m benchmarks.chaos [--minutes 5] [--seed 1]`.

Two nodes, three replicas as deploy/ has them, people who make and delete claims all the time, and the faults of
benchmarks.faults in an order that the seed gives. After each of them the system has to recover: somebody who lives
leads, every claim that waited has its address, every one that was deleted is gone, and three replicas are ready. In the
end the judge looks at all that ever happened, and logs, restarts and metrics at what the judge does not see. The
traces of the replicas are put through the core again, and joined with the history.

The exit status is 1 when something is wrong. In the folder that `--output` names are all logs, the audit log, and in
said.txt what logs and events complained of; with `--hold` the cluster stays for a look. Root only: nodes are real.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults import FAULTS, Fault, Scene
from benchmarks.witness import TRACED, Witness
from devcluster.errors import DevclusterError
from devcluster.waiting import until
from replay import read, report
from testbed.deployment import NAME
from testbed.load import NAMESPACE, Load
from testbed.nodes import cluster
from testbed.stage import Stage

#: Seconds for all to be well again.
RECOVERY = 150.0
#: Seconds in which somebody else should lead where no timer need be waited for; busy machines are slow.
SOON = 2.0
#: The part of the faults that come before the one before is over.
AT_ONCE = 0.2
#: What kubectl says of an API server that stands still.
UNREACHED = re.compile(r"TLS handshake|connection (lost|refused|reset)|i/o timeout|timed out|Timeout|etcdserver|EOF")


class Patient(Stage):
    """A user who tries again when the API server did not answer."""

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:
        """Run kubectl. What an attempt without an answer did may be done."""
        again = False
        for _ in range(10):
            try:
                return super().kubectl(*args, input=input, check=check)
            except AssertionError as error:
                said = str(error)
                if again and ("AlreadyExists" in said or "NotFound" in said):
                    return ""
                if not UNREACHED.search(said):
                    raise
                again = True
                time.sleep(1)
        raise DevclusterError(f"the API server does not answer: {args}")


class Chaos:
    """One run.

    Args:
        scene: the cluster and the dice.
        load: the users.
        witness: sees what passes by.
    """

    def __init__(self, scene: Scene, load: Load, witness: Witness) -> None:
        self.scene, self.load, self.witness, self.stage = scene, load, witness, scene.stage
        self.takeovers: dict[str, list[float]] = {}
        self.count = 0

    def run(self, seconds: float, only: str) -> None:
        """Do one fault after the other."""
        end, pending = time.monotonic() + seconds, False
        faults = [f for f in FAULTS if only in f.name]
        while time.monotonic() < end:
            (fault,) = self.scene.random.choices(faults, [f.often for f in faults])
            hurry = self.scene.random.random() < AT_ONCE
            if pending and fault.alone:
                continue
            self.once(fault, crowded=pending or hurry, recover=not hurry)
            pending = hurry
        self.recover()

    def once(self, fault: Fault, *, crowded: bool, recover: bool) -> None:
        """Do one fault, and tell how it went."""
        scene, self.count = self.scene, self.count + 1
        began = time.strftime("%H:%M:%S")
        remark = fault.do(scene) or ""
        struck, before = scene.struck, scene.before
        if recover:
            if fault.fast:  # it takes a moment until anybody notices
                until("the next term", lambda: self.witness.next_term(before), RECOVERY, 0.1)
            self.recover()
        took = self.witness.next_term(before)
        took = took - struck if took is not None else None
        terms = self.stage.lease()[1] - before
        waits = [at - self.load.made_at[n] for n, at in list(self.load.bound_at.items()) if at > struck]
        line = f"{self.count:3} {began} {fault.name}{f' ({remark})' if remark else ''}: "
        line += f"next leader {f'{took:.2f} s' if took is not None else '-'}, terms {terms}"
        line += f", longest wait {max(waits, default=0):.2f} s, " + (
            f"well after {time.monotonic() - struck:.1f} s" if recover else "the next one at once"
        )
        if not crowded:
            if took is not None:
                self.takeovers.setdefault(fault.name, []).append(took)
            if fault.fast and (took is None or took > SOON):
                line += "  SLOW"
            if fault.terms is not None and terms > fault.terms:
                line += f"  TERMS > {fault.terms}"
        print(line, flush=True)

    def recover(self) -> None:
        """Wait until all is well.

        Raises:
            DevclusterError: it does not become so.
        """
        stage = self.stage
        end = time.monotonic() + RECOVERY

        def left() -> float:
            return max(1.0, end - time.monotonic())

        until("a leader who lives", self._led, left(), 0.3)
        waiting = self._unsettled()
        until(f"claims to be settled: {waiting}", lambda: not waiting & self._unsettled(), left(), 0.5)
        self.load.wait_for(3)  # people delete what they waited for in vain, too
        until("three replicas to be ready", self._replicas, left(), 0.5)
        stage.rolled_out()

    def _led(self) -> bool:
        holder = self.stage.lease()[0].split("_")[0]
        return any(p["metadata"]["name"] == holder and _ready(p) for p in self.stage.pods())

    def _unsettled(self) -> set[str]:
        claims = self.stage.get("addressclaims", "-n", NAMESPACE)
        return {
            c["metadata"]["name"]
            for c in claims
            if c["metadata"].get("deletionTimestamp") or not (c.get("status") or {}).get("address")
        }

    def _replicas(self) -> bool:
        """Whether there are three; one that is not restarted for long is replaced, as a user would."""
        pods = self.stage.pods()
        for pod in pods:
            for status in pod["status"].get("containerStatuses") or ():
                if (status["state"].get("waiting") or {}).get("reason") == "CrashLoopBackOff":
                    self.stage.kubectl("-n", NAME, "delete", "pod", pod["metadata"]["name"], "--ignore-not-found")
        return len(pods) == 3 and all(_ready(p) for p in pods)

    def summary(self) -> list[str]:
        """Say how it was, and give what is wrong."""
        history = self.stage.history()
        verdict = self.stage.verdict(history, min_terms=2)
        replayed = report.check([run for path in self.witness.traces() for run in read(path)], history)
        tracebacks, lines = self.witness.lines()
        wrong = [*map(str, verdict.findings), *self.scene.complaints]
        wrong += [f"a traceback: {t}" for t in tracebacks]
        wrong += self.witness.restarts(self.scene.killed.copy())
        wrong += self._metrics()
        wrong += [f"a trace: {found}" for found in replayed.differences]
        if not replayed.lines["asked"]:
            wrong.append("no replica left a trace")
        waits = self.load.waits()
        print(f"\n{self.count} faults, {len(verdict.summary.terms)} terms, {len(waits)} claims")
        print(report.summary(replayed))
        print(f"a claim waited {statistics.median(waits):.2f} s in the median, {max(waits):.1f} s at most")
        print(f"refused: {dict(verdict.summary.refused)}; late but harmless: {verdict.summary.late_but_harmless}")
        for name, took in sorted(self.takeovers.items()):
            print(f"  {name}: next leader after {statistics.median(took):.2f} s, at most {max(took):.2f} ({len(took)})")
        with (self.witness.folder / "said.txt").open("w") as said:
            for title, counted in (("warnings and errors in logs", lines), ("events", self.witness.warnings())):
                said.write(f"{title}:\n")
                said.writelines(f"{count:5} {text}\n" for text, count in counted.most_common())
        return wrong

    def _metrics(self) -> Iterator[str]:
        holder, token = self.stage.lease()
        for pod in self.stage.pods():
            name = pod["metadata"]["name"]
            path = f"/api/v1/namespaces/{NAME}/pods/{name}:8080/proxy/metrics"
            text = self.stage.kubectl("get", "--raw", path)
            values = dict(re.findall(r"(?m)^(\w+)(?:\{[^}]*\})? (\S+)$", text))
            leads = holder.startswith(f"{name}_")
            wanted = {"leader_election_master_status": float(leads), "kopf_ha_not_enforced": 0.0}
            wanted |= {"kopf_ha_token": float(token)} if leads else {}
            for metric, value in wanted.items():
                if float(values[metric]) != value:
                    yield f"{metric} of {name} is {values[metric]}, not {value}"


def _ready(pod: dict[str, Any]) -> bool:
    containers = pod["status"].get("containerStatuses") or []
    return not pod["metadata"].get("deletionTimestamp") and bool(containers) and all(c["ready"] for c in containers)


def keep(stage: Stage, witness: Witness, output: Path) -> None:
    """Keep what a look at it needs, besides the logs."""
    for kind in ("events", "pods", "lease"):
        (output / f"{kind}.json").write_text(stage.kubectl("get", kind, "-n", NAME, "-o", "json"))
    for path in stage.record["audit_logs"]:
        shutil.copy(path, output)
    (output / "terms.json").write_text(json.dumps(witness.terms, indent=1))


def main() -> int:
    """Set the cluster up, do the faults, give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=None, help="a random one by default")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--output", type=Path, default=Path("build/chaos"))
    parser.add_argument("--hold", action="store_true", help="keep the cluster when something is wrong, until Ctrl-C")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else secrets.randbelow(10_000)
    shutil.rmtree(args.output, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder) / "state") as plain:
        stage = Patient(plain.record)
        stage.shell("kubectl apply -k crds/ && kubectl wait --for=condition=Established crd --all")
        stage.shell("kubectl apply -k deploy/")
        stage.kubectl("-n", NAME, "patch", "deployment", NAME, "--patch", json.dumps(TRACED))
        stage.rolled_out()
        wrong: list[str] = []
        with Witness(stage, args.output) as witness:
            print(f"seed {seed}", flush=True)
            chaos = None
            dice = random.Random(seed)  # noqa: S311  it has to repeat
            try:
                with Load(stage, "chaos", "10.48.0.0/20", pause=1.0) as load:
                    chaos = Chaos(Scene(stage, dice), load, witness)
                    chaos.run(args.minutes * 60, args.only)
            except (DevclusterError, AssertionError, LookupError) as error:
                wrong = [f"{type(error).__name__}: {error}"]
            wrong += chaos.summary() if chaos else []
            keep(stage, witness, args.output)
            for sentence in wrong:
                print(f"WRONG: {sentence}")
            print(f"what was seen is in {args.output}", flush=True)
            if wrong and args.hold:
                print(f"export KUBECONFIG={stage.record['kubeconfig']}", flush=True)
                signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
