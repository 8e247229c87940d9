"""What the fence costs a claim: `python -m benchmarks.throughput [--rounds 3] [--claims 300] [--only NAME …]`.

One operator at a time on one control plane, with the credentials of a pod. A client keeps 60 claims waiting until all
claims of a round are Ready. The rounds of all ways to run an operator alternate, in one run:

- the reference operator without a fence, with optimistic concurrency, with the fence, and with fence and policies;
- an operator as people write it (`plain_claims.py`), under `kopf run`, and under `kopf-ha run` in the same ways.

Measured are claims per second, CPU of the operator and of the API server beyond what they use without claims, and the
operator's requests, by the API server's own counters. "New" are claims that nobody has stamped. "Stamped" are claims
that this term has written before: they are deleted (reference operator), or get another label (plain operator). The
first round is not counted.
"""

from __future__ import annotations

import argparse
import base64
import collections
import http.client
import json
import os
import re
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from rich.console import Console
from rich.table import Table

from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.deployment import NAME, ROOT
from testbed.replica import IPAM, KOPF_HA, Replica, as_pod

CLAIMS = "/apis/ipam.kopf-ha.dev/v1/namespaces/default/addressclaims"
POOLS = "/apis/ipam.kopf-ha.dev/v1/addresspools"
MERGE = "application/merge-patch+json"
PLAIN = str(Path(__file__).with_name("plain_claims.py"))
POLICIES = str(ROOT / "deploy" / "components" / "policies" / "policies.yaml")
#: How many claims wait at a time.
WAITING = 60
#: Resources whose requests are counted: those that an operator writes for a claim.
COUNTED = ("addressclaims", "addresspools", "configmaps", "events")
TICKS = os.sysconf("SC_CLK_TCK")
#: Ways to run an operator: its name, its program, its fence, and whether the policies are in force.
WAYS: Mapping[str, tuple[str, str, bool]] = {
    "none": ("ipam", "none", False),
    "rv": ("ipam", "rv", False),
    "full": ("ipam", "full", False),
    "full+policies": ("ipam", "full", True),
    "kopf run": ("plain", "", False),
    "plain none": ("plain", "none", False),
    "plain full": ("plain", "full", False),
}


class Client:
    """One connection to the API server, as the administrator or with a bearer token."""

    def __init__(self, plane: ControlPlane, token: str = "") -> None:
        user = yaml.safe_load(plane.kubeconfig.read_text())["users"][0]["user"]
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        self._headers = {"Accept": "application/json, text/plain"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        else:
            files = [plane.scratch / f"admin-{part}.pem" for part in ("client-certificate", "client-key")]
            for file in files:
                file.write_bytes(base64.b64decode(user[f"{file.stem.removeprefix('admin-')}-data"]))
            context.load_cert_chain(str(files[0]), str(files[1]))
        where = urlsplit(plane.servers[0])
        self._http = http.client.HTTPSConnection(where.hostname or "", where.port, context=context, timeout=120)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> bytes:
        """Give the answer's body; the answer must be a success."""
        text = None if body is None else json.dumps(body)
        self._http.request(method, path, text, {**self._headers, "Content-Type": kind})
        answer = self._http.getresponse()
        read = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {read[:500]!r}")
        return read

    def lines(self, path: str) -> Iterator[bytes]:
        """Yield the lines of an answer that does not end."""
        self._http.request("GET", path, headers=self._headers)
        yield from self._http.getresponse()


class Seen:
    """What a watch shows of claims: which have been served since the last `forget`."""

    def __init__(self, plane: ControlPlane) -> None:
        self.done: set[str] = set()
        self.changed = threading.Event()
        self.served: Callable[[str, Mapping[str, Any]], bool] = lambda kind, body: False
        client = Client(plane)
        version = json.loads(client.ask("GET", CLAIMS))["metadata"]["resourceVersion"]
        stream = client.lines(f"{CLAIMS}?watch=1&resourceVersion={version}")
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def forget(self, served: Callable[[str, Mapping[str, Any]], bool]) -> None:
        self.served, self.done = served, set()

    def _read(self, stream: Iterator[bytes]) -> None:
        try:
            for line in stream:
                event = json.loads(line)
                if self.served(event["type"], event["object"]):
                    self.done.add(event["object"]["metadata"]["name"])
                    self.changed.set()
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass  # the control plane has ended


def ready(kind: str, body: Mapping[str, Any]) -> bool:
    """Whether a claim is served."""
    found = (body.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found)


class Bench:
    """A control plane with the reference operator's kinds and rights."""

    def __init__(self, plane: ControlPlane, folder: Path, claims: int) -> None:
        self.plane, self.folder, self.claims = plane, folder, claims
        self.started = 0
        self._idle: dict[str, float] = {}  #: CPU seconds in a second without claims
        plane.kubectl("apply", "-k", str(ROOT / "crds"))
        plane.wait_established()
        plane.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))
        served = ("get", "addressclaims,addresspools")
        until("the kinds to be served", lambda: plane.kubectl(*served, check=False).returncode == 0, timeout=60)
        self.client, self.seen = Client(plane), Seen(plane)

    def round(self, way: str) -> dict[str, dict[str, float]]:
        """Run an operator in one way; give for each phase what was measured."""
        program, fence, policies = WAYS[way]
        self.started += 1
        if policies:
            self.plane.kubectl("apply", "-f", POLICIES)
            until("the policies to be in force", self._refused, timeout=60)
        pool = f"pool-{self.started}"
        self._make_pool(pool, f"10.{100 + self.started}.0.0/20")
        with self._running(program, fence) as operator:
            self.seen.forget(ready)
            self._make(f"first-{self.started}", pool)
            until("the operator to serve", lambda: self.seen.done, timeout=90, watched=[operator])
            names = [f"claim-{self.started}-{n:05}" for n in range(self.claims)]
            self._idle = self._idling(operator)
            found = {"new": self._measure(operator, names, ready, lambda name: self._make(name, pool))}
            if program == "ipam":
                found["stamped"] = self._measure(operator, names, lambda kind, _: kind == "DELETED", self._delete)
            else:
                found["stamped"] = self._measure(operator, names, self._labelled, self._label)
        if policies:
            self.plane.kubectl("delete", "-f", POLICIES)
            until("the policies to be gone", lambda: not self._refused(), timeout=60)
        self._clear()
        return found

    def _clear(self) -> None:
        """Remove what the round has made; no operator runs now."""
        for path in (CLAIMS, POOLS):
            self.client.ask("DELETE", path, {})
            for item in json.loads(self.client.ask("GET", path))["items"]:
                if item["metadata"].get("finalizers"):
                    patch = {"metadata": {"finalizers": None}}
                    self.client.ask("PATCH", f"{path}/{item['metadata']['name']}", patch, MERGE)
        self.client.ask("DELETE", "/api/v1/namespaces/default/configmaps", {})

    @contextmanager
    def _running(self, program: str, fence: str) -> Iterator[Replica]:
        pod = self.plane.pod_identity(NAME, NAME, f"{NAME}-{self.started}")
        config = self.plane.kubeconfig_for(pod.token, name=pod.name)
        mode = ["--fence", fence, *(["--unsafe-fence"] if fence != "full" else [])]
        if not fence:
            arguments, how = ["run", "-A", "--standalone", PLAIN], ("-m", "kopf")
        else:
            what = [*IPAM] if program == "ipam" else ["run", "-A", PLAIN]
            arguments, how = [*what, f"--lease-name={NAME}", "--log-format=plain", *mode], KOPF_HA
        log = self.folder / f"{pod.name}.log"
        one = Replica(pod.name, config, arguments, log, times={}, program=how, env=as_pod(pod, NAME))
        one.start()
        try:
            yield one
        finally:
            one.stop()
            self.plane.kubectl("delete", "pod", pod.name, "-n", NAME, "--force", "--grace-period=0")

    def _measure(
        self, operator: Replica, names: Sequence[str], served: Callable[[str, Mapping[str, Any]], bool],
        begin: Callable[[str], None],
    ) -> dict[str, float]:  # fmt: skip
        """Begin with each claim, a few at a time, and wait until all are served."""
        self.seen.forget(served)
        counted, used, started = self._requests(), self._cpu(operator), time.monotonic()
        for number, name in enumerate(names):
            while number - len(self.seen.done) >= WAITING:
                self.seen.changed.clear()
                if number - len(self.seen.done) >= WAITING and not self.seen.changed.wait(60):
                    raise AssertionError(f"no claim was served for a minute; see {operator.log_path}")
            begin(name)
        until("all claims to be served", lambda: len(self.seen.done) >= len(names), 120, 0.01, watched=[operator])
        took, now = time.monotonic() - started, self._cpu(operator)
        time.sleep(1.5)  # what follows is the claim's, too
        after, last = self._requests(), self._cpu(operator)
        whole = time.monotonic() - started
        found = {"claims/s": len(names) / took}
        found |= {f"{k} CPU, ms": (last[k] - used[k] - self._idle[k] * whole) * 1000 / len(names) for k in used}
        found["reads"] = sum(n - counted.get(k, 0) for k, n in after.items() if k.startswith("GET")) / len(names)
        found["busy"] = sum(now[k] - used[k] for k in used) / took  # cores
        found |= {k: (n - counted.get(k, 0)) / len(names) for k, n in after.items() if n > counted.get(k, 0)}
        return found

    def _idling(self, operator: Replica, seconds: float = 3.0) -> dict[str, float]:
        """Give the CPU seconds that each process uses in a second without claims, as for renewals and probes."""
        time.sleep(1)
        before = self._cpu(operator)
        time.sleep(seconds)
        after = self._cpu(operator)
        return {k: (after[k] - before[k]) / seconds for k in before}

    def _cpu(self, operator: Replica) -> dict[str, float]:
        found = {"operator": seconds_of(operator.pid), "API server": seconds_of(self.plane.apiserver().pid)}
        return found | {"etcd": seconds_of(self.plane.etcd().pid)}

    def _requests(self) -> dict[str, float]:
        """Give the API server's counters of requests, by verb and resource."""
        found: dict[str, float] = collections.defaultdict(float)
        for line in self.client.ask("GET", "/metrics").decode().splitlines():
            if not line.startswith("apiserver_request_total{"):
                continue
            label = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if label["resource"] in COUNTED and label["verb"] not in ("LIST", "WATCH") and not label["dry_run"]:
                part = f"/{label['subresource']}" if label["subresource"] else ""
                code = "" if label["code"].startswith("2") else f" {label['code']}"
                found[f"{label['verb']} {label['resource']}{part}{code}"] += float(line.rpartition(" ")[2])
        return found

    def _make_pool(self, name: str, cidr: str) -> None:
        made = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": name}}
        self.client.ask("POST", POOLS, made | {"spec": {"cidr": cidr}})

    def _make(self, name: str, pool: str) -> None:
        made = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "metadata": {"name": name}}
        self.client.ask("POST", CLAIMS, made | {"spec": {"poolName": pool}})

    def _delete(self, name: str) -> None:
        self.client.ask("DELETE", f"{CLAIMS}/{name}")

    def _label(self, name: str) -> None:
        patch = {"metadata": {"labels": {"round": "second"}}}
        self.client.ask("PATCH", f"{CLAIMS}/{name}", patch, MERGE)

    def _labelled(self, kind: str, body: Mapping[str, Any]) -> bool:
        conditions = (body.get("status") or {}).get("conditions") or ()
        return any(c["message"] == "second" for c in conditions)

    def _refused(self) -> bool:
        """Whether the policies refuse what an administrator may not do: name the Lease's holder."""
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME, "namespace": NAME}}
        wrong = json.dumps(lease | {"spec": {"holderIdentity": "administrator", "leaseTransitions": 0}})
        done = self.plane.kubectl("create", "--dry-run=server", "-f", "-", input=wrong, check=False)
        return "ValidatingAdmissionPolicy" in done.stderr


def seconds_of(pid: int | None) -> float:
    """Give the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(
    bench: Bench, ways: Sequence[str], rounds: Iterator[int], tell: Callable[[str], None] = lambda line: None
) -> dict[tuple[str, str, str], list[float]]:
    """Give all values, by way, phase and what was measured."""
    found: dict[tuple[str, str, str], list[float]] = collections.defaultdict(list)
    for number in rounds:
        # Each round begins with another one, so that none always comes after the same.
        for way in [*ways[number % len(ways) :], *ways[: number % len(ways)]]:
            for phase, values in bench.round(way).items():
                tell(f"{way}, {phase}: " + ", ".join(f"{what} {value:.2f}" for what, value in values.items()))
                for what, value in values.items():
                    found[way, phase, what].append(value)
    return found


def rows(found: Mapping[tuple[str, str, str], list[float]]) -> list[dict[str, Any]]:
    """Give the rows, each beside its peer."""
    asked = [
        (
            "new claims, fence and policies",
            "full+policies",
            "none",
            "new",
            "claims/s",
            ["ratio >= 0.9", "median >= 60"],
        ),
        ("new claims, fence", "full", "none", "new", "claims/s", ["ratio >= 0.9"]),
        ("new claims, optimistic concurrency", "rv", "none", "new", "claims/s", []),
        ("new claims, all lines", "full+policies", "kopf run", "new", "claims/s", ["ratio >= 1.5"]),
        ("deleted claims, fence and policies", "full+policies", "none", "stamped", "claims/s", []),
        ("deleted claims, fence", "full", "none", "stamped", "claims/s", ["ratio >= 0.97"]),
        ("API server, new claims, policies", "full+policies", "full", "new", "API server CPU, ms", ["ratio <= 1.1"]),
        ("API server, new claims, fence", "full", "none", "new", "API server CPU, ms", []),
        ("operator, new claims, fence", "full", "none", "new", "operator CPU, ms", []),
        ("reads of a new claim, fence", "full", "none", "new", "reads", ["most <= 0.1"]),
        ("an operator of people: new claims, fence", "plain full", "plain none", "new", "claims/s", ["ratio >= 0.9"]),
        ("an operator of people: new claims, fence", "plain full", "kopf run", "new", "claims/s", []),
        ("an operator of people: updates, fence", "plain full", "plain none", "stamped", "claims/s", ["ratio >= 0.97"]),
    ]
    return [
        {
            "what": what,
            "unit": "ms" if unit.endswith("ms") else "requests" if unit == "reads" else unit,
            "values": found[way, phase, unit],
            "peer": peer,
            "peer_values": found[peer, phase, unit],
            "goals": goals,
        }
        for what, way, peer, phase, unit, goals in asked
        if (way, phase, unit) in found and (peer, phase, unit) in found
    ]


def run(plane: ControlPlane, folder: Path, seconds: float, claims: int = 200) -> list[dict[str, Any]]:
    """Give rows for `benchmarks.collect`. One round of all ways takes about three minutes.

    Args:
        plane: a control plane without the reference operator.
        folder: for logs.
        seconds: that it may take, more or less.
        claims: of a round.
    """
    bench, began = Bench(plane, folder, claims), time.monotonic()
    bench.round("none")

    def rounds() -> Iterator[int]:
        for number in range(20):
            last = time.monotonic()
            yield number
            if 2 * time.monotonic() - last - began > seconds:
                return

    return rows(measure(bench, list(WAYS), rounds()))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--claims", type=int, default=300)
    parser.add_argument("--cold", action="store_true", help="count the first round, too")
    parser.add_argument("--only", nargs="+", default=list(WAYS), choices=list(WAYS))
    args = parser.parse_args()
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        bench = Bench(plane, Path(folder), args.claims)
        if not args.cold:
            bench.round(args.only[0])
        found = measure(bench, args.only, iter(range(args.rounds)), lambda line: print(line, flush=True))
    console = Console(width=160)
    for phase in ("new", "stamped"):
        whats = dict.fromkeys(what for _, p, what in found if p == phase)
        table = Table(f"{phase}, each claim", *args.only)
        for what in whats:
            cells = (found.get((way, phase, what)) for way in args.only)
            table.add_row(what, *(f"{statistics.median(c):.2f}" if c else "" for c in cells))
        console.print(table)
    table = Table("what", "unit", "median", "peer", "its median", "ratio", "goals")
    for row in rows(found):
        mine, theirs = statistics.median(row["values"]), statistics.median(row["peer_values"])
        shown = (
            f"{mine:.1f}",
            row["peer"],
            f"{theirs:.1f}",
            f"{mine / theirs:.2f}" if theirs else "",
            ", ".join(row["goals"]),
        )
        table.add_row(row["what"], row["unit"], *shown)
    console.print(table)
    console.print(f"{args.claims} claims, {args.rounds} rounds, on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
