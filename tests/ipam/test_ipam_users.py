"""What users do to their own objects concerns those alone, and costs few writes (I7, I10)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from devcluster.waiting import until
from tests.kit.history import history_of
from tests.kit.ipam import Ipam, address, condition, message

SMALL = {"cidr": "10.95.0.0/29", "gateway": "10.95.0.1"}  # gives .2 to .6
ONE = {"cidr": "10.95.0.8/32"}


def revision(ipam: Ipam) -> int:
    """The newest revision of the whole cluster."""
    return int(ipam.read("/api/v1/namespaces?limit=1")["metadata"]["resourceVersion"])


def writes(ipam: Ipam, since: int) -> list[str]:
    """The changes of pools, claims and ConfigMaps after a revision."""
    plane: Any = ipam.cluster
    found = history_of(plane).of("addresspools", "addressclaims", "configmaps")
    return [str(c.key) for c in found if c.revision > since and c.key.namespace in ("", ipam.namespace)]


def child_name(ipam: Ipam, claim: str) -> str:
    return f"{claim}-{ipam.get('aclaim', claim)['metadata']['uid'][:8]}"


def of(ipam: Ipam, claim: str) -> dict[str, Any]:
    return ipam.get("configmap", child_name(ipam, claim))


def squat(ipam: Ipam, claim: str, **meta: Any) -> None:
    """Make a ConfigMap that has the name already that the claim's will have."""
    made = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    ipam.apply(made | {"metadata": {"name": child_name(ipam, claim), "namespace": ipam.namespace, **meta}})


def test_a_configmap_in_the_way_concerns_its_claim_alone(ipam: Ipam) -> None:
    """Its name can be computed. Malformed or foreign annotations make the fence refuse it, which ends no term."""
    operator = ipam.operator()
    ipam.apply(*(ipam.claim(n, "small") for n in ("foreign", "malformed", "another", "fine")))
    for name in ("foreign", "malformed", "another", "fine"):
        ipam.until_reason("addressclaim", name, "PoolNotFound")
    owner = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "name": "malformed"}
    owner["uid"] = ipam.get("aclaim", "malformed")["metadata"]["uid"]
    squat(ipam, "foreign")
    squat(ipam, "malformed", ownerReferences=[owner], annotations={"kopf-ha.dev/token": "x"})
    labels = {"app.kubernetes.io/managed-by": "kopf-ha-ipam"}
    stamp = {"token": "5", "holder": "h", "lease": "other/lease", "pod-uid": "p"}
    squat(ipam, "another", labels=labels, annotations={f"kopf-ha.dev/{k}": v for k, v in stamp.items()})
    ipam.apply(ipam.pool("small", **SMALL))
    ipam.until_ready("fine")
    ipam.until_reason("addressclaim", "foreign", "ConfigMapTaken")
    ipam.until_reason("addressclaim", "malformed", "ConfigMapRefused")
    ipam.until_ready("another")  # another Lease's stamp says nothing about ours
    ipam.apply(ipam.claim("later", "small"))
    ipam.until_ready("later")
    assert "term 1 of" not in operator.log
    # without its finalizer, too, the address comes back
    ipam.kubectl("patch", "aclaim", "malformed", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    ipam.delete("addressclaim", "malformed")
    ipam.kubectl("delete", "configmap", child_name(ipam, "foreign"))
    # its time comes: at a machine that is slow this may be the next minute
    until("it to be bound", lambda: condition(ipam.get("aclaim", "foreign")) == "Bound", 150)
    ipam.until("the address to be free", lambda: ipam.get("addresspool", "small")["status"]["allocated"] == 4)


def test_one_address_that_is_freed_costs_the_same_whoever_waits(ipam: Ipam) -> None:
    ipam.operator()
    ipam.apply(ipam.pool("one", **ONE), ipam.claim("first", "one"))
    ipam.until_ready("first")
    ipam.apply(*(ipam.claim(f"c{n:02}", "one") for n in range(30)))
    ipam.until("all to wait", lambda: [condition(c) for c in ipam.all("aclaim")].count("PoolExhausted") == 30)
    ipam.until_quiet()
    before = revision(ipam)
    ipam.delete("addressclaim", "first")
    ipam.until("one to be served", lambda: [condition(c) for c in ipam.all("aclaim")].count("Bound") == 1)
    ipam.until_quiet()
    assert condition(ipam.get("aclaim", "c00")) == "Bound"  # who waited longest; all were made in one second
    made = writes(ipam, before)
    assert len(made) < 20, made


def test_a_configmap_that_a_user_keeps_costs_no_writes(ipam: Ipam) -> None:
    """A finalizer, and `immutable`: what cannot be corrected is told, and tried again ever more seldom."""
    ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), ipam.claim("kept", "small"), ipam.claim("fixed", "small"))
    ipam.until_ready("kept", "fixed")
    hold = json.dumps({"metadata": {"finalizers": ["example.com/hold"]}})
    for name in ("kept", "fixed"):
        ipam.kubectl("patch", "configmap", child_name(ipam, name), "--type=merge", "-p", hold)
    ipam.kubectl("patch", "configmap", child_name(ipam, "fixed"), "--type=merge", "-p", '{"immutable": true}')
    names = {name: child_name(ipam, name) for name in ("kept", "fixed")}
    ipam.apply(ipam.pool("small", cidr="10.95.0.0/29", gateway="10.95.0.6"))  # ConfigMaps have to follow
    ipam.until("one to follow", lambda: of(ipam, "kept")["data"]["GATEWAY"] == "10.95.0.6")
    assert "finalizer keeps it" in ipam.until_reason("addressclaim", "fixed", "ConfigMapTerminating")
    ipam.delete("addressclaim", "kept")  # which does not wait for what a user keeps
    ipam.until("its address to be free", lambda: ipam.get("addresspool", "small")["status"]["allocated"] == 1)
    ipam.until_quiet()
    for name in names.values():
        ipam.kubectl("patch", "configmap", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    ipam.until_ready("fixed")
    assert of(ipam, "fixed")["data"]["GATEWAY"] == "10.95.0.6"


def test_ready_means_that_all_of_it_is_there(ipam: Ipam) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": ipam.namespace}}
    ipam.apply(quota | {"spec": {"hard": {"count/configmaps": "1"}}})  # the cluster's own root certificate
    ipam.until("the quota to count", lambda: (ipam.get("resourcequota", "q").get("status") or {}).get("used"))
    ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), ipam.claim("a", "small"))
    assert "exceeded quota: q" in ipam.until_reason("addressclaim", "a", "ConfigMapRejected")
    claim = ipam.get("aclaim", "a")
    assert condition(claim, "status") == "False"
    assert address(claim)
    ipam.until_quiet()
    ipam.kubectl("delete", "resourcequota", "q")
    assert ipam.until_ready("a") == {"a": address(claim)}
    ipam.check_consistent()


def test_a_pool_cannot_be_edited_onto_what_is_in_use(ipam: Ipam) -> None:
    ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), ipam.claim("a", "small"), ipam.claim("b", "small", address="10.95.0.4"))
    ipam.until_ready("a", "b")
    said = ipam.apply(ipam.pool("small", cidr="10.95.0.0/29", gateway="10.95.0.4"), check=False)
    assert "The gateway must not be an address that a claim has" in said.stderr
    said = ipam.apply(ipam.pool("small", **SMALL, excluded=["10.95.0.5", "10.95.0.4"]), check=False)
    assert "An address that a claim has cannot be excluded" in said.stderr
    ipam.apply(ipam.pool("small", **SMALL, excluded=["10.95.0.4-10.95.0.5"]))

    def told() -> str:
        found = ipam.get("addresspool", "small")["status"]["conditions"]
        return next((c["message"] for c in found if c["type"] == "SpecConflict"), "")

    where = f"10.95.0.4 (excluded) by claim {ipam.namespace}/b"
    ipam.until("a condition that names the claim", lambda: where in told())
    ipam.delete("addressclaim", "b")
    ipam.until("the condition to go", lambda: not told())


def test_what_was_given_twice_is_shown(ipam: Ipam) -> None:
    """As an operator of an older version might have left it."""
    first = ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), ipam.claim("a", "small"), ipam.claim("b", "small"))
    bound = ipam.until_ready("a", "b")
    ipam.until_quiet()
    first.stop()
    ipam.operators.remove(first)
    twice = json.dumps({"status": {"address": bound["a"]}})
    ipam.kubectl("patch", "aclaim", "b", "--subresource=status", "--type=merge", "-p", twice)
    record = json.dumps({"status": {"allocations": {bound["b"]: None}}})
    ipam.kubectl("patch", "addresspool", "small", "--subresource=status", "--type=merge", "-p", record)
    ipam.operator("b")

    def conflict(kind: str, name: str) -> str:
        found = ipam.get(kind, name)["status"]["conditions"]
        return next((c["message"] for c in found if c["type"] == "AddressConflict"), "")

    ipam.until("both to be told", lambda: conflict("aclaim", "a") and conflict("aclaim", "b"))
    ns = ipam.namespace
    both = f"{bound['a']} by claims {ns}/a and {ns}/b"
    ipam.until("the pool to name both", lambda: both in conflict("addresspool", "small"))
    ipam.until("an event", lambda: "GivenTwice" in ipam.kubectl("get", "events", "-o", "wide").stdout)
    assert [address(ipam.get("aclaim", n)) for n in "ab"] == [bound["a"], bound["a"]]  # taken from nobody
    ipam.until_quiet()
    ipam.delete("addressclaim", "b")
    ipam.until("nothing to be told", lambda: not conflict("aclaim", "a") and not conflict("addresspool", "small"))
    assert ipam.until_ready("a") == {"a": bound["a"]}


def test_what_a_backup_brings_back_gets_its_addresses_again(ipam: Ipam) -> None:
    """Objects come back without status and with other uids, while an operator leads that knew them."""
    ipam.operator()
    ipam.apply(ipam.pool("small", **SMALL), *(ipam.claim(n, "small") for n in "abc"))
    bound = ipam.until_ready(*"abc")
    ipam.delete("addressclaim", "a")  # so that others do not get the lowest ones by chance
    ipam.until_quiet()
    kept = [ipam.get("addresspool", "small"), *(ipam.get("aclaim", n) for n in "bc")]
    for body in kept:
        del body["status"]
        for field in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            body["metadata"].pop(field, None)
    ipam.delete("addressclaim", "b", "c")
    ipam.delete("addresspool", "small")
    ipam.apply(*kept)
    assert ipam.until_ready("b", "c") == {n: bound[n] for n in "bc"}
    ipam.until_quiet()
    ipam.check_consistent()


def test_a_full_pool_and_leaders_that_die(ipam: Ipam) -> None:
    """No takeover moves an address, and who waits longest is served first."""
    names = [f"c{n}" for n in range(5)]
    ipam.apply(ipam.pool("small", **SMALL), *(ipam.claim(n, "small") for n in names))
    leader = ipam.operator("n0")
    bound = ipam.until_ready(*names)
    waits = ["z", "y", "x", "w", "v"]
    for name in waits:  # by their names they would be served the other way round
        ipam.apply(ipam.claim(name, "small"))
        ipam.until_reason("addressclaim", name, "PoolExhausted")
        # Kubernetes notes the age in whole seconds; of one second, names decide.
        made = datetime.fromisoformat(ipam.get("aclaim", "z")["metadata"]["creationTimestamp"])
        until("a second to be over", lambda made=made: datetime.now(UTC) >= made + timedelta(seconds=1), 10, 0.05)  # type: ignore[misc]
    for number in range(1, 11):
        leader.kill()
        ipam.operators.remove(leader)
        ipam.vacate_lease()
        if number == 9:
            ipam.delete("addressclaim", "c0", wait=False)
        leader = ipam.operator(f"n{number}")
        ipam.until_leader(leader)
        found = {n: address(ipam.get("aclaim", n)) for n in (names if number < 9 else names[1:])}
        assert found == {n: bound[n] for n in found}
    served = ipam.until_ready("z")
    assert served == {"z": bound["c0"]}
    ipam.until_quiet()
    assert {n: condition(ipam.get("aclaim", n)) for n in waits[1:]} == dict.fromkeys(waits[1:], "PoolExhausted")
    assert message(ipam.get("aclaim", "v"))
    ipam.check_consistent()
