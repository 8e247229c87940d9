"""Clients for another cluster are left alone. Another name of this cluster's API server is no way around the fence."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import kopf
import pytest

from devcluster.waiting import until
from kopf_ha._context import entered_everywhere
from kopf_ha._kopf import new_registry
from kopf_ha.adapters import KUBE_SYSTEM, Clusters, Wiring, _servers, wired
from kopf_ha.adapters.kopf_client import fence_nested
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import GateClosed, NoTerm, TermEnded, Unfenced, Unreached
from kopf_ha.run import nested
from tests.core.fake_api import CHILD, stamp
from tests.fencing.clients import CLIENTS, MERGE, Send
from tests.fencing.conftest import Terms
from tests.fencing.http_fake import HttpFake
from tests.kopf_api import KopfApi

#: Seconds that are waited for what has to come, at most.
LONG = 60.0
BODY = {"data": {"a": "b"}}


def by_nested_kopf(target: str) -> Send:
    """The session of an operator beside the fenced one."""

    async def one(method: str, path: str, body: Any, content_type: str) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session:
            fence_nested(session, target)
            headers, raw = {"Content-Type": content_type}, json.dumps(body).encode()
            async with session.request(method, target + path, data=raw, headers=headers) as got:
                return got.status, await got.json()

    return lambda *args: asyncio.run(one(*args))


NESTED = {name: send for name, send in CLIENTS.items() if name != "kopf"} | {"a nested kopf": by_nested_kopf}
CLIENT = pytest.mark.parametrize("client", NESTED)


def namespace(uid: Any) -> Response:
    return Response(200, json.dumps({"metadata": {"name": "kube-system", "uid": uid}}).encode())


@dataclass
class Site:
    """This process's own cluster, and a server under another name."""

    other: HttpFake
    terms: Terms = field(default_factory=lambda: Terms("ns/op"))
    own: Response = field(default_factory=lambda: namespace("mine"))
    said: Response = field(default_factory=lambda: namespace("another"))
    now: float = 0.0
    reads: int = 0

    def __post_init__(self) -> None:
        self.other.fault = lambda request: self.said if request.path.endswith(KUBE_SYSTEM) else None
        self.other.api.put(CHILD, {"metadata": {"name": "x", "namespace": "a"}})
        _servers.add(self.other.url)  # so that requests and httpx take it for an API server, too

    def read(self) -> Response:
        self.reads += 1
        return self.own

    def questions(self) -> int:
        return len([r for r, _ in self.other.arrived if r.path == KUBE_SYSTEM])


@pytest.fixture
def site(installed: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    fake = HttpFake()
    made = Site(fake)
    known = Clusters(lambda: made.read(), "https://own:6443", clock=lambda: made.now)
    with wired(Wiring(made.terms.fence, made.terms.outcomes.append, clusters=known)):
        yield made
    fake.close()


@CLIENT
def test_another_cluster_s_writes_pass_untouched_and_are_named_once(
    site: Site, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    send = NESTED[client](site.other.url)
    for _ in range(2):  # in no term, too
        assert send("PATCH", CHILD, BODY, MERGE)[0] == 200
    writes = site.other.writes()
    assert [json.loads(write.body) for write in writes] == [BODY, BODY]
    assert caplog.text.count(f"{site.other.url} is another cluster; writes to it are not fenced") == 1


@CLIENT
def test_a_term_that_is_over_is_over_in_another_cluster_too(site: Site, client: str) -> None:
    """The gate needs no token. A leader that wakes up late finds it closed."""
    send = NESTED[client](site.other.url)
    with site.terms.term(7) as grant:
        assert send("PATCH", CHILD, BODY, MERGE)[0] == 200
        grant.close("the Lease was lost")
        with pytest.raises(GateClosed):
            send("PATCH", CHILD, BODY, MERGE)
    with entered_everywhere(), pytest.raises(NoTerm):
        send("PATCH", CHILD, BODY, MERGE)
    assert len(site.other.writes()) == 1


def test_what_may_be_another_cluster_ends_no_term(site: Site) -> None:
    """Its Lease and its stamps may be those of an operator of the same name there (I10)."""
    site.said = Response(403, b"{}")
    site.other.api.put(CHILD, {"metadata": {"name": "x", "namespace": "a"}}, stamp(9))
    site.other.api.elect(stamp(9))
    send = CLIENTS["kubernetes"](site.other.url)
    with site.terms.term(7), pytest.raises(Unfenced, match="may be another cluster's, so the term goes on"):
        send("PATCH", CHILD, BODY, MERGE)
    assert [type(one.refused) for one in site.terms.outcomes] == [Unfenced]
    assert site.other.writes() == []
    site.said, site.now = namespace("mine"), 61.0
    with site.terms.term(7), pytest.raises(TermEnded):
        send("PATCH", CHILD, BODY, MERGE)


@CLIENT
@pytest.mark.parametrize("said", ["the same", "forbidden", "no JSON", "no uid"])
def test_what_may_be_this_cluster_is_fenced(site: Site, client: str, said: str) -> None:
    """I8: an address, a load balancer, a proxy; and what does not say who it is."""
    site.said = {
        "the same": namespace("mine"),
        "forbidden": Response(403, namespace("another").body),
        "no JSON": Response(200, b"<html>"),
        "no uid": namespace(None),
    }[said]
    send = NESTED[client](site.other.url)
    for _ in range(2):
        with pytest.raises(NoTerm):
            send("PATCH", CHILD, BODY, MERGE)
    assert site.other.writes() == []
    assert site.questions() == 1, "it is known for a while"


@pytest.mark.parametrize("own", ["forbidden", "unreached"])
def test_without_this_cluster_s_own_uid_all_is_fenced(
    site: Site, own: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.own = Response(403, b"{}")
    if own == "unreached":

        def unreached(site: Site) -> Response:
            raise Unreached("no answer")

        monkeypatch.setattr(Site, "read", unreached)
    with pytest.raises(NoTerm):
        CLIENTS["pykube"](site.other.url)("PATCH", CHILD, BODY, MERGE)
    assert site.other.writes() == []
    assert f"cannot tell whether {site.other.url} is another cluster" in caplog.text
    assert "kube-system cannot be read in this cluster; allow to get it" in caplog.text


def test_a_name_that_becomes_this_cluster_s_is_fenced_at_once(site: Site) -> None:
    """A name may move to another server at any time, so it is asked before each write."""
    send = CLIENTS["kubernetes"](site.other.url)
    assert send("PATCH", CHILD, BODY, MERGE)[0] == 200
    site.said = namespace("mine")
    with pytest.raises(NoTerm):
        send("PATCH", CHILD, BODY, MERGE)
    assert len(site.other.writes()) == 1


def test_what_is_known_is_asked_again_after_a_while(site: Site) -> None:
    site.said = Response(403, b"{}")
    send = CLIENTS["pykube"](site.other.url)
    with pytest.raises(NoTerm):
        send("PATCH", CHILD, BODY, MERGE)
    site.now, site.said = 61.0, namespace("another")
    assert send("PATCH", CHILD, BODY, MERGE)[0] == 200
    site.now, site.own = 122.0, namespace("another")  # this cluster was replaced
    with pytest.raises(NoTerm):
        send("PATCH", CHILD, BODY, MERGE)


@pytest.mark.parametrize(
    "origin",
    ["https://own:6443", "https://OWN.:6443", "https://10.96.0.1", "https://kubernetes.default", "https://public:443"],
)
def test_this_process_s_own_servers_are_not_asked(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    known = Clusters(lambda: namespace("mine"), "https://own:6443")
    known.add_own("https://public/")
    assert known.question(origin, CHILD) is None


def test_a_gateway_s_clusters_are_told_apart_by_their_paths() -> None:
    known = Clusters(lambda: namespace("mine"), "https://gateway/k8s/clusters/c-1")
    assert known.question("https://gateway", "/k8s/clusters/c-1" + CHILD) is None
    asked = known.question("https://gateway", "/k8s/clusters/c-2" + CHILD)
    assert asked is not None
    assert (asked.method, asked.path) == ("GET", "/k8s/clusters/c-2" + KUBE_SYSTEM)


@pytest.mark.parametrize("client", ["kubernetes", "pykube", "kr8s", "kubernetes_asyncio"])
def test_a_server_that_does_not_answer_gets_nothing(site: Site, client: str) -> None:
    site.other.fault = lambda request: "drop" if request.path == KUBE_SYSTEM else None
    with pytest.raises(NoTerm):
        NESTED[client](site.other.url)("PATCH", CHILD, BODY, MERGE)
    assert site.other.writes() == []


def test_reads_are_no_question(site: Site) -> None:
    assert CLIENTS["kubernetes"](site.other.url)("GET", CHILD)[0] == 200
    assert (site.questions(), site.reads) == (0, 0)


def test_the_fenced_operator_s_own_kopf_is_fenced_wherever_it_logs_in(site: Site) -> None:
    with pytest.raises(NoTerm):
        CLIENTS["kopf"](site.other.url)("PATCH", CHILD, BODY, MERGE)
    # Other clients of the same server follow it.
    with pytest.raises(NoTerm):
        CLIENTS["pykube"](site.other.url)("PATCH", CHILD, BODY, MERGE)
    assert site.questions() == 0


def test_the_question_has_no_body(site: Site) -> None:
    asked = Clusters(site.read).question(site.other.url, CHILD)
    assert asked == Request("GET", KUBE_SYSTEM, timeout=10.0)


@pytest.mark.parametrize("uid", ["mine", "uid-kube-system"])
def test_a_whole_operator_for_another_cluster(site: Site, uid: str, caplog: pytest.LogCaptureFixture) -> None:
    """Beside the fenced one, and in no term: it works as with plain Kopf, but not in this cluster (I8)."""
    caplog.set_level("INFO")
    site.own = namespace(uid)
    registry, api, stop = new_registry(), KopfApi("a"), threading.Event()
    kopf.on.login(registry=registry, id="login")(lambda **_: kopf.ConnectionInfo(server=api.url))

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True

    @kopf.on.create("things", registry=registry)
    def made(patch: kopf.Patch, **_: Any) -> None:
        patch.spec["done"] = True

    nested.install()
    thread = threading.Thread(
        target=lambda: kopf.run(registry=registry, clusterwide=True, standalone=True, stop_flag=stop), daemon=True
    )
    thread.start()
    try:
        if uid == "mine":
            until("the write", lambda: api._objects["a"]["spec"].get("done"), LONG)
            assert not [name for name in api._objects["a"]["metadata"]["annotations"] if "kopf-ha" in name]
        else:
            until("the refusal", lambda: "the calling code runs in no term" in caplog.text, LONG)
            assert api._objects["a"]["spec"] == {}
    finally:
        stop.set()
        thread.join(LONG)
        api.close()
    assert not thread.is_alive()
    assert "another operator is started in this process" in caplog.text
