"""A Lease that was not named is not acquired beside the one that earlier releases used (I3)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest

from kopf_ha.core.election import events
from kopf_ha.core.lease import ENDED, ENFORCED, OPERATOR, LeaseRecord
from kopf_ha.election.lease_client import LeaseClient
from kopf_ha.errors import ApiRefused, Unreached
from kopf_ha.settings import Settings

LEASES = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
MINE = LeaseRecord(holder="me", transitions=1)
UNMARKED: dict[str, Any] = {"metadata": {"name": "kopf-ha"}, "spec": {}}


class Api:
    """Has an answer for the earlier Lease, and takes what is written."""

    def __init__(self, earlier: dict[str, Any] | Exception) -> None:
        self.earlier = earlier
        self.sent: list[str] = []

    def call(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        self.sent.append(f"{method} {path}")
        if method == "GET":
            if isinstance(self.earlier, Exception):
                raise self.earlier
            return self.earlier
        return dict(body)


def client(api: Api, monkeypatch: pytest.MonkeyPatch, **given: Any) -> LeaseClient:
    monkeypatch.setenv("POD_NAME", "shop-operator-7d4b9c5f6d-x2v5q")
    return LeaseClient(Settings(lease_namespace="ns", **given), api)  # type: ignore[arg-type]


def marked(operator: str) -> dict[str, Any]:
    return {"metadata": {"name": "kopf-ha", "annotations": {OPERATOR: operator}}, "spec": {}}


@pytest.mark.parametrize("earlier", [UNMARKED, marked("shop-operator")])
def test_replicas_of_an_earlier_release_may_run_beside(earlier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a rolling update both would lead, each by its own Lease."""
    api = Api(earlier)
    mine = client(api, monkeypatch)
    for _ in range(2):
        answer = mine.write(MINE, 1.0)
        assert isinstance(answer, events.NotWritten)
        assert answer.cause == (
            "Lease ns/kopf-ha exists, which earlier releases used where no name was given. If it is this operator's,"
            " keep it with --lease-name=kopf-ha. If it is another's, say --lease-name=shop-operator"
        )
    assert api.sent == [f"GET {LEASES}/kopf-ha"] * 2
    # Somebody removed it, or it was marked by its owner.
    api.earlier = marked("another")
    assert isinstance(mine.write(MINE, 1.0), events.Written)


@pytest.mark.parametrize("earlier", [ApiRefused("no", 404), marked("another")])
def test_there_are_none(earlier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once."""
    api = Api(earlier)
    mine = client(api, monkeypatch)
    for _ in range(2):
        assert isinstance(mine.write(MINE, 1.0), events.Written)
    assert api.sent == [f"GET {LEASES}/kopf-ha", f"POST {LEASES}", f"POST {LEASES}"]


def test_it_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The roles may have changed a moment ago, and the leader by that Lease has its grant still."""
    monkeypatch.setenv("POD_NAME", "shop-operator-7d4b9c5f6d-x2v5q")
    now = 100.0
    api = Api(ApiRefused("no", 403))
    mine = LeaseClient(Settings(lease_namespace="ns"), api, lambda: now)  # type: ignore[arg-type]
    for then in (100.0, 114.9):
        now = then
        answer = mine.write(MINE, 1.0)
        assert isinstance(answer, events.NotWritten)
        assert "may not be read" in answer.cause
    now = 115.0
    assert isinstance(mine.write(MINE, 1.0), events.Written)


def test_a_lease_that_exists_was_made_by_somebody_who_has_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each first takeover of a process waits, since roles often name one Lease."""
    api = Api(ApiRefused("no", 403))
    answer = client(api, monkeypatch).write(replace(MINE, resource_version="5"), 1.0)
    assert isinstance(answer, events.Written)


@pytest.mark.parametrize("error", [ApiRefused("busy", 503), Unreached("no answer")])
def test_it_is_not_known(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(error)
    mine = client(api, monkeypatch)
    assert mine.write(MINE, 1.0) == events.NotWritten(str(error))
    api.earlier = ApiRefused("no", 404)
    assert isinstance(mine.write(MINE, 1.0), events.Written)


@pytest.mark.parametrize("name", ["kopf-ha", "shop-operator"])
def test_a_name_that_was_given_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(UNMARKED)
    assert isinstance(client(api, monkeypatch, lease_name=name).write(MINE, 1.0), events.Written)
    assert api.sent == [f"POST {LEASES}"]


def test_what_the_leader_says_about_enforcement_stands_in_the_lease_until_it_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = client(Api(ApiRefused("no", 404)), monkeypatch)
    record = LeaseRecord.parse({"metadata": {"annotations": {"a": "b"}}, "spec": {"leaseTransitions": 1}})
    for said in ("", "7-1", "7-2", "", ""):
        mine.note = said
        written = mine.write(record, 1.0)
        assert isinstance(written, events.Written)
        record = written.record
        assert record.enforced == said
        assert record.raw["metadata"]["annotations"]["a"] == "b"
        assert (ENFORCED in record.raw["metadata"]["annotations"]) == bool(said)


def refused_by(policy: str, message: str) -> ApiRefused:
    said = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {message}"
    body = {"kind": "Status", "details": {"causes": [{"message": said}]}}
    return ApiRefused("refused", 403, body=json.dumps(body).encode())


GIVEN = "fencing: Term ns/l has token 57; a new holder must raise leaseTransitions above it"


@pytest.mark.parametrize(
    ("policy", "message", "floor"),
    [
        ("kopf-ha-ns.op-lease-term", GIVEN, 57),
        ("kopf-ha-ns.op-lease", GIVEN, 0),
        ("somebody-elses-lease-term", GIVEN, 0),
        ("kopf-ha-ns.op-lease-term", f"he said: {GIVEN}", 0),
        ("kopf-ha-ns.op-lease-term", "fencing: Term ns/l has a token of its own; a new holder must raise", 0),
    ],
)
def test_the_api_server_says_that_a_token_was_given_before(
    monkeypatch: pytest.MonkeyPatch, policy: str, message: str, floor: int
) -> None:
    """I2: the Lease lost its count, and the Term has kept it. The next attempt counts on above it."""
    api = Api({})
    monkeypatch.setattr(api, "call", MagicMock(side_effect=refused_by(policy, message)))
    mine = client(api, monkeypatch, lease_name="l")
    assert isinstance(mine.write(MINE, 1.0), events.NotWritten)
    assert mine.floor == floor


def test_a_release_says_how_the_term_ended_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next holder has read it, and a renewal need not carry it every two seconds."""
    api = Api(ApiRefused("no", 404))
    mine = client(api, monkeypatch, lease_name="op")
    mine.ended = "so it ended"

    def written(record: LeaseRecord) -> dict[str, Any]:
        answer = mine.write(record, 1.0)
        assert isinstance(answer, events.Written)
        return dict(answer.record.raw["metadata"].get("annotations") or {})

    assert ENDED not in written(MINE)
    released = replace(MINE, holder="")
    assert written(released)[ENDED] == "so it ended"
    again = replace(MINE, raw={"metadata": {"annotations": {ENDED: "an earlier one", "note": "kept"}}})
    assert written(again) == {"note": "kept"}
    mine.ended = ""
    assert written(replace(again, holder="")) == {"note": "kept"}
