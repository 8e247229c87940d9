"""The story with each fence: the same faults, and who they harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster import Binaries, ControlPlane
from devcluster.waiting import until

ROOT = Path(__file__).parents[2]
# the demo's replicas have Leases of 3 s
pytestmark = pytest.mark.load_sensitive


def tell(fence: str, *args: str) -> subprocess.CompletedProcess[str]:
    # a demo of somebody's own settings would be another story
    env = {k: v for k, v in os.environ.items() if not k.startswith("KOPF_HA_") and k != "KUBECONFIG"}
    argv = [sys.executable, "-m", "demo", "--fence", fence, *args]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_with_the_fence_the_stale_leader_is_refused_and_every_promise_holds(binaries: Binaries, tmp_path: Path) -> None:
    told = tell("full", f"--picture={tmp_path / 'demo.svg'}")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "is paused (SIGSTOP): it has decided on 30 addresses" in told.stdout
    assert "REFUSED by precondition, token 1" in told.stdout  # the write in flight
    assert "REFUSED by gate, token 1" in told.stdout  # those after it
    assert "REFUSED by server: 422" in told.stdout  # raw requests: by the CRD's rule
    assert "REFUSED by server: 403" in told.stdout  # and by a policy
    assert "it had sent   PATCH /apis/ipam.kopf-ha.dev/v1/addresspools/demo-pool/status" in told.stdout
    assert "and was told  409" in told.stdout
    assert "no address twice, no token going down" in told.stdout
    assert "given twice:" not in told.stdout
    drawn = (tmp_path / "demo.svg").read_text()
    assert "REFUSED" in drawn
    assert "http" not in drawn.replace("http://www.w3.org/", "").replace("https://www.textualize.io", ""), (
        "a page of the docs fetches nothing"
    )


def addresses_are_given_twice(told: subprocess.CompletedProcess[str], fence: str) -> None:
    assert told.returncode == 1, told.stdout + told.stderr
    assert f"UNSAFE: fence={fence}" in told.stdout
    assert "10.20.0." in told.stdout
    assert " was given twice: to default/" in told.stdout
    assert "addresses were given twice. This is what the fence is for." in told.stdout


def test_with_an_election_alone_the_same_story_gives_addresses_twice(binaries: Binaries) -> None:
    addresses_are_given_twice(tell("none"), "none")


def test_with_revisions_alone_too_and_on_a_cluster_that_exists(
    binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves nothing there, and does not touch an address manager that somebody uses."""
    monkeypatch.setenv("PATH", f"{binaries['kubectl'].parent}:{os.environ['PATH']}")
    with ControlPlane(tmp_path / "state", binaries=binaries) as plane:
        there = f"--kubeconfig={plane.kubeconfig}"
        addresses_are_given_twice(tell("rv", there), "rv")
        kinds = "crds,validatingadmissionpolicies,clusterroles,priorityclasses,flowschemas"
        until("all to be gone", lambda: "kopf-ha" not in plane.kubectl("get", kinds, "-o", "name").stdout)
        plane.kubectl("apply", "-k", str(ROOT / "crds"))
        told = tell("full", there)
        assert told.returncode == 2
        assert "would change what somebody uses" in told.stdout
        assert plane.kubectl("get", "crd", "addresspools.ipam.kopf-ha.dev", "-o", "name").stdout
