"""docs/rolling-update.md, followed: who is refused beside fenced replicas, and updates between versions."""

from __future__ import annotations

import itertools
import json

import pytest

from kopf_ha.manifests import policies, render
from tests.adoption.node import PodReplica
from tests.adoption.shop_world import DESCRIPTION, OPERATOR, STATUS, Shop
from tests.page import Page


def plain_beside(shop: Shop) -> PodReplica:
    """Start plain Kopf in a Deployment of its own, with the same service account."""
    text = (shop.folder / "deployment-kopf.yaml").read_text()
    shop.plane.kubectl("apply", "-f", "-", input=text.replace("name: shop-operator,", "name: left,").replace(
        "app: shop-operator", "app: left"))  # fmt: skip
    return shop.replica("app=left")


def accepted(shop: Shop, replica: PodReplica) -> list[tuple[str, str, int]]:
    return [w for w in shop.writes(replica) if w[2] < 300]


def refused(shop: Shop, replica: PodReplica) -> list[str]:
    return [path for path, code in shop.answers(replica) if code == 403]


def test_plain_kopf_beside_fenced_replicas(shop: Shop) -> None:
    shop.install()
    shop.fence(in_force=False)
    shop.run_fenced()
    plain = plain_beside(shop)
    names = (f"p{n}" for n in itertools.count())

    def written() -> bool:
        shop.boxes(next(names))
        return any(resource == "boxes/status" for _, resource, _ in accepted(shop, plain))

    # Without policies the CRD's rule lets it through: it does the leader's work once more.
    shop.until("a status write of plain Kopf", written)
    count = len(shop.all("boxes"))
    shop.until_placed(count)

    shop.apply_policies()
    before = accepted(shop, plain)
    # Alone with an object that nobody has stamped yet, and with one that is stamped:
    fenced = shop.node.replicas(OPERATOR)
    for replica in fenced:
        replica.pause()
    try:
        shop.boxes("unstamped")
        shop.plane.kubectl("patch", "box/p0", "-n", "shop", "--type=merge", "-p", '{"spec": {"color": "red"}}')
        shop.until("refusals of it", lambda: any("/boxes/unstamped" in path for path in refused(shop, plain)))
        shop.until("refusals of p0", lambda: any("p0" in path for path in refused(shop, plain)))
        assert "HANDLER create" not in [line[-14:] for line in plain.log.splitlines() if "[shop/unstamped]" in line]
    finally:
        for replica in fenced:
            replica.resume()
    shop.until_placed(count + 1)
    shop.until("p0 to be red", lambda: "red" in {c["data"]["color"] for c in shop.children()})
    assert accepted(shop, plain) == before

    # Another account is none of the policies' business, stamps excepted.
    patch = ("patch", "-n", "shop", "rack/big", "--dry-run=server", *STATUS)
    shop.plane.kubectl(*patch, json.dumps({"status": {"slots": {"s99": "me"}}}))
    said = shop.plane.kubectl(*patch, json.dumps({"status": {"fencing": {"token": 1_000_000}}}), check=False).stderr
    assert "kopf-ha-shop.shop-operator-stamp" in said


@pytest.mark.parametrize("older", [False, True], ids=["same-stamp", "other-stamp"])
def test_a_rolling_update_between_versions_of_kopf_ha(shop: Shop, older: bool) -> None:
    page = Page("rolling-update.md", shop.plane, shop.folder)
    shop.install()
    shop.fence(in_force=False)
    new = render(policies(DESCRIPTION))
    if older:
        deployment = shop.folder / "deployment.yaml"
        deployment.write_text(deployment.read_text().replace("image: shop-operator", "image: shop-operator:older"))
        old = new.replace("kopf-ha.dev/", "kopf-ha.dev/older-")
        shop.apply_policies(old)
    else:
        shop.apply_policies(new)
    (shop.folder / "fence.yaml").write_text(new)
    shop.run_fenced()
    first = {r.uid for r in shop.node.replicas()}
    shop.boxes("b0", "b1", "b2")
    shop.until_placed(3)
    before = shop.tokens()
    assert shop.refusals() == []
    page.next("RollingUpdate")
    if older:
        # The policies are new, the replicas are not: with its next child the term ends.
        shop.plane.kubectl("apply", "-f", str(shop.folder / "fence.yaml"))
        names = (f"m{n}" for n in itertools.count())

        def refused() -> list[str]:
            shop.boxes(next(names))
            return shop.refusals()

        shop.until("a refusal", refused)
    page.next("set image")
    page.check_at_end()
    shop.boxes("b3", "b4")
    shop.until_placed(len(shop.all("boxes")))
    assert first.isdisjoint(r.uid for r in shop.node.replicas())
    after = shop.tokens()
    assert all(after[key] >= token for key, token in before.items() if key[0] != "configmaps" or not older)
    assert after["racks", "big"] > before["racks", "big"]
    if not older:
        assert shop.refusals() == []
        assert shop.runs("create") == ["b0", "b1", "b2", "b3", "b4"]
