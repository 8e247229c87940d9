"""Two installations of one operator work beside each other, each in a namespace; nothing but Roles is needed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.core.lease import OPERATOR
from kopf_ha.manifests.command import manifests
from testbed.replica import PATIENCE
from tests.kit import world as kit
from tests.kit.client import MERGE
from tests.kit.world import apply_kinds, fresh_namespace
from tests.policies.installations import GROUP, Installation, kinds


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[Cluster]:
    apply_kinds(cluster, *kinds())
    yield cluster
    names = [kind["metadata"]["name"] for kind in kinds()]
    cluster.kubectl("delete", "crd", *names, "--wait=false", check=False)


@pytest.fixture
def two(served: Cluster, tmp_path: Path) -> Iterator[tuple[Installation, Installation]]:
    """Production, with nothing but Roles, and staging, which may do everything and stays in its namespace, too.

    What is written for the second is applied after the first.
    """
    with ExitStack() as stack:
        made = []
        for name in ("prod", "staging"):
            namespace = stack.enter_context(fresh_namespace(served))
            one = Installation(served, namespace, tmp_path / name, may_all=name == "staging")
            stack.callback(one.remove)
            made.append(one)
        for one in made:
            served.kubectl("apply", "-f", "-", input=one.written())
            one.create("Pool", "pool")
        yield made[0], made[1]


def has_event(one: Installation) -> bool:
    return "Leading" in one.events()


def test_two_installations_side_by_side(two: tuple[Installation, Installation]) -> None:
    leaders = [one.start("op-0") for one in two]
    for one in two:
        one.create("Cell", "one")
        until(f"the cell in {one.namespace}", partial(one.is_done, "one"), PATIENCE, watched=one.running)
        assert one.stamp_of("pools", "pool")["lease"] == f"{one.namespace}/op"
        until(f"events in {one.namespace}", partial(has_event, one), PATIENCE)
    prod, staging = two

    # The one's leader goes, and another takes over. The other notices nothing.
    token = staging.lease()["leaseTransitions"]
    follower = prod.start("op-1")
    follower.see("new leader")
    leaders[0].kill()
    prod.create("Cell", "two")
    until("the cell of the next leader", lambda: prod.is_done("two"), PATIENCE, watched=[follower])
    assert prod.stamp_of("pools", "pool")["token"] > 1
    assert set(prod.get("pools", "pool")["status"]["given"]) == {"one", "two"}
    assert staging.lease()["leaseTransitions"] == token
    assert prod.ask("GET", prod.lease_path)["metadata"]["annotations"][OPERATOR] == "op"

    # Each one's policies protect its own objects, and nobody else's are looked at.
    for one in two:
        assert one.forge("pools", "pool").by == f"kopf-ha-{one.namespace}.operator-stamp"
    for replica in (*leaders, follower):
        for said in (
            ": refused",
            "not enforced",
            "set aside",
            "no permission",
            "forbidden",
            "not looked at",
            "not watched",
            "Traceback",
        ):
            assert said not in replica.log


def test_a_namespace_that_is_made_later(served: Cluster, tmp_path: Path) -> None:
    """The others are served meanwhile. Then its objects are stamped, as those of a barrier are, without a restart."""
    later = f"later-{secrets.token_hex(4)}"
    with fresh_namespace(served) as namespace, ExitStack() as stack:
        one = Installation(served, namespace, tmp_path / "one", later)
        stack.callback(one.remove)
        served.kubectl("apply", "-f", "-", input=one.written(), check=False)  # nothing can be applied in the other yet
        one.create("Pool", "pool")
        one.create("Cell", "one")
        replica = one.start("op-0")
        until("the cell", lambda: one.is_done("one"), PATIENCE, watched=[replica])
        line = replica.see(f"namespace {later} is not looked at")
        assert f"no permission to list pools.{GROUP} in namespace {later}" in line

        served.kubectl("create", "namespace", later)
        stack.callback(served.kubectl, "delete", "namespace", later, "--wait=false", check=False)
        there = kit.World(served, later, GROUP)
        there.create("Pool", "pool")
        assert there.stamp_of("pools", "pool") == {}
        served.kubectl("apply", "-f", "-", input=one.written())
        replica.see("all namespaces that could not be listed are looked at now")
        until("its stamp", lambda: there.stamp_of("pools", "pool").get("lease") == f"{namespace}/op", PATIENCE)
        there.clear("pools")


def test_where_the_rules_for_everybody_hold(served: Cluster) -> None:
    """In the namespaces that are served, wherever the Lease is, and for cluster-scoped objects."""
    with ExitStack() as stack:
        lease, inside, outside = (
            kit.World(served, stack.enter_context(fresh_namespace(served)), GROUP) for _ in range(3)
        )
        given = ["--group", GROUP, "--kind=pools:map=given", "--kind=trunks:cluster", f"--lease={lease.namespace}/op"]
        given += [f"--service-account={lease.namespace}/operator", "--namespace", inside.namespace, "--only=policies"]
        policies = CliRunner().invoke(manifests, given).output
        served.kubectl("apply", "-f", "-", input=policies)
        stack.callback(served.kubectl, "delete", "-f", "-", "--wait=false", input=policies, check=False)
        paths = {}
        for world in (lease, inside, outside):
            world.create("Pool", "pool")
            paths[world.namespace] = world.path("pools", "pool")
            stack.callback(world.clear, "pools")
        trunk = f"trunk-{lease.namespace}"
        inside.ask(
            "POST",
            f"/apis/{GROUP}/v1/trunks",
            {"apiVersion": f"{GROUP}/v1", "kind": "Trunk", "metadata": {"name": trunk}},
        )
        paths["cluster"] = f"/apis/{GROUP}/v1/trunks/{trunk}"
        stack.callback(inside.api, "DELETE", paths["cluster"])

        fencing = {"lease": f"{lease.namespace}/op", "token": 1000, "holder": "x", "podUID": "u"}
        forged = {"status": {"fencing": fencing}}

        def refused() -> set[str]:
            answers = {n: inside.api("PATCH", f"{p}/status?dryRun=All", forged, MERGE) for n, p in paths.items()}
            by = f"kopf-ha-{lease.namespace}.operator-stamp"
            return {name for name, answer in answers.items() if answer.by == by}

        until("the policies to be in force", lambda: refused() == {inside.namespace, "cluster"}, PATIENCE)
        # What a barrier meets where an account may list everywhere.
        assert inside.ask("GET", f"/apis/{GROUP}/v1/namespaces/nowhere/pools")["items"] == []
        # Who may edit a namespace cannot take it out of the rules (I10).
        label = {"metadata": {"labels": {"kubernetes.io/metadata.name": "another"}}}
        inside.ask("PATCH", f"/api/v1/namespaces/{inside.namespace}", label, MERGE)
        assert refused() == {inside.namespace, "cluster"}
