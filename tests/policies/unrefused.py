"""What line 3 cannot refuse, shown on the real API server, with what protects instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.kit.client import MERGE, Answer, Client
from tests.policies.fenced import POOLS, Fenced


@dataclass(frozen=True)
class Case:
    """One thing that is accepted, or one that is refused nearby."""

    what: str
    answer: Answer
    instead: str


class Cases:
    """All of them."""

    def __init__(self, fenced: Fenced) -> None:
        self.f = fenced

    def all(self) -> Iterator[Case]:
        yield from self.invented()
        yield from self.one_pod()
        yield from self.not_yet_stamped()
        yield from self.creations()
        yield from self.lease()

    def _patch(self, by: Client, path: str, body: dict[str, Any]) -> Answer:
        return by("PATCH", path, body, MERGE)

    def _label(self, by: Client, path: str) -> Answer:
        return self._patch(by, path, {"metadata": {"labels": {"a": "b"}}})

    def invented(self) -> Iterator[Case]:
        f, path = self.f, self.f.pool()
        f.stamp(f.old, path, 7)
        f.stamp(f.new, path, 8)
        fencing = f.old.stamp(99, f.lease).as_status()
        answer = self._patch(f.old, path + "/status", {"status": {"free": 1, "fencing": fencing}})
        yield Case(
            "A client with the operator’s account invents a token above the recorded one",
            answer,
            "A late leader never does this; only a program that lies does. The leader’s next write finds the higher"
            " token and reads the Lease. It sees that it still leads, raises the Lease above that token, and begins"
            " a new term with a new barrier.",
        )
        answer = self._label(f.new, path)
        yield Case(
            "…then the current leader writes with its lower token",
            answer,
            "This is how the leader notices. Nothing is lost.",
        )

    def one_pod(self) -> Iterator[Case]:
        """Line 3 tells pods apart, not the processes or terms of one."""
        f, path = self.f, self.f.pool()
        f.stamp(f.new, path, 7)
        now = f.stamp(f.old, path, 8)
        again = replace(f.new.stamp(9, f.lease), holder=f"{f.new.pod}_{f.new.uid}_2")
        now = f.new.must("PATCH", path + "/status", {"status": {"fencing": again.as_status()}}, MERGE)
        text = "The stale request’s resourceVersion (line 2): the new term’s stamp changed it."
        yield Case(
            "Terms 7 and 9 are of one pod: a late write of term 7 to the main resource", self._label(f.new, path), text
        )
        status = {"status": {"free": 1}}
        yield Case("…to the status, without a stamp", self._patch(f.new, path + "/status", status), text)
        status["status"]["fencing"] = f.new.stamp(7, f.lease).as_status()  # type: ignore[assignment]
        yield Case("…to the status, with its stamp", self._patch(f.new, path + "/status", status), "")
        late = {"metadata": {"labels": {"a": "c"}, "resourceVersion": now["metadata"]["resourceVersion"]}}
        yield Case("…with the resourceVersion that it knew, as the fence sends it", self._patch(f.new, path, late), "")
        status["status"]["fencing"] = f.new.stamp(9, f.lease).as_status()  # type: ignore[assignment]
        yield Case("Token 9 again, by another process of the pod", self._patch(f.new, path + "/status", status), "")

    def not_yet_stamped(self) -> Iterator[Case]:
        f, path = self.f, self.f.claim()
        f.stamp(f.old, path, 7)
        yield Case(
            "The stale leader’s write to an object that no newer term has stamped",
            self._label(f.old, path),
            "The barrier: the new leader stamps an object of a deciding kind before it decides anything from it. It"
            " stamps other objects with its first write to them, before it relies on them.",
        )
        child = f.child(f.old, 7)
        answer = f.old(
            "DELETE", child, {"preconditions": {"resourceVersion": f.read(child)["metadata"]["resourceVersion"]}}
        )
        yield Case(
            "…its deletion of a child that no newer term has stamped",
            answer,
            "The same. When the new leader looks next, it creates the child again.",
        )

    def creations(self) -> Iterator[Case]:
        f = self.f
        body = {"metadata": {"name": f"pool-{f.number()}"}, "spec": {"cidr": "10.250.0.0/28"}}
        body |= {"apiVersion": "fenced.kopf-ha.dev/v1", "kind": "FencedPool"}  # type: ignore[dict-item]
        yield Case(
            "The stale leader creates an object of a stamped kind",
            f.old("POST", POOLS, body),
            "The RBAC from `kopf-ha manifests` does not allow `create` for these kinds, because users create them."
            " A creation cannot carry a stamp, because the API server drops a new object’s status.",
        )
        child = f.child_body(f"late-{f.number()}", f.old.stamp(7, f.lease))
        yield Case(
            "The stale leader creates a child, with its own stamp",
            f.old("POST", f.children, child),
            "There is no earlier token to compare with. The name of a child is derived from its owner’s uid, so a"
            " late child belongs to no other owner. Freed addresses are not given again at once.",
        )

    def lease(self) -> Iterator[Case]:
        f = self.f
        f.acquire(f.new)
        now = f.read(f"{f.leases}/leader")
        token = now["spec"]["leaseTransitions"]
        now["spec"] |= {"holderIdentity": f.old.stamp(1, "").holder, "leaseTransitions": token + 1}
        yield Case(
            "The stale leader takes the Lease before it expires, and raises the token",
            f.old("PUT", f"{f.leases}/leader", now),
            "This is a new term with a new token, so it is safe; the term before is lost. It may raise the token as"
            " far as 2,000,000,000, so a program that lies can use up the tokens.",
        )
