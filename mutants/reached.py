"""Which test runs which line of the core, so that a mutant needs only the tests that can notice it."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Generator, Sequence
from functools import cache, partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from mutants.points import Point
from mutants.tree import ROOT, Copy
from mutants.trial import fast_hypothesis, in_process, in_workers

#: The folder whose code is changed at random.
CORE = "operator/kopf_ha/core"
#: The tests that cover it without a control plane; those that are cheap.
FOLDERS = ("tests/core", "tests/election", "tests/model")
#: Modules of other folders that are about parts of the core.
MODULES = (
    "tests/fuzz/test_fuzz_core.py",
    "tests/oncall/test_history_units.py",
    "tests/oncall/test_oncall_orders.py",
    "tests/run/test_barrier_units.py",
    "tests/run/test_observe.py",
)
#: Tests that run much of the core for many examples or states. They come last, and are not traced.
HEAVY = ("tests/core/test_election_properties.py", "tests/core/test_fence_properties.py", "tests/model")
#: What concerns one half of the core only.
HALVES = {"tests/core/test_election_properties.py": True, "tests/core/test_fence_properties.py": False}


def core_texts() -> dict[str, str]:
    """Return the text of each module of the core, by its path from the root."""
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / CORE).rglob("*.py"))}


def core_digest(module: str = "") -> str:
    """Return what changes whenever the core or its tests do.

    Args:
        module: the only test module that matters, beside what all of them share; empty for all.
    """
    files = [file for folder in (CORE, *FOLDERS) for file in sorted((ROOT / folder).rglob("*.py"))]
    files += [ROOT / name for name in MODULES]
    if module:
        files = [file for file in files if not file.name.startswith("test_") or file == ROOT / module]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


class Reached:
    """Which cheap test runs which line.

    Args:
        tests: the seconds that each test takes.
        lines: ``path:line`` → the tests that run it.
    """

    def __init__(self, tests: dict[str, float], lines: dict[str, list[str]]) -> None:
        self._tests = tests
        self._lines = lines

    @classmethod
    def load(cls, copies: Sequence[Copy], folder: Path) -> Reached:
        """Read it from a folder; or run all cheap tests, which takes some minutes, and write it there.

        Args:
            copies: of the tree; so many test modules run at once.
            folder: where it is kept, a file for each test module. Only what was changed is run again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        modules = {name: folder / f"{name.replace('/', '.')}.{core_digest(name)}.json" for name in test_modules()}

        def work(i: int) -> None:
            for module, file in list(modules.items())[i :: len(copies)]:
                if not file.exists():
                    outcome = in_process(copies[i].root, partial(_trace, module, file))
                    if outcome.noticed:
                        raise SystemExit(f"{module} fails without any mutation: {outcome.noticed}")

        in_workers(len(copies), work)
        tests: dict[str, float] = {}
        lines: dict[str, list[str]] = {}
        for file in modules.values():
            found = json.loads(file.read_text())
            tests |= found["tests"]
            for key, names in found["lines"].items():
                lines.setdefault(key, []).extend(names)
        return cls(tests, lines)

    def cheap(self, point: Point) -> list[str]:
        """Return the cheap tests that run a change, the quickest first."""
        keys = [f"{point.path}:{line}" for line in range(point.line, point.last + 1)]
        found = {test for key in keys for test in self._lines.get(key, ())}
        if not found and not point.function:
            found = set(self._tests)  # importing the module runs it
        return sorted(found, key=lambda test: self._tests[test])

    def heavy(self, point: Point) -> list[str]:
        """Return the folders and files of the other tests that may run it."""
        election = "/election/" in point.path or point.path.endswith(("/lease.py", "/legacy_lock.py"))
        return [name for name in HEAVY if HALVES.get(name, election) is election]


def test_modules() -> list[str]:
    """Return the modules of the cheap tests, from the root."""
    found = (file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("test_*.py")))
    names = [*(str(file.relative_to(ROOT)) for file in found), *MODULES]
    return [name for name in names if not name.startswith(HEAVY)]


class _Tracer:
    """A plugin for pytest that notes which lines of the core each test runs."""

    def __init__(self) -> None:
        self.tests: dict[str, float] = {}
        self.lines: dict[str, list[str]] = {}
        self._paths: dict[CodeType, str] = {}  # of all code that was called; empty for what is not of the core
        self._left: dict[CodeType, set[int]] = {}  # lines that this test has not run yet

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Trace one test, with its fixtures."""
        self._left = {}
        began = time.process_time()
        threading.settrace(self._calls)
        sys.settrace(self._calls)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.tests[item.nodeid] = round(time.process_time() - began, 3)
            for code, left in list(self._left.items()):
                for line in _lines_of(code) - left:
                    self.lines.setdefault(f"{self._paths[code]}:{line}", []).append(item.nodeid)

    def _calls(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        path = self._paths.get(code)
        if path is None:
            file = code.co_filename
            path = self._paths[code] = CORE + file.rpartition(f"/{CORE}")[2] if f"/{CORE}/" in file else ""
        if not path:
            return None
        left = self._left.get(code)
        if left is None:
            left = self._left[code] = set(_lines_of(code)) - {frame.f_lineno}
        if not left:
            return None

        def lines(frame: FrameType, event: str, arg: Any) -> Any:
            left.discard(frame.f_lineno)
            return lines

        return lines


@cache
def _lines_of(code: CodeType) -> frozenset[int]:
    return frozenset(line for _, _, line in code.co_lines() if line)


def _trace(module: str, file: Path) -> dict[str, Any]:
    fast_hypothesis()
    tracer = _Tracer()
    options: Sequence[str] = ["-q", "-p", "no:cacheprovider", "-m", "not cluster", "--timeout=600"]
    status = pytest.main([*options, module], plugins=[tracer])
    if status in (0, 5):  # 5: there are only tests with a control plane in it
        file.write_text(json.dumps({"tests": tracer.tests, "lines": tracer.lines}))
    return {
        "noticed": "" if status in (0, 5) else f"pytest ended with status {int(status)}",
        "tests": len(tracer.tests),
    }
