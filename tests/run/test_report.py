"""The lines about a refused write: enough to follow it, and never a value that somebody wrote."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from kopf_ha.adapters import Outcome
from kopf_ha.core.grant import Grant
from kopf_ha.core.wire import APPLY, JSON_PATCH, MERGE_PATCH, Request, Response
from kopf_ha.errors import Refused, StaleLeader
from kopf_ha.run.report import log_refusal
from tests.core.fake_api import MINE, as_note, denied, invalid, status

PATH = "/api/v1/namespaces/a/secrets/x"
SECRET = "c2VjcmV0"  # what nobody may read in a log
ANNOTATED = as_note(MINE, "secrets")
NOTES = {"metadata": {"resourceVersion": "100", "annotations": ANNOTATED}, "data": {"password": SECRET}}
STATUS = {"metadata": {"resourceVersion": "100"}, "status": {"fencing": MINE.as_status(), "password": SECRET}}
TEST = {"op": "test", "path": "/metadata/resourceVersion", "value": "100"}
JSON = [
    TEST,
    {"op": "add", "path": "/data/password", "value": SECRET},
    *({"op": "add", "path": "/metadata/annotations/" + k.replace("/", "~1"), "value": v} for k, v in ANNOTATED.items()),
]
JSON_STATUS = [TEST, {"op": "add", "path": "/status/fencing", "value": MINE.as_status()}]
OPTIONS = {"preconditions": {"resourceVersion": "100"}}


def lines(caplog: pytest.LogCaptureFixture, sent: Request, answer: Response | None) -> list[str]:
    error: Refused = StaleLeader("secrets a/x records token 8")
    error.sent, error.answer = sent, answer
    with caplog.at_level(logging.DEBUG):
        log_refusal(Outcome("pykube", sent, Grant(MINE, 1.0), error))
    assert SECRET not in caplog.text
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("method", "body", "content_type"),
    [
        ("PATCH", NOTES, MERGE_PATCH),
        ("PATCH", NOTES, APPLY[0]),
        ("PUT", NOTES, "application/json"),
        ("PATCH", STATUS, MERGE_PATCH),
        ("PATCH", JSON, JSON_PATCH),
        ("PATCH", JSON_STATUS, JSON_PATCH),
    ],
)
def test_what_was_sent(caplog: pytest.LogCaptureFixture, method: str, body: Any, content_type: str) -> None:
    sent = Request(method, PATH, f"token={SECRET}", content_type, json.dumps(body).encode())
    quoted = status(409, f'Operation cannot be fulfilled on secrets "x": {SECRET}', "Conflict")
    assert lines(caplog, sent, quoted) == [
        "refused by precondition, token 7, pykube: StaleLeader: secrets a/x records token 8",
        f"refused request: {method} {PATH}, with token 7, if resourceVersion is 100",
        "refused answer: 409 Conflict",
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (json.dumps(OPTIONS).encode(), f"DELETE {PATH}, if resourceVersion is 100"),
        (b"", f"DELETE {PATH}"),
        (b"k8s\x00" + SECRET.encode(), f"DELETE {PATH}"),
        (json.dumps([SECRET]).encode(), f"DELETE {PATH}"),
        (json.dumps({"preconditions": SECRET, "metadata": SECRET, "status": SECRET}).encode(), f"DELETE {PATH}"),
    ],
)
def test_a_body_of_any_shape(caplog: pytest.LogCaptureFixture, body: bytes, told: str) -> None:
    (_, sent) = lines(caplog, Request("DELETE", PATH, "", "application/json", body), None)
    assert sent == f"refused request: {told}"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (denied("kopf-ha-x-stamped", "fencing: no"), "403 Forbidden, policy kopf-ha-x-stamped: fencing: no"),
        (denied("theirs", SECRET), "403 Forbidden, policy theirs"),
        (invalid("data", SECRET), "422 Invalid"),
        (status(403, SECRET, SECRET + " x"), "403"),
        (Response(500, SECRET.encode()), "500"),
        (Response(403, b'{"reason": 5}'), "403"),
    ],
)
def test_what_was_answered(caplog: pytest.LogCaptureFixture, answer: Response, told: str) -> None:
    assert lines(caplog, Request("DELETE", PATH), answer)[-1] == f"refused answer: {told}"


def test_reads_and_accepted_writes_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    log_refusal(Outcome("kopf", Request("WATCH", PATH), None, StaleLeader("x")))
    log_refusal(Outcome("kopf", Request("PATCH", PATH), None, None, 200))
    assert caplog.records == []
