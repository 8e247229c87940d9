"""Two API servers on one etcd: the stale leader talks to one of them, its successor to the other."""

from __future__ import annotations

import json
import math
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from devcluster import ControlPlane
from devcluster.waiting import until
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import Refused, StaleLeader
from testbed.replica import PATIENCE
from tests.kit.client import unfenced_session
from tests.kit.ipam import FAULTY, LEASE
from tests.policies.fenced import Fenced, make_kinds
from tests.policies.refused import Attempts
from tests.survival.support import BEFORE, Site, terms

MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
GROUP = "/apis/ipam.kopf-ha.dev/v1"
#: Which server the stale leader talks to, and which its successor.
SERVERS = [(0, 0), (0, 1), (1, 0)]


class Writer:
    """The fence of one replica at one API server. Its grant never ends by itself: what refuses is line 2."""

    def __init__(self, site: Site, bearer: str, name: str, token: int, server: int) -> None:
        self.url = site.plane.servers[server]
        lease = f"{site.namespace}/{LEASE}"
        self.fence = Fence(lease, deciding=["addresspools.ipam.kopf-ha.dev"])
        self.grant = Grant(Stamp(token, f"{name}_{name}-uid_1", lease, f"{name}-uid"), math.inf)
        self.session = unfenced_session()
        self.session.trust_env = False
        self.session.verify = str(site.plane.ca_file)
        self.session.headers["Authorization"] = f"Bearer {bearer}"

    def send(self, request: Request) -> Response:
        headers = {"Content-Type": request.content_type} if request.content_type else {}
        where = self.url + request.path + (f"?{request.query}" if request.query else "")
        got = self.session.request(request.method, where, data=request.body or None, headers=headers, timeout=60)
        return Response(got.status_code, got.content)

    def write(self, method: str, path: str, body: Any = None, content_type: str = MERGE) -> Response:
        asked = Request(method, path, content_type=content_type, body=json.dumps(body).encode() if body else b"")
        flow = self.fence.flow(asked, self.grant, lambda: 0.0)
        try:
            out = next(flow)
            while True:
                out = flow.send(self.send(out))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def must(self, *args: Any) -> Any:
        answer = self.write(*args)
        assert answer.ok, answer.message
        return answer.json

    def refused(self, *args: Any) -> tuple[str, str, int]:
        """Write in vain; give the error, the line, and what the API server answered."""
        try:
            answer = self.write(*args)
        except Refused as error:
            return type(error).__name__, error.line, error.answer.status if error.answer else 0
        return "answered", "", answer.status

    def read(self, path: str) -> Any:
        return self.send(Request("GET", path)).json


def takeover(site: Site, bearer: str, servers: tuple[int, int], n: int) -> tuple[Writer, Writer, list[str]]:
    """Give two replicas, and objects that the first wrote and the second stamped after it."""
    old, new = Writer(site, bearer, "old", 1, servers[0]), Writer(site, bearer, "new", 2, servers[1])
    claims, maps = (
        f"{GROUP}/namespaces/{site.namespace}/addressclaims",
        f"/api/v1/namespaces/{site.namespace}/configmaps",
    )
    site.apply(site.pool(f"p{n}", cidr=f"10.{n}.0.0/28"), site.claim(f"c{n}", f"p{n}"))
    old.must("POST", maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{n}"}}, "application/json")
    pool, claim, child = f"{GROUP}/addresspools/p{n}", f"{claims}/c{n}", f"{maps}/m{n}"
    for path in (pool, claim, child):
        old.must("PATCH", path, {"metadata": {"labels": {"by": "old"}}})
    site.kubectl("delete", "lease", LEASE, "--ignore-not-found")
    site.make_lease(holderIdentity=new.grant.stamp.holder, leaseTransitions=2)
    for path in (pool, claim, child):
        new.must("PATCH", path, {"metadata": {"labels": {"by": "new"}}})
    return old, new, [pool, claim, child]


def writes(old: Writer, pool: str, claim: str, child: str) -> dict[str, tuple[Any, ...]]:
    known = old.fence.known.objects._revisions
    version = {key[2]: seen.version for key, seen in known.items()}[pool.rpartition("/")[2]]
    label = {"metadata": {"labels": {"by": "old again"}}}
    free = {"metadata": {"resourceVersion": version}, "status": {"free": 1}}
    return {
        "status of a deciding kind": ("PATCH", f"{pool}/status", free),
        "status": ("PATCH", f"{claim}/status", {"status": {"address": "10.0.0.9"}}),
        "main resource": ("PATCH", claim, label),
        "JSON patch": ("PATCH", claim, [{"op": "add", "path": "/metadata/labels/x", "value": "y"}], JSON_PATCH),
        "delete": ("DELETE", claim, None, "application/json"),
        "child": ("PATCH", child, label),
        "delete of a child": ("DELETE", child, None, "application/json"),
    }


def test_the_same_refusals_at_whichever_server(site: Site, bearer: str) -> None:
    """Line 2: in flight on the revision that it knew, and after reading anew."""
    told: list[dict[tuple[str, str], Any]] = []
    for n, servers in enumerate(SERVERS):
        old, new, paths = takeover(site, bearer, servers, n)
        before = [new.read(path) for path in paths]
        kept = dict(old.fence.known.objects._revisions)
        answers: dict[tuple[str, str], Any] = {}
        for what, write in writes(old, *paths).items():
            old.fence.known.objects._revisions.update(kept)
            answers[what, "in flight"] = old.refused(*write)
            old.fence.known.objects.clear()
            answers[what, "read anew"] = old.refused(*write)
        assert [new.read(path) for path in paths] == before, f"servers {servers}: something got through"
        told.append(answers)
    assert told[1] == told[0]
    assert told[2] == told[0]
    assert {k: v for k, v in told[0].items() if v[0] != "StaleLeader"} == {}
    for (_, how), (_, line, status) in told[0].items():
        assert (line, status) == ("precondition", 409 if how == "in flight" else 0), "read anew, nothing is sent"


def test_a_request_that_waits_in_one_server_while_the_other_lets_a_successor_lead(
    site: Site, bearer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is long gone, the request is not: an API server goes on with what it got."""
    site.apply(site.pool("p", cidr="10.80.0.0/28"), site.claim("c", "p"))
    claim = f"{GROUP}/namespaces/{site.namespace}/addressclaims/c"
    old, new = Writer(site, bearer, "old", 1, 0), Writer(site, bearer, "new", 2, 1)
    version = old.must("PATCH", f"{claim}/status", {"status": {"address": "10.80.0.1"}})["metadata"]["resourceVersion"]
    site.make_lease(holderIdentity=new.grant.stamp.holder, leaseTransitions=2)
    new.read(claim)
    sent = threading.Event()
    getresponse = urllib3.connection.HTTPConnection.getresponse

    def tell(connection: Any, *args: Any, **options: Any) -> Any:
        sent.set()
        return getresponse(connection, *args, **options)

    outcome: list[Any] = []

    def late() -> None:
        try:
            outcome.append(old.write("PATCH", f"{claim}/status", {"status": {"address": "10.80.0.9"}}))
        except Refused as error:
            outcome.append(error)

    server = site.plane.apiserver(0)
    server.pause()
    try:
        monkeypatch.setattr(urllib3.connection.HTTPConnection, "getresponse", tell)
        thread = threading.Thread(target=late)
        thread.start()
        assert sent.wait(60)
        monkeypatch.undo()
        after = new.must("PATCH", f"{claim}/status", {"status": {"address": "10.80.0.2"}})
    finally:
        server.resume()
        server.wait_ready()
    thread.join(60)
    (error,) = outcome
    assert isinstance(error, StaleLeader)
    assert error.sent.json["metadata"]["resourceVersion"] == version
    assert error.answer.status == 409
    assert new.read(claim) == after


def test_a_barrier_at_one_server_sees_what_was_written_at_the_other(site: Site, bearer: str) -> None:
    """I4: the list is a consistent read, whoever's cache it comes from."""
    site.apply(site.pool("p", cidr="10.80.0.0/28"))
    pool = f"{GROUP}/addresspools/p"
    old, new = Writer(site, bearer, "old", 1, 0), Writer(site, bearer, "new", 2, 1)
    # A server that is asked for a kind for the first time since its definition changed says 429.
    until("the second server to list pools", lambda: "items" in new.read(f"{GROUP}/addresspools"))
    for n in range(30):
        written = old.must("PATCH", pool, {"metadata": {"labels": {"n": str(n)}}})
        (listed,) = new.read(f"{GROUP}/addresspools")["items"]
        assert listed["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"]


def test_a_leader_that_was_paused_in_the_middle_of_a_write(site: Site, bearer: str) -> None:
    """The reference operator: the old one by the first server, the new one by the second."""
    by = [str(site.cluster.kubeconfig_for(bearer, server=n)) for n in (0, 1)]
    site.make_lease(leaseTransitions=BEFORE)
    old = site.operator("old", launcher=FAULTY, IPAM_STOP_BEFORE="/addresspools/ /x1/", KUBECONFIG=by[0])
    site.apply(site.claim("x1", "p"))
    site.until_reason("addressclaim", "x1", "PoolNotFound")
    site.apply(site.pool("p", cidr="10.80.0.0/28"))
    until("it to freeze", lambda: old.said("frozen before"), PATIENCE)
    site.vacate_lease()
    new = site.operator("new", KUBECONFIG=by[1])
    site.goes_on(BEFORE + 1)
    before = site.quiet()
    old.resume()
    until("it to learn that it is lost", lambda: old.said(f"term {BEFORE + 1} of .* is over"), PATIENCE)
    assert site.touched(before) == []
    assert terms(new) == [BEFORE + 2]


def test_the_leader_s_server_stops_answering(site: Site, bearer: str) -> None:
    """It is lost by its own clock, and the other replica leads by the other server."""
    by = [str(site.cluster.kubeconfig_for(bearer, server=n)) for n in (0, 1)]
    one = site.begin(KUBECONFIG=by[0])
    two = site.operator("two", KUBECONFIG=by[1])
    site.until("two to follow", lambda: two.said("new leader: one_"))
    server = site.plane.apiserver(0)
    server.pause()
    try:
        site.until("one to be lost", lambda: one.said(f"lost: token {BEFORE + 1}, .*not renewed for"))
        site.until("two to lead", lambda: terms(two))
    finally:
        server.resume()
        server.wait_ready()
    site.goes_on(BEFORE + 1)


@pytest.fixture
def fenced(cluster: ControlPlane) -> Iterator[Fenced]:
    """Policies in force, and raw clients whom no line 1 or 2 holds back."""
    make_kinds(cluster)
    namespace = f"fenced-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", namespace)
    made = Fenced(cluster, namespace)
    try:
        made.install()
        yield made
    finally:
        made.remove()
        cluster.kubectl("delete", "namespace", namespace, "--wait=false", check=False)


def test_rules_and_policies_refuse_the_same_at_whichever_server(fenced: Fenced) -> None:
    """Line 3: every verb of a raw client, once with one server for all, once with one for each."""
    first, second = fenced.cluster.servers
    told = []
    for old, new in ((first, first), (first, second), (second, first)):
        fenced.old.server, fenced.new.server = old, new
        until("the policies to be in force there", fenced.in_force)
        rows = [(r.target, r.verb, r.stale.status, r.stale.by, r.current.status) for r in Attempts(fenced).rows()]
        told.append(rows)
    assert told[1] == told[0]
    assert told[2] == told[0]
    assert any(status == 403 for _, _, status, _, _ in told[0])
