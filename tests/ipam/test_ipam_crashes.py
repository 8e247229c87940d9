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

    In four rows of every fourth write, which can run side by side.
    """
    after = first
    while _crash(ipam, after):
        after += STRIDE
        assert after < 100
    assert after > 12  # it has at least that many writes to do


def _crash(ipam: Ipam, after: int) -> bool:
    """Give whether the leader died."""
    first = ipam.operator(f"n{after}", launcher=FAULTY, IPAM_KILL_AFTER=str(after))
    pool = f"p{after}"
    ipam.apply(ipam.pool(pool, **POOL), ipam.claim("stays", pool), ipam.claim("goes", pool))
    until("it to die or bind", lambda: not first.running or _bound(ipam), PATIENCE)
    if first.running:
        ipam.delete("addressclaim", "goes", wait=False)
        until("it to die or free", lambda: not first.running or not ipam.get("addressclaim", "goes"), PATIENCE)
        ipam.until_quiet()  # its last writes come after that
    died = not first.running
    if died:
        second = _succeed(ipam, f"s{after}")
        ipam.until_ready("stays")
        ipam.delete("addressclaim", "goes", wait=False)
        ipam.until_gone("addressclaim", "goes")
    else:
        second = first
    ipam.until("the address to be free", lambda: len(ipam.get("addresspool", pool)["status"]["allocations"]) == 1)
    ipam.until_quiet()
    ipam.check_consistent()
    assert len(ipam.children()) == 1
    if not died:
        return False
    ipam.delete("addressclaim", "stays", wait=False)
    ipam.delete("addresspool", pool, wait=False)
    ipam.until_gone("addresspool", pool)
    second.kill()
    ipam.operators.clear()
    ipam.vacate_lease()
    return True


def _bound(ipam: Ipam) -> bool:
    return len(ipam.children()) == 2


def _succeed(ipam: Ipam, name: str) -> Replica:
    if ipam.get("lease", "ipam-test"):
        ipam.vacate_lease()
    return ipam.operator(name)
