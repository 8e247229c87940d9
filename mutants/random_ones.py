"""Mutations of the core at random: which of them no test notices."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants.collected import Collected, Unreplaceable, collect
from mutants.points import Point, all_points, compiles
from mutants.reached import Reached, core_digest, core_texts, test_modules
from mutants.tree import Copy
from mutants.trial import Aside, Clock, Outcome, enter


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one random mutation.

    Args:
        path: of the module.
        line: where the change is.
        before: that line.
        after: the line with the change.
        noticed: the first test that failed; empty if none did.
        whole: whether all tests ran that could notice it, and not only the cheap ones.
        cpu: seconds of CPU time.
    """

    path: str
    line: int
    before: str
    after: str
    noticed: str
    whole: bool
    cpu: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the change, as long as nobody edits its line."""
        return (self.path, self.before, self.after)


def chosen(seed: int, number: int) -> list[tuple[Point, tuple[str, str, str]]]:
    """Return so many changes, each with what identifies it. The same seed gives the same ones for the same core.

    Args:
        seed: any number.
        number: how many. A greater number adds further ones to the same.
    """
    texts = core_texts()
    found: dict[tuple[str, str, str], Point] = {}
    for point in all_points(texts):
        found.setdefault((point.path, *point.shown(texts[point.path])), point)
    points = [(point, key) for key, point in found.items()]
    random.Random(seed).shuffle(points)  # noqa: S311  no secret
    good = ((point, key) for point, key in points if compiles(point.applied(texts[point.path])))
    return list(itertools.islice(good, number))


def load(file: Path) -> dict[tuple[str, str, str], Result]:
    """Return the results of earlier runs with the same core and the same tests."""
    digest = core_digest()
    found: dict[tuple[str, str, str], Result] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        kept = json.loads(line)
        if kept.pop("digest") == digest or kept["noticed"]:
            result = Result(**kept)
            found[result.key] = result
    return found


def run(
    chosen: Sequence[tuple[Point, tuple[str, str, str]]],
    copy: Copy,
    reached: Reached,
    file: Path,
    tell: Callable[[Result], None],
    *,
    clock: Clock,
    share: tuple[int, int] = (0, 1),
    heavy: bool = True,
) -> None:
    """Try changes one after the other, and append each result to a file.

    Args:
        chosen: the changes.
        copy: of the tree.
        reached: which tests run which lines.
        file: of the results. What is in it already is not tried again.
        tell: takes each result.
        clock: no further change is tried when its time is over.
        share: the place of this worker, and how many there are.
        heavy: whether what no cheap test notices is tried with the others, too.
    """
    texts, known, digest = core_texts(), load(file), core_digest()
    mine = [(point, key, known.get(key)) for point, key in chosen[share[0] :: share[1]]]
    todo = [one for one in mine if one[2] is None or not (one[2].noticed or one[2].whole or not heavy)]

    def job(collected: Collected) -> None:
        for point, key, old in todo:
            if clock.over:
                return
            result = _try(point, key, old, collected)
            tell(result)
            line = json.dumps({"digest": digest, **asdict(result)}) + "\n"
            with open(file, "ab", buffering=0) as out:
                out.write(line.encode())  # one write, so that workers may share the file

    def _try(point: Point, key: tuple[str, str, str], old: Result | None, collected: Collected) -> Result:
        path, before, after = key
        mutated = point.applied(texts[path])
        cheap = reached.cheap(point) if old is None else []
        noticed, cpu = "", 0.0
        if cheap:
            outcome = _cheaply(point, mutated, cheap, collected)
            noticed, cpu = outcome.noticed, outcome.cpu
        if heavy and not noticed:
            with copy.changed(path, mutated):
                outcome = aside.run_tests(reached.heavy(point))
            noticed, cpu = outcome.noticed, cpu + outcome.cpu
        return Result(path, point.line, before, after, noticed, heavy, round(cpu, 1))

    def _cheaply(point: Point, mutated: str, tests: list[str], collected: Collected) -> Outcome:
        if point.function:
            try:
                return collected.try_mutant(copy.root / point.path, mutated, tests)
            except Unreplaceable:
                pass
        with copy.changed(point.path, mutated):
            return aside.run_tests(sorted({test.partition("::")[0] for test in tests}), tests)

    aside = Aside(copy.root)
    enter(copy.root)
    collect(copy.root, test_modules(), job)
