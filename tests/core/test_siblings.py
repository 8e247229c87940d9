"""What is judged of Pods: nobody is taken for dead who lives, whatever lags."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kopf_ha.core.siblings import Pod, Siblings, pod_of, sibling_labels

X, Y = "lead_u1_aaaa", "lead_u1_bbbb"


def at(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def whole(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(math.floor(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_version = iter(range(100, 10**9))


def body(
    uid: str = "u1", name: str = "lead", *, running: str = "C1", ended: dict[str, float] | None = None, **more: Any
) -> dict[str, Any]:
    """A Pod as the API server gives it. `ended` has one container: the state's if none runs, else the last one's."""
    over = [{"terminated": {"containerID": c, "finishedAt": whole(t)}} for c, t in (ended or {}).items()]
    states = {"state": {"running": {}}, "containerID": running} if running else {"state": over.pop() if over else {}}
    operator = {"name": "operator", **states, "lastState": over.pop() if over else {}}
    sidecar = {"name": "sidecar", "state": {"terminated": {"containerID": "S1", "finishedAt": whole(1)}}}
    meta = {"name": name, "uid": uid, "resourceVersion": str(next(_version)), "creationTimestamp": whole(10)}
    notes = {"annotations": {"kubectl.kubernetes.io/default-container": "operator"}}
    return {
        "metadata": meta | notes | more.pop("metadata", {}),
        "spec": {"containers": [{"name": "operator"}, {"name": "sidecar"}]},
        "status": {"phase": "Running", "containerStatuses": [sidecar, operator]} | more,
    }


def seen(*bodies: dict[str, Any], leads: str = X, acquired: float = 20) -> Siblings:
    siblings = Siblings("me")
    for one in bodies:
        siblings.saw(Pod.parse(one))
    siblings.leads(leads, at(acquired))
    return siblings


def test_a_pod_that_is_gone_after_it_was_seen() -> None:
    siblings = seen(body())
    assert siblings.gone(X, at(20)) == ""
    siblings.lost_sight("u1")
    assert siblings.gone(X, at(20)) == "Pod lead is gone"
    siblings.read("u1", None)
    assert siblings.gone(X, at(20)) == "Pod lead is gone"
    siblings.saw(Pod.parse(body()))  # late news of the watch
    assert siblings.gone(X, at(20)) == "Pod lead is gone"


def test_a_name_that_another_pod_has_now() -> None:
    siblings = seen(body())
    siblings.read("u1", Pod.parse(body("u2")))
    assert siblings.gone(X, at(20))
    assert not siblings.gone("lead_u2_cccc", at(20))


@pytest.mark.parametrize(
    ("name", "dead"), [("op-5c-x2x", True), ("op-77-abc", True), ("vm", False), ("ops-5c-x2x", False), ("", False)]
)
def test_a_pod_that_was_gone_before_i_was_there(name: str, dead: bool) -> None:
    """Its name says whether it was one of us: a process outside of the cluster has no Pod, and lives."""
    siblings, holder = Siblings("me"), f"{name}_u9_aaaa"
    mine = {"generateName": "op-5c-", "labels": {"pod-template-hash": "5c"}}
    siblings.saw(Pod.parse(body("me", "op-5c-abc", metadata=mine)))
    siblings.leads(holder, at(20))
    assert siblings.gone(holder, at(20)) == "", "nobody asked yet"
    siblings.read("u9", None, name)
    assert bool(siblings.gone(holder, at(20))) == dead


def test_by_a_name_nobody_is_known_whose_pods_names_have_nothing_in_common() -> None:
    """As those of Pods that people made one by one."""
    siblings = seen(body("me", "op-1"), leads="vm_u9_aaaa")
    siblings.read("u9", None, "vm")
    assert siblings.gone("vm_u9_aaaa", at(20)) == ""


def test_a_pod_that_was_only_labelled_otherwise_is_not_gone() -> None:
    siblings = seen(body())
    siblings.listed([])
    assert siblings.gone(X, at(20)), "suspected"
    siblings.read("u1", Pod.parse(body()))
    assert siblings.gone(X, at(20)) == ""


@pytest.mark.parametrize("holder", ["", "x", "lead", "lead_u9_aaaa", "a_b_c_d", "_u1_", "host_u1"])
def test_whoever_had_no_pod_that_was_seen_is_waited_for(holder: str) -> None:
    siblings = seen(body(), leads=holder)
    siblings.lost_sight("u1")
    siblings.read("u9", None)
    assert siblings.gone(holder, at(20)) == ""


@pytest.mark.parametrize("phase", ["Failed", "Succeeded", "Pending", "Unknown"])
def test_phases(phase: str) -> None:
    assert bool(seen(body(phase=phase)).gone(X, at(20))) == (phase in ("Failed", "Succeeded"))


def test_a_deletion_timestamp_is_not_death() -> None:
    assert seen(body(metadata={"deletionTimestamp": whole(20)})).gone(X, at(20)) == ""


def test_the_container_in_which_it_ran() -> None:
    siblings = seen(body())
    siblings.saw(Pod.parse(body(running="", ended={"C1": 30})))
    assert "container of Pod lead in which it ran has ended" in siblings.gone(X, at(20))


def test_a_container_that_was_replaced() -> None:
    siblings = seen(body())
    siblings.saw(Pod.parse(body(running="C2", ended={"C1": 30})))
    assert siblings.gone(X, at(20))


def test_another_container_s_end_says_nothing() -> None:
    siblings = seen(body())
    siblings.saw(Pod.parse(body(ended={"C0": 30})))
    assert siblings.gone(X, at(20)) == ""


def test_the_default_container_counts() -> None:
    note = {"annotations": {"kubectl.kubernetes.io/default-container": "sidecar"}}
    assert Pod.parse(body(metadata=note)).ended == {"S1": 1}
    assert Pod.parse(body()).running == "C1"


@pytest.mark.parametrize("first", ["operator", "sidecar"])
def test_without_the_annotation_no_container_of_several_is_the_operator_s(first: str) -> None:
    """A sidecar that crashes costs no healthy leader its Lease, wherever it stands."""

    def pod(**more: Any) -> Pod:
        one = body(metadata={"annotations": {}}, **more)
        one["spec"]["containers"].sort(key=lambda c: c["name"] != first)
        return Pod.parse(one)

    siblings = Siblings("me")
    siblings.saw(pod())
    siblings.leads(X, at(0.5))
    assert siblings.gone(X, at(0.5)) == "", "the sidecar ended at 1"
    siblings.saw(pod(running="C2", ended={"C1": 30}))
    assert siblings.gone(X, at(0.5)) == "", "nobody knows whose C1 was"
    siblings.saw(pod(phase="Failed"))
    assert siblings.gone(X, at(0.5)) == "Pod lead has ended"


def test_the_only_container_is_the_operator_s() -> None:
    one = body(metadata={"annotations": {}}, running="C2", ended={"C1": 30})
    del one["spec"]["containers"][1]
    pod = Pod.parse(one)
    assert (pod.running, pod.ended) == ("C2", {"C1": 30})


def test_an_annotation_that_names_nothing() -> None:
    note = {"annotations": {"kubectl.kubernetes.io/default-container": "operater"}}
    pod = Pod.parse(body(metadata=note, ended={"C1": 30}))
    assert (pod.running, pod.ended) == ("", {})


def test_late_news_of_a_container_marks_the_process_that_ran_in_it() -> None:
    """X ran in C1, and Y leads from C2, while the status still shows C1."""
    siblings = seen(body())
    siblings.leads(Y, at(30.5))
    siblings.saw(Pod.parse(body(running="", ended={"C1": 30})))
    assert siblings.gone(X, at(20))
    assert siblings.gone(Y, at(30.5)) == "", "whatever its clock says"
    siblings.saw(Pod.parse(body(running="C2", ended={"C1": 30})))
    siblings.saw(Pod.parse(body(running="C3", ended={"C2": 40})))
    assert siblings.gone(Y, at(33))


@pytest.mark.parametrize("acquired", [at(20), at(10), None])
def test_a_container_that_ended_before_it_led_was_another_process_s(acquired: str | None) -> None:
    """Whatever the status still shows of it, the container that is shown next is that of the holder."""
    siblings = Siblings("me")
    siblings.saw(Pod.parse(body(running="", ended={"C0": 10})))
    siblings.leads(X, acquired)
    siblings.saw(Pod.parse(body(ended={"C0": 10})))
    siblings.saw(Pod.parse(body(running="C2", ended={"C1": 30})))
    assert siblings.gone(X, at(20))


@pytest.mark.parametrize("next_one", ["", "C3"])
def test_a_container_that_ended_before_it_was_seen_to_run(next_one: str) -> None:
    """Killed twice in a row: the status never showed C2, in which Y led, and C3 waits for its turn for long."""
    siblings = seen(body())
    siblings.saw(Pod.parse(body(running="", ended={"C1": 30})))
    siblings.leads(Y, at(31.2))
    assert siblings.gone(Y, at(31.2)) == ""
    siblings.saw(Pod.parse(body(running=next_one, ended={"C2": 33})))
    assert siblings.gone(Y, at(31.2))


def test_who_acquired_after_a_container_ended_ran_in_another_one() -> None:
    """The process in C1 never led, so that nothing but the node's clock tells Y from it."""
    siblings = seen(body(), leads=Y, acquired=32.3)
    siblings.saw(Pod.parse(body(running="C2", ended={"C1": 30.9})))
    assert siblings.gone(Y, at(32.3)) == ""


@pytest.mark.parametrize(("acquired", "dead"), [(30.0, True), (30.999, True), (31.0, False), (31.001, False)])
def test_the_kubelet_gives_whole_seconds_so_an_end_may_be_almost_a_second_later(acquired: float, dead: bool) -> None:
    """But not a whole one: who acquired the Lease then ran in the next container."""
    siblings = seen(body(), acquired=acquired)
    siblings.saw(Pod.parse(body(running="C2", ended={"C1": 30.0})))
    assert bool(siblings.gone(X, at(acquired))) == dead


def test_a_holder_keeps_its_container_however_often_it_renews() -> None:
    """The next container of its Pod is that of another process."""
    siblings = seen(body())
    siblings.saw(Pod.parse(body(running="C2", ended={"C1": 30})))
    siblings.leads(X, at(20))
    assert siblings.gone(X, at(20))


def test_a_pod_is_shown_while_the_watch_shows_it() -> None:
    """Of one that was only read, no news come by themselves."""
    siblings, one = Siblings("me"), Pod.parse(body())
    assert (siblings.known("u1"), siblings.shown("u1"), siblings.missing("u1")) == (False, False, False)
    siblings.read("u1", one)
    assert (siblings.known("u1"), siblings.shown("u1"), siblings.missing("u1")) == (True, False, False)
    siblings.saw(one)
    assert (siblings.known("u1"), siblings.shown("u1"), siblings.missing("u1")) == (True, True, False)
    siblings.lost_sight("u1")
    assert (siblings.known("u1"), siblings.shown("u1"), siblings.missing("u1")) == (True, False, True)


@pytest.mark.parametrize("acquired", [None, "", "yesterday"])
def test_without_a_time_the_container_is_no_proof(acquired: str | None) -> None:
    siblings = seen(body())
    siblings.saw(Pod.parse(body(running="C2", ended={"C1": 30})))
    assert siblings.gone(X, acquired) == ""


def test_of_my_own_pod_nothing_is_judged() -> None:
    siblings = Siblings("u1")
    siblings.saw(Pod.parse(body()))
    siblings.leads(X, at(20))
    siblings.saw(Pod.parse(body(running="C2", ended={"C1": 30})))
    assert siblings.gone(X, at(20)) == ""


def test_old_news_changes_nothing() -> None:
    old = body()
    siblings = seen(body(phase="Failed"))
    siblings.saw(Pod.parse(old))
    assert siblings.gone(X, at(20))


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"metadata": None, "spec": None, "status": None},
        {"metadata": {"labels": None, "annotations": None, "ownerReferences": None}},
        {"status": {"containerStatuses": None, "conditions": None}},
        {"spec": {"containers": []}},
        {"spec": {"containers": [{"name": "x"}]}, "status": {"containerStatuses": [{"name": "x"}]}},
        {
            "spec": {"containers": [{"name": "x"}]},
            "status": {"containerStatuses": [{"name": "x", "state": {"running": {}}, "lastState": None}]},
        },
    ],
)
def test_what_a_pod_does_not_say_is_unknown(broken: Any) -> None:
    assert Pod.parse(broken) == Pod(name="", uid="")


@pytest.mark.parametrize(
    "ended",
    [
        {"containerID": "C1"},
        {"containerID": "C1", "finishedAt": None},
        {"containerID": "C1", "finishedAt": "yesterday"},
        {"finishedAt": whole(30)},
        {"containerID": "", "finishedAt": whole(30)},
    ],
)
def test_an_end_without_a_time_or_without_an_id_proves_nothing(ended: dict[str, Any]) -> None:
    """A container that was never made has no id."""
    one = body(running="")
    one["status"]["containerStatuses"][1]["state"] = {"terminated": ended}
    assert Pod.parse(one).ended == {}


@pytest.mark.parametrize("state", ["waiting", "terminated"])
def test_the_id_of_a_container_that_does_not_run_is_no_running_one_s(state: str) -> None:
    """The status goes on to show the last id while the next container waits."""
    one = body(running="")
    one["status"]["containerStatuses"][1] |= {"containerID": "C1", "state": {state: {"reason": "CrashLoopBackOff"}}}
    assert Pod.parse(one).running == ""


def test_the_name_and_the_uid_of_a_pod_are_in_the_identity_of_its_process() -> None:
    assert pod_of("web-0_8d2f_77aa") == ("web-0", "8d2f")


@pytest.mark.parametrize(
    "own",
    [
        *("pod-template-hash", "controller-revision-hash", "pod-template-generation"),  # of one revision
        *("statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"),  # of one Pod
        *("topology.kubernetes.io/zone", "topology.kubernetes.io/region"),  # of its node
        *("app.kubernetes.io/version", "helm.sh/chart"),  # of one version
    ],
)
def test_siblings_may_differ_in_these_labels(own: str) -> None:
    assert sibling_labels({"metadata": {"labels": {"app": "x", own: "y"}}}) == {"app": "x"}


@pytest.mark.parametrize("bare", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"labels": None}}])
def test_a_pod_without_labels_shares_none(bare: Any) -> None:
    assert sibling_labels(bare) == {}


# --- revisions


def replica(uid: str, revision: str, created: int, *, ready: bool = True, **meta: Any) -> Pod:
    owner = {"kind": meta.pop("owner", "ReplicaSet"), "name": f"{meta.pop('workload', 'op')}-{revision}"}
    controller = {"ownerReferences": [{"kind": "Other", "name": uid}, owner | {"controller": True}]}
    labels = {"labels": {meta.pop("label", "pod-template-hash"): revision}} if revision else {}
    conditions = [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True" if ready else "False"}]
    phase = meta.pop("phase", "Running")
    meta |= controller | labels | {"creationTimestamp": whole(created)}
    return Pod.parse(body(uid, uid, metadata=meta, conditions=conditions, phase=phase))


def outdated(*others: Pod, mine: str = "old") -> bool:
    siblings = Siblings("me")
    siblings.listed([replica("me", mine, 100), *others])
    return siblings.outdated()


def test_outdated_as_soon_as_one_of_the_newest_revision_is_ready() -> None:
    assert not outdated(replica("b", "old", 90))
    assert not outdated(replica("b", "new", 200, ready=False))
    assert outdated(replica("b", "new", 200))
    assert not outdated(replica("b", "new", 200, deletionTimestamp=whole(300)))
    # The newest one is not ready yet, but one of its revision is.
    assert outdated(replica("b", "new", 200), replica("c", "new", 300, ready=False))


def test_a_stateful_set_names_its_revisions_by_another_label() -> None:
    theirs: dict[str, Any] = {"label": "controller-revision-hash", "owner": "StatefulSet"}
    siblings = Siblings("me")
    siblings.listed([replica("me", "old", 100, **theirs), replica("b", "new", 200, **theirs)])
    assert siblings.outdated()


def test_a_rollback_makes_the_older_revision_the_newest_again() -> None:
    assert not outdated(replica("b", "new", 200), replica("c", "old", 300))
    assert outdated(replica("c", "old", 300), mine="new")


def test_a_pod_that_has_ended_says_nothing_about_revisions() -> None:
    """An evicted Pod stays for long. Whoever made it last, no replica of it will lead."""
    assert outdated(replica("b", "new", 200), replica("c", "old", 300, phase="Failed"))
    assert not outdated(replica("b", "new", 200, phase="Failed"))


def test_a_second_in_which_mine_was_made_too_outdates_nobody() -> None:
    assert not outdated(replica("b", "new", 100))
    assert not outdated(replica("b", "new", 200), replica("c", "old", 200))


def test_what_is_no_revision_of_mine() -> None:
    assert not outdated(replica("b", "new", 200, owner="StatefulSet"))
    assert not outdated(replica("b", "new", 200, workload="op-worker")), "another Deployment's, with all my labels"
    assert not outdated(replica("b", "", 200))
    assert not outdated(replica("b", "new", 200), mine="")
    assert not Siblings("me").outdated()
    assert not outdated(replica("b", "new", 200), replica("c", "newer", 200)), "made in one second"


# --- any order, any lag


class Lagging(RuleBasedStateMachine):
    """One Pod's containers and processes, its status as the API server has it, and one who sees that later."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.container, self.started, self.identities = 1, self.now, 0
        self.alive = ""  #: the identity that may lead, in the container that runs
        self.running = True
        self.ends: dict[str, float] = {}
        self.history = [self.status()]  #: of the status, as the kubelet knew it
        self.served = self.shown = 0  #: how much of it the API server has, and how much of that was seen
        self.looks = Siblings("me")
        self.led: dict[str, float] = {}
        self.looks.saw(Pod.parse(self.history[0]))

    def status(self) -> dict[str, Any]:
        last = dict(list(self.ends.items())[-1:])
        return body(running=f"C{self.container}" if self.running else "", ended=last)

    @rule(seconds=st.sampled_from([0.1, 0.5, 0.9, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.running)
    @rule()
    def container_ends(self) -> None:
        self.ends[f"C{self.container}"] = self.now
        self.alive, self.running = "", False
        self.history.append(self.status())

    @precondition(lambda self: not self.running)
    @rule()
    def container_begins(self) -> None:
        self.container, self.running, self.started = self.container + 1, True, self.now
        self.history.append(self.status())

    @precondition(lambda self: self.running)
    @rule()
    def acquires(self) -> None:
        if not self.alive:
            self.identities += 1
            self.alive = f"lead_u1_{self.identities}"
        # A process needs longer than that to be loaded.
        self.now = max(self.now, self.started + 1.0)
        self.led[self.alive] = self.now
        self.looks.leads(self.alive, at(self.now))

    @rule(n=st.integers(1, 3))
    def kubelet_reports(self, n: int) -> None:
        self.served = min(self.served + n, len(self.history) - 1)

    @rule(n=st.integers(1, 3))
    def watch_shows(self, n: int) -> None:
        for _ in range(n):
            if self.shown < self.served:
                self.shown += 1
                self.looks.saw(Pod.parse(self.history[self.shown]))

    @rule()
    def leaves_the_watch(self) -> None:
        self.looks.lost_sight("u1")

    @rule()
    def read(self) -> None:
        self.shown = self.served
        self.looks.read("u1", Pod.parse(self.history[self.served]))

    @invariant()
    def who_lives_is_not_judged_dead(self) -> None:
        if self.alive in self.led and self.looks.known("u1") and not self.looks.missing("u1"):
            assert self.looks.gone(self.alive, at(self.led[self.alive])) == ""


def test_no_lag_makes_a_living_process_a_dead_one() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    bounds = settings(max_examples=200, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(Lagging, settings=bounds)
