"""docs/going-back.md, followed: plain Kopf handles stamped objects again, and nothing refuses."""

from __future__ import annotations

import json

from tests.adoption.shop_world import STATUS, Shop
from tests.page import Page


def test_plain_kopf_goes_on_with_stamped_objects(shop: Shop) -> None:
    (shop.folder / "crds-kopf.yaml").write_text((shop.folder / "crds.yaml").read_text())
    page = Page("going-back.md", shop.plane, shop.folder)
    shop.install()
    shop.fence()
    shop.run_fenced()
    shop.boxes("b0", "b1", "b2")
    shop.until_placed(3)
    before, state = shop.tokens(), shop.state()
    assert all(before.values())

    page.next("--only policies")
    assert not ours(shop, "validatingadmissionpolicybindings", "validatingadmissionpolicies")
    page.next("deployment-kopf.yaml")
    page.next("--only rbac")
    assert not ours(shop, "clusterroles", "clusterrolebindings", "flowschemas")

    plain = shop.replica()
    plain.see("HANDLER resume", 3)
    assert shop.state() == state
    shop.boxes("new")
    shop.until_placed(4)
    shop.plane.kubectl("patch", "box/b0", "-n", "shop", "--type=merge", "-p", '{"spec": {"color": "red"}}')
    shop.until("b0 to be red", lambda: "red" in {c["data"]["color"] for c in shop.children()})
    shop.plane.kubectl("delete", "box/b1", "-n", "shop", "--timeout=90s", timeout=120)
    shop.until_placed(3)
    assert {code for _, _, code in shop.writes(plain)} <= {200, 201}
    after = shop.tokens()
    living = [key for key in before if not key[1].endswith("b1")]
    assert {key: after[key] for key in living} == {key: before[key] for key in living}

    # The rule stays: it passes a merge patch of the status, and refuses one that replaces all of it.
    (rack,) = shop.all("racks")
    shop.plane.kubectl("patch", "-n", "shop", "rack/big", "--dry-run=server", *STATUS, '{"status": {"slots": null}}')
    del rack["status"]["fencing"]
    replace = ("replace", "--subresource=status", "-n", "shop", "-f", "-")
    said = shop.plane.kubectl(*replace, input=json.dumps(rack), check=False).stderr
    assert "The fencing stamp in status.fencing may not be removed" in said
    page.next("crds-kopf.yaml")
    page.check_at_end()
    shop.until(
        "the rule to be gone",
        lambda: shop.plane.kubectl(*replace, input=json.dumps(rack), check=False).returncode == 0,
    )
    assert shop.tokens()["racks", "big"] == 0


def ours(shop: Shop, *kinds: str) -> list[str]:
    names = [shop.plane.kubectl("get", kind, "-o", "name").stdout.split() for kind in kinds]
    return [n for many in names for n in many if "/kopf-ha" in n]
