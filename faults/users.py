"""The users: they make a claim every moment and delete an old one, and remember how long each of theirs waited."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable

from devcluster.waiting import until
from faults.admin import IPAM, Admin

NAMESPACE, POOL = "users", "faults"
#: Claims that live at a time.
LIVING = 12
#: Seconds between two looks at all claims.
LOOK = 0.1


class Users:
    """Runs from `start` to `stop`.

    Args:
        admin: how they reach the API server.
        pause: seconds between two claims.
    """

    def __init__(self, admin: Admin, pause: float = 0.5) -> None:
        self._admin, self._pause = admin, pause
        self._run = secrets.token_hex(2)  # so that no name comes twice
        self._count = 0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self.made_at: dict[str, float] = {}  #: by name, when its creation was answered, of those that were not deleted
        self.bound_at: dict[str, float] = {}
        self.waits: list[float] = []  #: of all that were bound so far, in seconds
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._make, self._look)]

    def start(self) -> None:
        """Make namespace and pool, and begin."""
        self.install()
        for thread in self._threads:
            thread.start()

    def install(self) -> None:
        """Make namespace and pool, if they are not there."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        until("a namespace", lambda: self._admin.ask("POST", "/api/v1/namespaces", namespace)[0] in (201, 409), 60, 0.3)
        self.pool(POOL, "10.64.0.0/20")

    def pool(self, name: str, cidr: str) -> None:
        """Make a pool."""
        body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": name}}
        path, spec = f"{IPAM}/addresspools", {"spec": {"cidr": cidr}}
        until("a pool", lambda: self._admin.ask("POST", path, body | spec)[0] in (201, 409), 60, 0.3)

    def stop(self) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def claim(self, name: str = "", pool: str = POOL, **meta: object) -> str:
        """Make a claim; give its name, an empty one if nobody said that it was made."""
        with self._lock:
            self._count += 1
            name = name or f"{self._run}-{self._count}"
        body = {
            "apiVersion": "ipam.kopf-ha.dev/v1",
            "kind": "AddressClaim",
            "metadata": {"name": name, **meta},
            "spec": {"poolName": pool},
        }
        status, _ = self._admin.ask("POST", f"{IPAM}/namespaces/{NAMESPACE}/addressclaims", body)
        if status != 201:
            return ""
        with self._lock:
            self.made_at[name] = time.monotonic()
        return name

    def delete(self, name: str) -> None:
        """Delete a claim; it is missed no longer."""
        self.disown(name)
        self._admin.ask("DELETE", f"{IPAM}/namespaces/{NAMESPACE}/addressclaims/{name}")

    def disown(self, name: str) -> None:
        """Miss a claim no longer."""
        with self._lock:
            self.made_at.pop(name, None)
            self.bound_at.pop(name, None)

    def forget(self) -> None:
        """Miss none of those that there are now."""
        with self._lock:
            self.made_at.clear()
            self.bound_at.clear()

    def waiting(self) -> set[str]:
        """Give the claims that have no address."""
        with self._lock:
            return self.made_at.keys() - self.bound_at.keys()

    def served(self, names: Iterable[str]) -> float | None:
        """Give when the last of these claims was bound; None if one is not. Those that were deleted do not count."""
        with self._lock:
            wanted = [name for name in names if name in self.made_at]
            if any(name not in self.bound_at for name in wanted):
                return None
            return max((self.bound_at[name] for name in wanted), default=time.monotonic())

    def _make(self) -> None:
        while not self._stop.wait(self._pause):
            self.claim()
            with self._lock:
                old = [name for name in self.made_at if name in self.bound_at][: max(0, len(self.made_at) - LIVING)]
            for name in old[:2]:
                self.delete(name)

    def _look(self) -> None:
        while not self._stop.wait(LOOK):
            found = self._admin.get(f"{IPAM}/namespaces/{NAMESPACE}/addressclaims?resourceVersion=0")
            now = time.monotonic()
            for item in found.get("items", ()):
                name, status = item["metadata"]["name"], item.get("status") or {}
                with self._lock:
                    if status.get("address") and name in self.made_at and name not in self.bound_at:
                        self.bound_at[name] = now
                        self.waits.append(now - self.made_at[name])
