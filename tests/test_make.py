"""What `make test` makes of the exit statuses of its steps, and what it runs in one piece."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kit.schedule import FIRST, WHOLE, unit

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
echo "$@" >> "$STEPS"
exit $(printf %s "$STATUSES" | cut -d, -f"$(wc -l < "$STEPS")")
"""


#: What `make test` does before the tests, and is left out here.
NOT_THESE = [part for name in ("checks", "binaries") for part in ("-o", name)]


def make_test(folder: Path, *statuses: int, arguments: str = "") -> tuple[int, list[str]]:
    """Run it with a Python that ends with these statuses; give make's own, and how Python was called."""
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    steps = folder / "steps"
    steps.write_text("")
    argv = ["make", *NOT_THESE, f"BIN={folder}", f"PYTEST_ARGS={arguments}", "test"]
    env = {"PATH": "/usr/bin:/bin", "STEPS": str(steps), "STATUSES": ",".join(map(str, statuses))}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.returncode, steps.read_text().splitlines()


def test_what_is_sensitive_to_load_runs_alone_after_the_rest(tmp_path: Path) -> None:
    status, steps = make_test(tmp_path, 0, 0)
    assert status == 0
    beside, alone = steps
    assert "-n 2 --dist loadscope" in beside
    assert "-m not load_sensitive" in beside
    assert "-n " not in alone
    assert "-m load_sensitive" in alone


@pytest.mark.parametrize("status", [1, 2, 3, 4, 5])
def test_whatever_is_wrong_with_a_step_fails(tmp_path: Path, status: int) -> None:
    """1: tests failed; 2: interrupted; 3: an internal error, after which tests did not run; 4: usage; 5: no tests."""
    first, steps = make_test(tmp_path, status, 0)
    assert first != 0
    assert not [step for step in steps if "last-failed" in step], "nothing that failed is tried again"
    assert make_test(tmp_path, 0, status)[0] != 0


def test_the_second_step_runs_after_tests_failed_in_the_first(tmp_path: Path) -> None:
    """So that one run tells of all that is broken."""
    status, steps = make_test(tmp_path, 1, 0)
    assert status != 0
    assert len(steps) == 2


def test_a_choice_may_leave_a_step_without_tests(tmp_path: Path) -> None:
    assert make_test(tmp_path, 5, 0, arguments="tests/demo")[0] == 0
    assert make_test(tmp_path, 0, 5, arguments="tests/core")[0] == 0
    assert make_test(tmp_path, 5, 5, arguments="-k nothing")[0] != 0
    assert make_test(tmp_path, 5, 1, arguments="tests/demo")[0] != 0


def test_tests_that_share_something_expensive_run_in_one_piece() -> None:
    assert unit("tests/survival/test_survival_lease.py::test_a[x]") == "tests/survival"
    assert unit("tests/ipam/test_ipam_paused.py::test_a[a/b]") == "tests/ipam/test_ipam_paused.py"
    for path in (*WHOLE, *FIRST):
        assert (ROOT / path).exists(), f"tests/kit/schedule.py names {path}"
