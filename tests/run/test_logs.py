"""Log lines that name their term, in each of Kopf's formats, and the line at a term's end."""

from __future__ import annotations

import io
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import kopf
import pytest

from kopf_ha._context import entered
from kopf_ha.adapters import Outcome
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import StaleLeader
from kopf_ha.run.logs import TermFields, configure, speaking_for
from kopf_ha.run.quiet import hush
from kopf_ha.run.report import Report
from kopf_ha.settings import Settings
from tests.run.support import Replica, World

Start = Callable[..., Replica]

GRANT = Grant(Stamp(7, "pod-1_uid_x", "ns/op", "uid"), 1e9)
REF = {"k8s_ref": {"namespace": "default", "name": "web", "kind": "Thing"}}


@pytest.fixture
def log() -> Iterator[Callable[..., io.StringIO]]:
    """Configure the root logger as the command does; what it was comes back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)

    def start(log_format: kopf.LogFormat, log_prefix: bool | None = None) -> io.StringIO:
        configure(log_format, log_prefix)
        (handler,) = [h for h in root.handlers if h not in before[0]]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(stream := io.StringIO())
        return stream

    yield start
    root.handlers[:], level, sys.excepthook, threading.excepthook = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_text_has_the_token_before_the_object(log: Any) -> None:
    text = log(kopf.LogFormat.PLAIN)
    objects, other = logging.getLogger("kopf.objects"), logging.getLogger("shop")
    with entered(GRANT):
        objects.info("Handler %r succeeded.", "bind", extra=REF)
        other.info("100%")
    other.info("no term")
    objects.info("no term", extra=REF)
    assert text.getvalue().splitlines() == [
        "[token 7] [default/web] Handler 'bind' succeeded.",
        "[token 7] 100%",
        "no term",
        "[default/web] no term",
    ]


def test_the_full_format_keeps_its_columns(log: Any) -> None:
    text = log(kopf.LogFormat.FULL, False)
    with entered(GRANT):
        logging.getLogger("kopf.objects").warning("hello", extra=REF)
    assert text.getvalue().endswith("] kopf.objects         [WARNING ] [token 7] hello\n")


def test_json_has_the_fields_and_one_line_for_a_traceback(log: Any) -> None:
    text = log(kopf.LogFormat.JSON)
    with entered(GRANT):
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            logging.getLogger("kopf.objects").exception("failed\nbadly", extra=REF)
    logging.getLogger("shop").info("no term")
    first, second = (json.loads(line) for line in text.getvalue().splitlines())
    assert (first["token"], first["holder"], first["lease"]) == (7, "pod-1_uid_x", "ns/op")
    assert first["object"]["name"] == "web"
    assert first["message"] == "failed\nbadly"
    assert "ValueError: first\nsecond" in first["exc_info"]
    assert "token" not in second


def test_what_nobody_caught_is_json_too(log: Any) -> None:
    text = log(kopf.LogFormat.JSON)

    def fail() -> None:
        raise RuntimeError("nobody\ncaught it")

    thread = threading.Thread(target=fail, name="mine")
    thread.start()
    thread.join()
    try:
        fail()
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    lines = [json.loads(line) for line in text.getvalue().splitlines()]
    assert [line["message"] for line in lines] == [
        "uncaught in thread mine: RuntimeError", "uncaught in thread MainThread: RuntimeError",
    ]  # fmt: skip
    assert all("caught it" in line["exc_info"] for line in lines)


def test_fields_of_the_operators_own_stay_and_are_no_error(log: Any) -> None:
    """`extra` must not meet a field that a record is born with: logging raises then."""
    text = log(kopf.LogFormat.JSON)
    with entered(GRANT):
        logging.getLogger("shop").info("paid", extra={"token": "visa", "holder": "Ann"})
    line = json.loads(text.getvalue())
    assert (line["token"], line["holder"], line["lease"]) == ("visa", "Ann", "ns/op")


def test_the_layers_own_threads_name_the_replica(log: Any) -> None:
    text = log(kopf.LogFormat.JSON)
    present: list[Grant | None] = [None]
    with speaking_for(Settings(identity="me", lease_namespace="ns", lease_name="op"), lambda: present[0]):
        logging.getLogger("kopf_ha.election").info("follows")
        logging.getLogger("shop").info("somebody else's")
        present[0] = GRANT
        logging.getLogger("kopf_ha.election").info("leads")
    logging.getLogger("kopf_ha.election").info("the end")
    follows, other, leads, end = (json.loads(line) for line in text.getvalue().splitlines())
    assert (follows["holder"], follows["lease"], follows.get("token")) == ("me", "ns/op", None)
    assert leads["token"] == 7
    assert not {"holder", "lease", "token"} & (other.keys() | end.keys())


def test_an_applications_handler_takes_the_filter() -> None:
    record = logging.LogRecord("app", logging.INFO, "f", 1, "x", (), None)
    with entered(GRANT):
        assert TermFields().filter(record)
    assert vars(record)["token"] == 7


def test_a_terms_summary() -> None:
    report = Report(GRANT, began=100.0)
    assert report.summary("x", 100.0) == "led 0.0 s; barrier not up; writes: none; refused: none; cause: x"
    report.barrier = (0.0412, 40)
    for status in (200, 201, 409):
        report.add(Outcome("kopf", Request("PATCH", "/x"), GRANT, None, status))
    report.add(Outcome("kopf", Request("WATCH", "/x"), GRANT, None, 200))
    report.add(Outcome("pykube", Request("PUT", "/x"), GRANT, StaleLeader("newer")))
    assert report.summary("the Lease is gone", 223.45) == (
        "led 123.5 s; barrier 0.041 s, 40 objects; writes: kopf 2xx 2, kopf 4xx 1, pykube precondition 1;"
        " refused: precondition 1; cause: the Lease is gone"
    )
    assert report.fields("x", 101.0)["writes"] == {"kopf": {"2xx": 2, "4xx": 1}, "pykube": {"precondition": 1}}


# --- the command


OPERATOR = """
@kopf.on.create(GROUP, "v1", "things", retries=1)
def made(patch, logger, **_):
    logger.info("HANDLING", extra={"token": "of their own"})
    threading.Thread(target=lambda: 1 / 0).start()
    patch.spec["done"] = True
    try:
        raise ValueError("A\\nB")
    except ValueError:
        logger.exception("CAUGHT")
"""


def test_json_of_a_whole_run(replica: Start, world: World) -> None:
    world.create("Thing", "a")
    one = replica(OPERATOR, "op.py", "--log-format=json")
    one.see("CAUGHT")
    one.see("Patching|succeeded|processed")
    one.signal(signal.SIGTERM)
    assert one.wait() == 0
    lines = [json.loads(line) for line in one.log.splitlines()]
    me = next(line["holder"] for line in lines if "follows Lease" in line["message"])
    by_text = {line["message"].split(" ")[0]: line for line in lines}
    assert by_text["HANDLING"]["token"] == "of their own"
    assert by_text["HANDLING"]["object"]["name"] == "a"
    assert (by_text["CAUGHT"]["token"], by_text["CAUGHT"]["holder"]) == (1, me)
    assert "A\nB" in by_text["CAUGHT"]["exc_info"]
    assert "ZeroDivisionError" in by_text["uncaught"]["exc_info"]
    (over,) = [line for line in lines if "is over" in line["message"]]
    assert over["token"] == 1
    assert over["term"]["cause"] == "SIGTERM"
    assert over["term"]["writes"]["kopf"]["2xx"] >= 1
    assert over["term"]["led_seconds"] > 0
    ours = [line for line in lines if line.get("lease") == f"{world.namespace}/op"]
    assert {line["holder"] for line in ours} == {me}
    assert any("leading: token 1" in line["message"] and line["token"] == 1 for line in ours)


def test_a_term_that_was_lost_says_why_in_one_line(replica: Start, world: World) -> None:
    one = replica("", "op.py", "--after-loss=follow")
    one.see("Initial authentication has finished")
    world.take_lease(seconds=60)
    line = one.see("is over")
    assert "[token 1] term 1 of " in line
    assert "barrier 0." in line
    assert "cause: Lease " in line
    assert "is held by somebody" in line


def test_configuration_errors_are_json_too(replica: Start, world: World) -> None:
    one = replica("", "op.py", "--log-format=json", env={"KUBECONFIG": "/nowhere"})
    assert one.wait() == 1
    *_, line = [json.loads(text) for text in one.log.splitlines()]
    assert "no credentials for a cluster" in line["message"]


def test_a_refusal_by_which_a_term_ends_is_logged_without_a_traceback(log: Callable[..., io.StringIO]) -> None:
    """Kopf takes it for an unexpected error. Others' tracebacks stay."""
    said = log(kopf.LogFormat.PLAIN)
    hush()
    for error in (StaleLeader("term 7 is over"), ValueError("a mistake")):
        try:
            raise error
        except Exception as e:
            logging.getLogger("kopf.objects").exception("Throttling for 1 seconds due to an unexpected error: %r", e)
    text = said.getvalue()
    assert "StaleLeader('term 7 is over')" in text
    assert text.count("Traceback") == 1
    assert "ValueError: a mistake" in text
