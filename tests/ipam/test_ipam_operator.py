"""The operator on a real API server, led by kopf-ha."""

from __future__ import annotations

import json

from testbed.deployment import ROOT
from tests.kit.ipam import Ipam, address, condition, message

SMALL = {"cidr": "10.91.0.0/29", "gateway": "10.91.0.1"}  # gives .2 to .6
EXAMPLES = ROOT / "examples"


def test_thirty_claims_at_once(ipam: Ipam) -> None:
    operator = ipam.operator()
    ipam.until_leader(operator)
    ipam.kubectl("apply", "-f", str(EXAMPLES / "pool.yaml"), "-f", str(EXAMPLES / "claims.yaml"))
    bound = ipam.until_ready()
    assert set(bound.values()) == {f"10.20.0.{n}" for n in range(2, 32)}
    ipam.until_quiet()
    ipam.check_consistent()
    pool = ipam.get("addresspool", "demo-pool")["status"]
    assert (pool["capacity"], pool["allocated"], pool["free"]) == (58, 30, 28)
    child = ipam.children()[0]
    assert set(child["data"]) == {"ADDRESS", "PREFIX_LENGTH", "GATEWAY", "CIDR", "POOL"}
    for kind in ("addresspool", "addressclaim"):
        stamp = ipam.all(kind)[0]["status"]["fencing"]
        assert stamp["holder"].startswith("a_")
    assert "Bound" in ipam.kubectl("get", "events", "-o", "name", "--field-selector=reason=Bound", "-o", "wide").stdout

    # a second term finds everything in order, and writes nothing but its stamps on pools (I7)
    versions = {c["metadata"]["uid"]: c["metadata"]["resourceVersion"] for c in ipam.all("aclaim") + ipam.children()}
    operator.stop()
    ipam.operators.remove(operator)
    second = ipam.operator("b")
    ipam.until_leader(second)
    ipam.apply(ipam.claim("last", "demo-pool"))
    ipam.until_ready("last")
    ipam.until_quiet()
    after = {c["metadata"]["uid"]: c["metadata"]["resourceVersion"] for c in ipam.all("aclaim") + ipam.children()}
    assert {u: after[u] for u in versions} == versions
    ipam.check_consistent()


def test_a_freed_address_rests_and_is_given_again(ipam: Ipam) -> None:
    ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), *(ipam.claim(f"c{n}", "small") for n in range(5)))
    bound = ipam.until_ready(*(f"c{n}" for n in range(5)))
    ipam.apply(ipam.claim("late", "small"))
    assert ipam.until_reason("addressclaim", "late", "PoolExhausted").startswith("Pool small has no free address.")
    ipam.until_quiet()
    ipam.delete("addressclaim", "c3")
    assert ipam.until_ready("late")["late"] == bound["c3"]
    ipam.until_quiet()
    ipam.check_consistent()
    assert len(ipam.children()) == 5


def test_a_tombstone_is_recorded(ipam: Ipam) -> None:
    ipam.operator(KOPF_HA_IPAM_QUARANTINE="3600")
    ipam.apply(ipam.pool("small", **SMALL), ipam.claim("a", "small"), ipam.claim("b", "small"))
    bound = ipam.until_ready("a", "b")
    uid = ipam.get("addressclaim", "a")["metadata"]["uid"]
    ipam.delete("addressclaim", "a")
    ipam.until("a tombstone", lambda: ipam.get("addresspool", "small")["status"].get("tombstones"))
    status = ipam.get("addresspool", "small")["status"]
    assert status["tombstones"] == {bound["a"]: f"{ipam.namespace}/a/{uid}"}
    assert bound["a"] not in status["allocations"]
    ipam.apply(ipam.claim("c", "small", address=bound["a"]), ipam.claim("d", "small"))
    assert "was freed a moment ago" in ipam.until_reason("addressclaim", "c", "AddressTaken")
    assert ipam.until_ready("d")["d"] not in bound.values()


def test_claims_wait_for_what_is_missing(ipam: Ipam) -> None:
    ipam.operator()
    ipam.apply(
        ipam.claim("unknown", "later"),
        ipam.claim("never-bound", "nowhere"),
    )
    assert ipam.until_reason("addressclaim", "unknown", "PoolNotFound") == "There is no pool named later."
    ipam.until_reason("addressclaim", "never-bound", "PoolNotFound")
    ipam.delete("addressclaim", "never-bound")
    ipam.apply(ipam.pool("later", cidr="fd91::/124", gateway="fd91::1", excluded=["fd91::2-fd91::4"]))
    assert ipam.until_ready("unknown") == {"unknown": "fd91::5"}

    ipam.apply(
        ipam.claim("outside", "later", address="fd92::1"),
        ipam.claim("excluded", "later", address="fd91::4"),
        ipam.claim("first", "later", address="fd91::9"),
    )
    assert "fd91::/124" in ipam.until_reason("addressclaim", "outside", "AddressOutOfPool")
    ipam.until_reason("addressclaim", "excluded", "AddressExcluded")
    assert ipam.until_ready("first") == {"first": "fd91::9"}
    ipam.apply(ipam.claim("second", "later", address="fd91::9"))
    ipam.until_reason("addressclaim", "second", "AddressTaken")
    ipam.until_quiet()
    ipam.delete("addressclaim", "first")
    assert ipam.until_ready("second") == {"second": "fd91::9"}
    # the administrator changes their mind: a spec edit survives (I6), and the world changed
    ipam.apply(ipam.pool("later", cidr="fd91::/124", gateway="fd91::2"))
    assert ipam.until_ready("excluded") == {"excluded": "fd91::4"}
    ipam.until("ConfigMaps to follow", lambda: {c["data"]["GATEWAY"] for c in ipam.children()} == {"fd91::2"})
    ipam.until_quiet()
    ipam.check_consistent()


def test_two_claims_want_one_address(ipam: Ipam) -> None:
    ipam.operator()
    ipam.apply(
        ipam.claim("a", "small", address="10.91.0.4"),
        ipam.claim("b", "small", address="10.91.0.4"),
        ipam.pool("small", **SMALL),
    )

    def settled() -> bool:
        return sorted(condition(c) for c in ipam.all("aclaim")) == ["AddressTaken", "Bound"]

    ipam.until("one to have it and one to wait", settled)
    ipam.until_quiet()
    ipam.check_consistent()


def test_overlapping_pools(ipam: Ipam) -> None:
    ipam.operator()
    ipam.apply(ipam.pool("one", cidr="10.92.0.0/24"))
    ipam.until_reason("addresspool", "one", "Active")
    ipam.apply(ipam.pool("two", cidr="10.92.0.128/25"), ipam.claim("c", "two"))
    said = "The range 10.92.0.128/25 overlaps with 10.92.0.0/24 of pool one."
    assert ipam.until_reason("addresspool", "two", "Overlaps") == said
    assert "state" not in ipam.get("addresspool", "two")["status"]
    ipam.until("the claim to say why", lambda: message(ipam.get("addressclaim", "c")) == said)
    ipam.until_quiet()
    ipam.delete("addresspool", "one")
    ipam.until_reason("addresspool", "two", "Active")
    assert ipam.until_ready("c") == {"c": "10.92.0.129"}


def test_a_pool_in_use_goes_when_it_is_empty(ipam: Ipam) -> None:
    ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), ipam.claim("a", "small"), ipam.claim("b", "small"))
    ipam.until_ready("a", "b")
    ipam.delete("addresspool", "small", wait=False)
    assert "2 claims" in ipam.until_reason("addresspool", "small", "Terminating")
    ipam.apply(ipam.claim("c", "small"))
    ipam.until_reason("addressclaim", "c", "PoolTerminating")
    ipam.delete("addressclaim", "a")
    ipam.until("it to count", lambda: "1 claim." in ipam.until_reason("addresspool", "small", "Terminating"))
    ipam.until_quiet()
    ipam.delete("addressclaim", "b")
    ipam.until_gone("addresspool", "small")
    ipam.until_reason("addressclaim", "c", "PoolNotFound")
    ipam.apply(ipam.pool("small", **SMALL))
    ipam.until_ready("c")


def test_a_pool_removed_by_force_adopts_what_claims_have(ipam: Ipam) -> None:
    ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), *(ipam.claim(n, "small") for n in "abc"))
    bound = ipam.until_ready("a", "b", "c")
    ipam.kubectl("delete", "addresspool", "small", "--wait=false")
    ipam.kubectl("patch", "addresspool", "small", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    for name in "abc":
        ipam.until_reason("addressclaim", name, "PoolNotFound")
    assert {c["metadata"]["name"]: address(c) for c in ipam.all("aclaim")} == bound
    ipam.apply(ipam.pool("other", cidr="10.91.0.0/28"))
    assert "of pool small still has" in ipam.until_reason("addresspool", "other", "Overlaps")
    ipam.delete("addresspool", "other")
    ipam.apply(ipam.claim("0", "small"), ipam.pool("small", **SMALL))
    assert ipam.until_ready("a", "b", "c") == bound
    ipam.until_ready("0")
    ipam.until_quiet()
    ipam.check_consistent()


def test_what_was_damaged_meanwhile_is_repaired_by_the_next_term(ipam: Ipam) -> None:
    first = ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), *(ipam.claim(n, "small") for n in ("kept", "wrong", "forced", "cleared")))
    bound = ipam.until_ready("kept", "wrong", "forced", "cleared")
    ipam.until_quiet()
    first.stop()
    ipam.operators.remove(first)
    children = {c["data"]["ADDRESS"]: c["metadata"]["name"] for c in ipam.children()}
    ipam.kubectl("delete", "configmap", children[bound["kept"]])
    change = json.dumps({"data": {"ADDRESS": "10.0.0.1", "MORE": "x"}, "metadata": {"labels": {"kept": "label"}}})
    ipam.kubectl("patch", "configmap", children[bound["wrong"]], "--type=merge", "-p", change)
    ipam.kubectl("patch", "aclaim", "forced", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    ipam.delete("addressclaim", "forced")
    ipam.kubectl(
        "patch", "aclaim", "cleared", "--subresource=status", "--type=merge", "-p", '{"status":{"address":null}}'
    )
    ipam.operator("b")

    def repaired() -> bool:
        held = ipam.get("addresspool", "small")["status"]["allocations"]
        data = {c["data"]["ADDRESS"] for c in ipam.children()}
        return bound["forced"] not in held and data == {bound[n] for n in ("kept", "wrong", "cleared")}

    ipam.until("everything to be repaired", repaired)
    assert ipam.until_ready("kept", "wrong", "cleared") == {n: bound[n] for n in ("kept", "wrong", "cleared")}
    ipam.until_quiet()
    ipam.check_consistent()
    assert all("MORE" not in c["data"] for c in ipam.children())
