"""The threads that watch and judge Pods go on whatever happens; without an API server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.siblings import Pod
from kopf_ha.election import PodWatcher, replicas
from kopf_ha.election.known_pods import KnownPods
from kopf_ha.election.pod_client import REFUSED
from kopf_ha.election.podwatch import PodNews
from kopf_ha.errors import ApiRefused, ConfigurationError, Unreached
from tests.election.world import settings


class _Api:
    """A client whose reads are answered by a test: what is an exception is raised."""

    answers: list[Any]

    def call(self, method: str, path: str, *, timeout: float) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise ApiRefused("not found", 404)
        return answer

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the next reads are answered."""
    monkeypatch.setattr(_Api, "answers", [], raising=False)
    return _Api.answers


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


@pytest.fixture
def watcher_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PodWatcher]:
    """Make one whose threads are not started: its judge may be run in the test's thread, until its end."""

    def make(
        times: int = 2,
        make_client: Callable[[], Any] = lambda: None,
        holder: str = "lead_u1_aaaa",
        gone: Callable[[str], None] = pytest.fail,
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
        watcher._watch._stopping = _Stop()
        watcher._judge._stopping = _Stop()
        monkeypatch.setattr(watcher._judge, "_news", _News(times, watcher._judge._stopping.set))
        return watcher

    monkeypatch.setattr(replicas, "pod_api", lambda settings, client: _Api())
    return make


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (ApiRefused("no", 403), REFUSED),
        (Unreached("away"), 0.5),
        (ValueError("a bug"), 2),
        (KeyError("uid"), 2),
    ],
)
def test_without_an_answer_it_asks_again_and_without_permission_seldom(
    watcher_of: Any, answers: list[Any], error: Exception, pause: float
) -> None:
    """An exception that nobody thought of is one more reason to try again, and none to wait without limit."""
    answers[:] = [error, error, error]
    judge = watcher_of(3)._judge
    judge._run()
    assert judge._news.waits == [None, pause, pause]


def test_what_fails_each_time_is_logged_once(
    watcher_of: Any, answers: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    answers[:] = [ValueError("a bug"), ValueError("a bug"), ValueError("another one")]
    watcher_of(4)._judge._run()
    said = [str(r.exc_info[1]) for r in caplog.records if r.levelno == logging.ERROR and r.exc_info]
    assert said == ["a bug", "another one"]


@pytest.mark.parametrize("error", [Unreached("away"), ValueError("a bug")])
def test_a_pod_that_nobody_saw_is_asked_for_until_there_is_an_answer(
    watcher_of: Any, answers: list[Any], error: Exception
) -> None:
    """A sibling that was gone before this replica was there: the first read fails, the second says so."""
    answers[:] = [error, None]
    gone: list[str] = []
    watcher = watcher_of(3, holder="op-a-1_u1_aaaa", gone=gone.append)
    owner = {"kind": "ReplicaSet", "name": "op-a", "controller": True}
    mine = {"name": "op-a-2", "uid": "uid", "generateName": "op-a-", "ownerReferences": [owner]}
    with watcher.known.locked() as siblings:
        siblings.listed([Pod.parse({"metadata": mine})])
    watcher._judge._run()
    assert gone == ["op-a-1_u1_aaaa"]


@pytest.mark.parametrize("thread", ["watch", "judge"])
def test_a_client_that_cannot_be_made_is_tried_again_and_told(
    watcher_of: Any, answers: list[Any], caplog: pytest.LogCaptureFixture, thread: str
) -> None:
    """Credentials may be there a moment later, such as a token that is just being renewed."""
    fails: list[Exception] = [ConfigurationError("no credentials"), OSError("no such file"), OSError("no such file")]

    def make_client() -> Any:
        if fails:
            raise fails.pop(0)
        return None

    answers[:] = [None]
    watcher = watcher_of(make_client=make_client)
    {"watch": watcher._watch, "judge": watcher._judge}[thread]._run()
    assert answers == fails == [], "it went on to read"
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [line.rsplit(": ", 1)[1] for line in told] == ["no credentials", "no such file"]


def test_my_own_deletion_is_told_once_whoever_notices_it() -> None:
    told: list[str] = []
    known = KnownPods("uid", told.append)
    known.leave("Pod me is being deleted")
    known.leave("Pod me was deleted")
    assert told == ["Pod me is being deleted"]
    assert known.leaving


@pytest.mark.parametrize(
    ("labels", "selector"),
    [
        ({"pod-template-hash": "a"}, {"fieldSelector": "metadata.name=me"}),
        ({"app": "x", "pod-template-hash": "a"}, {"labelSelector": "app=x"}),
    ],
)
def test_without_labels_only_my_own_pod_is_watched(
    answers: list[Any], labels: dict[str, str], selector: dict[str, str]
) -> None:
    answers[:] = [{"metadata": {"name": "me", "uid": "uid", "labels": labels}}]
    mine = settings("me_uid_1").changed(pod_name="me", pod_uid="uid", pod_namespace="ns")
    api: Any = _Api()
    assert PodNews(mine, KnownPods("uid", pytest.fail), lambda: None, lambda _: None).selector(api) == selector


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "not in a pod (POD_NAME and POD_UID are not set)"),
        (("POD_NAME",), "POD_UID is not set: the holder's Pod is not watched. Set POD_UID from the downward API"),
        (("POD_UID",), "POD_NAME is not set: the holder's Pod is not watched. Set POD_NAME from the downward API"),
        (("KUBERNETES_SERVICE_HOST",), "Set POD_NAME and POD_UID from the downward API (metadata.name, metadata.uid)"),
    ],
)
def test_where_no_pod_is_watched_the_log_names_just_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: tuple[str, ...], said: str
) -> None:
    caplog.set_level(logging.INFO, "kopf_ha.election")
    for name in ("POD_NAME", "POD_UID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name in given:
        monkeypatch.setenv(name, "x")
    told = settings("me_uid_1")
    PodWatcher(
        told, MagicMock(), holder=MagicMock(), gone=MagicMock(), head_start=MagicMock(), deleted=MagicMock(),
        confirm=MagicMock(),
    ).start()  # fmt: skip
    (line,) = caplog.messages
    assert said in line
    assert ("POD_UID the policies" in line) == ("downward" in line and "POD_UID" not in given)
