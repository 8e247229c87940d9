"""Terms of one pod, whose container was restarted: to the policy about the Term they are the same. What protects then.

tests/policies/unrefused.py shows what stamps add, and tests/run/test_restart.py how two processes of a pod keep apart.
"""

from __future__ import annotations

from devcluster import ControlPlane
from devcluster.waiting import until
from testbed.terms import MERGE, Terms
from tests.fourth_line.site import Site


def test_a_late_write_of_the_process_before(terms: Terms) -> None:
    """Line 4 lets it pass, at each level. It does not let the process before say again that it leads."""
    pod = terms.pod("one")
    raw = pod.raw()
    terms.take(pod, raw)
    before = terms.spec(pod)
    terms.take(pod, raw)
    path = f"/api/v1/namespaces/{terms.namespace}/configmaps"
    status, _ = raw("POST", path, {"metadata": {"name": "late"}})
    assert status == 201
    status, body = raw("PATCH", f"{terms.path}/{terms.name}", {"spec": before}, MERGE)
    assert status == 422, body


def test_a_stamp_tells_the_processes_of_a_pod_apart(operator: ControlPlane, site: Site) -> None:
    """At level full: a lower token is refused by the rule in the kind's definition, whichever process sends it."""
    replica = site.operator("one")
    site.apply(site.pool("p", cidr="10.95.0.0/28"), site.claim("x", "p"))
    site.until_ready("x")
    stamp = site.get("aclaim", "x")["status"]["fencing"]
    site.kill_and_restart(replica)
    until("the next term to stamp", lambda: site.get("addresspool", "p")["status"]["fencing"]["token"] > stamp["token"])
    assert site.term()["podUID"] == stamp["podUID"]
    raw = site.raw_of(replica)
    late = {"status": {"free": 1, "fencing": stamp}}
    status, body = raw("PATCH", site.path("addresspools", "p") + "/status", late, MERGE)
    assert (status, "fencing stamp" in body["message"]) == (422, True)
