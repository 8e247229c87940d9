"""What the API server itself accepts and refuses, and with which sentence."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster import Cluster
from kopf_ha_ipam.shown import NO_ADDRESS
from kopf_ha_ipam.writes import API_VERSION, Api, Rejected
from tests.kit.ipam import Ipam
from tests.kit.world import fresh_namespace

STAMP = {"lease": "ns/l", "token": 7, "holder": "pod_uid_x", "podUID": "uid"}


@pytest.fixture(scope="module")
def one_for_all(cluster: Cluster, crds: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ipam]:
    """Nothing runs in it."""
    with fresh_namespace(cluster) as namespace:
        yield Ipam(cluster, namespace, tmp_path_factory.mktemp("crds"))


@pytest.fixture
def ipam(one_for_all: Ipam) -> Iterator[Ipam]:
    one_for_all.clear()
    yield one_for_all
    one_for_all.clear()


@pytest.mark.parametrize(
    "spec",
    [
        {"cidr": "10.99.0.0/20", "gateway": "10.99.15.1", "excluded": ["10.99.0.1", "10.99.0.3-10.99.0.9"]},
        {"cidr": "10.99.0.0/20", "excluded": ["10.99.1.0/24"]},
        {"cidr": "10.99.0.4/32"},
        {"cidr": "fd99::/116", "gateway": "fd99::1", "excluded": ["fd99::5-fd99::9", "fd99::10/124"]},
    ],
)  # fmt: skip
def test_good_pools(ipam: Ipam, spec: dict[str, Any]) -> None:
    ipam.apply(ipam.pool("good", **spec))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"cidr": "hello"}, "The cidr must be a range of IP addresses in CIDR notation, as in 10.20.0.0/24"),
        ({"cidr": "10.0.0.0/33"}, "The cidr must be a range of IP addresses in CIDR notation"),
        ({"cidr": "10.0.0.0"}, "The cidr must be a range of IP addresses in CIDR notation"),
        ({"cidr": "::ffff:10.0.0.0/120"}, "The cidr must be a range of IP addresses in CIDR notation"),
        ({"cidr": "10.20.0.7/24"}, "The cidr must be in canonical form"),
        ({"cidr": "FD00::/120"}, "The cidr must be in canonical form"),
        ({"cidr": "fd00:0::/120"}, "The cidr must be in canonical form"),
        ({"cidr": "10.0.0.0/19"}, "the prefix length must be at least /20 for IPv4 and /116 for IPv6."),
        ({"cidr": "fd00::/64"}, "the prefix length must be at least /20 for IPv4 and /116 for IPv6."),
        ({"cidr": "10.0.0.0/24", "gateway": "10.0.1.1"}, "The gateway must be an address inside of the pool's CIDR."),
        ({"cidr": "10.0.0.0/24", "gateway": "fd00::1"}, "The gateway must be an address inside of the pool's CIDR."),
        ({"cidr": "10.0.0.0/24", "gateway": "10.0.0.300"}, "The gateway must be one IP address"),
        ({"cidr": "fd00::/120", "gateway": "FD00::1"}, "The gateway must be written in canonical form"),
        ({"cidr": "10.0.0.0/24", "excluded": ["10.0.0.1-"]}, "An excluded entry must be an address (10.20.0.5)"),
        ({"cidr": "10.0.0.0/24", "excluded": ["10.0.0.1-fd00::1"]}, "a range of two addresses of one family"),
        ({"cidr": "10.0.0.0/24", "excluded": ["x"]}, "An excluded entry must be an address (10.20.0.5)"),
        ({}, "cidr"),
    ],
)
def test_bad_pools(ipam: Ipam, spec: dict[str, Any], sentence: str) -> None:
    refused(ipam.apply(ipam.pool("bad", **spec), check=False), sentence)


@pytest.mark.parametrize("spec", [{}, {"address": "10.0.0.7"}, {"address": "fd00::7"}])
def test_good_claims(ipam: Ipam, spec: dict[str, Any]) -> None:
    ipam.apply(ipam.claim("good", "p", **spec))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"poolName": "p", "address": "10.0.0.256"}, "The address must be one IP address, as in 10.20.0.9"),
        ({"poolName": "p", "address": "10.0.0.7/32"}, "The address must be one IP address, as in 10.20.0.9"),
        ({"poolName": "p", "address": "fd00:0::7"}, "The address must be written in canonical form"),
        ({"poolName": ""}, "spec.poolName"),
        ({"poolName": "No Name"}, "spec.poolName"),
        ({}, "poolName"),
    ],
)
def test_bad_claims(ipam: Ipam, spec: dict[str, Any], sentence: str) -> None:
    refused(ipam.apply(ipam.claim("bad", "p") | {"spec": spec}, check=False), sentence)


def test_long_names(ipam: Ipam) -> None:
    ipam.apply(ipam.claim("c" * 63, "p"))
    refused(ipam.apply(ipam.claim("c" * 64, "p"), check=False), "The name of an AddressClaim must have at most 63")
    refused(
        ipam.apply(ipam.pool("p" * 64, cidr="10.0.0.0/24"), check=False),
        "The name of an AddressPool must have at most 63 characters.",
    )


def test_what_cannot_be_changed(ipam: Ipam) -> None:
    ipam.apply(ipam.pool("a", cidr="10.0.0.0/24"))
    ipam.apply(ipam.pool("a", cidr="10.0.0.0/24", gateway="10.0.0.9", excluded=["10.0.0.1"]))
    changed = ipam.apply(ipam.pool("a", cidr="10.0.0.0/25"), check=False)
    refused(changed, "The cidr of a pool cannot be changed; create another pool instead.")
    ipam.apply(ipam.claim("any", "a"), ipam.claim("one", "a", address="10.0.0.3"))
    sentence = "The address of a claim cannot be changed; delete the claim and create another one instead."
    refused(ipam.apply(ipam.claim("any", "a", address="10.0.0.3"), check=False), sentence)
    refused(ipam.apply(ipam.claim("one", "a", address="10.0.0.4"), check=False), sentence)
    refused(ipam.apply(ipam.claim("one", "a"), check=False), sentence)
    refused(
        ipam.apply(ipam.claim("one", "b", address="10.0.0.3"), check=False),
        "The poolName of a claim cannot be changed; delete the claim and create another one instead.",
    )


@pytest.mark.parametrize("kind", ["addresspool", "addressclaim"])
def test_the_stamp_never_goes_down_nor_away(ipam: Ipam, kind: str) -> None:
    """I1, I3: by the CRD alone, even for the administrator."""
    ipam.apply(ipam.pool("s", cidr="10.0.0.0/24"), ipam.claim("s", "s"))

    def status(patch: dict[str, Any] | None, how: str = "merge") -> subprocess.CompletedProcess[str]:
        return ipam.kubectl(
            "patch", kind, "s", "--subresource=status", f"--type={how}", "-p", json.dumps(patch), check=False
        )

    def stamp(**changes: Any) -> subprocess.CompletedProcess[str]:
        return status({"status": {"fencing": {**STAMP, **changes}}})

    accepted(stamp())
    accepted(stamp(token=8, holder="other"))
    accepted(stamp(token=8))
    sentence = "The fencing stamp in status.fencing may not be removed and its token may not go down"
    refused(stamp(token=7), sentence)
    refused(status({"status": {"fencing": None}}), sentence)
    refused(status({"status": None}), sentence)
    refused(stamp(token=None), "status.fencing.token: Required value")
    refused(stamp(podUID=None), "status.fencing.podUID: Required value")
    refused(stamp(holder=""), "status.fencing.holder")
    refused(stamp(token=2_000_000_001), "status.fencing.token")
    accepted(stamp(token=2_000_000_000))
    # a status patch that leaves the stamp out, and a user's edit, keep it
    accepted(status({"status": {"observedGeneration": 3}}))
    accepted(ipam.kubectl("label", kind, "s", "edited=yes", check=False))
    if kind == "addresspool":
        accepted(ipam.apply(ipam.pool("s", cidr="10.0.0.0/24", gateway="10.0.0.1"), check=False))
    assert ipam.get(kind, "s")["status"]["fencing"]["token"] == 2_000_000_000


def test_the_claim_that_shows_an_address_is_found_at_once(
    ipam: Ipam, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I5: a new leader asks for it before it gives the address. A field that cannot be selected is an error."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    api = Api()
    ipam.apply(*(ipam.claim(name, "p") for name in ("four", "six", "none")))
    for name, address in (("four", "10.0.0.4"), ("six", "fd00::1:4")):
        assert asyncio.run(api.showing(address)) == []
        patch = json.dumps({"status": {"address": address}})
        accepted(ipam.kubectl("patch", "addressclaim", name, "--subresource=status", "--type=merge", "-p", patch))
        assert asyncio.run(api.showing(address)) == [ipam.get("addressclaims", name)["metadata"]["uid"]]
    assert asyncio.run(api.showing(NO_ADDRESS)) == []
    with pytest.raises(Rejected, match="field label not supported"):
        asyncio.run(api._call("get", "addresspools", API_VERSION, params={"fieldSelector": "status.address=10.0.0.4"}))


def test_a_full_pool_of_the_longest_names_fits(ipam: Ipam) -> None:
    ipam.apply(ipam.pool("p" * 63, cidr="fd00:1111:2222:3333:4444:5555:6666:0/116"))
    owner = f"{'n' * 63}/{'c' * 63}/00000000-0000-0000-0000-000000000000"
    addresses = {f"fd00:1111:2222:3333:4444:5555:6666:{n:x}": owner for n in range(4096)}
    patch = json.dumps({"status": {"allocations": addresses}})
    how = ["--subresource=status", "--type=merge", "--patch-file=/dev/stdin"]
    accepted(ipam.kubectl("patch", "addresspool", "p" * 63, *how, input=patch, check=False))


@pytest.mark.parametrize("path", ["addresspool.spec.cidr", "addressclaim.status.fencing.token", "aclaim.spec.address"])
def test_explain(ipam: Ipam, path: str) -> None:
    assert "DESCRIPTION:" in ipam.kubectl("explain", path).stdout


def accepted(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


def refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert done.returncode != 0
    assert sentence in done.stderr
