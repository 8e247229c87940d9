"""The Lease goes with its namespace, and nothing of ours keeps the namespace from going."""

from __future__ import annotations

from devcluster.waiting import until
from tests.policies.fenced import Fenced


def test_a_namespace_goes_with_its_lease(fenced: Fenced) -> None:
    fenced.acquire(fenced.new)
    fenced.child(fenced.new, 1)
    fenced.stamp(fenced.new, fenced.claim(), 1)
    lease = f"{fenced.leases}/leader"
    until("the policy to be in force", lambda: fenced.admin("DELETE", f"{lease}?dryRun=All").status == 403)
    answer = fenced.admin("DELETE", lease)
    assert answer.status == 403
    assert "it is deleted only with its namespace" in answer.message
    fenced.cluster.kubectl("delete", "namespace", fenced.namespace, "--wait=false")

    namespace = f"/api/v1/namespaces/{fenced.namespace}"
    until("the namespace to be gone", lambda: fenced.admin("GET", namespace).status == 404)
