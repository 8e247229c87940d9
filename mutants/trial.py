"""Runs tests on a copy of the tree, in a process of their own, and says which failed first.

Each process is forked from this one, which has imported what the tests need and nothing of the tree. That saves most
of the time that a short test takes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

#: Seconds of CPU time after which a mutant counts as one that never ends.
CPU = 240
#: Seconds after which one test counts as hanging.
TIMEOUT = 150
#: Bytes of memory that a mutant may take.
MEMORY = 4 << 30
#: Imported once, before the first fork. Nothing of the tree is among them.
PRELOADED = ("hypothesis.stateful", "hypothesis.strategies", "yaml", "kubernetes.client", "kopf", "pykube", "aiohttp")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run.

    Args:
        noticed: the first test that failed, or what else ended the run; empty if all tests passed.
        tests: how many ran.
        cpu: seconds of CPU time.
    """

    noticed: str
    tests: int
    cpu: float


class Watcher:
    """A plugin for pytest: which tests run, in which order, and which fails first.

    Args:
        wanted: the node ids to run, in this order; None for all that are found.
    """

    def __init__(self, wanted: Sequence[str] | None = None) -> None:
        self.failed = ""
        self.ran = 0
        self._order = None if wanted is None else {name: i for i, name in enumerate(wanted)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Choose and sort the tests."""
        order = self._order
        if order is not None:
            items[:] = sorted((i for i in items if i.nodeid in order), key=lambda item: order[item.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that cannot be imported."""
        if report.failed:
            self.failed = self.failed or report.nodeid or "collection"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the first failure."""
        self.ran += report.when == "call"
        if report.failed:
            self.failed = self.failed or report.nodeid


def preload() -> None:
    """Import what most tests need."""
    for name in PRELOADED:
        importlib.import_module(name)


def run_tests(root: Path, tests: Sequence[str], wanted: Sequence[str] | None = None) -> Outcome:
    """Run tests until the first fails.

    Args:
        root: of the copy.
        tests: arguments for pytest: files, folders, node ids.
        wanted: the node ids among them to run, in this order; None for all.
    """
    return in_process(root, lambda: _pytest(tests, wanted))


class Aside:
    """Runs tests from the beginning, for a process that has imported the code already.

    It is a process that was forked before that. So it must be made first.

    Args:
        root: of the copy.
    """

    def __init__(self, root: Path) -> None:
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        if not os.fork():
            try:
                os.close(self._ask)  # so that it ends with the process that asks
                with open(asked) as questions, open(answer, "w", buffering=1) as answers:
                    for line in questions:
                        outcome = run_tests(root, **json.loads(line))
                        answers.write(json.dumps(asdict(outcome)) + "\n")
            finally:
                os._exit(0)
        os.close(asked)
        os.close(answer)

    def run_tests(self, tests: Sequence[str], wanted: Sequence[str] | None = None) -> Outcome:
        """Run tests until the first fails; see the function of that name."""
        os.write(self._ask, json.dumps({"tests": tests, "wanted": wanted}).encode() + b"\n")
        with open(self._answers, closefd=False) as answers:
            return Outcome(**json.loads(answers.readline()))


def explore(root: Path, arguments: str) -> Outcome:
    """Run ``python -m model`` with these arguments."""
    return in_process(root, lambda: _model(arguments))


def in_process(root: Path, job: Callable[[], dict[str, Any]]) -> Outcome:
    """Do a job in a process of its own, in a copy of the tree.

    Args:
        root: of the copy.
        job: returns the fields of the outcome, but for the CPU time.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "outcome")
        child = os.fork()
        if not child:
            _become(root, Path(folder), job, said)
        _, status, usage = os.wait4(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what the tests may have left behind
        cpu = usage.ru_utime + usage.ru_stime
        if said.exists():
            return Outcome(cpu=cpu, **json.loads(said.read_text()))
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
    return Outcome(f"it never ends, or ends the process ({how})", 0, cpu)


def _become(root: Path, folder: Path, job: Callable[[], dict[str, Any]], said: Path) -> None:
    """Be the child: it never returns."""
    status = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        enter(root)
        with open(folder / "output", "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            made = job()
        said.with_suffix(".part").write_text(json.dumps(made))
        said.with_suffix(".part").rename(said)
        status = 0
    finally:
        os._exit(status)


def enter(root: Path) -> None:
    """Have this process, and those that it starts, use the code of a copy."""
    os.chdir(root)
    paths = [str(root / "operator"), str(root)]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ.pop("PYTEST_CURRENT_TEST", None)


def _pytest(tests: Sequence[str], wanted: Sequence[str] | None) -> dict[str, Any]:
    fast_hypothesis()
    watcher = Watcher(wanted)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not cluster", "--timeout", str(TIMEOUT)]
    status = pytest.main([*options, *tests], plugins=[watcher])
    there = all(Path(test.partition("::")[0]).exists() for test in tests)
    if status == pytest.ExitCode.NO_TESTS_COLLECTED or (status == pytest.ExitCode.USAGE_ERROR and not there):
        return {"noticed": "", "tests": 0}  # whoever named these tests has to know
    if status != 0 and not watcher.failed:
        watcher.failed = f"pytest ended with status {int(status)}"
    return {"noticed": watcher.failed, "tests": watcher.ran}


def _model(arguments: str) -> dict[str, Any]:
    status = importlib.import_module("model.__main__").main(shlex.split(arguments))
    return {"noticed": f"model {arguments}" if status else "", "tests": 1}


def fast_hypothesis() -> None:
    """Have hypothesis try the same examples each time, and not look for a smaller one once it found a failure."""
    from hypothesis import Phase, settings

    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", phases=phases, database=None, derandomize=True, print_blob=False)
    settings.load_profile("mutants")


class Clock:
    """Says whether there is time left.

    Args:
        seconds: in all; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self._until is not None and time.monotonic() >= self._until


def split(tests: Collection[str]) -> tuple[list[str], list[str]]:
    """Return pytest's arguments, and the explorations of the model."""
    explorations = [one.removeprefix("model ") for one in tests if one.startswith("model ")]
    return [one for one in tests if not one.startswith("model ")], explorations


def in_workers(number: int, job: Callable[[int], None]) -> None:
    """Run a job in so many processes at once, and wait for all of them.

    Args:
        number: of processes.
        job: takes the number of its process.
    """
    children = []
    for i in range(number):
        child = os.fork()
        if not child:
            status = 1
            try:
                job(i)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    if failed:
        raise SystemExit(f"{len(failed)} of {number} workers failed")
