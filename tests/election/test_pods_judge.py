"""How often the judge of Pods asks, without an API server."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kubernetes.client import ApiClient

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election import PodWatcher, pods
from kopf_ha.election.http import Unreached
from tests.election.world import settings


class _Refused:
    """A client without permission, or without an API server."""

    error: Unreached

    def __init__(self, *args: object) -> None:
        pass

    def read(self, name: str, timeout: float) -> None:
        raise self.error

    def close(self) -> None:
        pass


class _News(threading.Event):
    """Notes for how long the judge would wait, and ends it at the second time."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self.end: Any = None

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) == 2:
            self.end()
        return True


@pytest.mark.parametrize(
    ("error", "pause"), [(Unreached("no", status=403, definite=True), pods.REFUSED), (Unreached("away"), 0.5)]
)
def test_without_an_answer_it_asks_again_and_without_permission_seldom(
    monkeypatch: pytest.MonkeyPatch, error: Unreached, pause: float
) -> None:
    monkeypatch.setattr(_Refused, "error", error, raising=False)
    monkeypatch.setattr(pods, "PodClient", _Refused)
    watcher = PodWatcher(
        settings("me_uid_1").changed(pod_name="me", pod_namespace="ns"),
        ApiClient,
        holder=lambda: LeaseRecord(holder="lead_u1_aaaa", transitions=4),
        gone=lambda holder: pytest.fail(holder),
        head_start=lambda seconds: None,
        deleted=lambda cause: pytest.fail(cause),
        confirm=lambda: "",
    )
    news = _News()
    news.end = watcher._stopping.set
    monkeypatch.setattr(watcher, "_news", news)
    watcher._judge()
    assert news.waits == [None, pause]


def test_without_labels_only_my_own_pod_is_watched() -> None:
    watcher = PodWatcher(
        settings("me_uid_1").changed(pod_name="me", pod_uid="uid", pod_namespace="ns"),
        ApiClient,
        holder=lambda: None,
        gone=lambda holder: pytest.fail(holder),
        head_start=lambda seconds: None,
        deleted=lambda cause: pytest.fail(cause),
        confirm=lambda: "",
    )
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
    pages = {"": (["a", "b"], "next"), "next": (["c"], "")}
    asked: list[str] = []

    def page(verb: str, method: Any, timeout: float, *, selector: tuple[str, str], after: str) -> dict[str, Any]:
        asked.append(after)
        names, more = pages[after]
        return {"items": [{"name": n} for n in names], "metadata": {"resourceVersion": "7", "continue": more}}

    monkeypatch.setattr(client, "_call", page)
    found, version = client.list(("labelSelector", "app=x"), 1.0)
    assert [pod["name"] for pod in found] == ["a", "b", "c"]
    assert (version, asked) == ("7", ["", "next"])
