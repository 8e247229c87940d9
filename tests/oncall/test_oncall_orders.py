"""What `pause`, `resume` and `handover` do and refuse, on a Lease that the test changes."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kopf_ha.cli import main
from kopf_ha.core.lease import HANDOVER, PAUSED
from kopf_ha.core.orders import ANY, Pause
from kopf_ha.core.siblings import Pod
from kopf_ha.core.wire import Response
from kopf_ha.errors import ApiRefused
from kopf_ha.oncall import cluster as clusters
from kopf_ha.oncall import ordering
from kopf_ha.oncall.cluster import Cluster
from kopf_ha.oncall.handover import judge
from kopf_ha.oncall.ordering import No

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/op"
TERM = "/apis/kopf-ha.dev/v1/namespaces/ns/terms/op"
HOLDER = "op-1_uid1_r"


def lease(holder: str = HOLDER, notes: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "op",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "1",
            "annotations": dict(notes or {}),
        },
        "spec": {
            "holderIdentity": holder,
            "leaseTransitions": 7,
            "leaseDurationSeconds": 15,
            "renewTime": "t0",
        },
    }


def pod(name: str, uid: str = "", *, ready: bool = True, **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": uid or f"u-{name}", "labels": {"app": "op"}, **meta},
        "spec": {"containers": [{"name": "op", "args": ["run", "--lease-name=op"]}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


class Api:
    """An API server with one Lease, Pods, and a Term. The test says what happens after each look at the Lease."""

    def __init__(self, now: list[float]) -> None:
        self.lease: dict[str, Any] | None = lease()
        self.pods = [pod("op-1", "uid1"), pod("op-2")]
        self.term: dict[str, Any] | None = None
        self.now = now
        self.version = 1
        self.conflicts = 0
        self.user = "ann"
        self.story: Callable[[float], None] = lambda now: None

    def change(self, **spec: Any) -> None:
        assert self.lease is not None
        self.lease = copy.deepcopy(self.lease)
        self.lease["spec"].update(spec)
        self._touch()

    def _touch(self) -> None:
        assert self.lease is not None
        self.version += 1
        self.lease["metadata"]["resourceVersion"] = str(self.version)

    @property
    def notes(self) -> dict[str, str]:
        assert self.lease is not None
        return dict(self.lease["metadata"]["annotations"])

    # --- as `Api`

    def request(self, method: str, path: str, body: Any = None, kind: str = "", timeout: float = 0) -> Response:
        self.now[0] += 0.01
        if method == "GET" and path == LEASE:
            self.story(self.now[0])
        if method == "PATCH" and path == LEASE:
            return self._annotate(body)
        found = {LEASE: self.lease, TERM: self.term}.get(path)
        return Response(404) if found is None else Response(200, json.dumps(found).encode())

    def _annotate(self, body: Mapping[str, Any]) -> Response:
        assert self.lease is not None
        if self.conflicts:
            self.conflicts -= 1
            self._touch()
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return Response(409)
        self.lease = copy.deepcopy(self.lease)
        for name, value in body["metadata"]["annotations"].items():
            self.lease["metadata"]["annotations"].pop(name, None)
            if value is not None:
                self.lease["metadata"]["annotations"][name] = value
        self._touch()
        return Response(200, json.dumps(self.lease).encode())

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = 0) -> dict[str, Any]:
        assert path.endswith("/selfsubjectreviews")
        if not self.user:
            raise ApiRefused("no such thing", 404)
        return {"status": {"userInfo": {"username": self.user}}}

    def pages(self, path: str, query: Any = None, *, timeout: float = 0) -> Any:
        yield {"items": self.pods if path.endswith("/pods") else []}

    def refused(self, answer: Response, what: str) -> ApiRefused:
        return ApiRefused(f"{what}: {answer.status}", answer.status)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    now = [100.0]
    made = Api(now)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("kopf_ha.oncall.ordering.time.sleep", sleep)
    monkeypatch.setattr("kopf_ha.oncall.ordering.time.monotonic", lambda: now[0])
    monkeypatch.setattr(clusters, "connect", lambda *_: Cluster(made, "ns"))  # type: ignore[arg-type]
    return made


def run(*words: str) -> Result:
    return CliRunner().invoke(main, [*words, "op"])


# --- pause and resume


def test_a_pause_says_who_and_why_and_waits_until_nobody_leads(api: Api) -> None:
    def story(now: float) -> None:
        assert api.lease is not None
        if PAUSED in api.notes and now > 103 and api.lease["spec"]["holderIdentity"]:
            api.change(holderIdentity="")
        elif int(now * 20) % 20 == 0 and api.lease["spec"]["holderIdentity"]:
            api.change(renewTime=str(now))

    api.story = story
    done = run("pause", "--reason", "etcd")
    assert done.exit_code == 0, done.output
    pause = Pause.parse(api.notes[PAUSED])
    assert (pause.by, pause.reason, pause.malformed) == ("ann", "etcd", None)
    assert re.search(f"Lease ns/op is {pause}\nnobody leads, (2.[89]|3.[01]) s after the order", done.output)


def test_a_renewal_in_between_is_no_reason_not_to_pause(api: Api) -> None:
    api.conflicts = 3
    assert run("pause", "--reason", "etcd", "--no-wait").exit_code == 0
    assert PAUSED in api.notes


def test_a_dead_leader_is_waited_for_as_long_as_it_may_write(api: Api) -> None:
    done = run("pause", "--reason", "etcd")
    assert done.exit_code == 0
    assert "nobody leads: the Lease still names op-1, which has not renewed it for 15 s" in done.output
    assert 115 <= api.now[0] < 117


def test_a_leader_that_goes_on_is_bad_news(api: Api) -> None:
    api.story = lambda now: api.change(renewTime=str(now))
    done = run("pause", "--reason", "etcd", "--timeout", "30")
    assert done.exit_code == 1
    assert "op-1 still leads after 30 s" in done.output
    assert PAUSED in api.notes


def test_a_lease_that_cannot_be_used_can_be_paused(api: Api) -> None:
    assert api.lease is not None
    del api.lease["spec"]["leaseTransitions"]
    done = run("pause", "--reason", "repair")
    assert done.exit_code == 0
    assert PAUSED in api.notes
    assert "nobody leads: Lease ns/op cannot be used" in done.output


def test_who_paused_first_is_not_overwritten(api: Api) -> None:
    api.lease = lease(notes={PAUSED: Pause("ben", "why", "then").as_annotation()})
    done = run("pause", "--reason", "etcd")
    assert (done.exit_code, Pause.parse(api.notes[PAUSED]).by) == (1, "ben")
    assert "not done: Lease ns/op is paused by ben since then: why already" in done.output


@pytest.mark.parametrize("words", [("pause", "--reason", "x"), ("resume",), ("handover",)])
def test_without_a_lease_there_is_nothing_to_order(api: Api, words: tuple[str, ...]) -> None:
    api.lease = None
    done = run(*words)
    assert done.exit_code == 1
    assert "there is no Lease ns/op" in done.output


def test_a_pause_without_a_reason_is_none(api: Api) -> None:
    for words in (("pause",), ("pause", "--reason", " ")):
        assert run(*words).exit_code == 2
    assert api.notes == {}


def test_an_api_server_that_tells_nobody_their_name(api: Api) -> None:
    api.user = ""
    assert run("pause", "--reason", "x", "--no-wait").exit_code == 0
    assert "paused by somebody" in str(Pause.parse(api.notes[PAUSED]))


def test_resume_waits_for_the_next_leader(api: Api) -> None:
    api.lease = lease("", {PAUSED: "true"})

    def story(now: float) -> None:
        if PAUSED not in api.notes and now > 101:
            api.change(holderIdentity="op-2_u_r", leaseTransitions=8)

    api.story = story
    done = run("resume", "-o", "json")
    assert done.exit_code == 0
    said = json.loads(done.output)
    assert (said["leader"], said["token"], said["lease"]) == ("op-2", 8, "ns/op")
    assert "any value pauses" in said["was"]


def test_resume_says_if_nobody_leads(api: Api) -> None:
    api.lease = lease("", {PAUSED: "true"})
    done = run("resume", "--timeout", "5")
    assert done.exit_code == 1
    assert "nobody leads 5 s after the pause" in done.output
    again = run("resume")
    assert (again.exit_code, "Lease ns/op is not paused" in again.output) == (1, True)


# --- handover


def pods(*many: dict[str, Any]) -> list[Pod]:
    return [Pod.parse(one) for one in many]


TWO = pods(pod("op-1", "uid1"), pod("op-2"))


@pytest.mark.parametrize(
    ("body", "replicas", "to", "why"),
    [
        (lease(notes={PAUSED: "true"}), TWO, ANY, "is paused by the annotation"),
        (lease(holder=""), TWO, ANY, "nobody leads by Lease ns/op"),
        (lease(), TWO, "op-1", "op-1 leads already"),
        (lease(), TWO, "op-9", "op-9 is no replica of this operator; these could lead: op-2"),
        (lease(), TWO[:1], ANY, "op-1 is the only replica"),
        (lease(), TWO[:1], "op-2", "op-1 is the only replica"),
        (lease(), [*TWO[:1], *pods(pod("op-2", ready=False))], ANY, "no other replica is ready to lead: op-2 is not"),
        (lease(), [*TWO, *pods(pod("op-3", ready=False))], "op-3", "op-3 is not ready; these could lead: op-2"),
        (lease(), [*TWO, *pods(pod("op-3", deletionTimestamp="now"))], "op-3", "op-3 is being deleted"),
        (lease(), [*TWO[:1], *pods(pod("op-2", deletionTimestamp="now"))], ANY, "op-2 is being deleted"),
    ],
)  # fmt: skip
def test_what_would_not_help_is_refused_in_words(body: dict[str, Any], replicas: list[Pod], to: str, why: str) -> None:
    found = judge("ns/op", body, replicas, to)
    assert isinstance(found, No)
    assert why in found


@pytest.mark.parametrize("to", [ANY, "op-2"])
def test_what_helps_is_ordered(to: str) -> None:
    assert judge("ns/op", lease(), TWO, to) == {HANDOVER: to}


def obeying(api: Api, leader: str, drains: float = 1.0) -> Callable[[float], None]:
    ordered: list[float] = []

    def story(now: float) -> None:
        assert api.lease is not None
        holder = api.lease["spec"]["holderIdentity"]
        if HANDOVER in api.notes:
            ordered[:] = ordered or [now]
        if ordered and now > ordered[0] + drains and holder == HOLDER:
            api.change(holderIdentity="")
            api.lease["metadata"]["annotations"].clear()
        elif ordered and now > ordered[0] + drains + 0.5 and not holder:
            api.change(holderIdentity=f"{leader}_u_r", leaseTransitions=8)
            api.term = {"spec": {"token": 8}}

    return story


def test_a_handover_says_how_long_nobody_led(api: Api) -> None:
    api.story = obeying(api, "op-2")
    done = run("handover", "--to", "op-2", "--wait", "-o", "json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert (said["from"], said["fromToken"], said["leader"], said["token"]) == ("op-1", 7, "op-2", 8)
    assert 0.8 < said["drainSeconds"] < 1.2
    assert 0.5 <= said["nobodyLedSeconds"] < 0.7
    assert 0 < said["firstWriteSeconds"] < 0.1


def test_people_are_told_step_by_step(api: Api) -> None:
    api.story = obeying(api, "op-2")
    told = run("handover", "--wait").output.splitlines()
    assert told[0] == "asked op-1 (token 7) to hand over Lease ns/op to any other replica"
    assert told[1] == "op-2 leads with token 8"
    assert told[2].startswith("the old leader drained for 1.0 s; then nobody led for 0.5")


def test_another_leader_than_the_named_one_is_bad_news(api: Api) -> None:
    api.pods.append(pod("op-3"))
    api.story = obeying(api, "op-3")
    done = run("handover", "--to", "op-2")
    assert (done.exit_code, "op-2 did not take the Lease in time" in done.output) == (1, True)


def test_an_order_that_nobody_obeys_is_taken_back(api: Api) -> None:
    done = run("handover", "--timeout", "20")
    assert done.exit_code == 1
    assert "op-1 still leads after 20 s, and was asked no longer" in done.output
    assert api.notes == {}


def test_without_a_term_the_first_write_cannot_be_seen(api: Api) -> None:
    story = obeying(api, "op-2")

    def without(now: float) -> None:
        story(now)
        api.term = None

    api.story = without
    done = run("handover", "--wait")
    assert done.exit_code == 1
    assert "the first fenced write cannot be seen: there is no Term" in done.output


def test_what_others_wrote_moves_no_cursor(api: Api) -> None:
    api.lease = lease("x\x1b[2J", {PAUSED: "a\x1b[2Jb"})
    for words in (("handover",), ("pause", "--reason", "x"), ("resume", "--timeout", "0")):
        assert "\x1b" not in run(*words).output


def test_a_lease_that_never_comes_to_rest_is_given_up(api: Api) -> None:
    api.conflicts = ordering.ATTEMPTS
    done = run("pause", "--reason", "x")
    assert (done.exit_code, "changes all the time" in done.output) == (1, True)
