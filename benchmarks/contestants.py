"""Programs that elect a leader, each with two replicas: ours and the peers of `benchmarks.peers`."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.takeover import at, pod_of
from devcluster import Binaries, ControlPlane, DevclusterError, Process
from devcluster.waiting import until
from testbed.peering import PEERINGS
from testbed.replica import KOPF_HA, Replica, as_pod

SPACE = "peers"
#: Programs of the contestants.
PROGRAMS = ("kube-controller-manager", "kube-scheduler", "leader-election")
OPERATOR = """
import kopf

@kopf.on.create("configmaps", labels={"peers": "yes"})
def made(**_):
    pass
"""


class Audit:
    """The API server's audit log, read once however many ask. Not safe for several threads."""

    def __init__(self, plane: ControlPlane) -> None:
        self._path, self._read, self._rest = plane.audit_logs[0], 0, b""
        self.events: list[dict[str, Any]] = []

    def look(self) -> list[dict[str, Any]]:
        """Give the writes of Leases, ConfigMaps and ReplicaSets that succeeded so far, the oldest first."""
        with self._path.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            if b'"get"' in line or b'"list"' in line or b'"watch"' in line or b"dryRun" in line:
                continue
            event = json.loads(line)
            resource = (event.get("objectRef") or {}).get("resource")
            code = (event.get("responseStatus") or {}).get("code", 0)
            if resource in ("leases", "configmaps", "replicasets") and code < 300 and "stageTimestamp" in event:
                self.events.append(event)
        return self.events


def holder(event: dict[str, Any], lease: str) -> str:
    """Give the name that a write put into a Lease of the benchmark's namespace; empty for anything else."""
    ref = event["objectRef"]
    if ref["resource"] != "leases" or ref.get("name", lease) != lease or ref.get("namespace") != SPACE:
        return ""
    body = event.get("requestObject") or {}
    if ref.get("name") is None and (body.get("metadata") or {}).get("name") != lease:
        return ""
    return str((body.get("spec") or {}).get("holderIdentity") or "")


class Contestant:
    """Two replicas of one program: a leader and a follower.

    Args:
        name: of the program, for the reader.
        start: starts one more replica, which has the given name.
        follows: what a follower logs when it is one, or what sees that.
        releases: whether the leader gives its place up when it gets SIGTERM.
        slow: whether the others wait for a minute when the leader is killed.
        lease: the Lease that they elect by; empty if there is none.
        writes: the namespace in which the leader handles ConfigMaps; empty if it handles none.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[str], Process],
        follows: str | Callable[[Process], bool],
        *,
        releases: bool = True,
        slow: bool = False,
        lease: str = "",
        writes: str = "",
    ) -> None:
        self.name, self.releases, self.slow, self.lease, self.writes = name, releases, slow, lease, writes
        self._start, self._follows = start, follows
        self._names = (f"{lease or writes}-{n}" for n in itertools.count())
        self.leader: Process | None = None
        self.follower: Process | None = None

    def begin(self, audit: Audit) -> None:
        """Start both, the leader first."""
        self.leader = self._start(next(self._names))
        if self.lease:
            what = f"a leader of {self.name} (log: {self.leader.log_path})"
            until(what, lambda: bool(self.held(audit.look())), watched=[self.leader])
        self.follow()

    def follow(self) -> None:
        """Start a follower, without waiting for it."""
        self.follower = self._start(next(self._names))

    def settle(self) -> None:
        """Wait until the follower is one."""
        follower = self.the(self.follower)
        until(f"{self.name} to follow", lambda: self._is_one(follower), watched=[follower])

    def _is_one(self, follower: Process) -> bool:
        return self._follows in follower.log_tail(100) if isinstance(self._follows, str) else self._follows(follower)

    def succeed(self) -> None:
        """The follower leads; what is left of the leader ends."""
        self.the(self.leader).kill()
        self.leader, self.follower = self.follower, None

    def end(self) -> None:
        """End both."""
        for process in (self.leader, self.follower):
            if process is not None:
                process.kill()

    def the(self, process: Process | None) -> Process:
        """Give a replica, which has to be there."""
        if process is None:
            raise DevclusterError(f"{self.name} was not started")
        return process

    def taken(self, events: list[dict[str, Any]], since: float, old: str) -> float | None:
        """Give when somebody else than `old` wrote its name into the Lease."""
        return next((at(e) for e in _after(events, since) if holder(e, self.lease) not in ("", old)), None)

    def wrote(self, events: list[dict[str, Any]], since: float) -> float | None:
        """Give when the follower wrote to an object."""
        name = self.the(self.follower).name
        for event in _after(events, since):
            ref = event["objectRef"]
            if event["verb"] == "patch" and ref.get("namespace") == self.writes and pod_of(event) == name:
                return at(event)
        return None

    def held(self, events: list[dict[str, Any]]) -> str:
        """Give who holds the Lease."""
        return next((found for e in reversed(events) if (found := holder(e, self.lease))), "")


def _after(events: list[dict[str, Any]], since: float) -> Iterator[dict[str, Any]]:
    return (event for event in events if at(event) > since)


class Field:
    """A cluster with what the contestants need; makes each of them."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        (folder / "op.py").write_text(OPERATOR)
        spaces = (SPACE, "ours", "kopf")
        items: list[dict[str, Any]] = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in spaces
        ]
        items += [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": name}}
            for name in spaces
        ]
        self.create([*items, PEERINGS])
        accounts = [f"--serviceaccount={name}:operator" for name in spaces]
        plane.kubectl("create", "clusterrolebinding", SPACE, "--clusterrole=cluster-admin", *accounts)
        plane.wait_established()
        self.create([{"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": {"name": SPACE}}], "kopf")

    @cached_property
    def programs(self) -> Binaries:
        """The peers' programs."""
        return Binaries.find(PROGRAMS)

    def create(self, items: list[dict[str, Any]], namespace: str = "") -> None:
        """Create objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        where = ["-n", namespace] if namespace else []
        self.plane.kubectl("create", *where, "-f", "-", input=text)

    def _operator(self, name: str, space: str, arguments: list[str], program: tuple[str, ...]) -> Process:
        """Start the small operator, with the credentials of a pod, so that the audit log tells replicas apart."""
        pod = self.plane.pod_identity(space, "operator", name)
        config = self.plane.kubeconfig_for(pod.token, name=name)
        every = ["run", "-n", space, *arguments, str(self.folder / "op.py")]
        log = self.folder / f"{name}.log"
        made = Replica(name, config, every, log, times={}, program=program, env=as_pod(pod, space))
        made.start()
        return made

    def _program(self, name: str, *argv: str) -> Process:
        made = Process(name, argv, log_path=self.folder / f"{name}.log")
        made.start()
        return made

    def ours(self, lease: str = "ours", *more: str, writes: str = "ours") -> Contestant:
        """kopf-ha, with its defaults, 15/10/2 s, but for further arguments."""
        arguments = [f"--lease-name={lease}", f"--lease-namespace={SPACE}", *more]

        def start(name: str) -> Process:
            return self._operator(name, "ours", arguments, KOPF_HA)

        return Contestant("kopf-ha", start, "new leader: ", lease=lease, writes=writes)

    def peering(self) -> Contestant:
        """Kopf's own, with its default lifetime of 60 s; each next replica has a lower priority, so that it waits."""
        priorities: dict[str, int] = {}

        def start(name: str) -> Process:
            priorities[name] = 1000 - len(priorities)
            given = [f"--peering={SPACE}", f"--priority={priorities[name]}"]
            return self._operator(name, "kopf", given, ("-m", "kopf"))

        def registered(follower: Process) -> bool:
            shown = self.plane.kubectl("get", "kopfpeering", SPACE, "-n", "kopf", "-o", "json").stdout
            peers = (json.loads(shown).get("status") or {}).values()
            return priorities[follower.name] in [peer["priority"] for peer in peers]

        return Contestant("Kopf's peering, lifetime 60 s", start, registered, slow=True, writes="kopf")

    def go(self, program: str, *, releases: bool, extra: tuple[str, ...] = ()) -> Contestant:
        """client-go in a program of Kubernetes, with its defaults, 15/10/2 s."""

        def start(name: str) -> Process:
            flags = (
                f"--kubeconfig={self.plane.kubeconfig}", "--leader-elect=true", "--secure-port=0", "--profiling=false",
                f"--leader-elect-resource-namespace={SPACE}", f"--leader-elect-resource-name={program}",
            )  # fmt: skip
            return self._program(name, str(self.programs[program]), *flags, *extra)

        said = "ttempting to acquire leader lease"
        return Contestant(f"client-go, {program}", start, said, releases=releases, lease=program)

    def example(self) -> Contestant:
        """client-go's example, whose 60/15/5 s cannot be set."""

        def start(name: str) -> Process:
            flags = (f"-kubeconfig={self.plane.kubeconfig}", f"-id={name}")
            where = ("-lease-lock-name=example", f"-lease-lock-namespace={SPACE}")
            return self._program(name, str(self.programs["leader-election"]), *flags, *where)

        return Contestant("client-go's example, 60/15/5 s", start, "new leader elected", slow=True, lease="example")

    def python(self) -> Contestant:
        """The election of the `kubernetes` client, 15/10/2 s."""
        script = str(Path(__file__).with_name("python_election.py"))

        def start(name: str) -> Process:
            return self._program(name, sys.executable, script, str(self.plane.kubeconfig), SPACE, "python", name)

        return Contestant("kubernetes (Python client)", start, "is a follower", releases=False, lease="python")

    def all(self) -> list[Contestant]:
        """Give them, ours first."""
        kcm = ("--controllers=ttl-after-finished-controller",)
        return [
            self.ours(),
            self.go("kube-scheduler", releases=True),
            self.go("kube-controller-manager", releases=False, extra=kcm),
            self.python(),
            self.example(),
            self.peering(),
        ]
