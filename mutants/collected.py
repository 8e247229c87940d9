"""Runs collected tests on one mutant after the other, each in a fork of the process that collected them.

To import the tests takes longer than to run those that notice a mutant. So they are imported once, without any mutant,
and each fork replaces the code of the functions that its mutant changes. What runs when a module is imported cannot be
replaced so; then `Unreplaceable` says to run the tests from the beginning.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from mutants.trial import MEMORY, TIMEOUT, Outcome, fast_hypothesis

#: Seconds of CPU time after which a mutant counts as one that never ends: all cheap tests together take half of that.
CPU = 60


class Unreplaceable(Exception):
    """The code of the mutant's function cannot be replaced in this process."""


class Collected:
    """A plugin for pytest that hands the collected tests to a job, instead of running them.

    Args:
        job: what to do with them; it calls `try_mutant`.
    """

    def __init__(self, job: Callable[[Collected], None]) -> None:
        self._job = job
        self.items: dict[str, pytest.Item] = {}  #: what was collected, by node id
        self._failed = ""
        self._ran = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do the job in place of pytest's loop."""
        self.items = {item.nodeid: item for item in session.items}
        self._job(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the first failure."""
        self._ran += report.when == "call"
        if report.failed:
            self._failed = self._failed or report.nodeid

    def try_mutant(self, file: Path, mutated: str, tests: Sequence[str]) -> Outcome:
        """Run tests until the first fails.

        Args:
            file: of the copy, which still has the text that was imported.
            mutated: its text with the mutant.
            tests: their node ids, in the order to run.

        Raises:
            Unreplaceable: the tests have to be run from the beginning.
        """
        with tempfile.TemporaryDirectory() as folder:
            said = Path(folder, "outcome")
            child = os.fork()
            if not child:
                self._become(said, file, mutated, tests)
            _, status, usage = os.wait4(child, 0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            cpu = usage.ru_utime + usage.ru_stime
            if said.exists():
                noticed, ran = json.loads(said.read_text())
                return Outcome(noticed, ran, cpu)
        if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) == 3:
            raise Unreplaceable
        return Outcome(f"it never ends, or ends the process (status {status})", 0, cpu)

    def _become(self, said: Path, file: Path, mutated: str, tests: Sequence[str]) -> None:
        status = 1
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 5))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            try:
                replace_code(file, file.read_text(), mutated)
            except Unreplaceable:
                status = 3
                return
            items = [self.items[test] for test in tests if test in self.items]
            for i, item in enumerate(items):
                following = items[i + 1] if i + 1 < len(items) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self._failed:
                    break
            said.with_suffix(".part").write_text(json.dumps((self._failed, self._ran)))
            said.with_suffix(".part").rename(said)
            status = 0
        finally:
            os._exit(status)


def collect(root: Path, modules: Sequence[str], job: Callable[[Collected], None]) -> None:
    """Collect tests, and do a job with them. The calling process can do nothing else after that.

    Args:
        root: of the copy, where the process already is.
        modules: the test modules.
        job: takes what was collected.
    """
    fast_hypothesis()
    options = ["-qq", "-s", "--no-summary", "-p", "no:cacheprovider", "-m", "not cluster", "--timeout", str(TIMEOUT)]
    collected = Collected(job)
    status = pytest.main([*options, "--rootdir", str(root), *modules], plugins=[collected])
    if not collected.items:
        raise SystemExit(f"the tests cannot be collected: pytest ended with status {int(status)}")


def replace_code(file: Path, text: str, mutated: str) -> None:
    """Replace the code of all functions of a module that was imported.

    Args:
        file: of the module.
        text: as it was imported.
        mutated: what its functions do from now on.

    Raises:
        Unreplaceable: a function has other free variables now.
    """
    old, new = _functions(text, str(file)), _functions(mutated, str(file))
    code = {(was.co_qualname, was.co_firstlineno): new.get(key) for key, was in old.items()}
    for function in gc.get_objects():
        # Not isinstance: some objects of libraries are lazy, and would be imported by that.
        if type(function) is FunctionType and function.__code__.co_filename == str(file):
            made = code.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
            if made is None or made.co_freevars != function.__code__.co_freevars:
                raise Unreplaceable
            function.__code__ = made


def _functions(text: str, file: str) -> dict[tuple[str, int], CodeType]:
    """Return the code of each function by its name and its number among those of the same name."""
    found: dict[tuple[str, int], CodeType] = {}
    many: dict[str, int] = {}
    for code in _codes(compile(text, file, "exec")):
        many[code.co_qualname] = many.get(code.co_qualname, 0) + 1
        found[code.co_qualname, many[code.co_qualname]] = code
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)
