"""What the tests of the reference operator share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devcluster import Cluster, Process
from devcluster.waiting import until

ROOT = Path(__file__).parents[2]
API = "ipam.kopf-ha.dev/v1"
KINDS = ("addressclaims", "addresspools")
#: Generous: nothing here says how long something may take.
LIMIT = 60.0


class Ipam:
    """A cluster with the CRDs, one namespace, and operators."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.folder = folder
        self.operators: list[Operator] = []

    # objects

    def pool(self, name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": API, "kind": "AddressPool", "metadata": {"name": name}, "spec": spec}

    def claim(self, name: str, pool: str, **spec: Any) -> dict[str, Any]:
        meta = {"name": name, "namespace": self.namespace}
        return {"apiVersion": API, "kind": "AddressClaim", "metadata": meta, "spec": {"poolName": pool, **spec}}

    def kubectl(self, *args: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.cluster.kubectl("-n", self.namespace, *args, check=check, input=input)

    def apply(self, *objects: Mapping[str, Any], check: bool = True) -> subprocess.CompletedProcess[str]:
        many = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "-f", "-", input=json.dumps(many), check=check)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Give the object, an empty one if it is not there."""
        done = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def all(self, kind: str) -> list[dict[str, Any]]:
        return list(json.loads(self.kubectl("get", kind, "-o", "json").stdout)["items"])

    def children(self) -> list[dict[str, Any]]:
        done = self.kubectl("get", "configmap", "-l", "app.kubernetes.io/managed-by=kopf-ha-ipam", "-o", "json")
        return list(json.loads(done.stdout)["items"])

    def delete(self, kind: str, *names: str, wait: bool = True) -> None:
        """Delete what is there; with `wait` until it is gone."""
        self.kubectl("delete", kind, *names, f"--wait={str(wait).lower()}", "--timeout=60s", "--ignore-not-found")

    # waiting

    def until(self, what: str, check: Callable[[], Any]) -> Any:
        return until(what, check, LIMIT, watched=[o for o in self.operators if o.must_run])

    def until_ready(self, *names: str) -> dict[str, str]:
        """Wait until the claims (all, if none are named) are bound, and give their addresses."""

        def check() -> dict[str, str] | None:
            claims = [c for c in self.all("addressclaims") if not names or c["metadata"]["name"] in names]
            bound = {c["metadata"]["name"]: address(c) for c in claims if condition(c) == "Bound"}
            return bound if len(bound) == (len(names) or len(claims)) and bound else None

        return dict(self.until(f"claims {names or 'all'} to be bound", check))

    def until_reason(self, kind: str, name: str, reason: str) -> str:
        """Wait until Ready has the reason, and give its message."""

        def check() -> str | None:
            found = self.get(kind, name)
            return message(found) if condition(found) == reason else None

        return str(self.until(f"{kind} {name} to be {reason}", check))

    def until_gone(self, kind: str, name: str) -> None:
        self.until(f"{kind} {name} to be gone", lambda: not self.get(kind, name))

    def until_quiet(self) -> None:
        """Wait until nobody writes anything of ours for a while (I7)."""
        before: list[Any] = []

        def check() -> bool:
            nonlocal before
            every = [o for k in KINDS for o in self.all(k)] + self.children()
            versions = sorted(o["metadata"]["resourceVersion"] for o in every)
            same, before = versions == before, versions
            return same

        until("writes to stop", check, LIMIT, every=1.5)

    # operators

    def operator(self, name: str = "a", *, launcher: Path | None = None, **env: str) -> Operator:
        """Start a replica. All of one test share a Lease."""
        made = Operator(self, name, launcher, env)
        self.operators.append(made)
        made.start()
        return made

    def until_leader(self, operator: Operator) -> None:
        def check() -> bool:
            lease = self.get("lease", "ipam-test")
            return str((lease.get("spec") or {}).get("holderIdentity") or "").startswith(f"{operator.name}_")

        until(f"{operator.name} to lead", check, LIMIT, watched=[operator])

    def vacate_lease(self) -> None:
        """Spare the wait for the expiry, for a leader that is known to be dead or paused."""
        patch = json.dumps({"spec": {"holderIdentity": ""}})
        self.kubectl("patch", "lease", "ipam-test", "--type=merge", "-p", patch)

    # the promise

    def check_consistent(self) -> None:
        """I5, and that pools, claims and ConfigMaps say the same."""
        claims = self.all("addressclaims")
        held = {a: o for p in self.all("addresspools") for a, o in (p["status"].get("allocations") or {}).items()}
        told = {address(c): owner(c) for c in claims if address(c)}
        assert len(told) == sum(1 for c in claims if address(c)), "one address was given twice"
        assert held == told
        published = {c["metadata"]["ownerReferences"][0]["uid"]: c["data"]["ADDRESS"] for c in self.children()}
        assert published == {c["metadata"]["uid"]: address(c) for c in claims if address(c)}

    def clear(self) -> None:
        """Stop operators and remove everything, finalizers or not."""
        for operator in self.operators:
            operator.kill()
            print(f"--- {operator.name}", *operator.log.splitlines()[-100:], sep="\n")  # pytest shows it on failure
        for kind in KINDS:
            found = json.loads(self.cluster.kubectl("get", kind, "-A", "-o", "json").stdout)["items"]
            for item in found:
                meta = item["metadata"]
                where = [f"--namespace={meta['namespace']}"] if "namespace" in meta else []
                patch = '{"metadata": {"finalizers": null}}'
                self.cluster.kubectl("delete", kind, meta["name"], *where, "--wait=false", check=False)
                self.cluster.kubectl("patch", kind, meta["name"], *where, "--type=merge", "-p", patch, check=False)


class Operator(Process):
    """One replica as a subprocess."""

    def __init__(self, ipam: Ipam, name: str, launcher: Path | None, env: Mapping[str, str]) -> None:
        start = [sys.executable, str(launcher)] if launcher else [sys.executable, "-m", "kopf_ha"]
        argv = [
            *start, "run", "-A", "-m", "kopf_ha_ipam.handlers", "--deciding=addresspools.ipam.kopf-ha.dev",
            "--lease-name=ipam-test", f"--lease-namespace={ipam.namespace}", "--lease-duration=3", "--renew-deadline=2",
            "--retry-period=0.5", "--after-loss=follow",
        ]  # fmt: skip
        environment = os.environ | {
            "KUBECONFIG": str(ipam.cluster.kubeconfig),
            "PYTHONPATH": str(ROOT / "operator"),
            "POD_NAME": name,
            "POD_NAMESPACE": ipam.namespace,
            "KOPF_HA_IPAM_QUARANTINE": "1",
            **env,
        }
        self.must_run = launcher is None
        super().__init__(name, argv, environment, ipam.folder / f"{name}.log")

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path and self.log_path.exists() else ""

    def said(self, pattern: str) -> bool:
        return re.search(pattern, self.log) is not None


def condition(body: Mapping[str, Any], field: str = "reason") -> str:
    found = (body.get("status") or {}).get("conditions") or ()
    return next((str(c[field]) for c in found if c["type"] == "Ready"), "")


def message(body: Mapping[str, Any]) -> str:
    return condition(body, "message")


def address(body: Mapping[str, Any]) -> str:
    return str((body.get("status") or {}).get("address") or "")


def owner(body: Mapping[str, Any]) -> str:
    meta = body["metadata"]
    return f"{meta['namespace']}/{meta['name']}/{meta['uid']}"
