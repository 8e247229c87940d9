"""The API server's real answers, and whether the fence knows which of them are our rules' (I10)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from devcluster.waiting import until
from kopf_ha.core.refusal import RULE_MESSAGE, Refusal, about_tokens, refusal_of
from kopf_ha.core.target import Target
from kopf_ha.errors import Denied, StaleLeader
from tests.kit.client import MERGE
from tests.policies.fenced import GROUP, Fenced, Process, response
from tests.policies.refused import Attempts

#: What the current leader's pod is refused by rules that are not about tokens.
OTHERWISE = {
    "status, merge patch, its own stamp, another Lease",
    "scale",
    "delete",
    "merge patch, the stamp removed",
    "create, no stamp",
    "create, no label of a child",
}
KINDS = {
    "FencedPool": Target(GROUP, "v1", "fencedpools", name="x"),
    "FencedClaim": Target(GROUP, "v1", "fencedclaims", "ns", "x"),
    "ConfigMap": Target("", "v1", "configmaps", "ns", "x"),
}


def test_each_refusal_is_recognised(fenced: Fenced) -> None:
    for row in Attempts(fenced).rows():
        if row.target not in KINDS:
            continue
        for answer in (row.stale, row.current):
            where = f"{row.target}: {row.verb}: {answer.status} {answer.message}"
            found = refusal_of(response(answer), KINDS[row.target], fenced.lease)
            if not answer.by:
                assert found is Refusal.NONE, where
            elif answer.by == "schema":
                assert found is Refusal.RULE_TOKEN, where
            elif answer is row.current and row.verb in OTHERWISE:
                assert found is Refusal.POLICY_OTHER, where
            elif answer is row.stale and row.verb not in OTHERWISE:
                assert found is Refusal.POLICY_TOKEN, where
            else:
                assert found in (Refusal.POLICY_TOKEN, Refusal.POLICY_OTHER), where


# --- through the fence, by the process that the API server refuses


@pytest.fixture
def theirs(fenced: Fenced) -> Iterator[str]:
    """Another team's policy, which has all of our words."""
    name, api = f"fencing-{fenced.namespace}", "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["fencedclaims"]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [
            {
                "expression": "!has(object.metadata.labels) || !('friday' in object.metadata.labels)",
                "message": about_tokens(fenced.lease) + "stale leader",
                "reason": "Forbidden",
            }
        ],
    }
    bound = {"policyName": name, "validationActions": ["Deny"]}
    many = [
        {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": part}
        for kind, part in (("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", bound))
    ]
    fenced.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(many))
    probe, friday = fenced.claim(), {"metadata": {"labels": {"friday": "x"}}}
    until("the policy to be in force", lambda: fenced.admin("PATCH", probe + "?dryRun=All", friday, MERGE).by == name)
    yield name
    fenced.cluster.kubectl("delete", f"validatingadmissionpolicybinding/{name}", f"validatingadmissionpolicy/{name}")


def test_what_has_our_words_is_the_callers_answer(fenced: Fenced, theirs: str) -> None:
    token = fenced.acquire(fenced.new)
    me, path = Process(fenced.new, fenced.lease, token), fenced.claim()
    for value in ("fencing stamp", RULE_MESSAGE, f"<nil>: Invalid value: {RULE_MESSAGE}", about_tokens(fenced.lease)):
        answer = me.patch(path, {"metadata": {"labels": {"color": value}}})
        assert answer.status == 422
        assert value in answer.message
    answer = me.patch(path, {"metadata": {"labels": {"friday": "x"}}})
    assert answer.status == 403
    assert theirs in answer.message
    assert me.patch(path, {"metadata": {"labels": {"color": "red"}}}).ok


def test_a_rule_that_is_not_about_tokens_is_about_one_object(fenced: Fenced) -> None:
    token = fenced.acquire(fenced.new)
    me, path = Process(fenced.new, fenced.lease, token), fenced.claim(finalizers=["kopf-ha.dev/test"])
    assert me.patch(path + "/status", {"status": {}}).ok
    fenced.admin.must("DELETE", path)
    with pytest.raises(Denied, match="the object is being deleted"):
        me.patch(path + "/status", {"status": {"address": "10.0.0.9"}})
    assert me.patch(path, {"metadata": {"finalizers": None}}).ok


def test_a_stale_leader_is_told_by_the_policies_too(fenced: Fenced) -> None:
    """Lines 1 and 2 are made to fail: the fence takes the object for its own at the revision that is another's."""
    token = fenced.acquire(fenced.old)
    me, path = Process(fenced.old, fenced.lease, token), fenced.claim()
    me.patch(path + "/status", {"status": {}})
    newer = fenced.stamp(fenced.new, path, fenced.acquire(fenced.new))
    lie = {**newer, "status": {"fencing": me.grant.stamp.as_status()}}
    me.fence.known.learn(Target(GROUP, "v1", "fencedclaims", fenced.namespace, newer["metadata"]["name"]), lie)
    with pytest.raises(StaleLeader, match=f"records token {token + 1}") as refused:
        me.patch(path, {"metadata": {"labels": {"a": "b"}}})
    assert refused.value.line == "server"
    assert about_tokens(fenced.lease) in refused.value.answer.message
