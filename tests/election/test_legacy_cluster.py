"""A legacy lock on a real API server: made, kept, handed over, given back, taken, forbidden."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devcluster.waiting import until
from kopf_ha.core.legacy_lock import ANNOTATION
from tests.election.stage import LONG, Stage


def holder(stage: Stage, resource: str) -> str:
    """Who holds the lock `old`; empty for nobody."""
    text = stage.kubectl("get", resource, "old", "--ignore-not-found", "-o", "json")
    body: dict[str, Any] = json.loads(text or "{}")
    if resource == "leases":
        return str((body.get("spec") or {}).get("holderIdentity") or "")
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    return str(json.loads(annotations.get(ANNOTATION, "{}")).get("holderIdentity") or "")


@pytest.mark.parametrize("resource", ["endpoints", "configmaps", "leases"])
def test_the_lock_is_made_kept_handed_over_and_given_back(stage: Stage, resource: str) -> None:
    ours = f"kopf-ha:{stage.namespace}/op:"
    a = stage.replica("a", legacy_lock=f"{resource}/old", **LONG).leads()
    assert holder(stage, resource) == f"{ours}a"
    b = stage.replica("b", legacy_lock=f"{resource}/old", **LONG)
    until("b to follow", lambda: b.leaders)
    a.elector.release(60)
    b.leads()
    until("b to have the legacy lock", lambda: holder(stage, resource) == f"{ours}b")
    assert b.stopped == []
    b.elector.release(60)
    assert holder(stage, resource) == ""


def test_a_lock_that_is_taken_ends_the_term_and_is_waited_for(stage: Stage) -> None:
    a = stage.replica("a", legacy_lock="configmaps/old", **LONG).leads()
    record = {"holderIdentity": "pod-1", "leaseDurationSeconds": 900}
    stage.kubectl("annotate", "--overwrite", "configmap", "old", f"{ANNOTATION}={json.dumps(record)}")
    a.lost("configmaps/" + stage.namespace + "/old is held by pod-1")
    a.elector.resume()
    until("a to follow", lambda: a.elector.state == "following")
    assert a.elector.signs.trouble == "", "a replica that waits for an old one is ready: a rollout goes on"
    stage.kubectl(
        "annotate", "--overwrite", "configmap", "old", f"{ANNOTATION}={json.dumps(record | {'holderIdentity': ''})}"
    )
    until("a to lead again", lambda: len(a.grants) == 2)
    assert a.tokens == [1, 2]


def test_without_a_right_to_the_lock_nobody_leads_and_the_sentence_names_it(stage: Stage) -> None:
    stage.kubectl("create", "serviceaccount", "nobody")
    path = stage.cluster.kubeconfig_for(stage.kubectl("create", "token", "nobody").strip())
    stage.kubectl("create", "role", "op", "--verb=get,list,watch,create,update", "--resource=leases")
    stage.kubectl("create", "rolebinding", "op", "--role=op", f"--serviceaccount={stage.namespace}:nobody")
    a = stage.replica("a", kubeconfig=path, legacy_lock="endpoints/old")
    a.fails(f"no permission to list endpoints in namespace {stage.namespace}")
    assert a.elector.signs.trouble
    stage.kubectl("create", "role", "old", "--verb=get,list,watch,create,update", "--resource=endpoints")
    stage.kubectl("create", "rolebinding", "old", "--role=old", f"--serviceaccount={stage.namespace}:nobody")
    a.leads()
