"""People who make and delete claims all the time, and how long each of their claims waits."""

from __future__ import annotations

import json
import secrets
import threading
import time
from types import TracebackType
from typing import Any

from devcluster.waiting import until
from testbed.stage import LIMIT, Stage
from testbed.watch import Watch

NAMESPACE = "load"
#: Claims at a time, and how many of them live.
BATCH, LIVING = 3, 30
PAUSE = 0.5


class Load:
    """Runs while it is used as a context manager; at its end every claim that lives has an address.

    Args:
        stage: the cluster.
        pool: of which the addresses are.
        cidr: of the pool. Freed addresses rest for a minute, which each new leader counts anew.
        pause: seconds between two batches.
    """

    def __init__(self, stage: Stage, pool: str, cidr: str = "10.40.0.0/22", pause: float = PAUSE) -> None:
        self.stage, self.pool, self._cidr, self._pause = stage, pool, cidr, pause
        self.run = secrets.token_hex(3)  #: so that no name comes twice
        self.made = 0
        self.made_at: dict[str, float] = {}  #: by name, when a claim was seen first
        self.bound_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._maker = threading.Thread(target=self._make, daemon=True)
        self._watch = Watch(stage, ("addressclaims", "-n", NAMESPACE), self._saw)
        self._error: BaseException | None = None

    def __enter__(self) -> Load:
        stage, pool = self.stage, {"cidr": self._cidr}
        body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": self.pool}}
        stage.kubectl("apply", "-f", "-", input=json.dumps(body | {"spec": pool}))
        stage.kubectl("wait", f"addresspool/{self.pool}", "--for=condition=Ready", f"--timeout={LIMIT - 5:g}s")
        stage.shell(f"kubectl get namespace {NAMESPACE} >/dev/null 2>&1 || kubectl create namespace {NAMESPACE}")
        self._watch.start()
        self._maker.start()
        self.wait_for(BATCH)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._maker.join(LIMIT)
        try:
            if error is None:
                self.check()
                self.settle()
                self.stage.kubectl("delete", "addressclaims", "-n", NAMESPACE, "--all", "--wait=false")
        finally:
            self._watch.stop()

    def wait_for(self, more: int) -> None:
        """Wait until that many more claims got an address."""
        goal = len(self.bound_at) + more

        def bound() -> bool:
            self.check()
            return len(self.bound_at) >= goal

        until(f"{more} more claims to be bound", bound, LIMIT, 0.1)

    def settle(self) -> None:
        """Wait until every claim that lives has an address, one of its own, and the others are gone."""

        def settled() -> bool:
            found = self.stage.get("addressclaims", "-n", NAMESPACE)
            claims = [c for c in found if c["metadata"]["name"].startswith(self.run)]
            given = [(c.get("status") or {}).get("address") for c in claims]
            living = all(not c["metadata"].get("deletionTimestamp") for c in claims)
            return living and all(given) and len(set(given)) == len(given)

        until("every claim to have an address of its own", settled, LIMIT, 0.5)

    def check(self) -> None:
        """Raise what went wrong here."""
        if self._error is not None:
            raise self._error

    def waits(self) -> list[float]:
        """Give the seconds that each claim waited for its address."""
        return [at - self.made_at[name] for name, at in list(self.bound_at.items()) if name in self.made_at]

    def _names(self, first: int) -> list[str]:
        return [f"{self.run}-{first + n}" for n in range(BATCH)]

    def _make(self) -> None:
        try:
            while not self._stop.is_set():
                names = self._names(self.made)
                items = [
                    {
                        "apiVersion": "ipam.kopf-ha.dev/v1",
                        "kind": "AddressClaim",
                        "metadata": {"name": name, "namespace": NAMESPACE},
                        "spec": {"poolName": self.pool},
                    }
                    for name in names
                ]
                body = {"apiVersion": "v1", "kind": "List", "items": items}
                self.stage.kubectl("create", "-f", "-", input=json.dumps(body))
                old = self._names(self.made - LIVING) if self.made >= LIVING else []
                self.made += BATCH
                if old:
                    self.stage.kubectl("delete", "addressclaims", "-n", NAMESPACE, "--wait=false", *old)
                self._stop.wait(self._pause)
        except BaseException as error:
            self._error = error

    def _saw(self, body: dict[str, Any]) -> None:
        now, name = time.monotonic(), body["metadata"]["name"]
        self.made_at.setdefault(name, now)
        if (body.get("status") or {}).get("address"):
            self.bound_at.setdefault(name, now)
