"""docs/adoption.md, followed: nothing is lost, everything gets stamped, no handler runs without need."""

from __future__ import annotations

import yaml

from tests.adoption.shop_world import Shop
from tests.page import Page

BOXES = [f"b{n}" for n in range(6)]


def test_an_operator_that_ran_under_plain_kopf(shop: Shop) -> None:
    page = Page("adoption.md", shop.plane, shop.folder, "By hand")
    stamping = Page("adoption.md", shop.plane, shop.folder, "When objects get their stamp")
    shop.install()
    plain = shop.run_plain()
    shop.boxes(*BOXES)
    shop.until_placed(6)
    before = shop.state()
    assert set(shop.tokens().values()) == {0}

    page.next("kopf-ha manifests")
    shop.merge_schema(yaml.safe_load((shop.folder / "schema.yaml").read_text()))
    page.next("crds.yaml")
    # The old version works on under the new schema.
    shop.boxes("b6")
    shop.until_placed(7)
    page.next("scale")
    assert not plain.running
    assert {code for _, _, code in shop.writes(plain)} <= {200, 201}
    page.next("fence.yaml")
    page.next("deployment.yaml")

    shop.until("the racks to be stamped", lambda: shop.tokens()["racks", "big"] > 0)
    leader = shop.until("a leader", shop.leader)
    leader.see("HANDLER resume", 7)
    kept = shop.state()
    assert {k: kept[k] for k in before} == before | {("racks", "big"): kept["racks", "big"]}

    page.check_at_end()
    stamping.next("annotate")
    shop.until("all to be stamped", lambda: all(shop.tokens().values()))
    stamping.check_at_end()
    assert shop.state() == kept
    assert len(shop.tokens()) == 15
    # Each was created once, by plain Kopf, and looked at once by the new leader.
    assert shop.runs("create") == [*BOXES, "b6"]
    assert shop.runs("resume").count("b0") == 1
    assert shop.runs("update") == shop.runs("delete") == []

    # It goes on, and fails over.
    shop.boxes("after")
    shop.until_placed(8)
    leader.kill()
    shop.boxes("failover")
    shop.until_placed(9)
    shop.plane.kubectl("delete", "boxes", "b0", "after", "-n", "shop", "--timeout=90s", timeout=120)
    shop.until_placed(7)
    assert shop.runs("create") == sorted([*BOXES, "b6", "after", "failover"])
    assert shop.refusals() == []


def test_handlers_of_children_do_not_run_for_a_stamp(shop: Shop) -> None:
    """Nobody changed a child: adopting it is no update that the operator's author would know of."""
    for name in ("deployment.yaml", "deployment-kopf.yaml"):
        path = shop.folder / name
        path.write_text(path.read_text().replace("shop.py]", "shop.py, watching.py]"))
    shop.install()
    plain = shop.run_plain()
    shop.boxes("b0")
    shop.until_placed(1)
    noted = "kopf.zalando.org/last-handled-configuration"
    shop.until("Kopf to know the child", lambda: noted in shop.children()[0]["metadata"].get("annotations", {}))
    shop.plane.kubectl("delete", "deployment/shop-operator", "-n", "shop", "--cascade=foreground", "--timeout=90s")
    assert not plain.running
    shop.fence()
    shop.run_fenced()
    shop.until("the child to be stamped", lambda: shop.tokens()["configmaps", "box-b0"])
    # Children are handled one event after the other: this change comes after the stamp's.
    shop.plane.kubectl("patch", "box/b0", "-n", "shop", "--type=merge", "-p", '{"spec": {"color": "red"}}')
    shop.until("the change", lambda: any("'red'" in r.log and "CHANGED" in r.log for r in shop.node.all))
    assert shop.runs("child") == ["box-b0"]
