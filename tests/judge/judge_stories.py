"""Histories made by hand: each call is one revision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from judge import AuditEntry, History, Key
from judge.history import Object, replay
from judge.shapes import GROUP

USER = "system:serviceaccount:ipam:kopf-ha-ipam"
LEASE = "ipam/kopf-ha-ipam"
NOTE = "kopf-ha.dev/stamp-b391bd69bfc591cf"


@dataclass(frozen=True)
class Replica:
    """One process in one pod."""

    pod: str
    life: str = "a"

    @property
    def pod_uid(self) -> str:
        return f"uid-of-{self.pod}"

    @property
    def holder(self) -> str:
        return f"{self.pod}_{self.pod_uid}_{self.life}"

    def stamp(self, token: int) -> dict[str, Any]:
        return {"lease": LEASE, "token": token, "holder": self.holder, "podUID": self.pod_uid}

    def notes(self, token: int) -> dict[str, str]:
        return {NOTE: f"{token} {LEASE} {self.pod_uid} {self.holder}"}

    def earlier(self, token: int) -> dict[str, str]:
        values = {"lease": LEASE, "token": str(token), "holder": self.holder, "pod-uid": self.pod_uid}
        return {f"kopf-ha.dev/{name}": value for name, value in values.items()}


ZERO, ONE = Replica("ipam-0"), Replica("ipam-1")
Term = tuple[Replica, int] | None


@dataclass
class Story:
    revision: int = 1
    writes: list[tuple[int, Key, Object | None]] = field(default_factory=list)
    audit: list[AuditEntry] = field(default_factory=list)

    @property
    def history(self) -> History:
        return replay(self.revision, self.writes)

    def write(self, key: Key, value: Object | None) -> int:
        self.revision += 1
        self.writes.append((self.revision, key, value))
        return self.revision

    @property
    def last(self) -> Object:
        """What was written last."""
        value = self.writes[-1][2]
        assert value is not None
        return value

    def lease(self, number: int | None, holder: str, uid: str = "lease-1") -> int:
        spec: dict[str, Any] = {"holderIdentity": holder, "leaseTransitions": number}
        namespace, name = LEASE.split("/")
        return self.write(Key("", "leases", namespace, name), {"metadata": {"uid": uid}, "spec": spec})

    def pool(
        self,
        taken: dict[str, str],
        term: Term = None,
        name: str = "blue",
        spec: Any = None,
        state: str = "Active",
        **meta: Any,
    ) -> int:
        status: dict[str, Any] = {"allocations": {a: f"default/{c}/{c}" for a, c in taken.items()}, "state": state}
        if term:
            status["fencing"] = term[0].stamp(term[1])
        body = {"metadata": {"uid": f"pool-{name}", **meta}, "spec": spec or {"cidr": "10.20.0.0/24"}, "status": status}
        return self.write(self.pool_key(name), body)

    def claim(
        self,
        name: str,
        address: str = "",
        term: Term = None,
        pool: str = "blue",
        spec: Any = None,
        conditions: Any = (),
        **meta: Any,
    ) -> int:
        """The claim's uid is its name."""
        status: dict[str, Any] = {"address": address} if address else {}
        if conditions:
            status["conditions"] = list(conditions)
        if term:
            status["fencing"] = term[0].stamp(term[1])
        body = {"metadata": {"uid": name, **meta}, "spec": spec or {"poolName": pool}, "status": status}
        return self.write(self.claim_key(name), body)

    def child(self, claim: str, address: str, term: Term = None, **meta: Any) -> int:
        owner = {"kind": "AddressClaim", "name": claim, "uid": claim}
        notes = term[0].notes(term[1]) if term else {}
        body = {
            "metadata": {"uid": f"child-{claim}", "ownerReferences": [owner], "annotations": notes, **meta},
            "data": {"ADDRESS": address},
        }
        return self.write(self.child_key(claim), body)

    def waits(self, name: str, created: str, term: Term = None, reason: str = "PoolExhausted", **meta: Any) -> int:
        """The operator has taken the claim on, and told it what it waits for."""
        ready = {"type": "Ready", "status": "False", "reason": reason}
        meta = {"creationTimestamp": created, "finalizers": [f"{GROUP}/finalizer"], **meta}
        return self.claim(name, "", term, conditions=[ready], **meta)

    def gone(self, key: Key) -> int:
        return self.write(key, None)

    @staticmethod
    def pool_key(name: str = "blue") -> Key:
        return Key(GROUP, "addresspools", "", name)

    @staticmethod
    def claim_key(name: str) -> Key:
        return Key(GROUP, "addressclaims", "default", name)

    @staticmethod
    def child_key(claim: str) -> Key:
        return Key("", "configmaps", "default", f"claim-{claim}")

    def asked(self, who: Replica | str, key: Key | None = None, **changes: Any) -> None:
        """The audit log says who asked for the last write, or was refused with a code."""
        replica = who if isinstance(who, Replica) else None
        key = key or self.writes[-1][1]
        values: dict[str, Any] = {
            "finished": f"2030-01-01T00:00:00.{len(self.audit):06}",
            "user": USER if replica else who,
            "pod": replica.pod if replica else "",
            "pod_uid": replica.pod_uid if replica else "",
            "agent": "kopf/1" if replica else "kubectl/v1 (linux)",
            "verb": "patch",
            "resource": key.resource,
            "subresource": "",
            "namespace": key.namespace,
            "name": key.name,
            "code": 200,
            "revision": self.revision,
        }
        self.audit.append(AuditEntry(**values | changes))
