"""etcd restored from an older snapshot: the stamps are older, too, and so is the Lease; docs/survival.md."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Binaries, ControlPlane
from devcluster.waiting import until
from tests.kit.history import forget
from tests.kit.ipam import install_crds
from tests.survival.support import BEFORE, Follower, Site, terms

MINE = BEFORE + 1


@pytest.fixture(scope="module")
def plane(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("restore") / "state", binaries=binaries) as made:
        install_crds(made)
        yield made


@pytest.fixture
def site(plane: ControlPlane, tmp_path: Path) -> Iterator[Site]:
    namespace = f"restore-{secrets.token_hex(3)}"
    plane.kubectl("create", "namespace", namespace)
    made = Site(plane, namespace, tmp_path / "site")
    try:
        yield made
    finally:
        made.clear()
        plane.kubectl("delete", "namespace", namespace, "--wait=false")


def snapshot(plane: ControlPlane, to: Path) -> None:
    """Copy etcd's data while it stands still."""
    plane.etcd().pause()
    try:
        shutil.copytree(plane.folder / "etcd-0", to)
    finally:
        plane.etcd().resume()


def restore(plane: ControlPlane, copy: Path) -> None:
    """Put it back, as etcd's documentation says: with all API servers stopped, and what watches them started anew."""
    forget(plane)
    parts = [plane.controller_manager, plane.apiserver(), plane.etcd()]
    for part in parts:
        part.kill()
    shutil.rmtree(plane.folder / "etcd-0")
    shutil.copytree(copy, plane.folder / "etcd-0")
    for part in reversed(parts):
        part.start()
        part.wait_ready()
    probe = ("create", "configmap", "probe", "--dry-run=server")
    until("writes to be admitted", lambda: plane.kubectl(*probe, check=False).returncode == 0)


def test_a_leader_that_lives_on(site: Site, tmp_path: Path) -> None:
    """It is lost. It remembers the highest token of what is undone now, and goes on above it."""
    one = site.begin()
    snapshot(site.plane, tmp_path / "copy")
    site.vacate_lease()
    site.goes_on(MINE, claim="undone")
    assert terms(one) == [MINE, MINE + 1]
    restore(site.plane, tmp_path / "copy")
    assert not site.get("addressclaim", "undone")
    site.until("one to be lost", lambda: one.said(f"lost: token {MINE + 1}"))
    site.goes_on(MINE + 1)
    assert terms(one) == [MINE, MINE + 1, MINE + 2]


def test_replicas_that_are_started_anew(site: Site, tmp_path: Path) -> None:
    """What is recommended. Tokens that are undone are given again, and nothing in the restored history is wrong."""
    one = site.begin()
    snapshot(site.plane, tmp_path / "copy")
    site.vacate_lease()
    site.goes_on(MINE, claim="undone")
    site.kill(one)
    restore(site.plane, tmp_path / "copy")
    new = site.operator("new")
    site.goes_on(MINE)
    assert terms(new) == [MINE + 1], "it was given before the restore, too: whoever keeps tokens outside has to know"
    site.until_quiet()


def test_a_term_does_not_outlive_a_restore(site: Site, tmp_path: Path) -> None:
    """Also not one that the restored Lease knows, of a leader patient enough to renew after it."""
    one = Follower(site, "one", duration=900)
    try:
        until("one to lead", one.leads)
        snapshot(site.plane, tmp_path / "copy")
        renewed = one.grants[0].deadline
        until("a renewal that will be undone", lambda: one.leads() and one.grants[0].deadline > renewed + 1)
        restore(site.plane, tmp_path / "copy")
        version = site.lease_version
        until("it to be lost, or to renew", lambda: one.causes or (one.leads() and site.lease_version != version))
        assert one.causes, "its memory, and Kopf's watches, are of a history that is no more"
    finally:
        one.elector.stop()


def test_who_watches_from_a_revision_that_is_undone_sees_nothing(site: Site, tmp_path: Path) -> None:
    """Why everything that watches has to be started anew. A list from there is refused, a watch is just silent."""
    snapshot(site.plane, tmp_path / "copy")
    site.write_much("undone")
    ahead = site.revision()
    restore(site.plane, tmp_path / "copy")
    maps = site.path("configmap")
    now = site.read(maps)["metadata"]["resourceVersion"]
    refused = site.api("GET", f"{maps}?resourceVersion={ahead}")
    assert (refused.status, "Too large resource version" in refused.message) == (504, True)
    site.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}})
    watch = maps + "?watch=1&timeoutSeconds=2&resourceVersion="
    assert '"name":"seen"' in site.kubectl("get", "--raw", watch + now).stdout
    assert '"name":"seen"' not in site.kubectl("get", "--raw", f"{watch}{ahead}").stdout
