"""The Lease lost its count, and the pools are new: what claims record is the floor (I2)."""

from __future__ import annotations

import json

import pytest

from tests.kit.ipam import address
from tests.survival.support import BEFORE, Site, terms

MINE = BEFORE + 1


def no_pools(site: Site) -> None:
    """Take the pool away by force."""
    site.kubectl("delete", "addresspool", "p", "--wait=false")
    site.kubectl("patch", "addresspool", "p", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))
    site.until_gone("addresspool", "p")


def pools_anew(site: Site, **spec: str) -> None:
    """Take the pool away by force, and make it again: unstamped, with another uid."""
    no_pools(site)
    site.apply(site.pool("p", cidr="10.80.0.0/28", **spec))


@pytest.mark.parametrize("number", [BEFORE, 0])
def test_a_claim_has_a_token_that_the_lease_forgot(site: Site, number: int) -> None:
    """The barrier finds nothing. Then the Lease says 1 and mine, the claim 41, or another's 1: one new term."""
    one = site.begin(number=number)
    site.kill(one)
    site.drop_lease()
    pools_anew(site, gateway="10.80.0.14")  # claims have to be told, so they are written
    new = site.operator("new")
    site.until("the claim to be told", lambda: site.get("addressclaim", "x")["status"].get("gateway"))
    site.goes_on(number + 1)
    assert terms(new) == [1, number + 2], "one term below the floor, one above it, and no loop"
    if number:  # it is above, so seeing it is enough
        assert new.said(f"lost: .*an object records token {number + 1}, which is not below mine")
    else:  # it is equal, and another's: the claim's write meets it
        assert new.said("FloorLost: .*records token 1 of one_.*although Lease .* says that this process leads")
    assert address(site.get("addressclaim", "x")) == "10.80.0.1", "it keeps what it had"


def test_a_token_that_is_only_seen_raises_the_floor(site: Site) -> None:
    """A claim that waits, and was told so, is not written, so no write meets its stamp."""
    one = site.begin()
    no_pools(site)
    site.until_reason("addressclaim", "x", "PoolNotFound")
    site.kill(one)
    site.drop_lease()
    site.operator("new")
    site.apply(site.claim("after", "nowhere"))
    site.until_reason("addressclaim", "after", "PoolNotFound")
    site.until_quiet()
    assert site.token("addressclaim", "x") == MINE
    assert site.token("addressclaim", "after") > MINE, "the term before could write over this one"
