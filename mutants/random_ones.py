"""Mutations of the core at random: which of them no test notices."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants.points import Point, all_points, compiles
from mutants.reached import Reached, core_digest, core_texts
from mutants.trial import Clock, run_tests
from mutants.tree import Copy


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
    texts, found = core_texts(), {}
    for point in all_points(texts):
        found.setdefault((point.path, *point.shown(texts[point.path])), point)
    points = [(point, key) for key, point in found.items()]
    random.Random(seed).shuffle(points)  # noqa: S311  no secret
    good = ((point, key) for point, key in points if compiles(point.applied(texts[point.path])))
    return list(itertools.islice(good, number))


def load(file: Path) -> dict[tuple[str, str, str], Result]:
    """Return the results of earlier runs with the same core and the same tests."""
    digest, found = core_digest(), {}
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
    for point, key in chosen[share[0] :: share[1]]:
        if clock.over:
            return
        old = known.get(key)
        if old is not None and (old.noticed or old.whole or not heavy):
            continue
        path, before, after = key
        with copy.changed(path, point.applied(texts[path])):
            cpu, noticed = 0.0, ""
            cheap = reached.cheap(point) if old is None else []
            if cheap:
                files = sorted({test.partition("::")[0] for test in cheap})
                outcome = run_tests(copy.root, files, cheap)
                noticed, cpu = outcome.noticed, outcome.cpu
            if heavy and not noticed:
                outcome = run_tests(copy.root, reached.heavy(point))
                noticed, cpu = outcome.noticed, cpu + outcome.cpu
        result = Result(path, point.line, before, after, noticed, heavy, round(cpu, 1))
        tell(result)
        line = json.dumps({"digest": digest, **asdict(result)}) + "\n"
        with open(file, "ab", buffering=0) as out:
            out.write(line.encode())  # one write, so that workers may share the file
