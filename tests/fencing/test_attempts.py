"""I8: each attempt is judged anew, below the client's own retries; a refusal is none of what it retries."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
import kopf
import kubernetes
import kubernetes_asyncio.client
import pytest
import requests
import urllib3
from pykube.http import KubernetesHTTPAdapter
from requests.adapters import HTTPAdapter

from kopf_ha.core.refusal import about_tokens
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import Denied, GateClosed, StaleLeader, Unfenced
from tests.core.fake_api import CHILD, LEASE, WIDGET, denied, stamp, status
from tests.fencing.clients import BROKEN, CLIENTS, MERGE, REPORTED, by_aiohttp, by_kubernetes, by_pykube, own_session
from tests.fencing.conftest import Terms
from tests.fencing.http_fake import DROP, Fault, HttpFake

EVERY = pytest.mark.parametrize("client", CLIENTS)


def first(method: str, answer: Response | str, then: Callable[[], Any] = lambda: None) -> Fault:
    """Answer the first request of a method so, and do something at that moment."""
    once = iter([answer])

    def fault(request: Request) -> Response | str | None:
        if request.method != method:
            return None
        given = next(once, None)
        if given is not None:
            then()
        return given

    return fault


def mine(http: HttpFake, path: str = CHILD) -> Any:
    """An object that term 7 has stamped already, so that a write of it is one request."""
    return http.api.put(path, {"spec": {"a": 1}}, stamp(7))


def put_body(body: Any) -> Any:
    return {**body, "spec": {"a": 2}}


# --- urllib3


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_urllib3_would_replay_a_dropped_write_unfenced(http: HttpFake, terms: Terms, method: str) -> None:
    """What the fence has to prevent, shown with the plain client."""
    body = mine(http)
    http.fault = first(method, DROP)
    plain = urllib3.PoolManager()
    plain.request(method, http.url + CHILD, json=put_body(body) if method == "PUT" else None)
    assert len(http.writes(method)) == 2


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_what_urllib3_replays_passes_the_fence_again(http: HttpFake, terms: Terms, method: str) -> None:
    body = mine(http)
    with terms.term(7):
        http.fault = first(method, DROP)
        got, _ = by_kubernetes(http.url)(method, CHILD, put_body(body) if method == "PUT" else None)
    assert got == 200
    assert len(http.writes(method)) == 2


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_replay_after_the_terms_end_does_not_leave(http: HttpFake, terms: Terms, method: str) -> None:
    body = mine(http)
    with terms.term(7) as grant:
        http.fault = first(method, DROP, lambda: grant.close("the Lease was lost"))
        with pytest.raises(GateClosed):
            by_kubernetes(http.url)(method, CHILD, put_body(body) if method == "PUT" else None)
    assert len(http.writes(method)) == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_replay_of_a_stale_leader_is_refused_by_what_it_reads(http: HttpFake, terms: Terms, method: str) -> None:
    body = mine(http)

    def newer() -> None:
        http.api.put(CHILD, {}, stamp(8))
        http.api.elect(stamp(8))
        terms.fence.known.objects.clear()  # what a watch would have told by then

    with terms.term(7):
        http.fault = first(method, DROP, newer)
        with pytest.raises(StaleLeader):
            by_kubernetes(http.url)(method, CHILD, put_body(body) if method == "PUT" else None)
    assert len(http.writes(method)) == 1
    assert http.api.recorded(CHILD) == stamp(8)


def test_urllib3s_retries_by_status_pass_the_fence_again(http: HttpFake, terms: Terms) -> None:
    body = mine(http)
    with terms.term(7) as grant:
        policy = urllib3.Retry(3, status_forcelist=[503], backoff_factor=0)
        http.fault = first("PUT", status(503, "no leader"), lambda: grant.close("lost"))
        with pytest.raises(GateClosed):
            by_kubernetes(http.url, retries=policy)("PUT", CHILD, put_body(body))
    assert len(http.writes("PUT")) == 1


def test_a_patch_is_not_replayed_by_anybody(http: HttpFake, terms: Terms) -> None:
    mine(http)
    with terms.term(7):
        for client in CLIENTS.values():
            http.arrived.clear()
            http.fault = first("PATCH", DROP)
            with pytest.raises(BROKEN):
                client(http.url)("PATCH", CHILD, {"spec": {}}, MERGE)
            assert len(http.writes()) == 1


def test_urllib3_follows_a_redirect_through_the_fence(http: HttpFake, terms: Terms) -> None:
    body = mine(http)
    moved = Response(307, b"{}", raw={"Location": CHILD})
    with terms.term(7) as grant:
        http.fault = first("PUT", moved, lambda: grant.close("lost"))
        with pytest.raises(GateClosed):
            by_kubernetes(http.url)("PUT", CHILD, put_body(body))
    assert len(http.writes()) == 1


# --- requests


def test_pykubes_replay_after_a_401_passes_the_fence_again(
    http: HttpFake, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def auth(self: KubernetesHTTPAdapter, config: Any, request: Any, kwargs: Any) -> Any:
        # As its support of gcp does: the original request, sent by the adapter again.
        original = request.copy()
        return lambda send_kwargs: self.send(original, **send_kwargs)

    monkeypatch.setattr(KubernetesHTTPAdapter, "_setup_request_auth", auth)
    mine(http)
    expired = status(401, "Unauthorized")
    with terms.term(7) as grant:
        http.fault = first("PATCH", expired)
        assert by_pykube(http.url)("PATCH", CHILD, {"spec": {"a": 2}}, MERGE)[0] == 200
        assert [o.status for o in terms.outcomes] == [401, 200]
        http.arrived.clear()
        http.fault = first("PATCH", expired, lambda: grant.close("lost"))
        with pytest.raises(GateClosed):
            by_pykube(http.url)("PATCH", CHILD, {"spec": {"a": 3}}, MERGE)
    assert len(http.writes()) == 1


def test_requests_follows_a_redirect_through_the_fence(http: HttpFake, terms: Terms) -> None:
    body = mine(http)
    with terms.term(7) as grant:
        http.fault = first("PUT", Response(307, b"{}", raw={"Location": CHILD}), lambda: grant.close("lost"))
        with pytest.raises(GateClosed):
            by_pykube(http.url)("PUT", CHILD, put_body(body))
    assert len(http.writes()) == 1


@pytest.mark.parametrize("answer", [DROP, status(503, "no leader")])
def test_what_a_policy_of_requests_tries_again_passes_the_fence_again(
    http: HttpFake, terms: Terms, answer: Response | str
) -> None:
    """urllib3 would do that below the fence."""
    body = mine(http)
    with terms.term(7) as grant, requests.Session() as session:
        policy = urllib3.Retry(3, status_forcelist=[503], backoff_factor=0)
        session.mount("http://", HTTPAdapter(max_retries=policy))
        http.fault = first("PUT", answer)
        assert session.put(http.url + CHILD, json=put_body(body)).status_code == 200
        http.arrived.clear()
        http.fault = first("PUT", answer, lambda: grant.close("lost"))
        with pytest.raises(GateClosed):
            session.put(http.url + CHILD, json=put_body(body))
    assert len(http.writes()) == 1


def test_a_policy_of_requests_ends_as_without_the_fence(http: HttpFake, other: HttpFake, terms: Terms) -> None:
    mine(http)
    for server in (http, other):
        server.fault = lambda request: status(503, "no leader") if request.method == "DELETE" else None
        with terms.term(7), requests.Session() as session:
            policy = urllib3.Retry(2, status_forcelist=[503], backoff_factor=0)
            session.mount("http://", HTTPAdapter(max_retries=policy))
            with pytest.raises(requests.exceptions.RetryError):
                session.delete(server.url + CHILD)
            assert len(server.writes()) == 3
            server.fault = lambda request: DROP if request.method == "DELETE" else None
            server.arrived.clear()
            with pytest.raises(requests.ConnectionError):
                session.delete(server.url + CHILD)
            assert len(server.writes()) == 3


def test_other_traffic_by_requests_goes_out_as_it_is(other: HttpFake, terms: Terms) -> None:
    other.fault = lambda request: Response(200, b"{}")
    requests.post(other.url + CHILD + "?a=b", data=b"raw", headers={"Accept": "p/q"})
    sent, headers = other.arrived[0]
    assert (sent.method, sent.path, sent.query, sent.body) == ("POST", CHILD, "a=b", b"raw")
    assert headers["Accept"] == "p/q"
    assert terms.outcomes == []


# --- aiohttp


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("make", [None, own_session])
def test_aiohttp_replays_nothing_below_the_fence(http: HttpFake, terms: Terms, method: str, make: Any) -> None:
    # By itself it sends PUT and DELETE again on a connection that breaks.
    body = mine(http)
    client = by_aiohttp(http.url, make) if make else by_aiohttp(http.url)
    with terms.term(7) as grant:
        http.fault = first(method, DROP, lambda: grant.close("lost"))
        with pytest.raises(BROKEN):
            client(method, CHILD, put_body(body) if method == "PUT" else None)
    assert len(http.writes(method)) == 1


def test_aiohttp_follows_a_redirect_through_the_fence(http: HttpFake, terms: Terms) -> None:
    body = mine(http)
    with terms.term(7) as grant:
        http.fault = first("PUT", Response(307, b"{}", raw={"Location": CHILD}), lambda: grant.close("lost"))
        with pytest.raises(GateClosed):
            by_aiohttp(http.url)("PUT", CHILD, put_body(body))
    assert len(http.writes()) == 1


def test_a_session_that_raises_for_errors_gets_only_the_answer_that_the_fence_gives(
    http: HttpFake, terms: Terms
) -> None:
    """Of a conflict that the fence resolves it would see nothing, either."""

    def raising(target: str) -> Any:
        return kopf.AiohttpSession(server=target, aiohttp_session=aiohttp.ClientSession(raise_for_status=True))

    mine(http)
    with terms.term(7):
        assert by_aiohttp(http.url)("PATCH", CHILD, {"spec": {"a": 1}}, MERGE)[0] == 200
        http.api.edit(CHILD, lambda body: body["spec"].update(theirs=1))
        assert by_aiohttp(http.url, raising)("PATCH", CHILD, {"spec": {"a": 2}}, MERGE)[0] == 200
        with pytest.raises(aiohttp.ClientResponseError, match="404"):
            by_aiohttp(http.url, raising)("PATCH", CHILD + "-none", {"spec": {"a": 2}}, MERGE)


@EVERY
def test_only_kopf_decides_by_what_its_watch_showed(http: HttpFake, terms: Terms, client: str) -> None:
    """The status of a deciding kind has to name the revision that it was decided from."""
    http.api.put(WIDGET, {"spec": {"a": 1}}, stamp(7))
    terms.fence.known.deciding |= {http.api.target(WIDGET).kind}
    send = CLIENTS[client](http.url)
    with terms.term(7):
        if client == "kopf":
            assert send("PATCH", WIDGET + "/status", {"status": {"a": 1}}, MERGE)[0] == 200
        else:
            with pytest.raises(Unfenced, match="resourceVersion"):
                send("PATCH", WIDGET + "/status", {"status": {"a": 1}}, MERGE)


# --- all of them


@EVERY
@pytest.mark.parametrize("path", [CHILD, WIDGET, WIDGET + "/status"])
def test_the_same_flow_drives_every_client(http: HttpFake, terms: Terms, client: str, path: str) -> None:
    http.api.put(path.removesuffix("/status"), {"spec": {"a": 1}}, stamp(6))
    part = "status" if path.endswith("/status") else "spec"
    with terms.term(7):
        assert CLIENTS[client](http.url)("PATCH", path, {part: {"b": 2}}, MERGE)[0] == 200
    recorded = http.api.recorded(path.removesuffix("/status"))
    assert recorded is not None
    assert (recorded.token, recorded.lease) == (7, LEASE)
    assert http.api.get(path.removesuffix("/status"))[part]["b"] == 2
    assert [(o.client, o.status, o.refused) for o in terms.outcomes] == [(REPORTED.get(client, client), 200, None)]


@EVERY
@pytest.mark.parametrize("accept", ["application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "application/yaml"])
def test_the_fence_reads_whole_objects_whatever_the_client_likes(
    http: HttpFake, terms: Terms, client: str, accept: str
) -> None:
    # Of a PartialObjectMetadata the fence would see no stamp, and take a newer leader's object for a free one.
    http.api.put(WIDGET, {"spec": {"a": 1}}, stamp(6))
    send = CLIENTS[client](http.url)
    with terms.term(7):
        send("PATCH", WIDGET, {"spec": {"b": 2}}, MERGE, accept)
        assert {h["accept"] for m in ("GET", "PATCH") for h in http.headers(m)} == {"application/json"}
        http.arrived.clear()
        send("GET", WIDGET, accept=accept)
        assert http.headers("GET")[0]["accept"] == accept


@EVERY
def test_what_the_fence_sends_keeps_the_clients_headers(http: HttpFake, terms: Terms, client: str) -> None:
    http.api.put(WIDGET, {"spec": {"a": 1}}, stamp(6))
    with terms.term(7):
        CLIENTS[client](http.url)("PATCH", WIDGET, {"spec": {"b": 2}}, MERGE)
    agents = {h.get("user-agent") for m in ("GET", "PATCH") for h in http.headers(m)}
    assert len(agents) == 1
    assert None not in agents


@EVERY
@pytest.mark.parametrize("name", ["system%3Ax", "%78", "a%25b", "x%3Fy", "x%23y"])
def test_names_go_over_the_wire_as_they_came(http: HttpFake, terms: Terms, client: str, name: str) -> None:
    # Once decoded, "x%3Fy" would be another object's path with a query.
    path = CHILD.removesuffix("x") + name
    http.api.put(path, {"spec": {}}, stamp(7))
    http.api.put(CHILD, {"spec": {}}, stamp(7)) if name != "%78" else None
    with terms.term(7):
        assert CLIENTS[client](http.url)("PATCH", path, {"spec": {"b": 2}}, MERGE)[0] == 200
    assert len(http.writes()) == 1
    assert http.api.get(path)["spec"] == {"b": 2}


@EVERY
@pytest.mark.parametrize("body", [None, {"kind": "DeleteOptions", "apiVersion": "v1"}])
def test_a_delete_with_and_without_a_body(http: HttpFake, terms: Terms, client: str, body: Any) -> None:
    mine(http)
    with terms.term(7):
        assert CLIENTS[client](http.url)("DELETE", CHILD, body)[0] == 200
    assert set(http.writes("DELETE")[0].json["preconditions"]) == {"uid", "resourceVersion"}
    assert http.headers("DELETE")[0]["content-type"] == "application/json"


@EVERY
def test_a_refusal_is_reported_before_it_is_raised(http: HttpFake, terms: Terms, client: str) -> None:
    http.api.put(CHILD, {}, stamp(8))
    http.api.elect(stamp(8))
    with terms.term(7), pytest.raises(StaleLeader):
        CLIENTS[client](http.url)("PATCH", CHILD, {"spec": {}}, MERGE)
    assert [type(o.refused) for o in terms.outcomes] == [StaleLeader]
    assert terms.outcomes[0].client == REPORTED.get(client, client)


@EVERY
@pytest.mark.parametrize("code", [403, 429, 500, 503])
def test_a_refusal_after_an_answer_that_clients_retry_is_not_retried(
    http: HttpFake, terms: Terms, client: str, code: int
) -> None:
    mine(http)
    counter = itertools.count()

    def fault(request: Request) -> Response | None:
        if request.method in ("PATCH", "GET") and "configmaps" in request.path:
            next(counter)
            refused = denied("kopf-ha-x-child-configmaps", about_tokens(LEASE) + "stale")
            return refused if request.method == "PATCH" else status(code, "no")
        return None

    http.fault = fault
    with terms.term(7):
        terms.fence.known.learn(http.api.target(CHILD), http.api.get(CHILD))
        with pytest.raises(Denied):
            CLIENTS[client](http.url)("PATCH", CHILD, {"spec": {}}, MERGE)
    assert next(counter) == 2


@EVERY
def test_a_grants_end_caps_the_timeout(http: HttpFake, terms: Terms, client: str) -> None:
    """The server never answers, and the client would wait; only the grant's end makes it give up."""
    mine(http)
    release = threading.Event()

    def silent(request: Request) -> str | None:
        return DROP if request.method == "PATCH" and release.wait(60) else None

    http.fault = silent
    with terms.term(7) as grant:
        # The clock stands still, so that however slow the machine is the patch leaves with a second left.
        terms.now = lambda: grant.deadline - 1.0
        try:
            with pytest.raises((*BROKEN, TimeoutError)):
                CLIENTS[client](http.url)("PATCH", CHILD, {"spec": {}}, MERGE)
            assert http.writes() != []
        finally:
            release.set()


def impatient_kubernetes(url: str, seconds: float) -> None:
    configuration = kubernetes.client.Configuration()
    configuration.host = url
    api = kubernetes.client.ApiClient(configuration)
    headers = {"Content-Type": MERGE}
    api.rest_client.request("PATCH", url + CHILD, headers, {"spec": {}}, _request_timeout=seconds)


def impatient_requests(url: str, seconds: float) -> None:
    timeout: Any = urllib3.Timeout(total=seconds)
    requests.patch(url + CHILD, json={"spec": {}}, headers={"Content-Type": MERGE}, timeout=timeout)


def impatient_asyncio(url: str, seconds: float) -> None:
    async def one() -> None:
        configuration = kubernetes_asyncio.client.Configuration()
        configuration.host = url
        async with kubernetes_asyncio.client.ApiClient(configuration) as api:
            headers = {"Content-Type": MERGE}
            request = api.rest_client.request
            await request("PATCH", url + CHILD, headers=headers, body={"spec": {}}, _request_timeout=seconds)

    asyncio.run(one())


#: What each raises when its own timeout for the whole request is over.
IMPATIENT: dict[Callable[[str, float], None], type[Exception]] = {
    impatient_kubernetes: urllib3.exceptions.TimeoutError,
    impatient_requests: requests.Timeout,
    impatient_asyncio: TimeoutError,
}


@pytest.mark.parametrize("write", IMPATIENT)
def test_a_clients_own_timeout_counts(http: HttpFake, terms: Terms, write: Callable[[str, float], None]) -> None:
    """The server never answers, and the grant would last for minutes."""
    mine(http)
    release = threading.Event()
    http.fault = lambda request: DROP if request.method == "PATCH" and release.wait(60) else None
    with terms.term(7):
        try:
            with pytest.raises(IMPATIENT[write]):
                write(http.url, 0.5)
        finally:
            release.set()


@pytest.mark.parametrize("write", [impatient_kubernetes, impatient_requests])
def test_a_clients_own_timeout_is_for_all_that_the_fence_sends(
    http: HttpFake, terms: Terms, write: Callable[[str, float], None]
) -> None:
    """Somebody else is faster each time, and each answer takes two seconds of this clock."""
    mine(http)
    clock = terms.now()
    terms.now = lambda: clock

    def slow(request: Request) -> None:
        nonlocal clock
        clock += 2
        if request.method == "PATCH":
            http.api.put(CHILD, {**http.api.get(CHILD), "spec": {"at": clock}})

    http.fault = slow
    with terms.term(7), pytest.raises(IMPATIENT[write]):
        write(http.url, 9.0)
    assert len(http.writes("PATCH")) == 2
