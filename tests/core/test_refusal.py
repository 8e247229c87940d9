"""Which answers are our own rules' refusals, and which only look like it (I10)."""

from __future__ import annotations

from typing import Any

import pytest

from kopf_ha.core.refusal import (
    REFUSED,
    RULE_MESSAGE,
    Denial,
    Leader,
    Refusal,
    about_term,
    about_tokens,
    by_policy,
    by_rule,
    denial_of,
    given_before,
    leader_in,
    refusal_of,
    sentence_of,
)
from kopf_ha.core.wire import Response
from tests.core.fake_api import CHILD, LEASE, WIDGET, FakeApi, denied, invalid, json_of, status

TOKEN = about_tokens(LEASE)
STALE = TOKEN + "stale leader: the write carries token 7 of a, the object records token 8 of b"
SAID = "ValidatingAdmissionPolicy 'kopf-ha-op-stamped' with binding 'kopf-ha-op-stamped' denied request: " + STALE


def found(answer: Response, path: str = WIDGET, lease: str = LEASE) -> Refusal:
    return refusal_of(answer, FakeApi.target(path), lease)


@pytest.mark.parametrize(
    ("answer", "path", "refusal"),
    [
        (invalid("<nil>", RULE_MESSAGE), WIDGET, Refusal.RULE_TOKEN),
        (invalid("<nil>", f'"object": {RULE_MESSAGE}'), WIDGET, Refusal.RULE_TOKEN),  # Kubernetes 1.34
        (denied("kopf-ha-op-stamped", STALE), WIDGET, Refusal.POLICY_TOKEN),
        (denied("kopf-ha-stamped", TOKEN + "static"), WIDGET, Refusal.POLICY_TOKEN),
        (denied("kopf-ha-op-child-configmaps", STALE), CHILD, Refusal.POLICY_TOKEN),
        (invalid("status.fencing.token", "2000000001: should be less than"), WIDGET, Refusal.SCHEMA),
        (invalid("status.fencing", "null"), WIDGET, Refusal.SCHEMA),
        # Ours, and not about tokens.
        (
            denied("kopf-ha-op-terminating-widgets", "fencing: the object is being deleted"),
            WIDGET,
            Refusal.POLICY_OTHER,
        ),
        (
            denied("kopf-ha-op-child-configmaps", "fencing: the operator makes only its own"),
            CHILD,
            Refusal.POLICY_OTHER,
        ),
        (denied("kopf-ha-op-stamped", "expression 'x' resulted in error", code=422), WIDGET, Refusal.POLICY_OTHER),
        # The sentence of a rule about tokens, but by another policy, of another kind, for another Lease.
        (denied("kopf-ha-op-terminating-widgets", STALE), WIDGET, Refusal.POLICY_OTHER),
        (denied("kopf-ha-op-child-configmaps", STALE), CHILD.replace("configmaps", "secrets"), Refusal.POLICY_OTHER),
        (denied("kopf-ha-op-child-maps", STALE), CHILD, Refusal.POLICY_OTHER),
        (denied("kopf-ha-op-stamped", about_tokens("ns/op2") + "stale leader"), WIDGET, Refusal.POLICY_OTHER),
        (denied("kopf-ha-op-stamped", "x " + STALE), WIDGET, Refusal.POLICY_OTHER),
        # It could not be evaluated, so that nothing was compared.
        (denied("kopf-ha-op-stamped", STALE, code=422), WIDGET, Refusal.POLICY_OTHER),
    ],
)
def test_ours(answer: Response, path: str, refusal: Refusal) -> None:
    assert found(answer, path) is refusal
    assert refusal.about_tokens == (refusal in (Refusal.RULE_TOKEN, Refusal.POLICY_TOKEN))


OTHERS: list[Any] = [
    # A user's value, quoted.
    invalid("metadata.labels", '"fencing stamp": a valid label must be'),
    invalid("metadata.labels", f'"{RULE_MESSAGE}": a valid label must be'),
    invalid("spec.color", RULE_MESSAGE),
    invalid("spec.status.fencing", "x"),
    invalid("status.fencingx", "x"),
    invalid("<nil>", RULE_MESSAGE + " Or so."),
    invalid("<nil>", f'"objects": {RULE_MESSAGE}'),
    invalid("spec.color", f'"object": {RULE_MESSAGE}'),
    invalid("<nil>", "x: Invalid value: " + RULE_MESSAGE),
    invalid("spec.color", f'"{SAID}": unsupported'),
    status(403, f'configmaps "{SAID}" is forbidden: no'),
    status(403, SAID),  # where a message stands alone nobody knows what comes from whom
    # Another team's policy.
    denied("somebody-elses", STALE),
    denied("fencing", "fencing: no"),
    denied("not-kopf-ha-op-stamped", STALE),
    denied("kopf-ha-op-stamped", STALE, binding="theirs"),
    denied("theirs", "' with binding 'kopf-ha-op-stamped' denied request: " + STALE),
    denied("theirs", SAID),
    # Permissions, conflicts, and no `Status` at all.
    status(403, 'User "system:serviceaccount:ns:op" cannot patch resource "fencings"'),
    status(409, SAID, "Conflict", {"message": SAID}),
    status(500, SAID, "", {"message": SAID}),
    status(422, "x", "Invalid", {}, {"field": None, "message": None}),
    # The rule of a schema answers 422.
    *(
        status(code, "x", "", {"field": "<nil>", "message": f"Invalid value: {RULE_MESSAGE}"})
        for code in (400, 403, 409, 500)
    ),
    *(status(code, "x", "", {"field": "status.fencing.token", "message": "x"}) for code in (400, 403, 409, 500)),
    # A cause that names a field is a schema's, and what stands in it may be a user's.
    *(status(code, "x", "", {"message": SAID, "field": field}) for code in (403, 422) for field in ("spec.color", "")),
    *(
        json_of(403, {"kind": kind, "details": {"causes": [{"message": SAID}]}})
        for kind in ("Widget", "status", None)  # an object of a user's may have such a field
    ),
    *(
        Response(code, body)
        for code in (403, 422)
        for body in (b"", b"[]", b"<html>", b'{"details": {"causes": [{}]}}')
    ),
    *(
        Response(422, b'{"kind": "Status", "details": %s}' % d)
        for d in (b"null", b"[]", b'{"causes": {}}', b'{"causes": [1]}')
    ),
]


@pytest.mark.parametrize("answer", OTHERS)
@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_not_ours(answer: Response, path: str) -> None:
    assert found(answer, path) is Refusal.NONE


def test_what_the_self_test_asks() -> None:
    assert denial_of(denied("kopf-ha-op-lease", "fencing: no")) == Denial("kopf-ha-op-lease", "fencing: no")
    assert denial_of(denied("theirs", "two\nlines")) == Denial("theirs", "two\nlines")
    assert denial_of(invalid("<nil>", RULE_MESSAGE)) is None
    assert denial_of(invalid("spec", SAID)) is None
    ours, theirs = denied("kopf-ha-op-lease", "fencing: no"), denied("theirs", "no")
    assert by_policy(ours)
    assert by_policy(ours, "kopf-ha-op-lease")
    assert not by_policy(ours, "kopf-ha-op-stamped")
    assert not by_policy(theirs)
    assert not by_policy(theirs, "theirs")
    assert not by_policy(denied("kopf-ha-op-lease", "expression 'x' resulted in error", code=422))
    assert not by_policy(status(403, SAID))
    assert by_rule(invalid("<nil>", RULE_MESSAGE))
    assert not by_rule(denied("kopf-ha-op-stamped", STALE))


def test_a_number_that_is_no_token_names_nobody() -> None:
    """Python refuses to parse thousands of digits, and that is no reason to end an elector."""
    for number in ("9" * 5000, "٣"):
        said = f"{about_term(LEASE)}token {number} leads, in pod u, and this write is of no pod"
        assert leader_in(denied("kopf-ha-ns.op-term", said), LEASE) is None
        given = f"fencing: Term {LEASE} has token {number}; a new holder must raise leaseTransitions above it"
        assert given_before(denied("kopf-ha-ns.op-lease-term", given)) == 0


GIVEN = f"fencing: Term {LEASE} has token 9; a new holder must raise leaseTransitions above it"


@pytest.mark.parametrize(
    ("answer", "token"),
    [
        (denied("kopf-ha-ns.op-lease-term", GIVEN), 9),
        (denied("kopf-ha-ns.op-lease-term", GIVEN, code=422), 0),
        (denied("kopf-ha-ns.op-lease-term", GIVEN, binding="theirs"), 0),
        (denied("kopf-ha-ns.op-lease-term", f"he said: {GIVEN}"), 0),
        (denied("kopf-ha-ns.op-lease-term", f"{GIVEN}, he said"), 0),
        (denied("kopf-ha-ns.op-lease", GIVEN), 0),
        (denied("kopf-ha-ns.op-term", GIVEN), 0),
        (denied("theirs-lease-term", GIVEN), 0),
        (status(403, GIVEN), 0),
    ],
)
def test_only_the_policy_about_the_lease_says_which_token_was_given_before(answer: Response, token: int) -> None:
    """I10: the next leader goes above it, and nobody may use up the tokens."""
    assert given_before(answer) == token


LEADS = "token 9 leads, in pod u, and this write is of pod v"


@pytest.mark.parametrize(
    ("answer", "leader"),
    [
        (denied("kopf-ha-ns.op-term", about_term(LEASE) + LEADS), Leader(9, "u")),
        (denied("kopf-ha-ns.op-term", about_term(LEASE) + LEADS, code=422), None),
        (denied("kopf-ha-ns.op-term", LEADS), None),
        (denied("kopf-ha-ns.op-term", about_term("ns/op2") + LEADS), None),
        (denied("kopf-ha-ns.op-stamped", about_term(LEASE) + LEADS), None),
        (denied("theirs-term", about_term(LEASE) + LEADS), None),
        (status(403, about_term(LEASE) + LEADS), None),
    ],
)
def test_only_the_policy_about_the_term_says_who_leads(answer: Response, leader: Leader | None) -> None:
    """I10: a term ends if another one leads."""
    assert leader_in(answer, LEASE) == leader


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (invalid("<nil>", RULE_MESSAGE), RULE_MESSAGE),
        (
            status(422, "x", "", {"field": "status.fencing.token"}, {"field": "spec.x"}, {"field": "status.fencing"}),
            "the schema of the kind does not accept this term's stamp: status.fencing.token, status.fencing",
        ),
        (denied("kopf-ha-op-stamped", STALE), f"policy kopf-ha-op-stamped: {STALE}"),
        # If a rule could not be evaluated, the object is quoted.
        (denied("kopf-ha-op-stamped", "expression 'x' of 'what a user wrote'", code=422), "policy kopf-ha-op-stamped"),
        (denied("theirs", "what a user wrote"), "policy theirs"),
        (denied("theirs", "fencing: what a user wrote"), "policy theirs"),
        (status(403, SAID), ""),
        (Response(502, b"<html>"), ""),
    ],
)
def test_what_is_shown_of_a_refusal_is_nothing_that_a_user_wrote(answer: Response, told: str) -> None:
    assert sentence_of(answer) == told


def test_programs_find_the_counts_of_an_event_by_this_annotation() -> None:
    """As docs/observability.md says."""
    assert REFUSED == "kopf-ha.dev/refused-writes"


def test_an_answer_that_is_nested_too_deeply_is_no_json() -> None:
    answer = Response(403, b"[" * 100_000)
    assert answer.json is None
    assert found(answer) is Refusal.NONE
