"""Stamps, notes, Leases and answers of any form: only the errors that are documented leave the core.

Anybody may write the metadata of a child, and the status of a kind without a schema. A proxy may answer anything.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kopf_ha.core import notes, refusal
from kopf_ha.core.floor import check_listed, recorded_of
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.revisions import newer
from kopf_ha.core.target import Target
from kopf_ha.core.token import TOKEN_MAX, MalformedStamp, Stamp, judge, stamp_of
from kopf_ha.core.wire import Response
from kopf_ha.errors import FloorLost, MalformedLease
from tests.core.fake_api import CHILD, LEASE, WIDGET, FakeApi
from tests.fuzz.fuzzing import anything, fuzzed, nearly

MINE = Stamp(7, "pod_uid_x", LEASE, "uid")
KINDS = ("configmaps", "deployments.apps", "replicasets.apps")
tokens = st.integers(0, 20).map(str) | st.text("0123456789٣²-+_ ", max_size=12) | st.just("9" * 5000)
words = st.sampled_from([LEASE, "ns/other", "uid", "pod_uid_x", "", "a b", "é"]) | st.text(max_size=6)


@st.composite
def annotated(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """An object of a kind without `status.fencing`, with annotations and labels as any user may write them."""
    kind = draw(st.sampled_from(KINDS))
    names = [*notes.EARLIER, notes.note_name(LEASE, kind), notes.note_name("ns/other", kind), notes.PREFIX]
    texts = st.one_of(
        st.text(max_size=20),
        tokens,
        words,
        st.tuples(tokens, words, words, words).map(" ".join),
        st.tuples(tokens, words, words).map(".".join),
    )
    some = st.dictionaries(st.sampled_from(names) | st.text(max_size=5), texts, max_size=6) | st.none()
    return kind, {"metadata": {"annotations": draw(some), "labels": draw(some)}}


@fuzzed(80)
@given(annotated())
def test_notes_of_any_text(given: tuple[str, dict[str, Any]]) -> None:
    kind, body = given
    found = notes.noted(body, kind)
    assert set(notes.others_in(found, LEASE, kind)) <= set(found)
    made = notes.notes_of(MINE, kind, found)
    try:
        stamp = notes.stamp_in(found, LEASE, kind)
    except MalformedStamp:
        stamp = None
    if stamp is not None:
        assert 1 <= stamp.token <= TOKEN_MAX
        assert stamp.lease == LEASE
        judge(stamp, MINE)
    written = notes.as_metadata(made)
    mine = notes.stamp_in(notes.noted({"metadata": written}, kind), LEASE, kind)
    assert mine is not None
    assert MINE.is_read_as(mine), "what is written is read as it was meant, whatever was there"


@fuzzed(40)
@given(nearly(st.just({"status": {"fencing": MINE.as_status()}})) | anything)
def test_stamps_of_any_form(body: Any) -> None:
    if not isinstance(body, dict):
        return  # an API object is a mapping, which `api.py` checks
    try:
        recorded = recorded_of(body, "widgets.example.com", LEASE, stamped=True)
    except MalformedStamp:
        recorded = None
    assert recorded is None or recorded == stamp_of(body)
    try:
        check_listed([body], "widgets.example.com", MINE, stamped=True)
    except FloorLost:
        assert recorded is not None
        assert recorded.token >= MINE.token


A_LEASE = {
    "metadata": {"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": "5", "annotations": {"a": "b"}},
    "spec": {"holderIdentity": "x", "leaseTransitions": 3, "leaseDurationSeconds": 15, "acquireTime": "2030-01-01"},
}


@fuzzed(80)
@given(nearly(st.just(A_LEASE)))
def test_leases_of_any_form(body: Any) -> None:
    """An elector that got an answer which it cannot read follows on: the Lease is unusable, and nothing else."""
    if not isinstance(body, dict):
        return
    try:
        record = LeaseRecord.parse(body)
    except MalformedLease:
        return
    assert 0 <= record.transitions <= TOKEN_MAX
    again = LeaseRecord.parse(record.as_object("ns", "op"))
    assert (again.holder, again.transitions) == (record.holder, record.transitions)
    assert record.same_spec(LeaseRecord.parse(body))
    assert isinstance(record.enforced, str)
    newer(record.resource_version, "5")


MESSAGES = st.one_of(
    st.just(refusal.RULE_MESSAGE),
    st.sampled_from(["stamped", "child-configmaps", "lease-term", "term", "x"]).flatmap(
        lambda name: st.one_of(
            tokens.map(
                lambda t: f"fencing: Term {LEASE} has token {t}; a new holder must raise leaseTransitions above it"
            ),
            tokens.map(lambda t: f"{refusal.about_term(LEASE)}token {t} leads, in pod u, and this write is of no pod"),
            st.text(max_size=10).map(lambda t: refusal.about_tokens(LEASE) + t),
        ).map(
            lambda said: (
                f"ValidatingAdmissionPolicy 'kopf-ha-{name}' with binding 'kopf-ha-{name}' denied request: {said}"
            )
        )
    ),
)


@fuzzed(80)
@given(
    st.sampled_from([200, 403, 409, 422, 500]),
    nearly(
        st.builds(
            lambda message: {"kind": "Status", "reason": "F", "details": {"causes": [{"message": message}]}}, MESSAGES
        )
    ).map(lambda status: json.dumps(status).encode())
    | st.binary(max_size=20)
    | st.just(b"[" * 3_000),
    st.sampled_from([WIDGET, CHILD]),
)
def test_answers_of_any_form(status: int, body: bytes, path: str) -> None:
    answer = Response(status, body)
    target: Target = FakeApi.target(path)
    found = refusal.refusal_of(answer, target, LEASE)
    assert found is refusal.Refusal.NONE or status in (403, 422)
    for told in (refusal.outline(answer), refusal.sentence_of(answer), answer.message):
        assert isinstance(told, str)
    leader = refusal.leader_in(answer, LEASE)
    assert leader is None or leader.token <= 10 * TOKEN_MAX
    assert 0 <= refusal.given_before(answer) <= 10 * TOKEN_MAX
    refusal.by_policy(answer)
