"""I3, I8: the same writes by a leader that is stale: each is refused, and no object changes.

The object has the stamp of a later term when the write arrives, in its metadata or in its status, while the Lease names
this term still. Or the leader was paused in the middle of all writes, and another replica leads when it goes on.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from devcluster.waiting import until
from kopf_ha.core.token import Stamp
from testbed.replica import PATIENCE, Replica
from tests.parity.shapes import CELLS, CLIENTS, SHAPES, Cell
from tests.parity.stage import NOT_THE_WRITES, RIVAL, Stage, alike

pytestmark = pytest.mark.load_sensitive

LATER_TOKEN = 1_000_000
LATER = Stamp(LATER_TOKEN, RIVAL, "", "u")
#: A stamp in metadata ends no term, so all of these are refused one by one. A creation has no stamp to meet.
STAMPED = [
    cell
    for cell in CELLS
    if (cell.plural == "looses" or SHAPES[cell.shape].child)
    and not SHAPES[cell.shape].new
    and cell.status not in (404, 422)
    and cell.shape != "child: create over an object"
]
#: A client that blocks would block the loop here, and all others with it.
PAUSED = [cell for cell in CELLS if cell.place != "async" or CLIENTS[cell.client] or cell.client == "kopf"]
#: A stamp in the status ends the term, whoever finds it first. To a write that it never accepts, the API server's own
#: answer may come before.
OVERTAKEN = [cell for cell in PAUSED if cell.plural == "cells" and not SHAPES[cell.shape].child and cell.status != 422]


def target(cell: Cell, prefix: str) -> str:
    write = SHAPES[cell.shape].write(cell.plural, prefix + cell.name)
    return f"{write.plural}/{write.name}"


@pytest.fixture(scope="module")
def stamped(fenced: Stage) -> tuple[Stage, dict[str, Any], dict[str, Any]]:
    """What the leader saw, and all objects, after each was stamped right before it was written."""
    fenced.token = LATER_TOKEN
    try:
        for client in CLIENTS:
            cells = [cell for cell in STAMPED if cell.client == client]
            fenced.make(cells, "stamped-")
            fenced.until_written(cells, "stamped-")
        objects = fenced.until_quiet()
    finally:
        fenced.token = 0
    return fenced, fenced.written("stamped-"), objects


@pytest.mark.parametrize("cell", STAMPED, ids=str)
def test_a_write_to_what_a_later_term_wrote(stamped: tuple[Stage, dict[str, Any], dict[str, Any]], cell: Cell) -> None:
    stage, seen, objects = stamped
    name = target(cell, "stamped-")
    if cell.client != "kopf":
        shown = str(seen[f"{cell.plural}/stamped-{cell.name}"])
        assert re.match(f"Unfenced: .* records token {LATER_TOKEN} of ({LATER.holder}|{LATER.digest}),", shown), shown
    # A Deployment's controller may write its status meanwhile.
    version = "generation" if name.startswith("deployments/") else "resourceVersion"
    assert objects[name]["metadata"][version] == stage.before[name]["metadata"][version]


def under_way(stage: Stage, cells: list[Cell], prefix: str) -> Replica:
    """Pause the leader when it is about to make these writes. What other handlers run from here on does nothing."""
    stage.go.clear()
    stage.make(cells, prefix)
    waiting = {target(cell, prefix) for cell in cells if not SHAPES[cell.shape].new}
    leader = stage.leader()
    until("all writes to be under way", lambda: waiting <= stage.before.keys(), PATIENCE, watched=[leader])
    stage.idle_path.touch()
    leader.pause()
    return leader


@pytest.fixture(scope="module")
def overtaken(fenced: Stage) -> tuple[Stage, dict[str, Any], dict[str, Any]]:
    """What the leader saw, and all objects, after a later term had stamped each of them in the middle of all writes."""
    leader = under_way(fenced, OVERTAKEN, "overtaken-")
    for cell in OVERTAKEN:
        fenced.stamp(cell.plural, f"overtaken-{cell.name}", LATER_TOKEN)
    fenced.go.set()
    leader.resume()
    seen, objects = fenced.until_written(OVERTAKEN, "overtaken-"), fenced.until_quiet()
    fenced.idle_path.unlink()
    return fenced, seen, objects


@pytest.mark.parametrize("cell", OVERTAKEN, ids=str)
def test_a_write_to_what_a_later_term_has_just_stamped(
    overtaken: tuple[Stage, dict[str, Any], dict[str, Any]], cell: Cell
) -> None:
    is_refused(*overtaken, cell, "overtaken-", "GateClosed|StaleLeader|FloorLost|CancelledError")


@pytest.fixture(scope="module")
def paused(fenced: Stage) -> tuple[Stage, dict[str, Any], dict[str, Any]]:
    """What the leader saw, and all objects, after it was paused in the middle of all writes and another one led."""
    old = under_way(fenced, PAUSED, "paused-")
    # its Lease expires; to empty it would be another story, since the old grant is valid for a while then
    until("another replica to lead", lambda: fenced.leader() is not old and fenced.lease()["holderIdentity"], PATIENCE)
    fenced.go.set()
    old.resume()
    seen = fenced.until_written(PAUSED, "paused-")
    return fenced, seen, fenced.until_quiet()


@pytest.mark.parametrize("cell", PAUSED, ids=str)
def test_a_write_of_a_leader_that_was_paused(paused: tuple[Stage, dict[str, Any], dict[str, Any]], cell: Cell) -> None:
    is_refused(*paused, cell, "paused-", "GateClosed|StaleLeader|CancelledError")


def is_refused(
    stage: Stage, seen: dict[str, Any], objects: dict[str, Any], cell: Cell, prefix: str, errors: str
) -> None:
    """Assert that a write was refused with one of these errors, and that its object is as it was."""
    name = target(cell, prefix)
    if cell.client != "kopf":
        shown = str(seen[f"{cell.plural}/{prefix}{cell.name}"])
        assert re.match(f"({errors}): ", shown), shown
    before = stage.before.get(name)
    after = objects.get(name)
    assert (after is None) == (before is None)
    assert alike(after, NOT_THE_WRITES) == alike(before, NOT_THE_WRITES)
