"""Runs the reference operator without the two mends that keep late writes harmless; for tests only.

With them, tests/ipam/test_ipam_paused.py tells the same stories. Here a pool frees an address when its claim is being
deleted, not when it is gone, and becomes active without a stamp on the claims that an earlier term could still write.
Faults at a certain write are as in faulty.py.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from kopf_ha.cli import entry
from kopf_ha_ipam import activation, claims
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import Claim

sys.path.append(str(Path(__file__).parents[2]))
importlib.import_module("tests.kit.faulty")

take_back = claims.take_back


async def take_back_at_once(memory: Allocator, claim: Claim) -> None:
    await take_back(memory, claim)
    keeper = memory.holder_of(claim.ref.uid)
    if keeper is not None:
        now = memory.claims.get(claim.ref.uid, claim)
        await memory.api.patch_claim_status(now.ref, now.resource_version, {"address": None})
        await keeper.free(claim.ref.uid)
        memory.agenda.changed()


async def unstamped(memory: Allocator, found: object) -> object:
    return found


claims.take_back = take_back_at_once
activation._stamped = unstamped  # type: ignore[assignment]

if __name__ == "__main__":
    entry()
