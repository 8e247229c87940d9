"""The cheapest rows of the fault matrix that no other test has: the promises hold, and service comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster import Binaries
from faults.__main__ import chosen, replay_of
from faults.runner import BROKEN, FAILED, Runner
from faults.stand import Stand
from faults.table import Fault

#: Seconds. What a busy machine makes of so short a Lease is only more takeovers.
LEASE = 3


@pytest.fixture(scope="module")
def stand(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with Stand(binaries, tmp_path_factory.mktemp("faults"), LEASE) as made:
        yield made


@pytest.mark.timeout(600)
def test_the_cheapest(stand: Stand) -> None:
    """All of them one after the other, since they share a cluster."""
    said: list[str] = []
    outcomes = [Runner(stand, said.append).once(fault) for fault in chosen([], quick=True)]
    wrong = {one.fault.name: (one.verdict, one.notes) for one in outcomes if one.verdict in (BROKEN, FAILED)}
    assert wrong == {}
    late = next(one for one in outcomes if one.fault.name.startswith("a write held"))
    assert late.takeovers >= 1
    assert late.refused, "the write that came after the takeover is in nobody's log"
    assert replay_of(stand)[-1].endswith("all as the core would have it")


def test_a_judge_that_finds_something_fails_the_row(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand, "findings", lambda: ["I5: an address was given twice"])
    one = Runner(stand, lambda _: None).once(Fault("nothing", lambda _: None, hold=0.0))
    assert (one.verdict, one.ok) == (BROKEN, False)
