"""Each named mutation still applies, and a few of them are really tried."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mutants.mutation import Mutation, NotApplicable
from mutants.named import NAMED
from mutants.tree import ROOT, Copy

#: Cheap ones, one for each kind of place: the fence, the clock, the end of a term, the barrier, a policy, an address.
TRIED = (
    "the gate is open at the deadline",
    "the grant ends by a clock that sleeps",
    "the election goes on before the drain",
    "what could not be stamped is not handed on",
    "an equal token of another writer passes",
    "an announced range is no obstacle",
)


@pytest.mark.parametrize("mutation", NAMED, ids=lambda one: one.name)
def test_it_applies_and_what_must_notice_it_exists(mutation: Mutation) -> None:
    """Where the code was changed, the mutation has to follow it, or to go with what it was about."""
    text = (ROOT / mutation.path).read_text()
    assert mutation.applied(text) != text
    assert mutation.tests
    for test in mutation.tests:
        assert test.startswith("model ") or (ROOT / test.partition("::")[0]).exists(), test
    assert mutation.breaks.endswith(".")
    assert mutation.promise


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    names = [mutation.name for mutation in NAMED]
    assert len(names) >= 40
    assert len(set(names)) == len(names)


def test_the_cheapest_are_noticed() -> None:
    """The others are tried by `make mutants`."""
    run = subprocess.run(
        [sys.executable, "-m", "mutants", "--workers", "1", *TRIED], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(TRIED)} of {len(TRIED)} named mutations tried, 0 missed" in run.stdout


def test_one_that_no_test_notices_is_told(tmp_path: Path) -> None:
    """That a test passes must not be mistaken for a test that failed, nor that it cannot be found."""

    def noticed(test: str) -> subprocess.CompletedProcess[str]:
        # In a process that has imported nothing of the tree.
        code = f"""
            from pathlib import Path
            from mutants.mutation import Mutation
            from mutants.tree import Copy
            from mutants.__main__ import try_named
            one = Mutation("x", "mutants/__init__.py", "one line", "one word", "Nothing.", "-", ({test!r},))
            print("noticed by", repr(try_named(one, Copy(Path({str(tmp_path / test.replace("/", "-"))!r})))))
        """
        command = [sys.executable, "-c", textwrap.dedent(code)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert "noticed by ''" in noticed("tests/mutants/test_mutants_points.py").stdout
    assert "cannot be found" in noticed("tests/nowhere.py").stderr


@pytest.mark.parametrize(
    ("old", "said"), [("no such text", "no longer occurs"), ("the", "occurs"), ('"""Changes', "is no Python")]
)
def test_one_that_does_not_apply_is_told_in_words(old: str, said: str) -> None:
    mutation = Mutation("x", "mutants/__init__.py", old, "(", "Nothing.", "-", ())
    with pytest.raises(NotApplicable, match=f"mutation x: .*{said}"):
        mutation.applied((ROOT / mutation.path).read_text())


def test_the_tree_itself_is_never_changed(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy")
    mutation = NAMED[0]
    before = (ROOT / mutation.path).read_text()
    with copy.changed(mutation.path, mutation.applied(before)):
        assert (ROOT / mutation.path).read_text() == before
        assert (copy.root / mutation.path).read_text() != before
    assert (copy.root / mutation.path).read_text() == before
