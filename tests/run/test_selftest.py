"""What counts as an answer to the self-test's questions, without a cluster."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kopf_ha.api import Api
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response
from kopf_ha.errors import ApiRefused, Unreached
from kopf_ha.manifests import Child, Description, Kind
from kopf_ha.manifests.cel import QUESTION
from kopf_ha.manifests.description import TERM
from kopf_ha.manifests.policies import all_policies
from kopf_ha.manifests.term import KNOWN
from kopf_ha.run.credentials import make_client
from kopf_ha.run.kindtest import PAGE, KindTest, Missing, wrong_stamps
from kopf_ha.run.leasetest import LeaseTest
from kopf_ha.run.level import level_of, missing_level
from kopf_ha.run.namespaces import Namespaces
from kopf_ha.run.selftest import PARALLEL, SelfTest
from kopf_ha.settings import Settings

LEASE = "/apis/coordination.k8s.io/v1/namespaces/n/leases/l"
DESCRIPTION = Description(
    group="a.b", kinds=(Kind("xs", maps=("m",)),), children=(Child("pods"),), lease="n/l", service_account="n/s"
)
LOW = Description(group="", kinds=(), level=TERM, lease="n/l", service_account="n/s")
MINE = Stamp(7, "p_u_1", "n/l", "u")


def denied(policy: str, message: str) -> Response:
    said = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {message}"
    return status(403, f'leases "l" is forbidden: {said}', causes=[{"message": said}])


def status(code: int, message: str, **details: Any) -> Response:
    return Response(code, json.dumps({"kind": "Status", "message": message, "details": details}).encode())


class FakeApi(Api):
    """An API server where all is in force, but for what `answers` has by the question."""

    def __init__(self, answers: dict[str, Response]) -> None:
        super().__init__(None)
        self.answers = answers
        self.asked: list[str] = []

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = math.inf
    ) -> Response:
        path = path.replace("%3A", ":").replace("%2F", "/")
        if method == "GET" and path == LEASE:
            return Response(200, json.dumps({"metadata": {}, "spec": {"leaseTransitions": 7}}).encode())
        question = path.partition("fieldManager=")[2]
        self.asked.append(question)
        if question in self.answers:
            return self.answers[question]
        if question == f"{QUESTION}describe":
            return denied("kopf-ha-n.s-lease", f"fencing: described by {DESCRIPTION.as_json()}")
        if question:
            return denied(question.removeprefix(QUESTION).partition("/")[0], "fencing: no")
        return denied("kopf-ha-n.s-lease", "fencing: no") if method == "PUT" else status(404, "no such kind")


@pytest.fixture
def settings() -> Settings:
    return Settings(lease_name="l", lease_namespace="n", identity="p_u_1", pod_uid="u")


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Any:
    """Ask such an API server; gives what is missing."""

    def asking(answers: dict[str, Response], **more: Any) -> list[str]:
        api = FakeApi(answers)
        monkeypatch.setattr("kopf_ha.run.selftest._Asking", lambda *_: api)
        monkeypatch.setattr(KindTest, "stamped", lambda *_: True)
        monkeypatch.setattr(KindTest, "missing", lambda *_: ([], []))
        test = SelfTest(api, settings)
        found = test.ask(7, **more)
        asking.asked = api.asked  # type: ignore[attr-defined]
        return found

    return asking


#: All but the question which term an API server knows, which the leader asks alone (`run/termobject.py`).
RULES = [(p.name, r.name) for p in all_policies(DESCRIPTION) for r in p.rules if r.question != KNOWN]


def test_each_rule_that_the_manifests_write_is_asked_about(ask: Any) -> None:
    assert ask({}) == []
    wanted = {r.asked(p.name) for p in all_policies(DESCRIPTION) for r in p.rules if r.question != KNOWN}
    assert wanted == {q for q in ask.asked if q}
    assert len(wanted) == len(RULES)


def test_a_stop_leaves_out_the_questions_that_wait(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the process waits for the pool: without an API server, half a minute for each question."""
    sent: list[str] = []

    def answer(api: Api, method: str, path: str, *_: Any) -> Response:
        sent.append(path)
        test.stop()
        return fake.request(method, path)

    fake = FakeApi({})
    monkeypatch.setattr(Api, "request", answer)
    test = SelfTest(fake, settings)
    with pytest.raises(Unreached, match="this replica stops"):
        test.ask(7, at_once=1)
    assert len(sent) == 1


def test_each_policy_is_asked_about_when_there_is_no_time(ask: Any) -> None:
    assert ask({}, whole=False) == []
    assert {q.removeprefix(QUESTION).partition("/")[0] for q in ask.asked if "/" in q} == {
        p.name for p in all_policies(DESCRIPTION)
    }


@pytest.mark.parametrize(("policy", "rule"), [(p, r) for p, r in RULES if r != "describe"])
def test_a_rule_that_says_nothing_is_named(ask: Any, policy: str, rule: str) -> None:
    (found,) = ask({f"{QUESTION}{policy}/{rule}": Response(200, b"{}")})
    assert found.startswith((f"policy {policy} lacks its rule {rule} (fencing", f"policy {policy} is not in force"))


@pytest.mark.parametrize(
    "answer",
    [
        status(404, "leases not found"),
        status(403, 'leases "l" is forbidden: User "x" cannot update resource "leases"'),
        denied("kopf-ha-n.s-stamped", "fencing: no"),  # another of ours
        denied("others", "no"),
        status(422, "invalid"),
        status(500, "oops"),
    ],
)
def test_nothing_else_is_taken_for_its_refusal(ask: Any, answer: Response) -> None:
    with pytest.raises(ApiRefused, match=r"cannot find out whether kopf-ha-n\.s-stamp is in force"):
        ask({f"{QUESTION}kopf-ha-n.s-stamp/stamp": answer})


def test_a_description_of_another_version_counts_as_none(ask: Any) -> None:
    later = DESCRIPTION.as_json().replace('"format":2', '"format":3')
    (found,) = ask({f"{QUESTION}describe": denied("kopf-ha-n.s-lease", f"fencing: described by {later}")})
    assert found.startswith("the policies of Lease n/l do not answer")


NOTED = Description(
    group="a.b", kinds=(Kind("ys", deciding=True, annotations=True),), lease="n/l", service_account="n/s"
)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("lacking", [None, "child", "annotations"])
def test_which_kinds_have_protected_stamps_in_their_metadata(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, lacking: str | None, whole: bool
) -> None:
    described = denied("kopf-ha-n.s-lease", f"fencing: described by {NOTED.as_json()}")
    answers = {f"{QUESTION}describe": described}
    if lacking:
        (rule, *_) = next(p.rules for p in all_policies(NOTED) if p.name == f"kopf-ha-n.s-{lacking}-ys.a.b")
        answers[rule.asked(f"kopf-ha-n.s-{lacking}-ys.a.b")] = Response(200, b"{}")
    monkeypatch.setattr("kopf_ha.run.selftest._Asking", lambda *_: FakeApi(answers))
    monkeypatch.setattr(KindTest, "missing", lambda *_: ([], []))
    test = SelfTest(FakeApi({}), settings.changed(deciding=("ys.a.b",)))
    found = test.ask(7, whole=whole)
    assert test.protected == (frozenset() if lacking else {"ys.a.b"})
    assert len(found) == (1 if lacking else 0), found
    assert test.unfit == {}, "it has no status.fencing to lose"
    answers[f"{QUESTION}describe"] = status(429, "slow down")
    with pytest.raises(ApiRefused):
        test.ask(7, whole=whole)
    assert test.protected == frozenset(), "an old answer is none"


def test_a_child_that_is_seen_to_be_stamped_is_asked_about_as_stamped_kinds_are(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """A version of it may lose the stamp."""
    described = replace(DESCRIPTION, children=(Child("zs", "other.dev"), Child("pods")))
    answers = {f"{QUESTION}describe": denied("kopf-ha-n.s-lease", f"fencing: described by {described.as_json()}")}
    asked: list[str] = []

    def stamped(_: KindTest, api: Api, kind: str) -> bool:
        asked.append(kind)
        return True

    monkeypatch.setattr("kopf_ha.run.selftest._Asking", lambda *_: FakeApi(answers))
    monkeypatch.setattr(KindTest, "missing", lambda *_: ([], []))
    monkeypatch.setattr(KindTest, "stamped", stamped)
    SelfTest(FakeApi({}), settings).ask(7, kinds=["zs.other.dev"])
    assert sorted(asked) == ["xs.a.b", "zs.other.dev"]


@pytest.mark.parametrize("seen", [404, 409])
def test_an_object_that_is_gone_or_changes_all_the_time_is_no_refusal(seen: int) -> None:
    """Anybody who may edit it can change it so fast that the API server gives up (I10)."""

    class Gone(Api):
        def __init__(self) -> None:
            super().__init__(None)

        def request(self, *_: Any, **__: Any) -> Response:
            return status(seen, "xs.a.b not found", name="x")

    assert wrong_stamps(Gone(), "xs.a.b", "/apis/a.b/v1/xs/x", {"metadata": {"name": "x"}}, MINE) is None


def test_a_conflict_says_nothing_and_is_asked_again_while_there_is_time(settings: Settings) -> None:
    """Renewals come in between, on a busy machine before each of several questions."""
    now = [0.0]

    class Busy(FakeApi):
        def __init__(self, conflicts: int) -> None:
            super().__init__({})
            self.conflicts = conflicts

        def request(self, method: str, path: str, *more: Any, **__: Any) -> Response:
            now[0] += 0.1
            if method == "PUT" and self.conflicts:
                self.conflicts -= 1
                return status(409, "the object has been modified")
            return super().request(method, path)

    def description(conflicts: int) -> Description | None:
        return LeaseTest(Busy(conflicts), settings, patience=5.0, clock=lambda: now[0]).description()

    assert description(20) == DESCRIPTION
    with pytest.raises(ApiRefused, match="the object has been modified"):
        description(1000)

    busy = Busy(0)
    late = LeaseTest(busy, settings, patience=5.0, clock=lambda: now[0])
    assert late.description() == DESCRIPTION
    now[0] += 60.0  # so long the questions take that are asked one after the other
    busy.conflicts = 20
    assert late.description() == DESCRIPTION, "each question has its own time"


def test_policies_that_changed_since_they_were_described_are_asked_about_as_they_are(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    answers: dict[str, Response] = {}
    api = FakeApi(answers)
    monkeypatch.setattr("kopf_ha.run.selftest._Asking", lambda *_: api)
    monkeypatch.setattr(KindTest, "stamped", lambda *_: True)
    monkeypatch.setattr(KindTest, "missing", lambda *_: ([], []))
    test = SelfTest(api, settings)
    assert test.ask(7) == []
    other = replace(DESCRIPTION, children=(Child("pods"), Child("secrets")))
    answers[f"{QUESTION}describe"] = denied("kopf-ha-n.s-lease", f"fencing: described by {other.as_json()}")
    new = next(p for p in all_policies(other) if p.name not in {q.name for q in all_policies(DESCRIPTION)})
    answers[new.rules[0].asked(new.name)] = Response(200, b"{}")
    assert any(new.name in told for told in test.ask(7, whole=False))
    assert any(new.name in told for told in test.ask(7, whole=False)), "that it was guessed right changes nothing"


def test_a_kind_without_a_status_to_write_is_not_asked_about() -> None:
    class Bare(Api):
        def __init__(self) -> None:
            super().__init__(None)

        def request(self, *_: Any, **__: Any) -> Response:
            return Response(404, b"404 page not found")

    assert wrong_stamps(Bare(), "xs.a.b", "/apis/a.b/v1/xs/x", {"metadata": {"name": "x"}}, MINE) == ([], [])


class Xs(Api):
    """A kind with these objects, page by page, whose definition lacks the rule."""

    def __init__(self, *tokens: int) -> None:
        super().__init__(None)
        self.tokens = dict(enumerate(tokens))
        self.listed: list[str] = []
        self.too_old = False

    def one(self, n: int) -> dict[str, Any]:
        status = {"fencing": replace(MINE, token=self.tokens[n]).as_status()} if self.tokens[n] else {}
        return {"metadata": {"name": f"x{n}", "namespace": "n"}, "status": status}

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = math.inf
    ) -> Response:
        group = {"preferredVersion": {"version": "v1"}, "versions": [{"version": "v1"}]}
        kinds = {"resources": [{"name": "xs", "namespaced": True}]}
        found: Any = {"/apis/a.b": group, "/apis/a.b/v1": kinds}.get(path)
        if found is None and path.startswith("/apis/a.b/v1/xs"):
            self.listed.append(path.partition("continue=")[2])
            first = int(self.listed[-1] or 0)
            if first and self.too_old:
                return status(410, "Gone")
            then = {"continue": str(first + PAGE)} if first + PAGE < len(self.tokens) else {}
            found = {"metadata": then, "items": [self.one(n) for n in self.tokens if first <= n < first + PAGE]}
        elif found is None:
            name = path.partition("/xs/")[2].partition("/")[0]
            if int(name[1:]) not in self.tokens:
                return status(404, "not found", name=name)
            if method == "PATCH" and body["status"]["fencing"]["podUID"] != "u":
                return denied("kopf-ha-s-stamped", "fencing: no")
            found = self.one(int(name[1:]))
        return Response(200, json.dumps(found).encode())


LOWERED: Missing = ([], ["xs.a.b: a recorded token can be lowered; its CRD needs `kopf-ha manifests --only schema`"])


def test_an_example_has_a_stamp_if_there_is_one() -> None:
    api, test = Xs(0, 0, 7, 0), KindTest(())
    assert test.missing(api, "xs.a.b", MINE) == LOWERED
    assert test.missing(api, "xs.a.b", MINE) == LOWERED
    assert api.listed == [""], "the example is remembered"
    del api.tokens[2]
    assert test.missing(api, "xs.a.b", MINE) == ([], [])
    api.tokens[3] = 8
    assert test.missing(api, "xs.a.b", MINE) == LOWERED


def test_the_search_for_one_goes_on_the_next_time() -> None:
    api, test = Xs(*[0] * (2 * PAGE), 7), KindTest(())
    assert [test.missing(api, "xs.a.b", MINE) for _ in range(3)] == [([], []), ([], []), LOWERED]
    assert api.listed == ["", str(PAGE), str(2 * PAGE)]


@pytest.mark.parametrize("too_old", [True, False])
def test_a_search_begins_again(too_old: bool) -> None:
    api, test = Xs(*[0] * (PAGE + 1)), KindTest(())
    assert test.missing(api, "xs.a.b", MINE) == ([], [])
    api.too_old = too_old
    if not too_old:
        assert test.missing(api, "xs.a.b", MINE) == ([], [])
    api.tokens[0] = 7
    assert test.missing(api, "xs.a.b", MINE) == LOWERED
    del api.tokens[0]
    api.tokens.clear()
    assert test.missing(api, "xs.a.b", MINE) == ([], [])


@pytest.mark.parametrize(
    ("patterns", "said"),
    [(("prod",), ""), (("prod", "test"), "-n test"), (("x*", "test"), "-n x* and -n test"), ((), "all namespaces")],
)
def test_policies_for_fewer_namespaces_than_are_served(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, patterns: tuple[str, ...], said: str
) -> None:
    """A user could forge stamps in the others."""
    described = replace(DESCRIPTION, namespaces=("prod",))
    api = FakeApi({f"{QUESTION}describe": denied("kopf-ha-n.s-lease", f"fencing: described by {described.as_json()}")})
    monkeypatch.setattr("kopf_ha.run.selftest._Asking", lambda *_: api)
    monkeypatch.setattr(KindTest, "stamped", lambda *_: True)
    monkeypatch.setattr(KindTest, "missing", lambda *_: ([], []))
    found = SelfTest(api, settings, Namespaces(patterns)).ask(7)
    sentence = f"the policies of Lease n/l cover prod, and the operator serves {said}; apply the policies"
    assert [f.startswith(sentence) for f in found] == ([True] if said else [])


class Kinds(Api):
    """Serves one namespaced kind, and lists what it has by namespace; others may not be listed."""

    def __init__(self, **objects: tuple[str, ...]) -> None:
        super().__init__(None)
        self.objects = objects
        self.listed: list[str] = []

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = math.inf
    ) -> Response:
        if path == "/apis/a.b":
            return Response(200, b'{"versions": [{"version": "v1"}]}')
        if path == "/apis/a.b/v1":
            return Response(200, b'{"resources": [{"name": "xs", "namespaced": true}]}')
        if method == "GET":
            self.listed.append(path)
            namespace = path.split("/")[5]
            if namespace not in self.objects:
                raise ApiRefused("no permission", 403)
            items = [{"metadata": {"name": name, "namespace": namespace}} for name in self.objects[namespace]]
            return Response(200, json.dumps({"items": items}).encode())
        assert path == "/apis/a.b/v1/namespaces/test/xs/one/status?dryRun=All&fieldManager=kopf-ha-ask%3Akind"
        return denied("kopf-ha-n.s-stamped", "fencing: no")


def test_objects_are_tried_in_the_namespaces_that_are_served() -> None:
    """With a Role only, a list of the cluster is refused. Another installation's object has other policies."""
    api = Kinds(prod=(), test=("one",), others=("two",))
    asking = KindTest((), Namespaces(("later", "prod", "test")))
    assert asking.missing(api, "xs.a.b", MINE) == ([], [])
    assert [path.split("/")[5] for path in api.listed] == ["later", "prod", "test"]
    nothing = Kinds()
    assert KindTest((), Namespaces(("later",))).missing(nothing, "xs.a.b", MINE) == ([], [])


def test_the_questions_fit_and_are_each_another() -> None:
    """The API server takes 128 characters for a field manager."""
    long = Description(
        group="a.b", kinds=(Kind("x" * 60),), lease="n/l", service_account="n/s", prefix="kopf-ha-" + "y" * 100
    )
    for description in (DESCRIPTION, long):
        many = [r.asked(p.name) for p in all_policies(description) for r in p.rules]
        assert len(set(many)) == len(many)
        assert max(map(len, many)) <= 128


def test_a_description_is_read_as_it_was_written() -> None:
    whole = Description(
        group="a.b",
        kinds=(Kind("xs", cluster=True, deciding=True, maps=("m",), values=("v",)),),
        children=(Child("pods", labels=(("a", "it's"[:2]),), owner="X"), Child("ds", "apps")),
        lease="n/l",
        service_account="n/s",
        exempt=("pods/eviction",),
    )
    assert Description.from_json(whole.as_json()) == whole


def test_as_many_connections_are_kept_as_are_used_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower may ask for a takeover while it asks ahead. urllib3 warns for each connection that it cannot keep."""
    config = tmp_path / "config"
    named = [{"name": "a", "cluster": {"server": "https://a"}, "user": {}, "context": {"cluster": "a", "user": "a"}}]
    config.write_text(json.dumps({"clusters": named, "users": named, "contexts": named, "current-context": "a"}))
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    client = make_client("test", fenced=False)
    assert client.rest_client.pool_manager.connection_pool_kw["maxsize"] >= 2 * PARALLEL


def test_policies_of_a_lower_level_than_is_expected(settings: Settings) -> None:
    """Somebody applied `--level term`, and the operator counts on stamps."""
    (found,) = missing_level(LOW, settings)
    assert found.startswith("the policies of Lease n/l are of level term, and this replica expects level full; apply")
    for described, expected in ((LOW, "term"), (DESCRIPTION, "full"), (DESCRIPTION, "term"), (None, "full")):
        assert list(missing_level(described, settings.changed(level=expected))) == []


@pytest.mark.parametrize(
    ("described", "lacking", "trouble", "deaf", "level"),
    [
        (DESCRIPTION, (), "", "", "full"),
        (DESCRIPTION, ("kopf-ha-n.s-stamped",), "", "", "term"),
        (DESCRIPTION, ("kopf-ha-n.s-term", "kopf-ha-n.s-term-kept"), "", "", "stamps"),
        (DESCRIPTION, (), "not written", "", "stamps"),
        (DESCRIPTION, (), "", "deaf", "stamps"),
        (DESCRIPTION, ("kopf-ha-n.s-term", "kopf-ha-n.s-lease"), "", "", "none"),
        (LOW, (), "", "", "term"),
        (LOW, ("kopf-ha-n.s-term",), "", "", "none"),
        (None, (), "", "", "none"),
    ],
)
def test_the_level_is_what_is_in_force(
    described: Description | None, lacking: tuple[str, ...], trouble: str, deaf: str, level: str
) -> None:
    term = SimpleNamespace(trouble=trouble, deaf=deaf)
    assert level_of(described, lacking, term) == level  # type: ignore[arg-type]
    with_unfit = level_of(described, lacking, term, {"xs.a.b": "no served version has it"})  # type: ignore[arg-type]
    assert with_unfit == {"full": "term", "stamps": "none"}.get(level, level), "its stamps are not compared"
