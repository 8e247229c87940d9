"""The one client of the API server, on a server that answers what a test says; and who may know how it fails."""

from __future__ import annotations

import ast
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration

import kopf_ha
from kopf_ha.api import PAGE, WAITS, Api, single_attempts
from kopf_ha.core.election import events
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election.lease_client import LeaseClient, lease_api
from kopf_ha.errors import ApiRefused, KopfHAError, Unreached
from kopf_ha.options import options_of
from kopf_ha.run.selftest import SelfTest
from kopf_ha.settings import Settings
from tests.election.world import settings

PODS = "/api/v1/namespaces/ns/pods"
Answer = tuple[int, Any]


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `answers`; the last one stays. A function takes the handler."""

    daemon_threads = True

    def __init__(self, *answers: Answer | Callable[[Any], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def client(self) -> ApiClient:
        return client(f"http://127.0.0.1:{self.server_port}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        server: Any = self.server
        server.asked.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        if callable(said):
            said(self)
            self.close_connection = True
            return
        status, body = said
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_PATCH = answer

    def log_message(self, *_: Any) -> None: ...


def client(host: str) -> ApiClient:
    configuration = Configuration()
    configuration.host = host
    return single_attempts(ApiClient(configuration))


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serving(*answers: Any) -> Server:
        servers.append(Server(*answers))
        return servers[-1]

    yield serving
    for server in servers:
        server.shutdown()
        server.server_close()


def status(code: int, message: str, reason: str = "") -> Answer:
    return code, {"kind": "Status", "code": code, "message": message, "reason": reason}


# --- one request


def test_a_refusal_carries_what_the_server_said(serve: Any) -> None:
    api = Api(serve(status(409, "the object was modified", "Conflict")).client)
    with pytest.raises(ApiRefused, match="PUT /x: 409 the object was modified") as refused:
        api.call("PUT", "/x", {})
    error = refused.value
    assert (error.status, error.reason, error.message) == (409, "Conflict", "the object was modified")
    assert json.loads(error.body)["code"] == 409
    assert error.definite, "it changed nothing"


def test_to_those_who_tell_refusals_apart_a_refusal_is_an_answer(serve: Any) -> None:
    answer = Api(serve(status(403, "policy x denied it")).client).request("PATCH", "/x", {}, "application/json")
    assert (answer.status, answer.message) == (403, "policy x denied it")


@pytest.mark.parametrize(("code", "definite"), [(400, True), (403, True), (408, False), (500, False), (503, False)])
def test_what_may_have_been_done_all_the_same(serve: Any, code: int, definite: bool) -> None:
    with pytest.raises(ApiRefused) as refused:
        Api(serve(status(code, "no")).client).call("PUT", "/x", {})
    assert refused.value.definite is definite


def cut(handler: Any) -> None:
    """Announce more than is sent, then close."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"{")


def say_nothing(handler: Any) -> None:
    time.sleep(2)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (say_nothing, r"gave no answer to PUT /x in 0\.2 s"),
        (cut, "broke in PUT /x"),
        ((200, b"<html>"), "what answered to PUT /x is no API server: b'<html>'"),
        ((200, []), "what answered to PUT /x is no API server"),
    ],
)
def test_without_a_usable_answer_it_may_have_been_done(serve: Any, answer: Any, sentence: str) -> None:
    with pytest.raises(Unreached, match=sentence) as unreached:
        Api(serve(answer).client).call("PUT", "/x", {}, timeout=0.2)
    assert (unreached.value.status, unreached.value.definite) == (0, False)


def test_what_never_left_changed_nothing() -> None:
    for host, sentence in [("http://127.0.0.1:1", "connection refused"), ("http://no.invalid", "does not resolve")]:
        with pytest.raises(Unreached, match=sentence) as unreached:
            Api(client(host)).call("PUT", "/x", {})
        assert unreached.value.definite


FORBIDDEN = 'pods "x" is forbidden: User "joe" cannot get resource "pods" in API group "" in the namespace "ns"'
LEASES = 'leases is forbidden: User "joe" cannot list resource "leases" in API group "coordination.k8s.io"'


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (status(401, "Unauthorized"), "does not know these credentials (401)"),
        (status(403, FORBIDDEN), "no permission to get pods in namespace ns as joe: ask joan"),
        (status(403, LEASES), "no permission to list leases.coordination.k8s.io as joe: ask joan"),
        (status(403, "unable to create: it is being terminated"), "namespace ns is being deleted"),
        (status(404, 'namespaces "ns" not found'), "namespace ns does not exist: create it, or name another one"),
        ((502, b"bad gateway"), f"the API server refused GET {PODS}: 502 bad gateway"),
    ],
)
def test_a_refusal_says_what_to_do(serve: Any, answer: Answer, sentence: str) -> None:
    with pytest.raises(ApiRefused) as refused:
        Api(serve(answer).client, remedy="ask joan").call("GET", PODS)
    assert sentence in str(refused.value)


# --- lists


def page(*names: str, more: str = "") -> Answer:
    return 200, {"items": [{"name": n} for n in names], "metadata": {"resourceVersion": "7", "continue": more}}


def test_a_list_goes_on_where_the_page_before_ended(serve: Any) -> None:
    server = serve(page("a", "b", more="x&y"), page("c"))
    assert [item["name"] for item in Api(server.client).items("/p")] == ["a", "b", "c"]
    assert server.asked == [f"GET /p?limit={PAGE}", f"GET /p?limit={PAGE}&continue=x%26y"]


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_is_about_to_be_ready_is_asked_again(
    serve: Any, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("kopf_ha.api.time.sleep", waits.append)
    server = serve(status(code, "wait"), status(code, "wait"), page("a"))
    assert [item["name"] for item in Api(server.client).items("/p")] == ["a"]
    assert waits == list(WAITS[:2])
    server.answers[:] = [status(code, "wait")]
    with pytest.raises(ApiRefused) as refused:
        list(Api(server.client).items("/p"))
    assert refused.value.status == code


# --- streams


def events_then(*lines: bytes, wait: threading.Event | None = None) -> Callable[[Any], None]:
    def send(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in lines:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            handler.wfile.flush()
        if wait is not None:
            wait.wait(30)
        else:
            handler.wfile.write(b"0\r\n\r\n")

    return send


def streaming(api: Api, silence: float = 30) -> Iterator[dict[str, Any]]:
    return api.stream("/p", {"resourceVersion": "7"}, timeout=5, silence=silence)


def test_events_come_whole_however_they_are_cut(serve: Any) -> None:
    server = serve(events_then(b'{"type": "ADDED"}\n{"ty', b'pe": "DELETED"}\n'))
    assert [e["type"] for e in streaming(Api(server.client))] == ["ADDED", "DELETED"]
    assert server.asked == ["GET /p?resourceVersion=7&watch=true&allowWatchBookmarks=true"]


def test_a_version_that_is_too_old_is_a_refusal_at_once_or_later(serve: Any) -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old", "reason": "Expired"}}
    for answer in (status(410, "too old", "Expired"), events_then(json.dumps(gone).encode() + b"\n")):
        with pytest.raises(ApiRefused, match="too old") as refused:
            list(streaming(Api(serve(answer).client)))
        assert (refused.value.status, refused.value.reason) == (410, "Expired")


def test_silence_ends_a_stream(serve: Any) -> None:
    held = threading.Event()
    with pytest.raises(Unreached, match=r"gave no answer to GET /p\?.* in 0\.1 s"):
        list(streaming(Api(serve(events_then(b'{"type": "ADDED"}\n', wait=held)).client), silence=0.1))
    held.set()


def test_another_thread_ends_a_stream_and_any_later_one(serve: Any) -> None:
    held = threading.Event()
    api = Api(serve(events_then(b'{"type": "ADDED"}\n', wait=held)).client)
    stream = streaming(api)
    assert next(stream)["type"] == "ADDED"
    threading.Timer(0.1, api.interrupt).start()
    try:
        assert list(stream) == []
    except Unreached:
        pass  # a broken connection is one way to end
    assert list(streaming(api)) == []
    held.set()


# --- a bug is a bug


class Buggy:
    """An `ApiClient` with a mistake in it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def param_serialize(self, *_: Any, **__: Any) -> tuple[()]:
        return ()

    def call_api(self, *_: Any, **__: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [KeyError("spec"), IndexError(0), TypeError("none")])
def test_a_mistake_under_a_request_is_swallowed_nowhere(error: Exception) -> None:
    api = Api(Buggy(error))
    lease = LeaseClient(settings("me"), api)
    record = LeaseRecord(holder="", transitions=1)
    for ask in (
        lambda: api.request("GET", "/x"),
        lambda: api.call("GET", "/x"),
        lambda: list(api.items("/x")),
        lambda: list(streaming(api)),
        lambda: lease.read(1.0),
        lambda: lease.write(record, 1.0),
        lambda: SelfTest(api, settings("me")).ask(1),
    ):
        with pytest.raises(type(error)) as raised:
            ask()
        assert not isinstance(raised.value, KopfHAError)


def test_a_refusal_and_a_missing_answer_are_events_of_the_election(serve: Any) -> None:
    """What certainly changed nothing is denied; what may have been done has failed."""
    record = LeaseRecord(holder="", transitions=1, resource_version="5", uid="u")
    for answer, event in [
        (status(403, "no"), events.NotWritten),
        (status(409, "no"), events.Conflict),
        (status(404, "no"), events.Conflict),
        (status(500, "no"), events.Failed),
        ((200, b"<html>"), events.Failed),
        ((200, {"metadata": {}, "spec": {}}), events.Failed),
    ]:
        lease = LeaseClient(settings("me"), lease_api(settings("me"), serve(answer).client))
        assert type(lease.write(record, 5)) is event
    nowhere = LeaseClient(settings("me"), lease_api(settings("me"), client("http://127.0.0.1:1")))
    assert type(nowhere.write(record, 5)) is events.NotWritten
    assert type(nowhere.write(record, 0)) is events.NotWritten
    assert type(nowhere.read(5)) is type(nowhere.read(0)) is events.ReadFailed


@pytest.mark.parametrize("named", ["web/site", "prod/blog"])
def test_without_a_right_to_the_lease_its_name_and_the_options_that_give_it_are_said(serve: Any, named: str) -> None:
    """Roles name one Lease: a missing RoleBinding and a Lease that is named wrongly get the same answer."""
    namespace, name = named.split("/")
    mine = settings("me").changed(lease_namespace=namespace, lease_name=name)
    got = LeaseClient(mine, lease_api(mine, serve(status(403, LEASES)).client)).read(5)
    assert isinstance(got, events.ReadFailed)
    assert f"as joe: this replica's Lease is {named} (" in got.cause
    for option in options_of(Settings):
        if option.name in ("lease_name", "lease_namespace"):
            assert f"{option.flags[0]} or {option.variable}" in got.cause
    assert "the RoleBinding that `kopf-ha manifests` writes" in got.cause


def test_a_lease_that_is_not_there_or_not_understood_is_an_event_too(serve: Any) -> None:
    for answer, event in [
        (status(404, "not found"), events.LeaseSeen(None, "", read=True)),
        (status(403, "no"), events.ReadFailed),
        ((200, {"metadata": {}, "spec": {}}), events.LeaseUnusable),
        ((200, {"metadata": {"resourceVersion": "5"}, "spec": {"leaseTransitions": 1}}), events.LeaseSeen),
    ]:
        got = LeaseClient(settings("me"), lease_api(settings("me"), serve(answer).client)).read(5)
        assert got == event or type(got) is event


# --- who may know


SOURCES = sorted(Path(kopf_ha.__file__).parent.rglob("*.py"))


def names(node: ast.AST | None) -> set[str]:
    """The names that an expression mentions, and the last parts of dotted ones."""
    found = [n for n in ast.walk(node) if isinstance(n, (ast.Name, ast.Attribute))] if node else []
    return {n.id if isinstance(n, ast.Name) else n.attr for n in found}


def test_nobody_catches_or_raises_what_hides_a_mistake() -> None:
    """A `LookupError` is a KeyError and an IndexError, too."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            used = names(node.type if isinstance(node, ast.ExceptHandler) else getattr(node, "exc", None))
            assert "LookupError" not in used, f"{source}:{getattr(node, 'lineno', 0)}"


def test_how_urllib3_fails_is_known_to_the_client_and_the_adapters_only() -> None:
    for source in SOURCES:
        if source.name == "api.py" or source.parent.name == "adapters":
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ExceptHandler):
                assert not names(node.type) & {"HTTPError", "urllib3", "u3"}, f"{source}:{node.lineno}"
            if isinstance(node, ast.ImportFrom):
                assert node.module != "urllib3.exceptions", f"{source}:{node.lineno}"
