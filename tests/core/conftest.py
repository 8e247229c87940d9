"""A server with an object of each sort, stamped by an earlier term, and the present leader's fence."""

from __future__ import annotations

import pytest

from tests.core.fake_api import CHILD, MINE, WIDGET, FakeApi, Process, stamp


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    for path in (WIDGET, CHILD):
        api.put(path, {"metadata": {"annotations": {"theirs": "kept"}}, "spec": {}}, stamp(6))
    return api


@pytest.fixture
def me(api: FakeApi) -> Process:
    return Process(api, MINE)
