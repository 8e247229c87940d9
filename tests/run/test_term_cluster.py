"""Line 4 on the real API server: the leader's Term, what it refuses to others, and an API server that does not hear."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pytest

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.api import Api, single_attempts
from kopf_ha.core import hearing
from kopf_ha.core.election import events
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.refusal import Leader, leader_in
from kopf_ha.core.wire import Request, Response
from kopf_ha.election.lease_client import LeaseClient
from kopf_ha.errors import Denied, FloorLost, StaleLeader
from kopf_ha.manifests import Description, policies, render
from kopf_ha.manifests.description import TERM
from kopf_ha.manifests.term_crd import definition
from kopf_ha.run import termobject
from kopf_ha.run.level import level_of
from kopf_ha.run.selftest import SelfTest
from kopf_ha.run.termobject import TermObject
from kopf_ha.settings import Settings
from testbed.replica import Replica as Process
from tests.kit.client import Client, administrator
from tests.run.support import GROUP, LONG, PREAMBLE, crd

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


class Site:
    """A namespace with a Lease and the policies of level ``term`` for one account, which may do everything."""

    def __init__(self, cluster: Cluster, account: str = "operator") -> None:
        self.cluster, self.account = cluster, account
        self.namespace = f"term-{secrets.token_hex(3)}"
        self.admin = administrator(cluster)
        cluster.kubectl("create", "namespace", self.namespace)
        cluster.kubectl("create", "serviceaccount", account, "-n", self.namespace)
        who = f"--serviceaccount={self.namespace}:{account}"
        cluster.kubectl("create", "clusterrolebinding", self.namespace, "--clusterrole=cluster-admin", who)
        cluster.kubectl("apply", "-f", "-", input=render([definition()]))
        cluster.wait_established()
        self.description = Description(
            group="",
            kinds=(),
            level=TERM,
            prefix=f"kopf-ha-{self.namespace}",
            lease=f"{self.namespace}/op",
            service_account=f"{self.namespace}/{account}",
        )
        self.one, self.two = self.pod("one"), self.pod("two")

    def apply(self, change: Callable[[dict[str, Any]], Any] = lambda document: None) -> None:
        documents = policies(self.description)
        for document in documents:
            change(document)
        self.cluster.kubectl("apply", "-f", "-", input=render(documents))

    def remove(self) -> None:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            names = [o["metadata"]["name"] for o in policies(self.description) if o["kind"].lower() == kind]
            self.cluster.kubectl("delete", kind, *names, "--ignore-not-found", check=False)
        self.cluster.kubectl("delete", "clusterrolebinding", self.namespace, check=False)
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)

    def pod(self, name: str) -> Client:
        made = self.cluster.pod_identity(self.namespace, self.account, name)
        return Client(self.cluster.servers[0], self.cluster.ca_file, made.token, name, made.uid)

    def api(self, by: Client) -> Api:
        configuration = kubernetes.client.Configuration()
        file = str(self.cluster.kubeconfig_for(by.token, name=by.pod or by.token[-8:]))
        kubernetes.config.load_kube_config(file, client_configuration=configuration)
        configuration.retries = False
        return Api(single_attempts(kubernetes.client.ApiClient(configuration)))

    def settings(self, by: Client) -> Settings:
        return Settings(
            lease_name="op",
            lease_namespace=self.namespace,
            identity=by.stamp(1, "").holder,
            pod_uid=by.uid,
            level="term",
        )

    def elect(self, by: Client, token: int, term: bool = True) -> tuple[Grant, TermObject]:
        """Make a pod the leader, as a replica does, but for the Lease, which an administrator's record replaces."""
        spec = {"holderIdentity": by.stamp(1, "").holder, "leaseTransitions": token, "leaseDurationSeconds": 600}
        path, body = LEASES.format(self.namespace), {"metadata": {"name": "op"}, "spec": spec}
        found = self.admin("GET", f"{path}/op")
        if found.status == 404:
            by.must("POST", path, body)
        else:
            by.must("PUT", f"{path}/op", found.body | {"spec": spec})
        grant = Grant(by.stamp(token, self.description.lease), 1e9)
        made = TermObject(self.api(by), self.settings(by), lambda: self.api(by))
        if term:
            made.write(grant)
            made.hear(grant)
        return grant, made

    @property
    def token(self) -> int:
        """A token that was not given yet."""
        found = self.admin("GET", f"{LEASES.format(self.namespace)}/op")
        return int(found.body["spec"]["leaseTransitions"]) + 1 if found.ok else 1

    def config_map(self) -> tuple[str, dict[str, Any]]:
        body = {"metadata": {"name": f"made-{secrets.token_hex(4)}"}}
        return f"/api/v1/namespaces/{self.namespace}/configmaps", body

    def write(self, by: Client, grant: Grant, before_read: Callable[[], Any] = lambda: None) -> Response:
        """Create something through the fence."""
        path, body = self.config_map()
        request = Request("POST", path, content_type="application/json", body=json.dumps(body).encode())
        flow = Fence(self.description.lease).flow(request, grant, clock(self))
        out = next(flow)
        while True:
            if out.after:
                self.now += out.after
                before_read()
            got = by(out.method, out.path, out.json, out.content_type or "application/json")
            try:
                out = flow.send(Response(got.status, json.dumps(got.body).encode()))
            except StopIteration as end:
                answer: Response = end.value
                return answer

    now = 0.0


def clock(site: Site) -> Callable[[], float]:
    return lambda: site.now


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Iterator[Site]:
    made = Site(cluster)
    try:
        made.apply()
        made.elect(made.one, 1)
        path, body = made.config_map()
        until("the policy to be in force", lambda: made.two("POST", path + "?dryRun=All", body).status == 403)
        test = SelfTest(made.api(made.one), made.settings(made.one))
        until("the others, too", lambda: test.ask(made.token) == [])
        yield made
    finally:
        made.remove()


def test_leaders_take_turns_and_notice_nothing(site: Site) -> None:
    """I9: as soon as the API server has heard, it takes what the new leader sends, and not what the old one sends."""
    for _ in range(5):
        for new, old in ((site.two, site.one), (site.one, site.two)):
            token = site.token
            grant, term = site.elect(new, token)
            assert term.missing() == []
            path, body = site.config_map()
            new.must("POST", path, body)
            assert site.write(new, grant).status == 201
            refused = old("POST", *site.config_map())
            found = leader_in(Response(refused.status, json.dumps(refused.body).encode()), site.description.lease)
            assert found == Leader(token, new.uid)
            with pytest.raises(StaleLeader, match="leads, in pod") as stale:
                site.write(old, Grant(old.stamp(token - 1, site.description.lease), 1e9))
            assert stale.value.line == "term"


def test_a_write_before_the_api_server_has_heard_goes_again(site: Site) -> None:
    site.elect(site.one, site.token)
    grant, term = site.elect(site.two, site.token, term=False)
    assert site.write(site.two, grant, lambda: term.write(grant)).status == 201


def test_a_token_that_was_given_before_is_raised(site: Site) -> None:
    """I2: an administrator deleted the Lease, which a policy allows only without that policy."""
    token = site.token
    site.elect(site.two, token)
    settings = site.settings(site.one)
    lost = TermObject(site.api(site.one), settings, lambda: site.api(site.one))
    with pytest.raises(FloorLost) as floor:
        lost.write(Grant(site.one.stamp(token, site.description.lease), 1e9))
    assert floor.value.floor == token
    # The election learns of it where the Lease's policy knows of the Term, and counts on above.
    client = LeaseClient(settings, site.api(site.one))
    binding = f"{site.description.prefix}-lease-kept"
    site.cluster.kubectl("delete", "validatingadmissionpolicybinding", binding)
    path = f"{LEASES.format(site.namespace)}/op"
    try:
        until("the Lease to be deleted", lambda: site.admin("DELETE", path).ok)
        mine = LeaseRecord(site.one.stamp(1, "").holder, 1, 600)
        assert isinstance(client.write(mine, 5.0), events.NotWritten)
        assert client.floor == token
        assert isinstance(client.write(mine.changed(transitions=token + 1), 5.0), events.Written)
    finally:
        site.apply()


def test_who_may_not_write_it_says_so(site: Site) -> None:
    site.cluster.kubectl("create", "serviceaccount", "plain", "-n", site.namespace)
    token = site.cluster.kubectl("create", "token", "plain", "-n", site.namespace).stdout.strip()
    plain = Client(site.cluster.servers[0], site.cluster.ca_file, token)
    term = TermObject(site.api(plain), site.settings(site.one), lambda: site.api(plain))
    term.write(Grant(site.one.stamp(99, site.description.lease), 1e9))
    assert term.trouble.startswith("the API server does not allow it (403 Forbidden)"), term.trouble


def test_where_the_kind_is_not_installed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before an update has come so far."""
    monkeypatch.setattr(termobject, "term_path", lambda *of: hearing.term_path(*of).replace("terms", "terns"))
    term = TermObject(site.api(site.one), site.settings(site.one), lambda: site.api(site.one))
    term.write(Grant(site.one.stamp(99, site.description.lease), 1e9))
    assert term.trouble.startswith("the kind terms.kopf-ha.dev is not installed"), term.trouble


def level(site: Site, test: SelfTest, term: TermObject) -> str:
    return level_of(test.described, test.lacking, term)


def test_the_self_test_asks_about_line_4(site: Site) -> None:
    """Leader and follower alike."""
    token = site.token
    _, term = site.elect(site.two, token)
    tests = [SelfTest(site.api(by), site.settings(by)) for by in (site.two, site.one)]
    until("all policies to be in force", lambda: tests[0].ask(token) == [])
    for test in tests:
        assert test.ask(token) == []
        assert test.ask(token, whole=False) == []
        assert level(site, test, term) == "term"


def elsewhere(document: dict[str, Any]) -> None:
    if "paramRef" in document["spec"]:
        document["spec"]["paramRef"]["namespace"] = "default"


@pytest.mark.parametrize("how", ["no binding", "a Term of another namespace"])
def test_line_4_that_is_not_in_force_is_named(site: Site, how: str) -> None:
    token, name = site.token, f"{site.description.prefix}-term"
    _, term = site.elect(site.two, token)
    test = SelfTest(site.api(site.two), site.settings(site.two))
    said = f"policy {name} is not in force"
    try:
        if how == "no binding":
            site.cluster.kubectl("delete", "validatingadmissionpolicybinding", name)
        else:
            site.apply(elsewhere)
        until("it to be missed", lambda: any(one.startswith(said) for one in test.ask(token)))
        assert level(site, test, term) == "none"
    finally:
        site.apply()
        until("nothing to be missing", lambda: test.ask(token) == [])


@pytest.fixture(scope="module")
def deaf(cluster: Cluster) -> Iterator[Site]:
    """An API server that hears of no change: its policy looks at a Term that nobody changes."""

    def frozen(document: dict[str, Any]) -> None:
        if "paramRef" in document["spec"]:
            document["spec"]["paramRef"]["name"] = "frozen"

    made = Site(cluster)
    try:
        spec = {"token": 1, "holder": made.one.stamp(1, "").holder, "podUID": made.one.uid}
        term = {"apiVersion": hearing.API, "kind": "Term", "metadata": {"name": "frozen"}, "spec": spec}
        made.admin.must("POST", hearing.term_path(made.namespace), term)
        made.apply(frozen)
        path, body = made.config_map()
        until("the policies to be in force", lambda: made.two("POST", path + "?dryRun=All", body).status == 403)
        yield made
    finally:
        made.remove()


def test_an_api_server_that_does_not_hear_is_named(deaf: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termobject, "HEARD", 0.2)
    grant, term = deaf.elect(deaf.two, 2)
    (missing,) = term.missing()
    assert f"has not heard of term 2, but knows term 1 of pod {deaf.one.uid}: its informer" in missing
    with pytest.raises(Denied, match="this API server has not heard of it") as denied:
        deaf.write(deaf.two, grant)
    assert denied.value.line == "term"
    test = SelfTest(deaf.api(deaf.two), deaf.settings(deaf.two))
    until("all policies to be in force", lambda: test.ask(2) == [])
    assert level(deaf, test, term) == "none"


OPERATOR = (
    PREAMBLE
    + """
import kubernetes
@kopf.on.create("things")
def made(name, namespace, **_):
    kubernetes.config.load_kube_config()
    body = {"metadata": {"name": "of-" + name}}
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, body)
"""
)


def test_an_operator_at_level_term(site: Site, tmp_path: Path) -> None:
    """It says at which level it runs, and its writes notice nothing of a takeover."""
    site.cluster.kubectl("apply", "-f", "-", input=json.dumps(crd("Thing")))
    site.cluster.wait_established()
    path = f"/apis/{GROUP}/v1/namespaces/{site.namespace}/things"
    (tmp_path / "op.py").write_text(OPERATOR)
    site.admin.must("PUT", f"{LEASES.format(site.namespace)}/op", released(site))

    def start(by: Client) -> Process:
        arguments = ["run", "--lease-name=op", f"--lease-namespace={site.namespace}", "-n", site.namespace, "op.py"]
        config = site.cluster.kubeconfig_for(by.token, name=by.pod)
        env = {"POD_NAME": by.pod, "POD_UID": by.uid, "KOPF_HA_LEVEL": "term"}
        made = Process(by.pod, config, arguments, tmp_path / f"{by.pod}.log", env=env, cwd=tmp_path)
        made.start()
        return made

    old, new = start(site.one), None
    try:
        until("it to lead", lambda: old.said("the API server enforces level term"), LONG, watched=[old])
        new = follower = start(site.two)
        until("the other one to follow", lambda: follower.said("new leader: one_"), LONG, watched=[follower])
        for leader, name in ((old, "x"), (follower, "y")):
            body = {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": name}}
            site.admin.must("POST", path, body)
            child = f"/api/v1/namespaces/{site.namespace}/configmaps/of-{name}"
            until("its ConfigMap", lambda at=child: site.admin("GET", at).ok, LONG, watched=[leader])  # type: ignore[misc]
            if leader is old:
                old.stop()
                until("the other one to lead", lambda: follower.said("the API server enforces level term"), LONG)
        for one in (old, follower):
            assert not one.said("refused by|not enforced: |is not written"), one.log
    finally:
        old.kill()
        if new is not None:
            new.kill()
        for item in site.admin("GET", path).body.get("items") or ():
            name = item["metadata"]["name"]
            site.admin("PATCH", f"{path}/{name}", {"metadata": {"finalizers": None}}, "application/merge-patch+json")


def released(site: Site) -> dict[str, Any]:
    found = site.admin.must("GET", f"{LEASES.format(site.namespace)}/op")
    return found | {"spec": found["spec"] | {"holderIdentity": ""}}
