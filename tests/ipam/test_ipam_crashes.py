"""A leader that dies right after any of its writes leaves nothing that its successor cannot finish."""

from __future__ import annotations

import pytest

from devcluster.waiting import until
from testbed.replica import PATIENCE, Replica
from tests.kit.ipam import FAULTY, Ipam

POOL = {"cidr": "10.93.0.0/29", "gateway": "10.93.0.1"}
STRIDE = 4


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1, STRIDE + 1))
def test_a_crash_after_each_write(ipam: Ipam, first: int) -> None:
    """Two claims are made, one is deleted; the leader dies after its first write, its second, and so on.

    In four rows of every fourth write, which can run side by side. Who finishes one leader's work is the next to die.
    """
    after, leader = first, ipam.operator("n0", launcher=FAULTY, IPAM_KILL_AFTER=str(ipam.folder / "n0.kill"))
    while successor := _crash(ipam, leader, after):
        after, leader = after + STRIDE, successor
        assert after < 100
    assert after > 12  # it has at least that many writes to do


def _crash(ipam: Ipam, first: Replica, after: int) -> Replica | None:
    """Have the leader die; give its successor, or nothing if it had too little to do."""
    ipam.until_leader(first)
    (ipam.folder / f"{first.name}.kill").write_text(str(after))
    pool = f"p{after}"
    ipam.apply(ipam.pool(pool, **POOL), ipam.claim("stays", pool), ipam.claim("goes", pool))
    until("it to die or bind", lambda: not first.running or _bound(ipam), PATIENCE)
    if first.running:
        ipam.delete("addressclaim", "goes", wait=False)
        until("it to die or free", lambda: not first.running or not ipam.get("addressclaim", "goes"), PATIENCE)
        ipam.until_quiet()  # its last writes come after that
    second = None
    if not first.running:
        ipam.vacate_lease()
        name = f"n{after}"
        second = ipam.operator(name, launcher=FAULTY, IPAM_KILL_AFTER=str(ipam.folder / f"{name}.kill"))
        ipam.until_ready("stays")
        ipam.delete("addressclaim", "goes", wait=False)
        ipam.until_gone("addressclaim", "goes")
    ipam.until("the address to be free", lambda: len(ipam.get("addresspool", pool)["status"]["allocations"]) == 1)
    ipam.until_quiet()
    ipam.check_consistent()
    assert len(ipam.children()) == 1
    if second is not None:
        ipam.delete("addressclaim", "stays", wait=False)
        ipam.delete("addresspool", pool, wait=False)
        ipam.until_gone("addresspool", pool)
    return second


def _bound(ipam: Ipam) -> bool:
    return len(ipam.children()) == 2
