"""The threads that watch and judge Pods go on whatever happens; without an API server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest
from kubernetes.client import ApiClient

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.pods import Pod
from kopf_ha.election import PodWatcher, pods
from kopf_ha.errors import ApiRefused, ConfigurationError, Unreached
from tests.election.world import settings


class _Client:
    """A client whose reads are answered by a test: what is an exception is raised."""

    answers: list[Any]

    def __init__(self, *args: object) -> None:
        self.closed = False

    def read(self, name: str, timeout: float) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


class _News(threading.Event):
    """Notes for how long the judge would wait, and ends it after so many times."""

    def __init__(self, times: int, end: Callable[[], None]) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self._times, self._end = times, end

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) == self._times:
            self._end()
        return True


class _Stop(threading.Event):
    """Nobody waits for it."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def watcher_of(
    make_client: Callable[[], Any] = ApiClient, holder: str = "lead_u1_aaaa", gone: Callable[[str], None] = pytest.fail
) -> PodWatcher:
    watcher = PodWatcher(
        settings("me_uid_1").changed(pod_name="me", pod_uid="uid", pod_namespace="ns"),
        make_client,
        holder=lambda: LeaseRecord(holder=holder, transitions=4),
        gone=gone,
        head_start=lambda seconds: None,
        deleted=lambda cause: pytest.fail(cause),
        confirm=lambda: "",
    )
    watcher._stopping = _Stop()
    return watcher


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (ApiRefused("no", 403), pods.REFUSED),
        (Unreached("away"), 0.5),
        (ValueError("a bug"), 2),
        (KeyError("uid"), 2),
    ],
)
def test_without_an_answer_it_asks_again_and_without_permission_seldom(
    monkeypatch: pytest.MonkeyPatch, error: Exception, pause: float
) -> None:
    """An exception that nobody thought of is one more reason to try again, and none to wait without limit."""
    monkeypatch.setattr(_Client, "answers", [error, error, error], raising=False)
    monkeypatch.setattr(pods, "PodClient", _Client)
    watcher = watcher_of()
    news = _News(3, watcher._stopping.set)
    monkeypatch.setattr(watcher, "_news", news)
    watcher._judge()
    assert news.waits == [None, pause, pause]


def test_what_fails_each_time_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    errors = [ValueError("a bug"), ValueError("a bug"), ValueError("another one")]
    monkeypatch.setattr(_Client, "answers", errors, raising=False)
    monkeypatch.setattr(pods, "PodClient", _Client)
    watcher = watcher_of()
    monkeypatch.setattr(watcher, "_news", _News(4, watcher._stopping.set))
    watcher._judge()
    said = [str(r.exc_info[1]) for r in caplog.records if r.levelno == logging.ERROR and r.exc_info]
    assert said == ["a bug", "another one"]


@pytest.mark.parametrize("error", [Unreached("away"), ValueError("a bug")])
def test_a_pod_that_nobody_saw_is_asked_for_until_there_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A sibling that was gone before this replica was there: the first read fails, the second says so."""
    monkeypatch.setattr(_Client, "answers", [error, None], raising=False)
    monkeypatch.setattr(pods, "PodClient", _Client)
    gone: list[str] = []
    watcher = watcher_of(holder="op-a-1_u1_aaaa", gone=gone.append)
    owner = {"kind": "ReplicaSet", "name": "op-a", "controller": True}
    mine = {"name": "op-a-2", "uid": "uid", "generateName": "op-a-", "ownerReferences": [owner]}
    watcher._siblings.listed([Pod.parse({"metadata": mine})])
    monkeypatch.setattr(watcher, "_news", _News(3, watcher._stopping.set))
    watcher._judge()
    assert gone == ["op-a-1_u1_aaaa"]


@pytest.mark.parametrize("thread", ["watch", "judge"])
def test_a_client_that_cannot_be_made_is_tried_again_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, thread: str
) -> None:
    """Credentials may be there a moment later, such as a token that is just being renewed."""
    fails: list[Exception] = [ConfigurationError("no credentials"), OSError("no such file"), OSError("no such file")]

    def make_client() -> Any:
        if fails:
            raise fails.pop(0)
        return None

    monkeypatch.setattr(_Client, "answers", [None], raising=False)
    monkeypatch.setattr(pods, "PodClient", _Client)
    watcher = watcher_of(make_client)
    monkeypatch.setattr(watcher, "_news", _News(2, watcher._stopping.set))
    {"watch": watcher._run, "judge": watcher._judge}[thread]()
    assert _Client.answers == fails == [], "it went on to read"
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [line.rsplit(": ", 1)[1] for line in told] == ["no credentials", "no such file"]


def test_without_labels_only_my_own_pod_is_watched() -> None:
    watcher = watcher_of()
    client: Any = _Found({"metadata": {"name": "me", "uid": "uid", "labels": {"pod-template-hash": "a"}}})
    assert watcher._look_at_myself(client) == ("fieldSelector", "metadata.name=me")
    client = _Found({"metadata": {"name": "me", "uid": "uid", "labels": {"app": "x", "pod-template-hash": "a"}}})
    assert watcher._look_at_myself(client) == ("labelSelector", "app=x")


class _Found:
    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body

    def read(self, name: str, timeout: float) -> dict[str, Any]:
        return self.body


def test_a_list_is_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    client = pods.PodClient(settings("me_uid_1").changed(pod_name="me", pod_namespace="ns"), ApiClient())
    pages = {None: (["a", "b"], "next"), "next": (["c"], "")}
    asked: list[dict[str, str]] = []

    def call(method: str, path: str, *, timeout: float) -> dict[str, Any]:
        assert (method, path.partition("?")[0]) == ("GET", "/api/v1/namespaces/ns/pods")
        asked.append(dict(parse_qsl(path.partition("?")[2])))
        names, more = pages[asked[-1].get("continue")]
        return {"items": [{"name": n} for n in names], "metadata": {"resourceVersion": "7", "continue": more}}

    monkeypatch.setattr(client._api, "call", call)
    found, version = client.list(("labelSelector", "app=x"), 1.0)
    assert [pod["name"] for pod in found] == ["a", "b", "c"]
    first = {"labelSelector": "app=x", "limit": "500"}
    assert (version, asked) == ("7", [first, first | {"continue": "next"}])
