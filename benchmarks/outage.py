"""What an outage costs that a term survives: `python -m benchmarks.outage [--claims 4000] [--rounds 3] [--seconds 12]`.

Two replicas of the reference operator with the credentials of pods, its policies in force, the default durations
(15/10/2 s), and so many claims that have their addresses (`testbed.copies`). Between them and the API server is a proxy
that refuses all connections for some seconds. Meanwhile somebody makes a claim. Processes that exit are started again
at once, as by the kubelet. The peer is the same with `--recovery=0`, in turns: the term ends at its renew deadline.

Terms, restarts and lists come from the API server's audit log and from the processes, handlers and timers from the
replicas' logs, all from the outage's begin until all is quiet again. A timer is lost if its count, which is in memory,
begins again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.result import rounds
from benchmarks.service import Bench, acquired, bound
from benchmarks.takeover import at, pod_of
from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.deployment import NAME, ROOT
from testbed.relay import dial, relay
from testbed.replica import IPAM, Replica, as_pod

#: Seconds for which the API server is away: longer than the renew deadline, shorter than the Lease.
AWAY = 12.0
#: What is counted or timed in each round, with its unit and its goals.
WHATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "new terms": ("terms", ("most <= 0",)),
    "processes that ended": ("processes", ("most <= 0",)),
    "lists of objects": ("requests", ("most <= 0",)),
    "handlers run": ("handlers", ()),
    "timers lost": ("timers", ("most <= 0",)),
    "first service after the API server is back": ("s", ("median <= 2",)),
}
#: By the flags of the replicas: kopf-ha's default, and the peer.
WAYS: dict[str, tuple[str, ...]] = {"default": (), "--recovery=0": ("--recovery=0",)}


class Proxy:
    """A proxy before an API server, byte by byte, that can be away. It has a thread of its own."""

    def __init__(self, server: str) -> None:
        self._target = server
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.mend()

    def mend(self) -> None:
        """Listen."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()

    def close(self) -> None:
        """End its thread."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await dial(self._target)
        self._writers |= {writer, theirs[1]}
        await relay((reader, writer), theirs)
        self._writers -= {writer, theirs[1]}


class Outages(Bench):
    """The cluster with its claims; replicas reach it by the proxy alone.

    Args:
        plane: the cluster.
        folder: for logs.
        claims: how many have their addresses.
        away: seconds for which it is away.
    """

    def __init__(self, plane: ControlPlane, folder: Path, claims: int, away: float = AWAY) -> None:
        super().__init__(plane, folder)
        self.away = away
        self.proxy = Proxy(plane.servers[0])
        self.fill(claims)
        self._stop()

    def round(self, flags: tuple[str, ...]) -> dict[str, float]:
        """Measure one outage."""
        with self._replicas(flags) as replicas:
            leader = replicas[0]
            self.quiet(leader)
            until("ticks", lambda: "tick edited 2" in leader.log, watched=[leader])
            marks = {one.name: len(one.log) for one in replicas}
            self.audit.skip()
            self.made += 1
            name = f"late-{self.made}"
            ended = 0
            self.proxy.cut()
            back = time.time() + self.away
            while (left := back - time.time()) > 0:
                ended += self._start_again(replicas)
                time.sleep(min(left, 0.1))
            self.make(name)  # a user of the API server, by no proxy
            self.proxy.mend()

            def served() -> float | None:
                nonlocal ended
                ended += self._start_again(replicas)
                made = (at(e) for e in self.audit.events() for one in replicas if bound(e, one.name, name))
                return next(made, None)

            first = float(until(f"{name} to be bound", served, timeout=180, every=0.05))
            for one in replicas:
                self.quiet(one)
            ended += self._start_again(replicas)
            events = self.audit.events()
            said = "".join(one.log[marks[one.name] :] for one in replicas)
        return {
            "new terms": sum(acquired(e, one.name) and _is_new(e) for e in events for one in replicas),
            "processes that ended": ended,
            "lists of objects": sum(map(_lists, events)),
            "handlers run": len(re.findall(r"Handler '.*' succeeded", said)),
            "timers lost": len(re.findall(r"tick \S+ 1\b", said)),
            "first service after the API server is back": first - back,
        }

    @contextmanager
    def _replicas(self, flags: tuple[str, ...]) -> Iterator[list[Replica]]:
        leader = self._replica(flags)
        until("one to lead", lambda: leader.said("barrier: "), timeout=180, watched=[leader])
        replicas = [leader, self._replica(flags)]
        try:
            until("the other one to follow", lambda: replicas[1].said("new leader: "), watched=replicas[1:])
            yield replicas
        finally:
            for one in replicas:
                one.kill()
            patch = '{"spec":{"holderIdentity":""}}'
            self.world.plane.kubectl("patch", "lease", NAME, "-n", NAME, "--type=merge", "-p", patch)

    def _replica(self, flags: tuple[str, ...]) -> Replica:
        plane, world = self.world.plane, self.world
        labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "operator"}
        pod = plane.pod_identity(NAME, NAME, next(world.names), labels)
        config = plane.kubeconfig_for(pod.token, name=pod.name)
        config.write_text(config.read_text().replace(plane.servers[0], f"https://127.0.0.1:{self.proxy.port}"))
        arguments = [
            *IPAM, "-m", "benchmarks.outage_timer", "--after-loss=exit", f"--lease-name={NAME}",
            "--log-format=plain", *flags,
        ]  # fmt: skip
        made = Replica(
            pod.name, config, arguments, world.folder / f"{pod.name}.log", times={},
            env=as_pod(pod, NAME), cwd=ROOT,
        )  # fmt: skip
        made.start()
        return made

    def _start_again(self, replicas: list[Replica]) -> int:
        """Start those that ended, as the kubelet does; return how many there were."""
        ended = [one for one in replicas if not one.running]
        for one in ended:
            one.start()
        return len(ended)

    def close(self) -> None:
        """End the proxy."""
        super().close()
        self.proxy.close()


def _is_new(event: dict[str, Any]) -> bool:
    """Whether an update of the Lease begins a term: it has no renewal before it."""
    spec = event["requestObject"]["spec"]
    return bool(spec.get("acquireTime") == spec.get("renewTime"))


def _lists(event: dict[str, Any]) -> bool:
    """Whether the event is a page of a list of objects that the operator handles or reads."""
    kinds = ("addressclaims", "addresspools", "configmaps")
    ref = event.get("objectRef") or {}
    return bool(event["verb"] == "list" and ref.get("resource") in kinds and pod_of(event))


def rows(found: dict[str, list[dict[str, float]]], claims: int) -> list[dict[str, Any]]:
    """Give what was measured, beside `--recovery=0`."""
    return [
        {
            "what": f"{what}, {claims} claims", "unit": unit, "values": [one[what] for one in found["default"]],
            "peer": "--recovery=0", "peer_values": [one[what] for one in found["--recovery=0"]], "goals": goals,
        }
        for what, (unit, goals) in WHATS.items()
    ]  # fmt: skip


def measure(bench: Outages, seconds: float, least: int = 3) -> dict[str, list[dict[str, float]]]:
    """Give the rounds of each way, in turns, as many as there is time for."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in rounds(seconds, least=least):
        for way, flags in WAYS.items():
            found[way].append(bench.round(flags))
            print(way, found[way][-1], flush=True)
    return found


def run(plane: ControlPlane, folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Give the rows of 4,000 claims."""
    bench = Outages(plane, folder, 4000)
    try:
        return rows(measure(bench, seconds - 60), 4000)
    finally:
        bench.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=AWAY, help="for which the API server is away")
    args = parser.parse_args()
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        bench = Outages(plane, Path(folder), args.claims, args.seconds)
        try:
            found = measure(bench, 0, least=args.rounds)
        finally:
            bench.close()
    table = Table("what", "unit", "median", "least", "most", "--recovery=0: median", "least", "most")
    for row in rows(found, args.claims):
        shown = [
            f"{x:.2f}"
            for values in (row["values"], row["peer_values"])
            for x in (statistics.median(values), min(values), max(values))
        ]
        table.add_row(row["what"], row["unit"], *shown)
    console = Console(width=150)
    console.print(table)
    console.print(f"on {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}; away for {args.seconds:g} s")


if __name__ == "__main__":
    main()
