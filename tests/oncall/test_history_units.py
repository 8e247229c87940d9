"""The history of terms: what is kept of each, who ended it how, and what `kopf-ha history` makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kopf_ha.core import history as reasons
from kopf_ha.core.grant import Grant
from kopf_ha.core.history import LONGEST, Past, Taken, before, between, continued, noted_in, terms
from kopf_ha.core.lease import ENDED, LeaseRecord
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response
from kopf_ha.errors import Unreached
from kopf_ha.oncall.find import Operator
from kopf_ha.oncall.history import as_data, as_text, known, not_recorded
from kopf_ha.run.history import SOON, History
from kopf_ha.settings import LONGEST_IDENTITY, Settings

T0, T1, T2 = "2026-11-30T10:00:00.000000Z", "2026-11-30T10:10:00.000000Z", "2026-11-30T10:10:00.250000Z"


def lease(holder: str = "", token: int = 1, note: str = "", **more: Any) -> LeaseRecord:
    notes = {ENDED: note} if note else {}
    raw = {"metadata": {"annotations": notes}}
    return LeaseRecord(holder, token, 15, more.get("acquired", T0), more.get("renewed", T1), raw=raw)


def taken(record: LeaseRecord | None, **more: Any) -> Taken:
    return Taken(**{"record": record, "gone": False, "silent": None, "acquired": T2, **more})


# --- what a new leader says about the term before


def test_a_release_with_its_cause() -> None:
    note = Past(1, holder="a", began=T0, barrier=0.5).ended_by("stopped", "SIGTERM").as_text()
    past = before(taken(lease(note=note), silent=0.012))
    assert past == Past(1, "a", T0, 0.5, T1, "stopped", "SIGTERM", 0.25)


@pytest.mark.parametrize("holder", ["", "a"])
@pytest.mark.parametrize(
    ("silent", "gap"),
    [
        (0.0, 0.25),  # to store the release and to bring the news of it took that long
        (0.25, 0.25),
        (0.3, 0.3),  # the next leader's clock is late
        (None, 0.25),
    ],
)
def test_the_gap_is_the_difference_of_the_times_unless_the_clocks_disagree(
    holder: str, silent: float | None, gap: float
) -> None:
    """It is shown beside both times, and is how long nobody led."""
    past = before(taken(lease(holder), silent=silent))
    assert past is not None
    assert past.gap == pytest.approx(gap)
    assert (past.gap == between(past.ended, T2)) == (gap == 0.25)


def test_a_clock_that_is_hours_ahead_makes_no_gap_of_hours() -> None:
    past = before(taken(lease(), silent=0.012, acquired="2026-11-30T13:10:00.000000Z"))
    assert past is not None
    assert past.gap == 0.012


def test_a_release_without_a_cause() -> None:
    past = before(taken(lease()))
    assert past is not None
    assert (past.reason, past.holder, past.ended) == ("released", "", T1)
    assert past.gap == pytest.approx(0.25), "by the clocks of both, since nobody saw the end happen"


@pytest.mark.parametrize(
    "note",
    [
        "no json",
        "[1]",
        '{"token": 2, "reason": "stopped", "cause": "of another term"}',
        '{"token": true}',
        '{"token": 1e9}',
        "[" * 100_000,
        json.dumps({"token": 1, "cause": 7, "gapSeconds": "many", "holder": ["x"]}),
        '{"token": 1, "gapSeconds": NaN, "barrierSeconds": Infinity}',
    ],
)
def test_a_note_that_is_none_changes_nothing(note: str) -> None:
    """Whoever may write the Lease can write it (I10)."""
    past = before(taken(lease(note=note)))
    assert past is not None
    assert (past.token, past.reason, past.holder, past.barrier) == (1, "released", "", None)
    json.dumps(past.gap, allow_nan=False)


def test_a_note_is_not_believed_while_somebody_holds_the_lease() -> None:
    note = Past(1, cause="made up", reason="stopped").as_text()
    assert noted_in(lease("a", note=note)) is None
    past = before(taken(lease("a", note=note)))
    assert past is not None
    assert past.reason == "expired"


def test_texts_are_short_and_in_one_line() -> None:
    note = json.dumps({"token": 1, "reason": "x", "cause": "a\n\x1b[2J" + "b" * 9999})
    past = before(taken(lease(note=note)))
    assert past is not None
    assert past.cause.startswith("a  [2Jb")
    assert len(past.cause) == LONGEST
    assert past.cause.isprintable()


@pytest.mark.parametrize(("gone", "reason"), [(False, "expired"), (True, "gone")])
def test_a_leader_that_gave_nothing_back(gone: bool, reason: str) -> None:
    past = before(taken(lease("a", 7), gone=gone, silent=15.0))
    assert past is not None
    assert (past.token, past.holder, past.began, past.ended) == (7, "a", T0, T1)
    assert (past.reason, past.gap) == (reason, 15.0)
    assert past.cause


@pytest.mark.parametrize("holder", ["", "a"])
def test_a_lease_without_times_leaves_them_unknown(holder: str) -> None:
    past = before(taken(lease(holder, acquired=None, renewed=None)))
    assert past is not None
    assert (past.began, past.ended, past.gap) == ("", "", None)


def test_an_end_that_the_lease_does_not_date_is_dated_by_the_note() -> None:
    note = Past(1, ended=T1, reason="stopped").as_text()
    past = before(taken(lease(note=note, renewed=None)))
    assert past is not None
    assert (past.ended, past.gap) == (T1, 0.25)


def test_a_gap_of_nothing_was_seen_as_well() -> None:
    past = before(taken(lease(renewed=None), silent=0.0))
    assert past is not None
    assert past.gap == 0.0


@pytest.mark.parametrize("raw", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"annotations": None}}])
def test_a_lease_without_annotations_has_no_note(raw: Any) -> None:
    assert noted_in(LeaseRecord("", 1, 15, raw=raw)) is None


def test_there_may_be_no_term_before() -> None:
    assert before(taken(None)) is None
    assert before(taken(lease(token=0))) is None


# --- what is kept


def test_the_history_goes_on() -> None:
    first = continued(None, None, Past(1, "a", T0, 0.5))
    past = Past(1).ended_by("stopped", "SIGTERM", T1)
    both = continued(first, past, Past(2, "b", T2, 0.1))
    assert [json.loads(line) for line in both] == [
        {"token": 1, "holder": "a", "began": T0, "barrierSeconds": 0.5, "ended": T1, "reason": "stopped",
         "cause": "SIGTERM"},
        {"token": 2, "holder": "b", "began": T2, "barrierSeconds": 0.1},
    ]  # fmt: skip


def test_the_last_twenty_are_kept() -> None:
    made: list[str] = []
    for token in range(1, 26):
        made = continued(made, Past(token - 1).ended_by("expired") if token > 1 else None, Past(token, "h"))
    assert [past.token for past in terms(made)] == list(range(6, 26))
    assert all(past.reason for past in terms(made)[:-1])


def test_a_term_that_wrote_nothing_is_known_from_the_lease() -> None:
    made = continued([Past(1, "a").as_text()], Past(5, "e", T0).ended_by("gone"), Past(6, "f"))
    assert [(p.token, p.reason) for p in terms(made)] == [(1, ""), (5, "gone"), (6, "")]


def test_a_lease_that_was_deleted() -> None:
    made = continued([Past(1, "a").as_text()], None, Past(2, "b"))
    assert (terms(made)[0].reason, terms(made)[0].cause) == ("deleted", "the Lease was deleted")


def test_what_is_no_history_is_left_out() -> None:
    """An entry from the future does not count either: tokens only rise."""
    junk: list[Any] = [7, None, {}, "7", "{", '{"token": "1"}', Past(99, "later").as_text(), Past(3, "c").as_text()]
    assert [p.token for p in terms(continued(junk, None, Past(4, "d")))] == [3, 4]
    assert continued({"a": 1}, None, Past(4, "d")) == [Past(4, "d").as_text()]


@pytest.mark.parametrize("token", [4, 5])
def test_what_a_lease_says_of_my_own_term_or_a_later_one_is_no_past(token: int) -> None:
    """Somebody edited the Lease."""
    previous = Past(token, "x").ended_by("expired")
    third, mine = Past(3, "c", reason="stopped").as_text(), Past(4, "d")
    assert continued([third], previous, mine) == [third, mine.as_text()]


def test_a_term_that_is_written_again_has_one_entry() -> None:
    third, mine = Past(3, "c", reason="stopped").as_text(), Past(4, "d")
    assert continued([third, Past(4, "d", T0).as_text()], None, mine) == [third, mine.as_text()]


@pytest.mark.parametrize(
    ("last", "reason", "gap"),
    [
        (Past(2, "a"), "deleted", None),
        (Past(2, "a", ended=T1), "deleted", 0.25),
        (Past(2, "a", ended=T1, reason="stopped"), "stopped", None),
    ],
)
def test_without_a_lease_only_an_end_that_nobody_noted_is_its_deletion(
    last: Past, reason: str, gap: float | None
) -> None:
    before_it = Past(1, "z", reason="" if last.reason else "stopped")
    found = terms(continued([last.as_text(), before_it.as_text()], None, Past(3, "b", T2)))
    assert (found[1].reason, found[1].gap) == (reason, gap)
    assert found[0] == before_it


def test_what_the_term_has_and_the_lease_does_not_know_is_kept() -> None:
    """And of what both know the Lease counts; 0 is known."""
    kept = Past(1, "a", T0, 0.5, T0, "expired", "a guess", 9.0)
    made = continued([kept.as_text()], Past(1, ended=T1, reason="stopped", cause="SIGTERM", gap=0.0), Past(2))
    assert terms(made)[0] == Past(1, "a", T0, 0.5, T1, "stopped", "SIGTERM", 0.0)


# --- an entry


WHOLE = Past(2_000_000_000, "h", T0, 0.0, T1, "stopped", "Zürich", 0.0)


def test_an_entry_is_one_short_line_without_what_is_unknown() -> None:
    assert Past(1).as_text() == '{"token":1}'
    assert WHOLE.as_text() == (
        f'{{"token":2000000000,"holder":"h","began":"{T0}","barrierSeconds":0.0,"ended":"{T1}","reason":"stopped",'
        '"cause":"Zürich","gapSeconds":0.0}'
    )
    assert json.loads(Past(1, barrier=0.12345, gap=1.99999).as_text()) == {
        "token": 1, "barrierSeconds": 0.123, "gapSeconds": 2.0
    }  # fmt: skip


@pytest.mark.parametrize("past", [Past(1), WHOLE])
def test_an_entry_is_read_as_it_was_written(past: Past) -> None:
    assert Past.parse(past.as_text()) == past


@pytest.mark.parametrize("token", [0, -1, 2_000_000_001, "1", 1.0, True, None])
def test_an_entry_without_a_token_is_none(token: Any) -> None:
    assert Past.parse(json.dumps({"token": token, "holder": "h"})) is None
    assert Past.parse({"token": token, "holder": "h"}) is None


@pytest.mark.parametrize(
    ("given", "read"), [(5, 5.0), (0, 0.0), (1e11, 1e11), (1e12, None), (-1e12, None), (True, None), ("5", None)]
)
def test_seconds_that_are_none_are_unknown(given: Any, read: float | None) -> None:
    found = Past.parse(json.dumps({"token": 1, "barrierSeconds": given, "gapSeconds": given}))
    assert found is not None
    assert (found.barrier, found.gap) == (read, read)


def test_a_holder_identity_is_kept_whole() -> None:
    """And no text is longer than the longest one."""
    assert LONGEST == LONGEST_IDENTITY
    assert Past.parse(Past(1, "h" * LONGEST).as_text()) == Past(1, "h" * LONGEST)
    (longer,) = terms([json.dumps({"token": 1, "cause": "c" * (LONGEST + 1)})])
    assert longer.cause == "c" * (LONGEST - 1) + "…"
    assert Past(1).ended_by("failed", "c" * LONGEST).cause == "c" * LONGEST
    assert json.loads(Past(1, cause="a\nb").as_text())["cause"] == "a b"


@pytest.mark.parametrize(
    ("since", "until", "seconds"),
    [
        (T1, T2, 0.25),
        (T1, T1, 0.0),
        (T2, T1, None),
        ("", T1, None),
        (T1, "", None),
        (T1, "yesterday", None),
        (T1.removesuffix("Z"), T2, None),  # of an unknown time zone
    ],
)
def test_seconds_between_two_times(since: str, until: str, seconds: float | None) -> None:
    assert between(since, until) == seconds


def test_programs_know_the_reasons_by_these_words() -> None:
    assert {
        reasons.STOPPED, reasons.FAILED, reasons.LOST, reasons.FLOOR, reasons.EXPIRED, reasons.GONE, reasons.PAUSED,
        reasons.HANDOVER, reasons.RELEASED, reasons.DELETED,
    } == {
        "stopped", "failed", "lost", "floor", "expired", "gone", "paused", "handover", "released", "deleted"
    }  # fmt: skip


@pytest.mark.parametrize("reason", ["expired", "gone", "released", "deleted"])
def test_where_only_the_lease_tells_the_end_a_sentence_explains_it(reason: str) -> None:
    assert " " in Past(1).ended_by(reason).cause
    assert Past(1).ended_by(reason, "better known").cause == "better known"
    assert Past(1).ended_by("stopped").cause == ""


# --- how the leader writes it


class Server:
    """A Term, and an API server that prunes what its definition does not have."""

    def __init__(self, holder: str = "h", *, keeps: bool = True) -> None:
        self.term: dict[str, Any] = {
            "metadata": {"resourceVersion": "1"}, "spec": {"token": 7, "holder": holder}
        }  # fmt: skip
        self.keeps, self.refuse, self.conflicts = keeps, 0, 0
        self.refusal: dict[str, Any] = {}
        self.sent: list[str] = []

    def request(self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = 0) -> Response:
        self.sent.append(method)
        if self.refuse:
            return Response(self.refuse, json.dumps(self.refusal).encode())
        if method == "PATCH":
            if self.conflicts or body["metadata"]["resourceVersion"] != self.term["metadata"]["resourceVersion"]:
                self.conflicts -= 1
                return Response(409, b"{}")
            if self.keeps:
                self.term["history"] = body["history"]
        return Response(200, json.dumps(self.term).encode())


GRANT = Grant(Stamp(7, "h", "n/l", "u"), 99.0)
Made = tuple[History, list[tuple[float, Callable[[], None]]], list[str]]


def history(server: Any) -> Made:
    timers: list[tuple[float, Callable[[], None]]] = []
    told: list[str] = []
    made = History(
        Settings(lease_name="l", lease_namespace="n"),
        lambda: server,
        later=lambda seconds, fn: timers.append((seconds, fn)),
        wall=lambda: T2,
    )
    made.tell = told.append
    return made, timers, told


def test_nothing_waits_for_it() -> None:
    """A takeover sends no request more; some seconds later there are two."""
    server = Server()
    made, timers, _ = history(server)
    assert made.began(GRANT, taken(lease("a", 6), silent=15.0)) == "expired", "for the metrics"
    made.barrier_up(0.25)
    assert server.sent == []
    ((seconds, write),) = timers
    assert seconds == SOON
    write()
    write()
    assert server.sent == ["GET", "PATCH"]
    six, seven = terms(server.term["history"])
    assert (six.token, six.reason, six.gap) == (6, "expired", 15.0)
    assert seven == Past(7, "h", T2, 0.25)


def test_a_release_says_why_in_the_request_that_it_needs_anyway() -> None:
    server = Server()
    made, timers, told = history(server)
    made.began(GRANT, taken(None))
    made.barrier_up(0.25)
    timers[0][1]()
    sent = len(server.sent)
    made.ending(GRANT, "stopped", "SIGTERM")
    made.ending(GRANT, "lost", "and another cause")
    assert len(server.sent) == sent
    assert told == ["", Past(7, "h", T2, 0.25, T2, "stopped", "SIGTERM").as_text()]


def test_a_short_term_is_written_when_it_ends() -> None:
    server = Server()
    made, _, _ = history(server)
    made.began(GRANT, taken(lease("a", 6)))
    made.ending(GRANT, "failed", "the term failed", wait=30.0)
    assert [p.token for p in terms(server.term["history"])] == [6, 7]
    assert terms(server.term["history"])[1].reason == "", "the next leader hears it from the Lease"


def test_what_this_process_knows_of_its_own_last_term_is_not_lost() -> None:
    """It met a floor and took a higher token, so nothing was given back in between."""
    server = Server()
    made, timers, _ = history(server)
    assert made.began(GRANT, taken(None)) == ""
    made.ending(GRANT, "floor", "an object records token 9")
    server.term["spec"]["token"] = 10
    after = Grant(Stamp(10, "h", "n/l", "u"), 99.0)
    assert made.began(after, taken(lease("h", 7))) == "floor"
    made.barrier_up(0.1)
    timers[-1][1]()
    seven = next(p for p in terms(server.term["history"]) if p.token == 7)
    assert (seven.reason, seven.cause) == ("floor", "an object records token 9")


@pytest.mark.parametrize("holder", ["another", "h_of_the_same_pod"])
def test_a_stale_leader_writes_no_history(holder: str) -> None:
    server = Server(holder)
    made, timers, _ = history(server)
    made.began(GRANT, taken(None))
    made.barrier_up(0.1)
    timers[0][1]()
    assert server.sent == ["GET"]


def test_the_next_leader_may_come_in_between() -> None:
    """I8: it is written on the revision that was read."""
    server = Server()
    server.conflicts = 1
    made, timers, _ = history(server)
    made.began(GRANT, taken(None))
    made.barrier_up(0.1)
    timers[0][1]()
    assert server.sent == ["GET", "PATCH", "GET", "PATCH"]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("earlier definition", "the definition of terms.kopf-ha.dev is of an earlier release"),
        ("refused", "Term n/l cannot be written (403); `kopf-ha check` names"),
        ("no kind", "Term n/l cannot be read (404), since the kind terms.kopf-ha.dev is not installed; apply what"),
        ("no Term", "Term n/l does not exist (404); the next leader makes it"),
        ("another's", "Term n/l is not this term's"),
        ("no answer", "no answer"),
    ],
)
def test_where_it_cannot_be_written_one_line_says_so_and_why(
    trouble: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server("another" if trouble == "another's" else "h", keeps=trouble != "earlier definition")
    server.refuse = {"refused": 403, "no kind": 404, "no Term": 404}.get(trouble, 0)
    if trouble == "no Term":
        server.refusal = {"kind": "Status", "reason": "NotFound", "details": {"name": "l"}}
    if trouble == "no answer":
        server.request = lambda *_, **__: (_ for _ in ()).throw(Unreached("no answer"))  # type: ignore[method-assign]
    made, timers, _ = history(server)
    caplog.set_level("INFO")
    for _ in range(2):
        made.began(Grant(GRANT.stamp, 99.0), taken(None))
        made.barrier_up(0.1)
        timers[-1][1]()
    (line,) = [r.getMessage() for r in caplog.records if "history" in r.getMessage()]
    assert line.startswith(f"the history of terms is not written: {said}")
    assert line.endswith(". Only `kopf-ha history` needs it")


# --- what is shown


def operator(record: LeaseRecord | None, entries: Any) -> Operator:
    body = None
    if record is not None:
        spec = {
            "holderIdentity": record.holder,
            "leaseTransitions": record.transitions,
            "acquireTime": record.acquire_time,
            "renewTime": record.renew_time,
        }
        body = {**record.raw, "spec": spec}
    return Operator("n", "l", body, None, {"history": entries}, ())


def test_the_present_term_and_one_that_has_just_ended_are_known_from_the_lease() -> None:
    entries = continued([], None, Past(1, "web-1_u_1", T0, 0.5))
    assert known(operator(lease("web-1_u_1", 1), entries)) == [Past(1, "web-1_u_1", T0, 0.5)]
    note = Past(1).ended_by("stopped", "SIGTERM").as_text()
    (one,) = known(operator(lease(note=note), entries))
    assert (one.reason, one.ended, one.holder) == ("stopped", T1, "web-1_u_1")
    assert [p.token for p in known(operator(lease("b", 3), entries))] == [1, 3]
    assert known(operator(None, [])) == []


def test_text_and_data() -> None:
    ended = Past(1, "web-1_u_1", T0, 0.5, T1, "stopped", "SIGTERM\n", 0.25)
    found = [ended, Past(3, "web-2_u_2", T2)]
    text = as_text("n/l", found).splitlines()
    assert text[0].split() == ["TOKEN", "BEGAN", "LED", "BARRIER", "ENDED", "GAP", "POD", "CAUSE"]
    assert text[1].split() == [
        "1",
        "2026-11-30",
        "10:00:00Z",
        "10m",
        "0.500s",
        "stopped",
        "0.250s",
        "web-1",
        "SIGTERM�",
    ]
    assert text[2].split() == ["3", "2026-11-30", "10:10:00Z", "-", "-", "-", "-", "web-2", "-"]
    assert text[3] == "not recorded: 2"
    data = as_data("n/l", found)
    assert json.loads(json.dumps(data)) == data
    assert data["terms"][0] == {
        "token": 1, "holder": "web-1_u_1", "pod": "web-1", "began": T0, "barrierSeconds": 0.5, "ended": T1,
        "ledSeconds": 600.0, "reason": "stopped", "cause": "SIGTERM\n", "gapSeconds": 0.25,
    }  # fmt: skip
    assert data["notRecorded"] == [2]
    assert not_recorded([]) == []
    assert len(not_recorded([Past(1), Past(1_999_999_999)])) == 100
