"""The whole judge: good runs, vacuous runs, the command line."""

from pathlib import Path

import pytest

from judge import Expectations, dump, judge
from judge.__main__ import main
from tests.judge.judge_stories import LEASE, ONE, USER, ZERO, Story


def good_run() -> Story:
    story = Story()
    story.lease(1, ZERO.holder)
    story.asked(ZERO)
    story.claim("a")
    story.asked("alice")
    story.pool({"10.20.0.7": "a"}, (ZERO, 1))
    story.asked(ZERO)
    story.claim("a", "10.20.0.7", (ZERO, 1))
    story.asked(ZERO)
    story.child("a", "10.20.0.7", (ZERO, 1))
    story.asked(ZERO)
    story.lease(2, ONE.holder)
    story.asked(ONE)
    story.pool({"10.20.0.7": "a"}, (ONE, 2))
    story.asked(ONE)
    story.asked(ZERO, code=403, revision=None)
    story.claim("b")
    story.asked("alice")
    return story


def test_a_good_run() -> None:
    story = good_run()
    verdict = judge(story.history, story.audit, Expectations(USER, min_terms=2, min_refusals=1))
    assert verdict.ok, str(verdict)
    assert verdict.duplicates == ()
    summary = verdict.summary
    assert [(t.token, t.holder) for t in summary.terms] == [(1, ZERO.holder), (2, ONE.holder)]
    assert (summary.claims_bound, summary.claims_waiting, summary.addresses_given) == (1, 1, 1)
    assert summary.refused == {403: 1}
    assert summary.writes_per_token == {1: 3, 2: 1}


@pytest.mark.parametrize(
    ("expected", "kind"),
    [
        (Expectations(min_terms=3), "terms"),
        (Expectations(min_bound_claims=2), "claims bound"),
        (Expectations(min_refusals=2), "refusals"),
    ],
)
def test_a_run_in_which_too_little_happened(expected: Expectations, kind: str) -> None:
    story = good_run()
    verdict = judge(story.history, story.audit, expected)
    assert [(f.promise, f.kind) for f in verdict.findings] == [("vacuous", kind)]


def test_an_empty_run_proves_nothing() -> None:
    verdict = judge(Story().history)
    assert [str(f) for f in verdict.findings] == [
        "vacuous terms: only 0 terms seen, 1 expected",
        "vacuous claims bound: only 0 claims bound seen, 1 expected",
        "vacuous stamped writes: only 0 stamped writes seen, 1 expected",
    ]


def test_what_the_operator_held_back_counts() -> None:
    story = good_run()
    assert judge(story.history, story.audit, Expectations(min_refusals=3, gate_refusals=2)).ok


def test_dry_runs_events_and_the_lease_are_no_refusals() -> None:
    story = good_run()
    story.asked(ZERO, code=403, revision=None, dry_run=True)
    story.asked(ZERO, code=409, revision=None, resource="leases")
    story.asked(ZERO, code=403, revision=None, resource="events")
    story.asked("alice", code=422, revision=None)
    assert judge(story.history, story.audit, Expectations(USER)).summary.refused == {403: 1}


def test_a_lease_that_was_edited_on_purpose_is_a_note() -> None:
    story = good_run()
    story.lease(1, ONE.holder)
    assert [f.promise for f in judge(story.history, story.audit).findings] == ["Lease", "Lease"]
    verdict = judge(story.history, story.audit, Expectations(lease_tampered=True))
    assert verdict.ok
    assert "went down" in verdict.notes[0]


def test_a_late_write_is_a_note_or_a_finding_but_not_both() -> None:
    story = good_run()
    story.claim("b", "", (ZERO, 1))
    verdict = judge(story.history, story.audit)
    assert verdict.ok
    assert verdict.summary.late_but_harmless == 1
    story.claim("b", "", (ONE, 2))
    story.claim("b", "", (ZERO, 1))
    verdict = judge(story.history, story.audit)
    assert {f.promise for f in verdict.findings} == {"I1", "I3"}
    assert verdict.summary.late_but_harmless == 1


def test_plain_kopf_has_no_stamps_and_its_duplicates_are_found() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a", "10.20.0.7")
    story.asked(ZERO)
    story.claim("b", "10.20.0.7")
    story.asked(ONE)
    verdict = judge(story.history, story.audit, Expectations(USER, lease_names=(LEASE,), fenced=False))
    (found,) = verdict.duplicates
    assert [p.name for p in found.parties] == ["pod ipam-0", "pod ipam-1"]
    assert {f.promise for f in verdict.findings} == {"I5"}


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "history")
    story = good_run()
    dump(story.history, path)
    assert main(["--from", path, "--min-terms", "2"]) == 0
    out = capsys.readouterr().out
    assert "ok: every promise held" in out
    assert f"token 2 of {LEASE}: {ONE.holder}" in out
    story.claim("b", "10.20.0.7", (ONE, 2))
    dump(story.history, path)
    assert main(["--from", path, "--dump", path + "2"]) == 1
    assert "10.20.0.7 was given twice" in capsys.readouterr().out
    assert main(["--from", path + "2"]) == 1


def test_command_line_that_cannot_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", str(tmp_path / "none")]) == 2
    assert main(["--etcd", "http://127.0.0.1:1"]) == 2
    assert "could not be read" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2


def test_every_check_is_asked() -> None:
    story = Story()
    story.lease(2, ZERO.holder)
    story.lease(2, ONE.holder)  # Lease
    story.pool({"10.20.0.7": "a"}, (ZERO, 2))
    story.pool({"10.20.0.7": "a"}, (ONE, 2))  # I2
    story.pool({"10.20.0.7": "a"}, (ZERO, 1))  # I1, I3, an invented token
    story.claim("a", "10.20.0.7", (ONE, 2))  # I4
    story.pool({}, (ZERO, 1))  # I5 freed
    story.claim("b", "10.20.0.7", (ONE, 2))  # I5 twice
    story.claim("b", "10.20.0.7", (ONE, 2), spec={"poolName": "red"})
    story.asked(ZERO)  # I6, I3 by the audit log
    story.child("b", "10.20.0.7")
    story.asked(ZERO)  # I8
    verdict = judge(story.history, story.audit, Expectations(USER, quiet_after=story.revision - 1, min_terms=9))
    assert {(f.promise, f.kind) for f in verdict.findings} == {
        ("Lease", "not raised"),
        ("Lease", "number shared"),
        ("Lease", "token not given"),
        ("I1", "token went down"),
        ("I2", "token shared"),
        ("I3", "late write"),
        ("I3", "write under another's stamp"),
        ("I4", "before the barrier"),
        ("I5", "freed while held"),
        ("I5", "given twice"),
        ("I5", "given without record"),
        ("I5", "conflict not shown"),
        ("I6", "user's field"),
        ("I7", "writes go on"),
        ("I8", "write without stamp"),
        ("vacuous", "terms"),
    }


def test_every_check_of_the_order_of_things_is_asked() -> None:
    story = Story()
    story.lease(1, ZERO.holder)
    story.claim("a", "", (ZERO, 1))
    story.pool({}, (ZERO, 1), state="Claiming")
    story.pool({}, (ZERO, 1), name="red")
    story.lease(2, ONE.holder)
    story.pool({}, (ONE, 2), state="Claiming")
    story.pool({}, (ONE, 2))  # I4: a has no stamp of this term
    story.pool({"10.20.0.1": "a"}, (ONE, 2))
    story.pool({"10.30.0.1": "a"}, (ONE, 2), name="red")  # I4: it had no stamp of this term
    story.pool({}, (ONE, 2), name="red")  # I5: a exists
    story.pool({"10.20.0.1": "x"}, (ONE, 2))  # I5: a exists
    story.child("a", "10.20.0.1", (ONE, 2))  # I5: x has it
    story.asked(USER)  # I8
    story.claim("b", "10.20.0.9", (ONE, 2))
    expected = Expectations(USER, audit_whole=True)
    kinds = {(f.promise, f.kind) for f in judge(story.history, story.audit, expected).findings}
    assert kinds == {
        ("I4", "claim not stamped before the activation"),
        ("I4", "decided before the stamp"),
        ("I5", "freed while the claim exists"),
        ("I5", "published over another's record"),
        ("I5", "given without record"),
        ("I8", "write without a pod"),
        ("I8", "write without audit entry"),
    }
    older = judge(story.history, story.audit, Expectations(USER, older_operator=True))
    assert kinds - {(f.promise, f.kind) for f in older.findings} == {
        ("I4", "claim not stamped before the activation"),
        ("I5", "freed while the claim exists"),
        ("I8", "write without audit entry"),
    }
    unfenced = judge(story.history, story.audit, Expectations(USER, fenced=False))
    assert not unfenced.broken("I4")


def test_the_command_line_passes_everything_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = good_run()
    story.gone(story.claim_key("a"))
    dump(story.history, str(tmp_path / "history"))
    argv = ["--from", str(tmp_path / "history")]
    assert main(argv) == 0
    assert "the run ended while addresspools blue still records 10.20.0.7" in capsys.readouterr().out
    assert main([*argv, f"--quiet-after={story.revision}"]) == 1
    assert "I7 address left behind" in capsys.readouterr().out
    assert main([*argv, "--audit-whole", "--older-operator", "--no-pods"]) == 1
    assert "I8 write without audit entry" in capsys.readouterr().out
