"""`kopf-ha status`: what it concludes from what it may read. The API server's answers and its time are made up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kopf_ha.core.history import Past
from kopf_ha.core.lease import ENDED
from kopf_ha.core.refusal import REFUSED
from kopf_ha.errors import ApiRefused
from kopf_ha.manifests import Description, policies
from kopf_ha.manifests.description import Kind
from kopf_ha.oncall.cluster import BAD, UNKNOWN, WELL, Cluster, Unknown
from kopf_ha.oncall.find import find, the_one
from kopf_ha.oncall.findings import REMARK, Finding, exit_status, findings
from kopf_ha.oncall.live import frame, live
from kopf_ha.oncall.protection import Policies
from kopf_ha.oncall.renewal import renewal_of
from kopf_ha.oncall.replica import EXITS, look_at, read_metrics, why_not
from kopf_ha.oncall.report import Report, report_on
from kopf_ha.oncall.shown import as_data, as_text, state_of
from kopf_ha.run import ending
from tests.oncall.support import (
    BINDINGS,
    EVENTS,
    FORBIDDEN,
    HOLDER,
    LEASE,
    PODS,
    POLICIES,
    TERM,
    Made,
    cluster,
    event,
    lease,
    pod,
    port,
)

DESCRIBED = Description(
    group="example.dev", kinds=(Kind("pools", deciding=True),), lease="n/web", service_account="n/s"
)
ROOT = Path(__file__).parents[2]
ALL = policies(DESCRIBED)
IN_FORCE = {
    POLICIES: [o for o in ALL if o["kind"] == "ValidatingAdmissionPolicy"],
    BINDINGS: [o for o in ALL if o["kind"] != "ValidatingAdmissionPolicy"],
}
POOLS = "/apis/example.dev/v1/pools"
KINDS = {"/apis/example.dev": {"preferredVersion": {"groupVersion": "example.dev/v1"}}}
GOOD: dict[str, Any] = {
    f"{LEASE}/web": lease(),
    f"{TERM}/web": {"spec": {"token": 7, "holder": HOLDER, "podUID": "u1"}},
    PODS: [pod(), pod("web-5d4-bbbbb", "u2")],
    EVENTS: [event("Leading")],
    POOLS: [],
    **KINDS,
    **IN_FORCE,
}


def report(**changed: Any) -> Report:
    """Give the report about a healthy operator, but for what is changed: by path, in dicts of any name."""
    made = cluster(good=GOOD, **changed)
    return report_on(made, the_one(made, "web"), Policies.read(made))


def problems(one: Report, kind: str = "problem") -> dict[str, Finding]:
    return {f.reason: f for f in findings(one) if f.kind == kind}


def test_all_is_well() -> None:
    one = report()
    assert problems(one) == {}
    assert exit_status(findings(one)) == WELL
    assert (state_of(one), one.level, one.set_aside, one.ahead) == ("led", "full", 0, [])
    text = as_text([one])
    assert text.startswith("Lease n/web: web-5d4-aaaaa leads, token 7\n")
    assert "for 10m" in text
    assert "1s ago, 14s of 15s left (by the API server's clock, to 1 s)" in text
    assert "enforced at level full, by the leader's dry runs" in text
    rows = [line.split()[:7] for line in text.splitlines() if line.startswith("  web-5d4-")]
    assert rows == [
        ["web-5d4-aaaaa", "node-1", "5d4", "leader", "yes", "0", "1h"],
        ["web-5d4-bbbbb", "node-1", "5d4", "follower", "yes", "0", "1h"],
    ]


# --- how old a renewal is


@pytest.mark.parametrize("ahead", [0, 300, -300])
def test_the_holder_s_clock_does_not_count(ahead: int) -> None:
    renewed = f"2026-11-30T10:{10 + ahead // 60:02}:00.000000Z"
    acquired = f"2026-11-30T09:{10 + ahead // 60:02}:00.000000Z"
    one = report(lease={f"{LEASE}/web": lease(renewed=renewed, acquired=acquired)})
    assert one.renewal is not None
    assert (one.renewal.age, one.renewal.left, one.renewal.clock) == (1.0, 14.0, "api-server")
    assert (one.renewal.ahead, one.renewal.held) == (ahead, 3601.0)
    assert ("clock" in problems(one, "remark")) is bool(ahead)
    assert exit_status(findings(one)) == WELL


def test_without_the_api_server_s_note_both_clocks_count_and_that_is_said() -> None:
    one = report(lease={f"{LEASE}/web": lease(stored="")})
    assert one.renewal is not None
    assert (one.renewal.age, one.renewal.clock, one.renewal.ahead) == (0.5, "holder", None)
    assert "the holder's clock compared with the API server's" in as_text([one])


def test_an_expiry_is_certain() -> None:
    """Both times are rounded down, so an age may be a second less."""
    made = report(lease={f"{LEASE}/web": lease(stored="2026-11-30T10:09:45Z")})
    assert made.renewal is not None
    assert (made.renewal.age, made.renewal.left, made.renewal.expired) == (16.0, 0.0, False)
    made = report(lease={f"{LEASE}/web": lease(stored="2026-11-30T10:09:44Z")})
    assert made.renewal is not None
    assert made.renewal.expired


@pytest.mark.parametrize("spec", [None, {}, {"renewTime": "yesterday", "leaseDurationSeconds": "15"}, {"renewTime": 7}])
def test_a_lease_without_times(spec: Any) -> None:
    renewal = renewal_of({"metadata": {"managedFields": None}, "spec": spec}, None)
    assert (renewal.age, renewal.left, renewal.expired, renewal.held) == (None, None, False, None)


# --- who leads


def test_nobody_renews() -> None:
    one = report(
        lease={f"{LEASE}/web": lease(stored="2026-11-30T10:00:00Z")}, pods={PODS: [pod("web-5d4-bbbbb", "u2")]}
    )
    found = problems(one)["not-renewed"]
    assert f"nobody renews the Lease: {HOLDER} did last 10m1s ago; its Pod web-5d4-aaaaa is gone" in found.text
    assert found.next.startswith("kubectl -n n logs web-5d4-bbbbb")
    assert (state_of(one), exit_status(findings(one))) == ("not-renewed", BAD)
    assert "nobody renews it; web-5d4-aaaaa led last" in as_text([one])


def test_no_replica() -> None:
    one = report(lease={f"{LEASE}/web": lease(stored="2026-11-30T10:00:00Z")}, pods={PODS: []})
    found = problems(one)
    assert found["not-renewed"].text.endswith("and there is no replica")
    assert "kubectl -n n get deployment web" in found["no-replicas"].next


def test_nobody_leads() -> None:
    body = lease("")
    body["metadata"]["annotations"][ENDED] = Past(7).ended_by("stopped", "SIGTERM").as_text()
    one = report(lease={f"{LEASE}/web": body})
    said = "nobody leads: the Lease was given back 1s ago, for this reason: SIGTERM; nobody has taken it since"
    assert problems(one)["nobody-leads"].text == said
    assert one.set_aside == Unknown("nobody leads")
    assert as_data([one])["operators"][0]["leader"] is None


def test_a_pause_is_what_is_wrong_while_nobody_leads() -> None:
    paused, drains = lease(""), lease()
    for one in (paused, drains):
        one["metadata"]["annotations"]["kopf-ha.dev/paused"] = '{"by": "ann", "reason": "etcd", "since": "now"}'
    nobody = report(lease={f"{LEASE}/web": paused})
    assert problems(nobody)["paused"].text == "nobody leads: paused by ann since now: etcd"
    assert problems(nobody)["paused"].next == "kopf-ha resume n/web"
    assert "nobody-leads" not in problems(nobody)
    led = report(lease={f"{LEASE}/web": drains})
    [found] = [f for f in findings(led) if f.reason == "paused"]
    assert (found.kind, "the leader drains its handlers" in found.text) == (REMARK, True)


def test_no_lease() -> None:
    one = report(lease={f"{LEASE}/web": None}, term={f"{TERM}/web": None}, pods={PODS: []})
    assert "no replica has ever led" in problems(one)["no-lease"].text
    assert (state_of(one), exit_status(findings(one))) == ("missing", BAD)
    gone = report(lease={f"{LEASE}/web": None}, pods={PODS: []})
    assert "is gone, and its Term counts 7 terms" in problems(gone)["no-lease"].text


def test_a_malformed_lease_is_shown_with_its_repair() -> None:
    body = lease()
    del body["spec"]["leaseTransitions"]
    one = report(lease={f"{LEASE}/web": body})
    assert "leaseTransitions is missing" in problems(one)["malformed"].text
    assert (state_of(one), as_data([one])["operators"][0]["token"]) == ("malformed", None)
    assert "it cannot be used" in as_text([one])


def test_the_term_is_compared() -> None:
    late = report(term={f"{TERM}/web": {"spec": {"token": 6, "holder": "before"}}})
    assert "it says token 6 of before" in problems(late)["term"].text
    new = {f"{LEASE}/web": lease(acquired="2026-11-30T10:09:58.000000Z")}
    begun = report(lease=new, term={f"{TERM}/web": {"spec": {"token": 6, "holder": "before"}}})
    assert "term" not in problems(begun), "the leader is about to write it"
    assert "there is none" in problems(report(term={f"{TERM}/web": None}))["term"].text


# --- replicas


def ready(**more: Any) -> dict[str, Any]:
    return {"running": {}, **more}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, ""),
        ({"deleting": True}, "its Pod is being deleted"),
        ({"phase": "Failed"}, "its Pod is over: Failed"),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}], "state": None},
            "it has no node: 0/3 nodes",
        ),
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
            "ImagePullBackOff: no such image",
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
                "last": {"terminated": {"exitCode": 6}},
            },
            f"CrashLoopBackOff; it ended last with exit status 6: {EXITS[6]}",
        ),
        ({"state": {"terminated": {"exitCode": 1}}}, "it ended last with exit status 1"),
        ({"state": None}, "its kubelet has not reported that its container started"),
        ({"ready": False}, "not ready"),
        (
            {"ready": False, "last": {"terminated": {"exitCode": 3}}},
            f"not ready; it ended last with exit status 3: {EXITS[3]}",
        ),
    ],
)
def test_why_a_replica_cannot_lead(given: dict[str, Any], said: str) -> None:
    body = pod(**given)
    states = body["status"]["containerStatuses"]
    assert why_not(body, states[0] if states else {}) == said


def test_exit_statuses_mean_what_the_runner_means() -> None:
    assert {ending.EXIT_LOST, ending.EXIT_STUCK, ending.EXIT_EVERYWHERE, ending.EXIT_UNFENCED} == EXITS.keys() - {137}


def test_a_replica_says_itself_why() -> None:
    probe = "[+]stopping ok\n[-]election failed: the API server does not answer\n[!]a write that is refused\n"
    pods = {PODS: [pod(), pod("web-5d4-bbbbb", "u2", ready=False)]}
    one = report(pods=pods, ready=port("web-5d4-bbbbb", 8081, "readyz", (503, probe)))
    found = problems(one)
    assert found["not-ready"].text == "web-5d4-bbbbb cannot lead: the API server does not answer"
    assert found["unfenced"].text == "web-5d4-bbbbb: a write that is refused"
    assert "alone" in problems(one, "remark")


def test_a_leader_that_renews_the_lease_is_not_said_to_be_unable_to_lead() -> None:
    """Whatever its Pod says: here no kubelet reports, as for a process that somebody started by hand."""
    leader, follower = pod(state=None), pod("web-5d4-bbbbb", "u2", state=None)
    for body in (leader, follower):
        del body["spec"]["nodeName"]
    one = report(pods={PODS: [leader, follower]})
    why = "its Pod has no node, so no kubelet reports on its container"
    text = as_text([one])
    assert "web-5d4-aaaaa cannot lead" not in text
    assert problems(one, "unknown")["not-ready"].text == f"web-5d4-aaaaa leads, and is not shown as ready: {why}"
    assert problems(one)["not-ready"].text == f"web-5d4-bbbbb cannot lead: {why}"
    (shown,) = as_data([one])["operators"]
    assert [r["cannotLead"] for r in shown["replicas"]] == [None, why]
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("  web-5d4-aaaaa")] == ["-"]
    # What its kubelet did report is a problem.
    one = report(pods={PODS: [pod(ready=False), pod("web-5d4-bbbbb", "u2")]})
    assert problems(one)["not-ready"].text == "web-5d4-aaaaa leads, and is not shown as ready: not ready"
    # Nobody renews the Lease: then its Pod says why.
    late = lease(stored="2026-11-30T10:00:00Z")
    one = report(lease={f"{LEASE}/web": late}, pods={PODS: [leader]})
    assert problems(one)["not-renewed"].text.endswith(f"; {why}")
    assert problems(one)["not-ready"].text == f"web-5d4-aaaaa cannot lead: {why}"


def test_a_proxy_s_own_answer_is_no_replica_s() -> None:
    """A 503 is the API server's, too, if it cannot reach the Pod."""
    said = json.dumps({"kind": "Status", "message": "no route to host"})
    made = cluster(one=port("web-5d4-aaaaa", 8081, "readyz", (503, said)), two={PODS: FORBIDDEN})
    found = look_at(made, pod(), "")
    assert (found.trouble, found.role) == ("", "follower")
    assert isinstance(found.samples, Unknown)


def test_the_leader_s_metrics_win() -> None:
    text = (
        '# TYPE kopf_ha_enforced_level gauge\nkopf_ha_enforced_level{level="full"} 0.0\n'
        'kopf_ha_enforced_level{level="term"} 1.0\n# TYPE kopf_ha_set_aside gauge\nkopf_ha_set_aside 3.0\n'
    )
    one = report(metrics=port("web-5d4-aaaaa", 9090, "metrics", (200, text)))
    assert (one.level, one.set_aside) == ("term", 3)
    assert "3 deciding objects are set aside" in problems(one)["set-aside"].text
    assert read_metrics("<html>{") == {}


def test_revisions_and_roles() -> None:
    pods = {PODS: [pod(), pod("web-77f-ccccc", "u3", revision="77f"), pod("web-5d4-ddddd", "u4", deleting=True)]}
    one = report(pods=pods)
    assert not isinstance(one.replicas, Unknown)
    assert [r.role for r in one.replicas] == ["leader", "leaving", "follower"]
    assert "revisions" in problems(one, "remark")
    assert problems(one) == {}, "a Pod that is being deleted is no problem"


def test_the_pods_of_others_are_no_replicas() -> None:
    others = [
        pod("db-5d4-eeeee", "u5"),
        pod("web-5d4-fffff", "u6", env=[{"name": "KOPF_HA_LEASE_NAME", "value": "another"}]),
        pod("job-1", "u7", env=[{"name": "KOPF_HA_LEASE_NAME", "value": "web"}]),
        pod("far-1", "u8", env=[{"name": "KOPF_HA_LEASE_NAME", "value": "web"},
                                {"name": "KOPF_HA_LEASE_NAMESPACE", "value": "other"}]),
        pod("away-1", "u9"),
    ]  # fmt: skip
    others[-1]["spec"]["containers"][0]["command"] = ["kopf-ha", "run", "--lease-name=web", "--lease-namespace=other"]
    one = report(pods={PODS: [pod(), *others]})
    assert not isinstance(one.replicas, Unknown)
    assert [r.pod for r in one.replicas] == ["job-1", "web-5d4-aaaaa"]


def test_replicas_in_another_namespace() -> None:
    """Only if somebody leads and is not here: to list all Pods of a cluster takes long."""
    far = pod(env=[{"name": "KOPF_HA_LEASE_NAME", "value": "web"}, {"name": "KOPF_HA_LEASE_NAMESPACE", "value": "n"}])
    twin = pod("web-5d4-ddddd", "u4")
    for body in (far, twin):
        body["metadata"]["namespace"] = "far"
    twin["metadata"]["labels"]["app"] = "a twin in another namespace"
    one = report(here={PODS: []}, there={"/api/v1/pods": [far, twin]})
    assert not isinstance(one.replicas, Unknown)
    assert [(r.pod, r.role) for r in one.replicas] == [("web-5d4-aaaaa", "leader")]
    nowhere = report(here={PODS: []}, there={"/api/v1/pods": FORBIDDEN})
    assert exit_status(findings(nowhere)) == UNKNOWN


# --- the fence


def test_policies_that_are_not_in_force_are_named() -> None:
    some = [b for b in IN_FORCE[BINDINGS] if b["metadata"]["name"] != "kopf-ha-n.s-term"]
    some = [b if b["metadata"]["name"] != "kopf-ha-n.s-lease" else audit(b) for b in some]
    one = report(bindings={BINDINGS: some})
    assert problems(one)["policies"].text.endswith("not in force: kopf-ha-n.s-lease, kopf-ha-n.s-term")
    assert exit_status(findings(one)) == BAD


def audit(binding: dict[str, Any]) -> dict[str, Any]:
    return binding | {"spec": binding["spec"] | {"validationActions": ["Audit"]}}


def test_no_policies_at_all() -> None:
    one = report(policies={POLICIES: [], BINDINGS: []})
    assert "no policy of this release" in problems(one)["policies"].text


def test_what_the_leader_misses_is_shown_while_it_does() -> None:
    events = [event("Leading", "2026-11-30T10:00:00Z"), event("NotEnforced", message="policy x is not in force")]
    missing = report(events={EVENTS: events}, lease={f"{LEASE}/web": lease(noted=False)})
    assert "policy x is not in force" in problems(missing)["not-enforced"].text
    assert missing.level is None
    assert "not known to be enforced" in as_text([missing])
    mended = report(events={EVENTS: events})
    assert "not-enforced" not in problems(mended)
    new = report(
        events={EVENTS: [*events, event("Leading", "2026-11-30T10:06:00Z")]}, lease={f"{LEASE}/web": lease(noted=False)}
    )
    assert "not-enforced" not in problems(new), "another leader found that"


def test_a_note_of_an_earlier_term_says_nothing() -> None:
    body = lease()
    body["metadata"]["annotations"]["kopf-ha.dev/enforced"] = "6-44"
    assert report(lease={f"{LEASE}/web": body}).level is None


# --- objects


def test_refused_writes_of_the_last_hour() -> None:
    notes = {REFUSED: "gate=2,precondition=1"}
    events = [
        event("StaleWrites", "2026-11-30T09:10:00Z", **{REFUSED: "server=9"}),
        event("StaleWrites", "2026-11-30T09:10:02Z", **notes),
        event("StaleWrites", "2026-11-30T10:10:00Z", **{REFUSED: "gate=1,=,x=-1,y=many"}),
    ]
    one = report(events={EVENTS: events})
    assert one.refused == {"gate": 3, "precondition": 1}
    assert (
        "4 stale writes were refused in the last hour (gate 3, precondition 1)"
        in problems(one, "remark")["refused"].text
    )
    assert exit_status(findings(one)) == WELL, "the fence worked"


def test_stamps_that_are_ahead_of_the_lease() -> None:
    def pool(name: str, token: int, holder: str = HOLDER, by: str = "n/web") -> dict[str, Any]:
        fencing = {"lease": by, "token": token, "holder": holder, "podUID": "u"}
        return {"metadata": {"name": name}, "status": {"fencing": fencing}}

    pools = [
        pool("mine", 7),
        pool("old", 6, "o"),
        pool("twin", 7, "o"),
        pool("ahead", 9),
        pool("foreign", 99, by="n/x"),
    ]
    pools += [{"metadata": {"name": "bad"}, "status": {"fencing": {"token": "9"}}}, {"metadata": {"name": "new"}}]
    one = report(pools={POOLS: pools})
    assert [(a.name, a.token) for a in one.ahead or ()] == [("twin", 7), ("ahead", 9)]
    assert "2 objects have a stamp that is ahead of the Lease" in problems(one)["ahead"].text
    free = report(pools={POOLS: pools}, lease={f"{LEASE}/web": lease("")})
    assert [a.name for a in free.ahead or ()] == ["ahead"]


def test_a_leader_that_began_meanwhile_is_not_ahead() -> None:
    stamp = {"lease": "n/web", "token": 8, "holder": "new", "podUID": "u"}
    made = cluster(good=GOOD, pools={POOLS: [{"metadata": {"name": "p"}, "status": {"fencing": stamp}}]})
    before = the_one(made, "web")
    assert [a.name for a in report_on(made, before, Policies.read(made)).ahead or ()] == ["p"]
    assert isinstance(made.api, Made)
    made.api.answers[f"{LEASE}/web"] = lease("new", 8)
    assert report_on(made, before, Policies.read(made)).ahead == []


def test_set_aside_by_events() -> None:
    events = [event("Leading", "2026-11-30T10:00:00Z"), event("SetAside", message="12 deciding objects are set aside")]
    assert report(events={EVENTS: events}).set_aside == 12


# --- rights


def test_what_may_not_be_read_is_said_and_fails_nothing() -> None:
    one = report(
        no={f"{TERM}/web": FORBIDDEN, EVENTS: FORBIDDEN, POLICIES: FORBIDDEN, BINDINGS: FORBIDDEN, POOLS: FORBIDDEN}
    )
    assert problems(one) == {}
    assert exit_status(findings(one)) == WELL
    unknown = problems(one, "unknown")
    assert {"term", "events", "policies", "objects", "set-aside"} <= unknown.keys()
    assert "no permission to list pools.g as you" in unknown["objects"].text
    assert "policies unknown: no permission to list validatingadmissionpolicies.g as you" in as_text([one])
    data = as_data([one])["operators"][0]
    assert (data["objects"]["setAside"], data["objects"]["ahead"], data["fence"]["policiesMissing"]) == (None,) * 3


def test_without_pods_it_is_not_known_whether_all_is_well() -> None:
    one = report(no={PODS: FORBIDDEN})
    assert exit_status(findings(one)) == UNKNOWN
    assert one.leads


def test_every_reason_is_documented() -> None:
    """Programs look at them."""
    source = (ROOT / "operator" / "kopf_ha" / "oncall" / "findings.py").read_text()
    given = set(re.findall(r'(?:PROBLEM|REMARK|LACKING|kind),\s+"([a-z-]+)"', source))
    page = (ROOT / "docs" / "oncall.md").read_text()
    assert len(given) > 10
    assert {reason for reason in given if f"`{reason}`" not in page} == set()


def test_data_are_plain() -> None:
    data = as_data([report()])
    assert json.loads(json.dumps(data)) == data


# --- finding operators


def test_which_leases_are_ours() -> None:
    plain: dict[str, Any] = {"metadata": {"name": "kube", "namespace": "n"}, "spec": {}}
    with_term = {"metadata": {"name": "old", "namespace": "n"}, "spec": {}}
    made = cluster(
        good=GOOD,
        more={
            LEASE: [plain, with_term, lease()],
            f"{LEASE}/old": with_term,
            TERM: [{"metadata": {"name": "old", "namespace": "n"}}, {"metadata": {"name": "gone", "namespace": "n"}}],
        },
    )
    found = find(made)
    assert not isinstance(found, Unknown)
    assert [(one.name, one.body is None) for one in found] == [("gone", True), ("old", False), ("web", False)]
    with pytest.raises(Exception, match="has the Leases gone, old, web; name the one"):
        the_one(made)
    assert the_one(made, "n/web").lease == "n/web"
    with pytest.raises(Exception, match="is no Lease; write NAME"):
        the_one(made, "n/a/b")


def test_none_is_ours() -> None:
    with pytest.raises(Exception, match="has no Lease of kopf-ha; name its namespace with -n"):
        the_one(cluster(one={LEASE: []}))
    with pytest.raises(Exception, match="no permission to list leases"):
        the_one(cluster(one={LEASE: FORBIDDEN}))


# --- the live view


def test_the_live_view_survives_an_api_server_that_does_not_answer() -> None:
    def fails(objects: bool) -> list[Report]:
        raise ApiRefused("the API server is starting", 503)

    assert frame(fails, True, False).endswith("? the API server is starting")


def test_the_live_view_lists_objects_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[bool] = []

    def look(objects: bool) -> list[Report]:
        asked.append(objects)
        return [report()]

    assert live(look, wide=False, pause=lambda seconds: None, turns=3) == WELL
    assert asked == [True, False, False]
    assert capsys.readouterr().out.count("web-5d4-aaaaa leads") == 3


def test_the_live_view_ends_by_ctrl_c() -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    assert live(lambda objects: [], wide=False, pause=interrupt) == WELL


def test_a_cluster_gives_the_api_server_s_time() -> None:
    made: Cluster = cluster(good=GOOD)
    found = made.read(f"{LEASE}/web")
    assert found is not None
    assert not isinstance(found, Unknown)
    assert str(found.at) == "2026-11-30 10:10:01+00:00"
