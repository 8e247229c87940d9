"""I3, I8: the same writes by a leader that is stale: each is refused, and no object changes.

Either the object has the stamp of a later term when the write arrives, or the leader was paused in the middle of all
writes, and another replica leads when it goes on.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from devcluster.waiting import until
from testbed.replica import PATIENCE
from tests.parity.shapes import CELLS, CLIENTS, SHAPES, Cell
from tests.parity.stage import NOT_THE_WRITES, Stage, alike

pytestmark = [pytest.mark.load_sensitive, pytest.mark.timeout(300)]

LATER_TOKEN = 1_000_000
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
        assert re.match(f"Unfenced: .* records token {LATER_TOKEN} of other_u_1", shown), shown
    assert objects[name]["metadata"]["resourceVersion"] == stage.before[name]["metadata"]["resourceVersion"]


@pytest.fixture(scope="module")
def paused(fenced: Stage) -> tuple[Stage, dict[str, Any], dict[str, Any]]:
    """What the leader saw, and all objects, after it was paused in the middle of all writes and another one led."""
    fenced.go.clear()
    fenced.make(PAUSED, "paused-")
    waiting = {target(cell, "paused-") for cell in PAUSED if not SHAPES[cell.shape].new}
    old = fenced.leader()
    until("all writes to be under way", lambda: waiting <= fenced.before.keys(), PATIENCE, watched=[old])
    fenced.idle_path.touch()
    old.pause()
    # its Lease expires; to empty it would be another story, since the old grant is valid for a while then
    until("another replica to lead", lambda: fenced.leader() is not old and fenced.lease()["holderIdentity"], PATIENCE)
    fenced.go.set()
    old.resume()
    seen = fenced.until_written(PAUSED, "paused-")
    return fenced, seen, fenced.until_quiet()


@pytest.mark.parametrize("cell", PAUSED, ids=str)
def test_a_write_of_a_leader_that_was_paused(paused: tuple[Stage, dict[str, Any], dict[str, Any]], cell: Cell) -> None:
    stage, seen, objects = paused
    name = target(cell, "paused-")
    if cell.client != "kopf":
        shown = str(seen[f"{cell.plural}/paused-{cell.name}"])
        assert re.match("(GateClosed|StaleLeader|CancelledError): ", shown), shown
    before = stage.before.get(name)
    after = objects.get(name)
    assert (after is None) == (before is None)
    assert alike(after, NOT_THE_WRITES) == alike(before, NOT_THE_WRITES)
