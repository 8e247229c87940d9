"""Where faults happen: a control plane with everything in deploy/, three replicas, each behind a link, and users."""

from __future__ import annotations

from collections.abc import Callable, Set
from pathlib import Path
from types import TracebackType
from typing import Any

import judge
from devcluster import Binaries, ControlPlane, DevclusterError
from devcluster.waiting import until
from faults import clock
from faults.admin import IPAM, Admin
from faults.link import Link
from faults.seat import Seat
from faults.users import Users
from testbed import deployment
from testbed.deployment import ACCOUNT, NAME

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAME}/leases/{NAME}"
#: Seconds that are waited for what has to come, however slow the machine is.
PATIENCE = 120.0


class Stand:
    """Runs while it is used as a context manager.

    Args:
        binaries: of the control plane.
        folder: for all that is written.
        lease: the duration of the Lease, in seconds; deadline and retry period follow it.
        large: three members of etcd and two API servers, of which the second lags when it is told to.
        pause: seconds between two claims.
        plain: replicas as they are: their clocks cannot be changed, and they write no traces.
    """

    def __init__(
        self,
        binaries: Binaries,
        folder: Path,
        lease: int = 5,
        *,
        large: bool = False,
        pause: float = 0.5,
        plain: bool = False,
    ) -> None:
        self.folder, self.lease_duration, self.large = folder, lease, large
        self._pause, self._plain = pause, plain
        flags = ["--service-account-extend-token-expiration=false"]
        self.plane = ControlPlane(
            folder / "cluster", etcd=3 if large else 1, apiservers=2 if large else 1, lagging=large,
            binaries=binaries, apiserver_args=flags,
        )  # fmt: skip
        self.links: list[Link] = []
        self.seats: list[Seat] = []
        self.gone: list[Seat] = []
        self.tampered = False  #: whether somebody edited the Lease
        self._known: set[str] = set()

    def __enter__(self) -> Stand:
        self.plane.start()
        try:
            self._install()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _install(self) -> None:
        plane = self.plane
        self.admin = Admin(plane)
        self.shim = None if self._plain else clock.library(self.folder)
        deployment.install(plane)
        self.sit()
        self.users = Users(self.admin, self._pause)
        self.users.start()

    def close(self) -> None:
        """End everything."""
        if hasattr(self, "users"):
            self.users.stop()
        for link in self.links:
            link.heal()
        for seat in self.seats:
            seat.ask()  # all at once: otherwise each of the last ones would lead for a moment
        for seat in self.seats:
            try:
                seat.replica.wait(15)
            except DevclusterError:
                pass  # it is killed next
            seat.stop()
        for link in self.links:
            link.stop()
        self.plane.stop()

    # --- the replicas

    def sit(self) -> None:
        """Take the three pods of the Deployment, and start a process in each."""
        found = deployment.pods(self.plane)
        container = deployment.container(self.plane)
        quarantine = 4 * self.lease_duration  # as 60 s are to the 15 s of deploy/
        env = {
            "KOPF_HA_LEASE_DURATION": str(self.lease_duration),
            "KOPF_HA_IPAM_QUARANTINE": str(quarantine),
        }
        pki = self.plane.folder / "pki"
        for pod in found:
            certs = (str(pki / "server.crt"), str(pki / "server.key"), str(pki / "ca.crt"))
            link = Link(self.plane.servers[0], *certs)
            link.start()
            self.links.append(link)
            self.seats.append(
                Seat(self.plane, self.folder, pod, container, env, self.shim, link, traced=not self._plain)
            )
        for seat in self.seats:
            seat.start()

    def leave(self) -> None:
        """End all processes at once, as when their pods are deleted."""
        for seat in self.seats:
            seat.stop()
        self.gone += self.seats
        self.seats = []

    def lease(self) -> tuple[str, int]:
        """Give the Lease's holder and its token; nobody and 0 without an answer, or without a Lease."""
        spec = self.admin.get(LEASE).get("spec") or {}
        return str(spec.get("holderIdentity") or ""), int(spec.get("leaseTransitions") or 0)

    def leading(self) -> Seat | None:
        """Give the pod that the Lease names, if its process runs."""
        holder = self.lease()[0].split("_")[0]
        return next((s for s in self.seats if s.name == holder and s.replica.running), None)

    def leader(self) -> Seat:
        """Wait for a leader, and give it."""
        return until("a leader", self.leading, PATIENCE, 0.1)

    def others(self, seat: Seat) -> list[Seat]:
        """Give the other pods."""
        return [other for other in self.seats if other is not seat]

    def calm(self) -> None:
        """Wait until three replicas run, one leads, nobody waits and a new claim is served.

        Raises:
            DevclusterError: that does not happen.
        """
        until("three processes that know who leads", lambda: all(s.follows for s in self.seats), PATIENCE, 0.3)
        self.leader()
        self.serves()

    def serves(self, but: Set[str] = frozenset()) -> float:
        """Wait until a new claim, and all that wait, are served; give when that was.

        Args:
            but: claims that nobody can serve.
        """
        name = until("a claim to be made", self.users.claim, PATIENCE, 0.1)
        wanted = (self.users.waiting() | {name}) - but
        return until("claims to be served", lambda: self.users.served(wanted), PATIENCE, 0.05)

    # --- what an administrator does

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator."""
        return self.plane.kubectl(*args, input=input, check=check).stdout

    def retried(self, what: str, do: Callable[[], Any]) -> None:
        """Do something again until the API server takes it: what puts a cluster in order must not fail."""

        def attempt() -> bool:
            try:
                do()
            except DevclusterError:
                return False
            return True

        until(what, attempt, PATIENCE, 0.5)

    def steal(self, seat: Seat, token: int) -> list[tuple[int, str]]:
        """Write a pool with a replica's credentials and none of our code; give the answers."""
        late = Admin(self.plane, bearer=seat.bearer)
        stamp = {
            "lease": f"{NAME}/{NAME}",
            "token": token,
            "podUID": seat.uid,
            "holder": f"{seat.name}_{seat.uid}_late",
        }
        theft = {"allocations": {"10.64.0.200": "users/x/y"}}
        path = f"{IPAM}/addresspools/faults/status"
        told = []
        for body in ({"status": {"fencing": stamp, **theft}}, {"status": theft}):
            status, answer = late.ask("PATCH", path, body, "application/merge-patch+json")
            told.append((status, str(answer.get("message", ""))))
        return told

    # --- the judge

    def findings(self) -> list[str]:
        """Have the judge look at all that ever happened; give what it found since the last time."""
        plane = self.plane
        history = judge.read_history(plane.etcd_endpoints[0], plane.etcd_ca, plane.etcd_cert, plane.etcd_key)
        expected = judge.Expectations(
            operator_user=ACCOUNT, lease_names=(f"{NAME}/{NAME}",), lease_tampered=self.tampered
        )
        self.verdict = judge.judge(history, judge.read_audit(plane.audit_logs), expected)
        self.history = history
        new = [str(f) for f in self.verdict.findings if str(f) not in self._known]
        self._known |= {*new}
        return new
