"""Whatever is done to the Lease by hand: the leader is lost, and the next token is above every stamp (I1, I2)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from devcluster.waiting import until
from testbed.deployment import ROOT
from testbed.replica import PATIENCE
from tests.kit.ipam import FAULTY, KINDS, LEASE, Ipam
from tests.survival.support import BEFORE, Site, run_shell, shell_of_runbook, terms

MINE = BEFORE + 1
HUGE = 1_000_000_000
LAST = 2_000_000_000


def deleted(site: Site) -> None:
    site.drop_lease()


def recreated(site: Site) -> None:
    """While the replicas stand still, since one of them would be faster."""
    running = [o for o in site.operators if o.running]
    for operator in running:
        operator.pause()
    site.drop_lease()
    site.make_lease(leaseTransitions=0)
    for operator in running:
        operator.resume()


def lowered(site: Site) -> None:
    site.edit_lease(leaseTransitions=3)


def raised(site: Site) -> None:
    site.edit_lease(leaseTransitions=HUGE)


def test_while_a_leader_leads(site: Site) -> None:
    """One after the other; each costs exactly one term, whoever of the two leads it."""
    one = site.begin()
    two = site.operator("two")
    site.until("two to follow", lambda: two.said("new leader: one_"))
    high = MINE
    for deed, cause in [
        (deleted, "was deleted"),
        (recreated, "(was deleted|not renewed)"),
        (lowered, "was lowered to 3, my token is {}"),
        (raised, f"was raised to {HUGE}, my token is {{}}"),
    ]:
        deed(site)
        lost = f"lost: token {high}, .*{cause.format(high)}"
        site.until(f"the leader to be lost by {deed.__name__}", lambda x=lost: one.said(x) or two.said(x))  # type: ignore[misc]
        above = HUGE if deed is raised else high
        site.goes_on(above, claim=f"after-{deed.__name__}")
        assert max(terms(one) + terms(two)) == above + 1
        high = above + 1
    assert len(terms(one) + terms(two)) == 5


def test_while_nobody_leads(site: Site) -> None:
    """A newcomer, which never saw the number, learns it from the pools' stamps before any handler runs."""
    last, high = site.begin(), MINE
    for deed, low in [(deleted, 1), (recreated, 1), (lowered, 4)]:
        site.end(last)
        assert not site.lease().get("holderIdentity")
        deed(site)
        last = site.operator(deed.__name__)
        site.goes_on(high, claim=f"after-{deed.__name__}")
        assert terms(last) == [low, high + 1]
        assert last.said(f"an object records token {high}, which is not below mine \\({low}\\)")
        high += 1


def test_while_the_leader_is_paused_in_the_middle_of_a_write(site: Site) -> None:
    """Its token is as high as any when it wakes, and its request, past all checks, is refused."""
    site.make_lease(leaseTransitions=BEFORE)
    old = site.operator("old", launcher=FAULTY, IPAM_STOP_BEFORE="/addresspools/ /x1/")
    site.apply(site.claim("x1", "p"))
    site.until_reason("addressclaim", "x1", "PoolNotFound")
    site.apply(site.pool("p", cidr="10.80.0.0/28"))
    until("it to freeze", lambda: old.said("frozen before"), PATIENCE)
    deleted(site)
    new = site.operator("new")
    site.goes_on(MINE)
    before = site.quiet()
    old.resume()
    until("it to learn that it is lost", lambda: old.said(f"term {MINE} of .* is over"), PATIENCE)
    assert site.touched(before) == []
    assert new.said(f"leading: token {MINE + 1},")
    assert site.judged().ok, site.judged()


def test_a_number_that_cannot_be(site: Site) -> None:
    """Nobody guesses one. The runbook's commands, word for word, repair it."""
    one = site.begin()
    new = site.operator("new")
    site.until("new to follow", lambda: new.said("new leader: one_"))
    high = MINE
    for number, what in [(None, "missing"), (LAST + 1, str(LAST + 1))]:
        site.edit_lease(leaseTransitions=number)
        broken = site.lease_version
        for each in (one, new):
            site.until(
                f"{each.name} to say why nobody leads",
                lambda e=each, w=what: e.said(f"WARNING.*cannot be used: leaseTransitions is {w}"),  # type: ignore[misc]
            )
        site.apply(site.claim(f"waits-for-{what}", "p"))
        find, repair = shell_of_runbook("The Lease has no usable `leaseTransitions`")
        assert run_shell(site, find) == str(high)
        repair = repair.replace("NAMESPACE", site.namespace).replace("NAME", LEASE).replace(":N}", f":{high}}}")
        assert site.lease_version == broken, "somebody wrote the Lease"
        run_shell(site, repair)
        site.goes_on(high, claim=f"after-{what}")
        site.until_ready(f"waits-for-{what}")
        high += 1
        assert max(terms(one) + terms(new)) == high


def test_no_number_is_left(site: Site) -> None:
    """The last one works. After it nobody leads until the runbook's way back was gone."""
    one = site.begin()
    site.edit_lease(leaseTransitions=LAST - 1)
    site.until("one to be lost", lambda: one.said(f"was raised to {LAST - 1}"))
    site.goes_on(LAST - 1)
    site.vacate_lease()
    site.until("one to say so", lambda: one.said(f"no token is left: the highest so far is {LAST}"))
    site.apply(site.claim("waits", "p"))
    assert site.lease()["leaseTransitions"] == LAST
    site.end(one)
    begin_again(site, number=5)
    site.operator("new")
    site.until_settled("waits")
    site.check_consistent()
    assert site.token("addresspool", "p") == site.token("addressclaim", "waits") == 6
    site.delete("addressclaim", "x", "after", wait=False)
    site.until_gone("addressclaim", "x")
    site.until_gone("addressclaim", "after")


def begin_again(site: Site, number: int) -> None:
    """What docs/runbook.md says under "No token is left", with all replicas stopped; and children, docs/survival.md."""
    patch = json.dumps({"status": {"fencing": {"token": number}}})

    def lower(kind: str, name: str) -> bool:
        how = ("--subresource=status", "--type=merge", "-p", patch)
        return site.kubectl("patch", kind, name, *how, check=False).returncode == 0

    with without_the_rule(site):
        for kind in KINDS:
            for item in site.all(kind):
                if (item.get("status") or {}).get("fencing"):
                    until("the rule to be out", lambda k=kind, n=item["metadata"]["name"]: lower(k, n))  # type: ignore[misc]
        for child in site.children():
            notes = (f"{name}-" for name in child["metadata"]["annotations"] if name.startswith("kopf-ha.dev/"))
            site.kubectl("annotate", "configmap", child["metadata"]["name"], *notes)
        site.drop_term()
        site.edit_lease(leaseTransitions=number)


def test_the_runbook_lowers_children_too() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    assert "kopf-ha.dev/token-" in page.partition("## No token is left")[2].partition("\n## ")[0]


@contextmanager
def without_the_rule(site: Site) -> Iterator[None]:
    """Take the transition rule out of both CRDs, and put it back."""
    path = "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations"
    before: dict[str, Any] = {}

    def put(crd: str, rules: Any) -> None:
        patch = [{"op": "replace", "path": path, "value": rules}]
        site.kubectl("patch", "crd", crd, "--type=json", "-p", json.dumps(patch))

    for kind in KINDS:
        crd = f"{kind}.ipam.kopf-ha.dev"
        version = site.get("crd", crd)["spec"]["versions"][0]
        before[crd] = version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    try:
        for crd, rules in before.items():
            put(crd, [r for r in rules if "fencing" not in r["rule"]])
        yield
    finally:
        for crd, rules in before.items():
            put(crd, rules)


def test_the_namespace_of_the_lease_is_deleted_and_made_again(site: Site) -> None:
    """Both processes keep running. The claims live elsewhere."""
    home = Ipam(site.cluster, f"{site.namespace}-home", site.folder)
    site.cluster.kubectl("create", "namespace", home.namespace)
    try:
        one = home.operator("one")
        site.apply(site.pool("p", cidr="10.80.0.0/28"), site.claim("x", "p"))
        home.until("x to be bound", lambda: site.until_ready("x"))
        two = home.operator("two")
        home.until("two to follow", lambda: two.said("new leader: one_"))
        highest = max(site.tokens())
        site.cluster.kubectl("delete", "namespace", home.namespace)
        home.until("one to be lost", lambda: one.said(f"lost: token {highest}, .*was deleted"))
        for each in (one, two):
            home.until("both to say why", lambda e=each: e.said("namespace .* does not exist: create it"))  # type: ignore[misc]
        site.apply(site.claim("after", "p"))
        site.cluster.kubectl("create", "namespace", home.namespace)
        site.until_settled("after")
        assert site.token("addressclaim", "after") == highest + 1
        assert site.token("addresspool", "p") == highest + 1
        assert home.get("lease", LEASE)["spec"]["leaseTransitions"] == highest + 1
        site.check_consistent()
        assert site.judged().ok, site.judged()
    finally:
        home.clear()
        site.cluster.kubectl("delete", "namespace", home.namespace, "--wait=false", check=False)
