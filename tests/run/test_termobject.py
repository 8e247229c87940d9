"""The Term is written once in a term, and the API server is asked until it has heard of it. Its answers are made up."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import pytest

from kopf_ha.api import TIMEOUT, Api
from kopf_ha.core.grant import Grant
from kopf_ha.core.refusal import about_term
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response
from kopf_ha.errors import ApiRefused, FloorLost, GateClosed, Unreached
from kopf_ha.run.preparation import Preparation
from kopf_ha.run.termobject import FIRST, HEARD, QUESTION, TermObject
from kopf_ha.settings import Settings

TERMS = "/apis/kopf-ha.dev/v1/namespaces/n/terms"
MINE = Stamp(7, "p_u_1", "n/l", "u")
SPEC = {"token": 7, "holder": "p_u_1", "podUID": "u"}
WRITE, CREATE, READ, ASK = (f"PATCH {TERMS}/l", f"POST {TERMS}", f"GET {TERMS}/l", f"PATCH {TERMS}/l{QUESTION}")


def answer(code: int, message: str = "", **details: Any) -> Response:
    return Response(code, json.dumps({"kind": "Status", "message": message, "details": details}).encode())


def denied(policy: str, message: str) -> Response:
    said = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {message}"
    return answer(403, f'terms "l" is forbidden: {said}', causes=[{"message": said}])


def term(spec: Any) -> Response:
    return Response(200, json.dumps({"spec": spec}).encode())


def knows(token: int, pod: str = "u") -> Response:
    return denied("kopf-ha-n.s-term", f"fencing: the term is {token} of pod {pod}")


OK, MADE, NOT_IN_FORCE = answer(200), answer(201), answer(200)
NO_TERM = answer(404, 'terms.kopf-ha.dev "l" not found', name="l", kind="terms")
NO_KIND = Response(404, b"404 page not found\n")
STALE = answer(422, causes=[{"field": "<nil>", "message": "Invalid value: The token of a Term only rises"}])
NO_RIGHT = answer(403, 'terms.kopf-ha.dev "l" is forbidden: User "x" cannot patch resource "terms"')


class Server(Api):
    """Gives these answers, one after another."""

    def __init__(self, *answers: Response | Exception) -> None:
        super().__init__(SimpleNamespace(configuration=SimpleNamespace(host="https://one")))
        self.answers = deque(answers)
        self.sent: list[tuple[str, Any]] = []
        self.now = 100.0
        self.closed = 0

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = TIMEOUT
    ) -> Response:
        self.sent.append((f"{method} {path}", body))
        self.now += 0.001
        found = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def asked(self) -> list[str]:
        return [what for what, _ in self.sent]

    def close(self) -> None:
        self.closed += 1

    def pause(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def grant() -> Grant:
    return Grant(MINE, 115.0)


@pytest.fixture
def settings() -> Settings:
    return Settings(lease_name="l", lease_namespace="n", identity="p_u_1", pod_uid="u")


Make = Callable[..., tuple[Server, TermObject]]


@pytest.fixture
def make(settings: Settings) -> Make:
    def made(*answers: Response | Exception) -> tuple[Server, TermObject]:
        server = Server(*answers)
        return server, TermObject(server, settings, lambda: server, lambda: server.now, server.pause)

    return made


def test_one_request_changes_it(make: Make, grant: Grant) -> None:
    server, mine = make(OK)
    mine.write(grant)
    assert server.sent == [(WRITE, {"spec": SPEC})]
    assert mine.missing() == []


def test_the_first_leader_creates_it(make: Make, grant: Grant) -> None:
    server, mine = make(NO_TERM, answer(409), NO_TERM, MADE)
    mine.write(grant)
    assert server.asked == [WRITE, CREATE, WRITE, CREATE]
    body = server.sent[-1][1]
    assert (body["apiVersion"], body["kind"], body["metadata"]["name"]) == ("kopf-ha.dev/v1", "Term", "l")
    assert body["spec"] == SPEC
    assert mine.missing() == []


@pytest.mark.parametrize(("token", "holder"), [(7, "other"), (8, "other"), (1_999_999_999, "p_u_1x")])
def test_a_term_that_is_not_below_mine_is_a_lost_floor(make: Make, grant: Grant, token: int, holder: str) -> None:
    """I2: the election raises the Lease above it."""
    server, mine = make(STALE, term({"token": token, "holder": holder, "podUID": "o"}))
    with pytest.raises(FloorLost, match=f"has token {token}, mine is 7: the Lease lost its count") as lost:
        mine.write(grant)
    assert lost.value.floor == token
    assert server.asked == [WRITE, READ]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([NO_KIND], "the kind terms.kopf-ha.dev is not installed; apply what `kopf-ha manifests` writes"),
        ([NO_TERM, NO_KIND], "the kind terms.kopf-ha.dev is not installed; apply"),
        ([NO_RIGHT], "the API server does not allow it (403); apply the roles and policies"),
        (
            [denied("kopf-ha-n.s-term-written", "fencing: a replica names only its own pod")],
            "allow it (403, policy kopf-ha-n.s-term-written: fencing: a replica names only its own pod); apply",
        ),
        (
            [STALE, term({"token": "many", "holder": "x" * 200})],
            "takes no Term with token 7 (422), and the present one is token: 'many', holder: 'xxx",
        ),
        ([STALE, term(None)], "the present one is not readable; put it right, or remove"),
        ([answer(422), answer(403)], "the present one is not readable"),
    ],
)
def test_where_it_cannot_be_written_one_line_says_why(
    make: Make, grant: Grant, caplog: pytest.LogCaptureFixture, answers: list[Response], said: str
) -> None:
    """The term goes on at the level that the cluster has."""
    server, mine = make(*answers)
    mine.write(grant)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("the Term of Lease n/l is not written: ")
    assert said in line
    (missing,) = mine.missing()
    assert said in missing
    asked = len(server.sent)
    mine.hear(grant)
    mine.look(grant)
    assert len(server.sent) == asked, "nobody has heard of what was not written"


@pytest.mark.parametrize("final", [answer(500), answer(429), Unreached("no answer")])
def test_a_server_that_does_not_say_ends_the_term(make: Make, grant: Grant, final: Any) -> None:
    _, mine = make(answer(429), final)
    with pytest.raises((ApiRefused, Unreached)):
        mine.write(grant)
    assert mine.missing() != []


def test_a_server_that_does_not_serve_the_kind_yet_is_asked_again(make: Make, grant: Grant) -> None:
    server, mine = make(answer(429), answer(503), OK)
    mine.write(grant)
    assert server.asked == [WRITE] * 3


def test_nothing_is_written_after_the_end(make: Make, grant: Grant) -> None:
    grant.close("lost")
    server, mine = make(OK)
    with pytest.raises(GateClosed):
        mine.write(grant)
    assert server.sent == []


# --- asking


def test_it_asks_until_the_server_has_heard(make: Make, grant: Grant) -> None:
    server, mine = make(OK, knows(6, "o"), knows(6, "o"), knows(7, "o"), knows(7))
    mine.write(grant)
    mine.hear(grant)
    assert server.asked == [WRITE, *[ASK] * 4]
    assert server.now < 100.1
    assert mine.missing() == []


def test_where_no_policy_answers_one_question_is_enough(make: Make, grant: Grant) -> None:
    server, mine = make(OK, NOT_IN_FORCE)
    mine.write(grant)
    mine.hear(grant)
    assert server.asked == [WRITE, ASK]


def test_the_first_term_is_waited_for_though_nothing_is_refused_before(make: Make, grant: Grant) -> None:
    server, mine = make(NO_TERM, MADE, NOT_IN_FORCE, NOT_IN_FORCE, knows(7))
    mine.write(grant)
    mine.hear(grant)
    assert server.asked[2:] == [ASK] * 3
    server, mine = make(NO_TERM, MADE, NOT_IN_FORCE)
    mine.write(grant)
    mine.hear(grant)
    assert FIRST <= server.now - 100 < FIRST + 0.2


def test_a_server_that_never_hears_is_named(make: Make, grant: Grant, caplog: pytest.LogCaptureFixture) -> None:
    """A frozen informer."""
    server, mine = make(OK, knows(6, "o"))
    mine.write(grant)
    mine.hear(grant)
    assert HEARD <= server.now - 100 < HEARD + 0.2
    said = "the API server at https://one has not heard of term 7, but knows term 6 of pod o: its informer of Terms"
    (missing,) = mine.missing()
    assert missing.startswith(said)
    assert any(said in r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    mine.look(grant)
    assert mine.missing() == [missing], "so that it is reported once"
    server.answers = deque([knows(7)])
    mine.look(grant)
    assert mine.missing() == []
    assert server.closed == 2, "each look has a connection of its own"


def test_a_later_term_is_no_fault_of_the_server(make: Make, grant: Grant) -> None:
    _, mine = make(OK, knows(8, "o"))
    mine.write(grant)
    mine.hear(grant)
    assert mine.missing() == []


def test_nobody_waits_after_the_end(make: Make, grant: Grant) -> None:
    server, mine = make(OK, knows(6, "o"))
    mine.write(grant)
    grant.close("lost")
    mine.hear(grant)
    assert server.asked == [WRITE]


@pytest.mark.parametrize(
    "unclear",
    [
        answer(500),
        Unreached("no answer"),
        NO_RIGHT,
        NO_TERM,
        denied("somebody-elses-term", "fencing: the term is 6 of pod o"),
        denied("kopf-ha-n.s-term", "he said: fencing: the term is 6 of pod o"),
        denied("kopf-ha-n.s-term", about_term("n/l") + "token 6 leads, in pod o, and this write is of pod u"),
    ],
)
def test_nothing_else_is_taken_for_a_term_that_is_known(make: Make, grant: Grant, unclear: Any) -> None:
    server, mine = make(OK, unclear)
    mine.write(grant)
    mine.hear(grant)
    assert mine.missing() == []
    assert server.asked == [WRITE, ASK]


# --- in a term


def test_the_term_is_written_before_the_barrier_and_heard_of_before_the_self_test(grant: Grant) -> None:
    """No handler runs before all of it is done."""
    for first in (False, True):
        told = MagicMock()
        told.fence.mode = "full"
        given = {"api": told.api, "fence": told.fence, "journal": told.journal, "enforcement": told.enforcement}
        prepare = Preparation(**given, policies_first=first, term=told.term)
        with patch.object(Preparation, "_raise_barrier", told.barrier):
            prepare.before_kopf(grant)
        asks = "enforcement.begin" if first else "enforcement.begin_soon"
        order = {"term.write", "term.hear", asks, "barrier"}
        names = [name for name, _, _ in told.mock_calls if name in order]
        assert names[0] == "term.write"
        assert names.index("term.hear") < names.index(asks)
        assert set(names) == order
        assert names[-1] == ("barrier" if first else asks)
