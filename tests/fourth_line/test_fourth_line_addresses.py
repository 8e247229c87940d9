"""Two runs in which a late write gave an address twice, with what mended them switched off: line 4 alone stops them.

tests/ipam/test_ipam_paused.py has them with their mends, and without line 4. A leader is paused when its write was past
the fence in the process. Its successor gives the address to another claim, since nothing shows that it is not free.
Neither stamps nor revisions tell: one write is a creation, the other changes an object that nobody wrote since.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster.waiting import until
from testbed.replica import PATIENCE, Replica
from tests.fourth_line.site import Site
from tests.kit.ipam import address

#: The reference operator without its mends.
UNMENDED = Path(__file__).parents[1] / "kit" / "unmended.py"
HOLD = "example.com/hold"


@pytest.fixture(params=[True, False], ids=["with line 4", "without"])
def line(request: pytest.FixtureRequest, site: Site) -> bool:
    """Whether line 4 is there when the paused leader wakes."""
    return bool(request.param)


def frozen(site: Site, before: str) -> Replica:
    """Start a leader that stands still before a certain write."""
    paused = site.operator("old", launcher=UNMENDED, IPAM_STOP_BEFORE=before)
    site.until_leader(paused)
    return paused


def succeed(site: Site, paused: Replica) -> None:
    """Have another replica lead."""
    site.vacate_lease()
    site.until_leader(site.operator("new", launcher=UNMENDED))


def wakes(site: Site, paused: Replica, line: bool) -> None:
    """Let the late write go, and wait until its answer is there."""
    if not line:
        site.switch_off()
    try:
        paused.resume()
        site.until("its term to end", lambda: paused.said("term .* is over"))
    finally:
        if not line:
            site.switch_on()


def test_a_creation_that_comes_late(site: Site, line: bool) -> None:
    paused = frozen(site, "/configmaps x-")
    site.apply(site.pool("small", cidr="10.94.0.4/32"), site.claim("x", "small"))
    until("it to freeze", lambda: paused.said("frozen before"), PATIENCE)
    hold = f'[{{"op": "add", "path": "/metadata/finalizers/-", "value": "{HOLD}"}}]'
    site.kubectl("patch", "aclaim", "x", "--type=json", "-p", hold)
    succeed(site, paused)
    site.delete("addressclaim", "x", wait=False)
    site.until("only the user's finalizer", lambda: site.get("aclaim", "x")["metadata"]["finalizers"] == [HOLD])
    site.apply(site.claim("victim", "small"))
    assert site.until_ready("victim") == {"victim": "10.94.0.4"}
    wakes(site, paused, line)
    site.until_quiet()
    published = [child["metadata"]["name"].partition("-")[0] for child in site.children()]
    assert sorted(published) == (["victim"] if line else ["victim", "x"])


def test_a_claim_that_nobody_wrote_since(site: Site, line: bool) -> None:
    paused = frozen(site, "/addressclaims/ 10.94.0.1")
    site.apply(site.claim("x", "first"))
    site.until_reason("addressclaim", "x", "PoolNotFound")
    site.apply(site.pool("first", cidr="10.94.0.0/28"))
    until("it to freeze", lambda: paused.said("frozen before"), PATIENCE)
    site.kubectl("delete", "addresspool", "first", "--wait=false")
    site.kubectl("patch", "addresspool", "first", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    succeed(site, paused)
    site.apply(site.pool("second", cidr="10.94.0.0/28"), site.claim("victim", "second"))
    assert site.until_ready("victim") == {"victim": "10.94.0.1"}
    wakes(site, paused, line)
    site.until_quiet()
    assert address(site.get("aclaim", "x")) == ("" if line else "10.94.0.1")
