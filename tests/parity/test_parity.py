"""I9: the same operator under `kopf run` and under `kopf-ha run`: each write's status, object and handler runs.

Somebody else writes each object right before the operator does.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import pytest

from tests.parity.shapes import CELLS, CLIENTS, SHAPES, Cell
from tests.parity.stage import Stage, alike

pytestmark = pytest.mark.load_sensitive


class Results(NamedTuple):
    """What came of all cells under one command."""

    statuses: dict[str, Any]
    objects: dict[str, Any]
    runs: Counter[tuple[str, str]]


@pytest.fixture(scope="module")
def results(plain: Stage, fenced: Stage) -> tuple[Results, Results]:
    """Without kopf-ha, and with it. One client after the other: no machine does all of it at once."""
    for client in CLIENTS:
        cells = [cell for cell in CELLS if cell.client == client]
        for stage in (plain, fenced):
            stage.make(cells)
        for stage in (plain, fenced):
            stage.until_written(cells)
    both = [Results(stage.written(), stage.until_quiet(), stage.runs()) for stage in (plain, fenced)]
    return both[0], both[1]


def objects_of(results: Results, cell: Cell) -> dict[str, Any]:
    """Give the cell's object and its children."""
    names = {f"{cell.plural}/{cell.name}"}
    if child := SHAPES[cell.shape].child:
        names |= {f"{child}/{cell.name}{end}" for end in ("", "-b", "-new")}
    return {name: alike(body) for name, body in results.objects.items() if name in names}


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_write_is_the_same_with_and_without(results: tuple[Results, Results], cell: Cell) -> None:
    without, fenced = results
    name = f"{cell.plural}/{cell.name}"
    assert fenced.statuses[name] == without.statuses[name]
    expected = ("ok", cell.status) if cell.status < 300 else (cell.status,)
    assert without.statuses[name] in expected, "the suite asks for something else than it means"
    assert objects_of(fenced, cell) == objects_of(without, cell)
    runs = [{ran: n for (which, ran), n in one.runs.items() if which == name} for one in (fenced, without)]
    assert runs[0] == runs[1]
