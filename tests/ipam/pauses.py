"""A cluster of a few dictionaries, and leaders that can be paused before any of their writes.

The API server here does what the real one and the fence do together: an update is compare-and-swap on the revision and
on the recorded token, a creation is neither. Nothing else keeps a leader back, and every change is judged at once.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import kopf_ha
from kopf_ha_ipam import claims, retries
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import FINALIZER, Claim, ClaimRef, Pool
from kopf_ha_ipam.retries import Retries
from kopf_ha_ipam.writes import Api, Conflict, Gone

Body = dict[str, Any]
HOLD = "example.com/hold"


class GivenTwice(AssertionError):
    """I5 is broken."""


class World:
    """All objects, by kind and name."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Body] = {}
        self.ends: list[tuple[str, Body]] = []
        self.now = 0.0
        self.broken: AssertionError | None = None  #: the first one; the operator catches what concerns one object
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)

    # what users do

    def pool(self, name: str, cidr: str = "10.0.0.0/30") -> None:
        self.add("pool", {"metadata": {"name": name, "generation": 1}, "spec": {"cidr": cidr}})

    def claim(self, name: str, pool: str, *more: str, wanted: str | None = None) -> None:
        meta: Body = {"name": name, "namespace": "ns", "finalizers": [FINALIZER, *more]}
        meta["creationTimestamp"] = f"2026-01-01T{next(self._uids):06}Z"
        self.add("claim", {"metadata": meta, "spec": {"poolName": pool} | ({"address": wanted} if wanted else {})})

    def delete(self, kind: str, name: str) -> None:
        body = self.objects[kind, name]
        body["metadata"]["deletionTimestamp"] = "now"
        self.changed(body)
        self._end(kind, name)

    def force(self, kind: str, name: str) -> None:
        """Delete it and take all finalizers away."""
        self.objects[kind, name]["metadata"]["finalizers"] = []
        self.delete(kind, name)

    # what Kubernetes does

    def add(self, kind: str, body: Body) -> Body:
        meta = body["metadata"]
        meta["uid"] = f"{next(self._uids):08}-{meta['name']}"
        self.objects[kind, meta["name"]] = body
        return self.changed(body)

    def changed(self, body: Body) -> Body:
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self.check()
        return copy.deepcopy(body)

    def release(self, kind: str, name: str, finalizer: str) -> None:
        found = self.objects.get((kind, name))
        if found is not None and finalizer in found["metadata"].get("finalizers", ()):
            found["metadata"]["finalizers"].remove(finalizer)
            self.changed(found)
            self._end(kind, name)

    def _end(self, kind: str, name: str) -> None:
        body = self.objects[kind, name]
        if body["metadata"].get("deletionTimestamp") and not body["metadata"].get("finalizers"):
            self.ends.append((kind, self.objects.pop((kind, name))))

    def collect(self) -> None:
        """Garbage collection: what belongs to nobody goes."""
        living = {b["metadata"]["uid"] for b in self.objects.values()}
        for (kind, name), body in list(self.objects.items()):
            owners = body["metadata"].get("ownerReferences")
            if owners and not any(o["uid"] in living for o in owners):
                del self.objects[kind, name]

    # what is promised

    def check(self) -> None:
        """I5: no two living claims have one address, whichever record says it."""
        having: dict[str, set[str]] = {}
        living = {b["metadata"]["uid"] for (kind, _), b in self.objects.items() if kind == "claim"}
        for (kind, _), body in self.objects.items():
            meta, status = body["metadata"], body.get("status") or {}
            if kind == "claim" and status.get("address"):
                having.setdefault(status["address"], set()).add(meta["uid"])
            if kind == "pool":
                for address, owner in (status.get("allocations") or {}).items():
                    having.setdefault(address, set()).add(owner.rpartition("/")[2])
            if kind == "child":
                having.setdefault(body["data"]["ADDRESS"], set()).add(meta["ownerReferences"][0]["uid"])
        for address, uids in having.items():
            if len(uids & living) > 1:
                self.breaks(GivenTwice(f"{address}: {sorted(uids & living)}"))

    def breaks(self, error: AssertionError) -> None:
        self.broken = self.broken or error
        raise error

    def status(self, name: str) -> Body:
        return dict(self.objects["claim", name].get("status") or {})


class View:
    """The API server as one term meets it: `kopf_ha_ipam.writes.Api`.

    Args:
        world: the objects.
        token: of the term.
        pause: before which write to stand still, from 1 on; 0 for never.
    """

    page = 500  #: claims of the first page of a list

    def __init__(self, world: World, token: int, pause: int) -> None:
        self.world, self.token, self.pause = world, token, pause
        self.count = 0
        self.frozen, self.go = asyncio.Event(), asyncio.Event()
        self.gate_open = True
        self.more = asyncio.Event()  #: lets the list of claims go on after its first page
        self.unread: set[str] = set()  #: uids of pools that the fence lets nobody write (`--barrier each`)

    async def pools(self) -> list[Body]:
        return self._all("pool")

    async def claims(self) -> list[Body]:
        return self._all("claim")

    async def addresses(self) -> list[tuple[str, str]]:
        return [((c.get("status") or {}).get("address") or "", c["metadata"]["uid"]) for c in self._all("claim")]

    async def showing(self, address: str) -> list[str]:
        await asyncio.sleep(0)
        return [uid for shows, uid in await self.addresses() if shows == address]

    async def claim_pages(self) -> AsyncIterator[list[Body]]:
        claims = await self.claims()
        yield claims[: self.page]
        await self.more.wait()
        yield claims[self.page :]

    async def pool(self, name: str) -> Body:
        return await self._read("pool", name)

    async def claim(self, ref: ClaimRef) -> Body:
        return await self._read("claim", ref.name)

    async def child(self, namespace: str, name: str) -> Body:
        return await self._read("child", name)

    async def patch_pool_status(self, name: str, version: str, status: Mapping[str, Any]) -> Body:
        await self._turn()
        if self._judged("pool", name)["metadata"]["uid"] in self.unread:
            self.world.breaks(AssertionError(f"pool {name} is written, and its stamp was not waited for"))
        return self._status("pool", name, version, status)

    async def patch_claim_status(self, ref: ClaimRef, version: str, status: Mapping[str, Any]) -> Body:
        await self._turn()
        return self._status("claim", ref.name, version, status)

    async def stamp_claim(self, ref: ClaimRef) -> Body:
        await self._turn()
        found = self._judged("claim", ref.name)
        self._stamp(found)
        return self.world.changed(found)

    async def note_address(self, ref: ClaimRef, address: str) -> Body:
        await self._turn()
        return self._judged("claim", ref.name)

    async def create_child(self, body: Body) -> Body:
        await self._turn()
        if ("child", body["metadata"]["name"]) in self.world.objects:
            raise Conflict("409")
        made = copy.deepcopy(body)
        made["token"] = self.token
        uid = made["metadata"]["ownerReferences"][0]["uid"]
        made["metadata"]["finalizers"] = []
        return self.world.add("child", made) | {"owner": uid}

    async def patch_child(self, namespace: str, name: str, version: str, patch: Mapping[str, Any]) -> Body:
        await self._turn()
        found = self._judged("child", name)
        if found["metadata"]["resourceVersion"] != version:
            raise Conflict("409")
        found["data"].update(patch.get("data") or {})
        found["token"] = self.token
        return self.world.changed(found)

    async def delete_child(self, namespace: str, name: str, uid: str) -> bool:
        await self._turn()
        found = self._judged("child", name)
        if found["metadata"]["uid"] != uid:
            raise Conflict("409")
        del self.world.objects["child", name]
        return True

    async def finalizer(self, name: str) -> None:
        """Kopf takes its finalizer from a claim, which the fence stamps before that."""
        await self._turn()
        if ("claim", name) not in self.world.objects:
            return
        found = self._judged("claim", name)
        if (found.get("status") or {}).get("fencing", {}).get("token") != self.token:
            self._stamp(found)
            self.world.changed(found)
            await self._turn()
        if ("claim", name) in self.world.objects:
            self._judged("claim", name)
            self.world.release("claim", name, FINALIZER)

    async def stamp(self, name: str) -> Body:
        """The barrier stamps a pool."""
        await self._turn()
        found = self._judged("pool", name)
        self._stamp(found)
        return self.world.changed(found)

    async def stamped(self, body: Mapping[str, Any]) -> Body | None:
        """`kopf_ha.current_term().stamped`."""
        try:
            found = await self.stamp(body["metadata"]["name"])
        except Gone:
            return None
        if found["metadata"]["uid"] != body["metadata"]["uid"]:
            return None
        self.unread.discard(found["metadata"]["uid"])
        return found

    def _all(self, kind: str) -> list[Body]:
        return [copy.deepcopy(b) for (k, _), b in self.world.objects.items() if k == kind]

    async def _read(self, kind: str, name: str) -> Body:
        if (kind, name) not in self.world.objects:
            raise Gone("404")
        return copy.deepcopy(self.world.objects[kind, name])

    async def _turn(self) -> None:
        """Let the gate judge, then stand still if it is time to: a pause comes between the check and the socket."""
        if not self.gate_open:
            raise kopf_ha.GateClosed("the term is over")
        self.count += 1
        if self.count == self.pause:
            self.frozen.set()
            await self.go.wait()

    def _judged(self, kind: str, name: str) -> Body:
        found = self.world.objects.get((kind, name))
        if found is None:
            raise Gone("404")
        recorded = found.get("token") or (found.get("status") or {}).get("fencing", {}).get("token", 0)
        if recorded > self.token:
            raise kopf_ha.StaleLeader(f"{kind} {name} records {recorded}")
        return found

    def _status(self, kind: str, name: str, version: str, status: Mapping[str, Any]) -> Body:
        found = self._judged(kind, name)
        if found["metadata"]["resourceVersion"] != version:
            raise Conflict("409")
        if found["metadata"].get("deletionTimestamp") and status.get("address"):
            raise AssertionError("an address for a claim that is being deleted")
        into = found.setdefault("status", {})
        for key, value in status.items():
            if key in ("allocations", "tombstones"):
                merged = (into.get(key) or {}) | value
                into[key] = {k: v for k, v in merged.items() if v is not None}
            elif value is None:
                into.pop(key, None)
            else:
                into[key] = copy.deepcopy(value)
        self._stamp(found)
        return self.world.changed(found)

    def _stamp(self, found: Body) -> None:
        found.setdefault("status", {})["fencing"] = {"token": self.token, "holder": f"pod-{self.token}"}


class Leader:
    """One term: what the barrier, Kopf and the handlers do, without Kopf.

    Args:
        world: the objects.
        token: of the term.
        pause: before which write to stand still; see `View`.
        behind: before which turn the pools are stamped that nothing was decided from; None for a barrier that stamps
            all of them first.
    """

    def __init__(
        self, world: World, token: int, pause: int = 0, behind: int | None = None, quarantine: float = 60.0
    ) -> None:
        self.world, self.behind = world, behind
        self.view = View(world, token, pause)
        self.memory = Allocator(
            cast(Api, self.view),
            quarantine=quarantine,
            stamp=(token, f"pod-{token}"),
            clock=lambda: world.now,
            stamped=None if behind is None else self.view.stamped,
        )
        self.retries = Retries(self.memory)
        self.task: asyncio.Task[None] | None = None
        self.told = len(world.ends)

    async def lead(self) -> None:
        """Do all that there is to do, three times, each after some time."""
        there = await self.view.pools()
        if self.behind is None:
            await self.stamp(there)
        else:
            self.view.unread = {body["metadata"]["uid"] for body in there}
        await self.memory.load()
        rest = asyncio.create_task(self.memory.load_rest())
        await self.memory.shown.until_ready()
        for number in range(3):
            if number == 2:
                self.view.more.set()
                await rest
            if number == self.behind:
                await self.stamp([body for body in there if body["metadata"]["uid"] in self.view.unread])
            await self.turn()
            self.world.now += 100

    async def stamp(self, pools: list[Body]) -> None:
        for body in pools:
            try:
                await self.view.stamp(body["metadata"]["name"])
            except Gone:
                pass

    async def turn(self) -> None:
        memory = self.memory
        for kind, body in self.world.ends[self.told :]:
            (memory.pool_gone if kind == "pool" else memory.claim_gone)(body)
        self.told = len(self.world.ends)
        for body in await self.view.pools():
            memory.pool_seen(body)
            await retries.settle_pool(memory, Pool.parse(body).name)
        for body in await self.view.claims():
            claim = memory.claim_seen(body)
            if claim.terminating and claim.held:
                await self.take_back(claim)
            elif not claim.terminating:
                await retries.settle(memory, claim)
        await self.retries.once()

    async def take_back(self, claim: Claim) -> None:
        await claims.take_back(self.memory, claim)
        await self.view.finalizer(claim.ref.name)

    async def end(self, name: str) -> None:
        """A user deletes a claim, which nothing else holds; its address is not freed yet."""
        self.world.delete("claim", name)
        await self.take_back(Claim.parse(self.world.objects["claim", name]))
        self.memory.claim_gone(self.world.ends[-1][1])
        self.told = len(self.world.ends)

    async def until_frozen(self) -> bool:
        """Lead until the pause; give whether there was one."""
        self.task = asyncio.create_task(self.lead())
        frozen = asyncio.create_task(self.view.frozen.wait())
        await asyncio.wait({self.task, frozen}, return_when=asyncio.FIRST_COMPLETED)
        frozen.cancel()
        if self.task.done():
            self.task.result()
        return not self.task.done()

    async def wake(self, *, gate_open: bool = True) -> None:
        """Go on to the end of the term."""
        self.view.gate_open = gate_open
        self.view.go.set()
        assert self.task is not None
        try:
            await self.task
        except kopf_ha.TermEnded:
            pass


async def led(*claims: str) -> tuple[World, Leader]:
    """Give a world with a pool `p` and these claims of it, and a leader that has done all that there was to do."""
    world = World()
    world.pool("p")
    for name in claims:
        world.claim(name, "p")
    leader = Leader(world, 1)
    await leader.lead()
    return world, leader


__all__ = ["HOLD", "GivenTwice", "Leader", "View", "World", "led"]
