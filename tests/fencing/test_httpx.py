"""httpx is a client of other services, too: what goes to the API server is fenced, and nothing else is touched."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

import kopf_ha
from kopf_ha.adapters import _servers, httpx_client
from kopf_ha.adapters._servers import is_api_server
from kopf_ha.core.wire import Response
from kopf_ha.errors import GateClosed, NoTerm, Unfenced
from tests.core.fake_api import CHILD, status
from tests.fencing.clients import CLIENTS, MERGE
from tests.fencing.conftest import Terms
from tests.fencing.http_fake import HttpFake
from tests.fencing.test_attempts import first, mine

PACKAGE = pytest.mark.parametrize("package", [httpx, httpx2])
#: Paths of other products that look like Kubernetes' own.
OTHERS = [
    "/api/v1/query",
    "/api/v1/namespaces/default/workflows/w1",  # Temporal
    "/api/v1/nodes/x",
    "/apis/registry/v2/groups/default/artifacts",  # Apicurio
    "/apis/a.b/latest/x",
    "/",
    "/v1/chat/completions",
    CHILD,  # a URL that a user chose
    "/apis/t.dev/v1/namespaces/a/widgets/x/status",
]
#: Where the API server may be in the environment and in a kubeconfig.
SERVERS = """
clusters:
- cluster: {server: "https://api.example.com:6443"}
- cluster: {server: "https://gateway.example.com/k8s/clusters/c-1/"}
- cluster: {}
- cluster: {server: "https://[fd00::1]"}
"""


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "config").write_text(SERVERS)
    (tmp_path / "broken").write_text("{")
    files = [str(tmp_path / name) for name in ("broken", "missing", "config")]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(files))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "resolv.conf").write_text("search ns.svc.mine.example.com svc.mine.example.com mine.example.com\n")
    monkeypatch.setattr(_servers, "_RESOLVER", tmp_path / "resolv.conf")
    _servers._names.cache_clear()
    yield
    _servers._names.cache_clear()


def goes_to_api_server(url: str) -> bool:
    parsed = httpx.URL(url)
    return is_api_server(parsed.scheme, parsed.host, parsed.port, parsed.path)


# --- which requests are the API server's


@pytest.mark.parametrize("path", OTHERS)
def test_another_services_path_is_nobodys_business(known: None, path: str) -> None:
    for host in (
        "https://prometheus:9090",
        "https://api.example.com",
        "https://10.96.0.1:8443",
        "http://10.96.0.1",
        "https://kubernetes.default.svc.evil.example.com",
        "https://kubernetes.default.svc.mine.example.com.evil.com",
    ):
        assert not goes_to_api_server(host + path)


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize(
    "server",
    [
        "https://10.96.0.1",
        "https://10.96.0.1:443",
        "https://kubernetes",
        "https://kubernetes.default.svc",
        "https://Kubernetes.default.svc.cluster.local.",
        "https://kubernetes.default.svc.mine.example.com",
        "https://api.example.com:6443",
        "https://[fd00::1]",
        "https://gateway.example.com/k8s/clusters/c-1",
    ],
)
def test_on_a_known_server_the_path_does_not_matter(known: None, server: str, path: str) -> None:
    """A path that looks like none of Kubernetes' may be one to the server, which decodes it first."""
    assert goes_to_api_server(server + path)


@pytest.mark.parametrize("path", ["/v3/clusters", "/k8s/clusters/c-12/healthz", "/"])
def test_a_gateway_is_known_by_its_path(known: None, path: str) -> None:
    assert not goes_to_api_server("https://gateway.example.com" + path)


def test_a_kubeconfig_that_changes_is_read_again(known: None, tmp_path: Path) -> None:
    assert not goes_to_api_server("https://new.example.com/")
    (tmp_path / "config").write_text('clusters: [{cluster: {server: "https://new.example.com"}}]')
    os.utime(tmp_path / "config", ns=(1, 1))
    assert goes_to_api_server("https://new.example.com/")


def test_without_a_cluster_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert not goes_to_api_server("https://kubernetes.default.svc/")


@pytest.mark.parametrize("client", ["kr8s", "easykube", "lightkube", "lightkube async"])
def test_a_client_for_kubernetes_tells_its_server(other: HttpFake, terms: Terms, client: str) -> None:
    """Which no environment and no kubeconfig names: `kubectl proxy`, another cluster."""
    with pytest.raises(NoTerm):
        CLIENTS[client](other.url)("PATCH", "/api/v1/nodes/x", {}, MERGE)
    assert other.writes() == []


def test_a_client_that_has_changed_goes_on_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Api:
        def _construct_url(self) -> str:
            return "made"

    module = types.ModuleType("kr8s._api")
    httpx_client.learn_servers(module)
    assert "kr8s._api has changed (Api._construct_url)" in caplog.text
    module.Api = Api  # type: ignore[attr-defined]
    httpx_client.learn_servers(module)
    assert Api()._construct_url() == "made"
    assert "no attribute 'auth'" in caplog.text


# --- what happens to them


@PACKAGE
def test_other_traffic_goes_out_as_it_is(other: HttpFake, terms: Terms, package: Any) -> None:
    """In a term and in none, and its answer is streamed as it comes."""
    other.fault = lambda request: Response(200, b'{"of": "another"}')
    for path in OTHERS:
        other.arrived.clear()
        package.post(other.url + path + "?a=b", content=b"\xff raw", headers={"Content-Type": "x/y", "Accept": "p/q"})
        with terms.term(7), package.stream("DELETE", other.url + path) as got:
            assert b"".join(got.iter_raw()) == b'{"of": "another"}'
        sent, headers = other.arrived[0]
        assert (sent.path, sent.query, sent.content_type, sent.body) == (path, "a=b", "x/y", b"\xff raw")
        assert headers["Accept"] == "p/q"
        assert [r.method for r, _ in other.arrived] == ["POST", "DELETE"]
    assert terms.outcomes == []


@PACKAGE
def test_a_known_servers_other_paths_are_refused_in_words(
    other: HttpFake, terms: Terms, package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f'clusters: [{{cluster: {{server: "{other.url}"}}}}]')
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    http = other
    with pytest.raises(NoTerm):
        package.patch(http.url + "/api/v1/nodes/x", json={})
    with terms.term(7), pytest.raises(Unfenced, match="no path of a Kubernetes object"):
        package.post(http.url + "/%61pi/v1/namespaces/a/configmaps", json={})
    assert http.arrived == []


@PACKAGE
def test_an_answer_that_is_compressed(http: HttpFake, terms: Terms, package: Any) -> None:
    """The fence reads what is in it, the client gets it as it came."""
    mine(http)
    body = json.dumps(http.api.get(CHILD)).encode()
    http.fault = lambda request: Response(200, gzip.compress(body), raw={"Content-Encoding": "gzip"})
    with terms.term(7):
        got = package.patch(http.url + CHILD, json={"spec": {}}, headers={"Content-Type": MERGE})
        assert got.json() == json.loads(body)
        with package.stream("PATCH", http.url + CHILD, json={}, headers={"Content-Type": MERGE}) as streamed:
            assert b"".join(streamed.iter_bytes()) == body
    assert [o.status for o in terms.outcomes] == [200, 200]


@PACKAGE
def test_a_body_that_is_streamed(http: HttpFake, terms: Terms, package: Any) -> None:
    mine(http)
    with terms.term(7):
        got = package.patch(
            http.url + CHILD, content=iter([b'{"spec":', b'{"b": 2}}']), headers={"Content-Type": MERGE}
        )
    assert got.status_code == 200
    assert http.api.get(CHILD)["spec"]["b"] == 2


# --- attempts


@PACKAGE
def test_a_transport_that_tries_again_passes_the_fence_again(http: HttpFake, terms: Terms, package: Any) -> None:
    class Trying(package.BaseTransport):
        inner = package.HTTPTransport()

        def handle_request(self, request: Any) -> Any:
            for _ in range(3):
                got = self.inner.handle_request(request)
                if got.status_code != 503:
                    break
            return got

    mine(http)
    with terms.term(7) as grant, package.Client(transport=Trying()) as client:
        http.fault = first("PATCH", status(503, "no leader"))
        assert client.patch(http.url + CHILD, json={}, headers={"Content-Type": MERGE}).status_code == 200
        http.fault = first("PATCH", status(503, "no leader"), lambda: grant.close("lost"))
        http.arrived.clear()
        with pytest.raises(GateClosed):
            client.patch(http.url + CHILD, json={}, headers={"Content-Type": MERGE})
    assert len(http.writes()) == 1


@PACKAGE
def test_a_redirect_passes_the_fence_again(http: HttpFake, terms: Terms, package: Any) -> None:
    body = mine(http)
    with terms.term(7) as grant:
        http.fault = first("PUT", Response(307, b"{}", raw={"Location": CHILD}), lambda: grant.close("lost"))
        with pytest.raises(GateClosed):
            package.put(http.url + CHILD, json={**body, "spec": {}}, follow_redirects=True)
    assert len(http.writes()) == 1


@PACKAGE
def test_an_attempt_after_a_401_passes_the_fence_again(http: HttpFake, terms: Terms, package: Any) -> None:
    """As lightkube's, which reads its token again then."""

    class Auth(package.Auth):
        def auth_flow(self, request: Any) -> Any:
            got = yield request
            if got.status_code == 401:
                yield request

    mine(http)
    with terms.term(7) as grant:
        http.fault = first("PATCH", status(401, "Unauthorized"), lambda: grant.close("lost"))
        with pytest.raises(GateClosed):
            package.patch(http.url + CHILD, json={}, headers={"Content-Type": MERGE}, auth=Auth())
    assert len(http.writes()) == 1


@PACKAGE
def test_what_could_not_be_sent_in_time_is_not_sent(
    http: HttpFake, terms: Terms, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """httpx gives each phase the whole time: to wait for a connection, to connect, to send."""
    mine(http)
    seen: list[str] = []

    def paused(event: str, info: Any) -> None:
        seen.append(event)
        if event == "connection.connect_tcp.complete":
            monkeypatch.setattr(httpx_client, "boottime", lambda: grant.deadline + 1)

    with terms.term(7) as grant, package.Client() as client:
        terms.fence.known.learn(http.api.target(CHILD), http.api.get(CHILD))
        with pytest.raises(package.ConnectTimeout, match="the term was over"):
            client.patch(http.url + CHILD, json={}, headers={"Content-Type": MERGE}, extensions={"trace": paused})
    assert http.arrived == []
    assert "connection.connect_tcp.started" in seen


@PACKAGE
@pytest.mark.parametrize(("given", "left", "expected"), [(1, 600, 1), (30, 2, 2), (None, 2, 2)])
def test_the_shorter_limit_counts(
    http: HttpFake, terms: Terms, package: Any, given: float | None, left: float, expected: float
) -> None:
    mine(http)
    limits: list[dict[str, float]] = []

    def seen(event: str, info: Any) -> None:
        if event.endswith("send_request_headers.started"):
            limits.append(info["request"].extensions["timeout"])

    with terms.term(7) as grant, package.Client(timeout=given) as client:
        terms.now = lambda: grant.deadline - left
        terms.fence.known.learn(http.api.target(CHILD), http.api.get(CHILD))
        client.patch(http.url + CHILD, json={}, headers={"Content-Type": MERGE}, extensions={"trace": seen})
    assert [{phase: round(time, 3) for phase, time in one.items()} for one in limits] == [
        {"connect": expected, "read": expected, "write": expected, "pool": expected}
    ]


# --- optional

LATER = """
import sys
import types
from kopf_ha import adapters
adapters.install()
optional = {"httpx", "httpx2", "kubernetes_asyncio", "kubernetes.aio"}
assert optional.isdisjoint(sys.modules), optional & set(sys.modules)
import httpx, httpx2
import kubernetes_asyncio.client, kubernetes.aio.client
from kubernetes_asyncio.client import rest as one
from kubernetes.aio.client import rest as other
assert httpx.HTTPTransport.handle_request.kopf_ha and httpx2.HTTPTransport.handle_request.kopf_ha
assert one.RESTClientObject.request.kopf_ha and other.RESTClientObject.request.kopf_ha
try:
    httpx.post("http://localhost:1/api/v1/nodes", json={})
except Exception as error:
    print(type(error).__name__)
"""


def test_they_are_fenced_when_the_operator_imports_them_and_not_imported_for_that() -> None:
    env = os.environ | {
        "KUBERNETES_SERVICE_HOST": "localhost",
        "KUBERNETES_SERVICE_PORT": "1",
        "PYTHONPATH": str(Path(kopf_ha.__file__).parents[1]),
    }
    done = subprocess.run([sys.executable, "-c", LATER], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "NoTerm\n", done.stderr
