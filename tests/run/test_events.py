"""Events where a user looks for them, and a term that does not care whether they arrive."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import kopf
import pytest

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.core.wire import Response
from kopf_ha.errors import Unreached
from kopf_ha.run.events import WAITING, About, Events, own_pod
from kopf_ha.settings import Settings
from tests.run.support import LONG, Marks, Running, World, registry

Run = Callable[..., Running]

LEASE = About("coordination.k8s.io/v1", "Lease", "ns", "op", "lease-uid")


class Server:
    """Takes each request's body, and answers what it is told to."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.bodies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.made = 0

    def make(self) -> Any:
        self.made += 1
        return self

    def request(self, method: str, path: str, body: Any, timeout: float) -> Response:
        self.bodies.put(body)
        answer = self.answers.pop(0) if self.answers else 201
        if isinstance(answer, Exception):
            raise answer
        return Response(answer)


def test_in_order_by_one_client() -> None:
    server = Server()
    events = Events(Settings(identity="pod-1_uid_x"), server.make)
    for number in range(5):
        events.post(LEASE, "Leading", str(number))
    events.flush(LONG)
    bodies = [server.bodies.get_nowait() for _ in range(5)]
    assert [b["message"] for b in bodies] == list("01234")
    assert server.made == 1
    assert len({b["metadata"]["name"] for b in bodies}) == 5
    assert bodies[0]["involvedObject"]["uid"] == "lease-uid"
    assert bodies[0]["reportingComponent"] == bodies[0]["source"]["component"] == "kopf-ha"
    assert bodies[0]["reportingInstance"] == "pod-1"


def test_one_that_fails_does_not_keep_back_the_next() -> None:
    gone = Unreached("the connection of the last term")
    server = Server(gone, 409, RuntimeError("a bug"), 403)
    events = Events(Settings(), server.make)
    for message in ("twice", "never", "forbidden", "last"):
        events.post(LEASE, "Leading", message)
    events.flush(LONG)
    bodies = [server.bodies.get_nowait() for _ in range(5)]
    assert [b["message"] for b in bodies] == ["twice", "twice", "never", "forbidden", "last"]
    assert bodies[0]["metadata"]["name"] == bodies[1]["metadata"]["name"], "so that it is there once"


def test_a_missing_permission_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    events = Events(Settings(), Server(403, 403, 201, 403).make)
    for number in range(3):
        events.post(LEASE, "Leading", str(number))
    events.post(About("v1", "Pod", "elsewhere", "p"), "Leading", "x")
    events.flush(LONG)
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == 2, "one for each namespace"
    assert all(line.startswith("events about terms are not posted, and all else goes on") for line in said)


def test_a_server_that_is_away_costs_neither_memory_nor_time() -> None:
    held: queue.SimpleQueue[None] = queue.SimpleQueue()

    def make() -> Any:
        held.get(timeout=LONG)
        raise OSError("no server")

    events = Events(Settings(), make)
    for _ in range(3 * WAITING):
        events.post(LEASE, "Leading", "x" * 5000)
    assert events._queue.qsize() <= WAITING
    events.flush(0.01)
    for _ in range(WAITING + 1):
        held.put(None)


def test_two_threads_that_post_at_once_share_one_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """A term's end, the self-test and what is set aside post from threads of their own."""
    server = Server()
    events = Events(Settings(), server.make)
    second = threading.Thread(target=events.post, args=(LEASE, "Leading", "second"))
    make, made = threading.Thread, list[threading.Thread]()

    def while_the_first_makes_the_sender(*args: Any, **options: Any) -> threading.Thread:
        if second.ident is None:
            second.start()
            second.join(0.2)  # it gets done in that time, unless it has to wait for the first
        made.append(make(*args, **options))
        return made[-1]

    monkeypatch.setattr(threading, "Thread", while_the_first_makes_the_sender)
    events.post(LEASE, "Leading", "first")
    second.join(LONG)
    until("both to be sent", lambda: server.bodies.qsize() == 2, LONG)
    assert [server.bodies.get_nowait()["message"] for _ in range(2)] == ["first", "second"]
    assert len(made) == server.made == 1, "one client, in one thread"


def test_no_two_have_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server answers 409 to the second, which is taken for the same one sent again."""
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    server = Server()
    events = Events(Settings(), server.make)
    for _ in range(3):
        events.post(LEASE, "Leading", "x")
    events.flush(LONG)
    assert len({server.bodies.get_nowait()["metadata"]["name"] for _ in range(3)}) == 3


def test_the_pod_is_the_downward_apis(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"POD_NAME": "p-0", "POD_UID": "u", "POD_NAMESPACE": "n"}.items():
        monkeypatch.setenv(name, value)
    assert own_pod(Settings()) == About("v1", "Pod", "n", "p-0", "u")
    monkeypatch.delenv("POD_UID")
    assert own_pod(Settings()) is None, "without its uid kubectl describe would not show it"


def test_describe_shows_who_led_and_why_it_ended(
    run: Run, world: World, marks: Marks, kinds: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = {"name": "c", "image": "none"}
    pod = world.ask(
        "POST",
        f"/api/v1/namespaces/{world.namespace}/pods",
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "op-1"}, "spec": {"containers": [container]}},
    )
    monkeypatch.setenv("POD_NAME", "op-1")
    monkeypatch.setenv("POD_UID", pod["metadata"]["uid"])
    monkeypatch.setenv("POD_NAMESPACE", world.namespace)
    handlers = registry()
    kopf.on.startup(registry=handlers, id="begin")(lambda **_: marks.put("startup"))
    running = run(handlers)
    marks.wait("startup")
    world.take_lease(seconds=1)
    marks.wait("startup", 2)
    running.stop()

    def describe(what: str) -> str:
        return kinds.kubectl("-n", world.namespace, "describe", what).stdout

    def shown(what: str, *lines: tuple[str, str, str]) -> bool:
        text = [line.split(maxsplit=4) for line in describe(what).splitlines()]
        return all(
            any(t[0:2] == [kind, reason] and t[3] == "kopf-ha" and message in t[4] for t in text if len(t) == 5)
            for kind, reason, message in lines
        )

    leads, lost, stopped = "became leader with token 1", "is held by somebody (token 2)", "token 3: the test is over"
    on_lease = [("Normal", "Leading", leads), ("Warning", "Lost", lost), ("Normal", "Stopped", stopped)]
    until("the Lease's events", lambda: shown("lease/op", *on_lease), LONG)
    on_pod = [("Normal", "BecameLeader", leads), ("Warning", "StoppedLeading", lost)]
    on_pod.append(("Normal", "StoppedLeading", stopped))
    until("the Pod's events", lambda: shown("pod/op-1", *on_pod), LONG)
