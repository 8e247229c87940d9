"""What the tests of survival share: the reference operator on a site of its own, and what its etcd says after."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kubernetes import config

from devcluster import ControlPlane
from judge import Expectations, History, Verdict, judge
from kopf_ha._context import boottime
from kopf_ha.core.grant import Grant
from kopf_ha.election import Elector
from kopf_ha.settings import Settings
from testbed.deployment import ROOT
from testbed.replica import TIMES, Replica
from tests.kit.history import history_of
from tests.kit.ipam import LEASE, Ipam
from tests.page import blocks, shell

#: The number of the Lease before anybody led.
BEFORE = 40
#: Of Leases, in seconds.
DURATION = TIMES["lease_duration"]


class Site(Ipam):
    """One test's corner of the control plane, with an administrator who does what he should not."""

    plane: ControlPlane

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        super().__init__(plane, namespace, folder)
        self.plane = plane
        self.since = int(self.read(f"/api/v1/namespaces/{namespace}")["metadata"]["resourceVersion"])

    def end(self, operator: Replica) -> None:
        """Let a replica end in order; it gives its Lease back."""
        self.expendable.add(operator)
        operator.stop()

    def kill(self, operator: Replica) -> None:
        self.expendable.add(operator)
        operator.kill()

    # --- the beginning and the end of each story

    def begin(self, name: str = "one", number: int = BEFORE, **more: Any) -> Replica:
        """Give a leader with token 41, one more than the number, which has bound claim x from pool p."""
        self.make_lease(leaseTransitions=number)
        one = self.operator(name, **more)
        self.apply(self.pool("p", cidr="10.80.0.0/28"), self.claim("x", "p"))
        self.until_settled("x")
        assert self.tokens() == {number + 1}
        return one

    def until_settled(self, *names: str) -> None:
        """Wait until these claims, and all others, are bound and published."""
        self.until_ready(*names)
        self.until("ConfigMaps of all claims", lambda: len(self.children()) == len(self.all("addressclaims")))

    def tokens(self) -> set[int]:
        """The tokens recorded on pools, claims and children."""
        found = [o["status"].get("fencing") for kind in ("addresspools", "addressclaims") for o in self.all(kind)]
        notes = [c["metadata"]["annotations"]["kopf-ha.dev/token"] for c in self.children()]
        return {int(f["token"]) for f in found if f} | {int(n) for n in notes}

    def token(self, kind: str, name: str) -> int:
        return int(self.get(kind, name)["status"]["fencing"]["token"])

    def goes_on(self, above: int, claim: str = "after") -> None:
        """A term above this token works: pools and a new claim bear it, and nothing in the history is wrong."""
        self.apply(self.claim(claim, "p"))
        self.until_settled(claim)
        number = self.lease()["leaseTransitions"]
        assert above < self.token("addressclaim", claim) <= number
        assert above < self.token("addresspool", "p") <= number
        assert max(self.tokens()) <= number, "a stamp that the Lease does not know"
        self.check_consistent()
        verdict = self.judged()
        assert verdict.ok, verdict

    def write_much(self, text: str) -> None:
        """Write what nobody needs, so that the revision rises."""
        names = [f"n{n}" for n in range(60)]
        self.apply(
            *({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n}, "data": {"is": text}} for n in names)
        )

    # --- what etcd says

    def history(self) -> History:
        """All changes of what was made since this site was."""
        whole = history_of(self.plane)
        born = {c.uid for c in whole.changes if c.before is None and c.revision > self.since}
        return History(whole.revision, tuple(c for c in whole.changes if c.uid in born))

    def judged(self) -> Verdict:
        return judge(self.history(), (), Expectations(lease_tampered=True))

    def quiet(self) -> int:
        """Wait until nothing is written, and give the revision."""
        self.until_quiet()
        return self.revision()

    def revision(self) -> int:
        """Etcd's, now."""
        return int(self.read("/api/v1/namespaces?limit=1")["metadata"]["resourceVersion"])

    def touched(self, since: int) -> list[str]:
        """What changed of pools, claims and children after a revision, once all is quiet."""
        self.until_quiet()
        kinds = ("addresspools", "addressclaims", "configmaps")
        return [f"{c.key} at {c.revision}" for c in self.history().of(*kinds) if c.revision > since]


class Follower:
    """An elector on a clock that the test turns by hand; None for the machine's own."""

    def __init__(
        self, site: Site, identity: str, *, turned: bool = False, duration: float = DURATION, recovery: float = 0
    ) -> None:
        self.now = boottime()
        self.grants: list[Grant] = []
        self.causes: list[str] = []
        times: dict[str, Any] = {
            "lease_duration": duration, "renew_deadline": duration * 2 / 3, "retry_period": 0.5, "recovery": recovery
        }  # fmt: skip
        self.elector = Elector(
            Settings(lease_name=LEASE, lease_namespace=site.namespace, identity=identity, pod_uid="u", **times),
            lambda: config.new_client_from_config(str(site.cluster.kubeconfig)),
            on_started=self.grants.append,
            on_stopped=lambda grant, cause: self.causes.append(cause),
            clock=(lambda: self.now) if turned else boottime,
        )
        self.elector.start()

    @property
    def seen(self) -> Any:
        """The revision of the Lease that it has dealt with."""
        return self.elector._driver.state.version

    def leads(self) -> bool:
        self.elector.beat()
        return self.elector.leading and self.elector.grant in self.grants  # told a moment after it is open


def terms(operator: Replica) -> list[int]:
    """The tokens of a process's terms, in order."""
    return [int(n) for n in re.findall(r"leading: token (\d+)", operator.log)]


def shell_of_runbook(heading: str) -> list[str]:
    """Give the commands of the first block of a section of docs/runbook.md that has commands alone."""
    block = next(b for b in blocks(ROOT / "docs" / "runbook.md", heading) if not b.startswith("$ "))
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def run_shell(site: Site, command: str) -> str:
    """Run a command of the documentation as administrator."""
    return shell(site.plane, command, ROOT).strip()
