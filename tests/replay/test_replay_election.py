"""The election's steps are written down by the driver that ships, and the core does the same again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kopf_ha.core.election import Phase
from kopf_ha.core.election import events as el
from kopf_ha.trace import Trace
from kopf_ha.trace.steps import as_json, event_of
from tests.election.world import FakeLease
from tests.replay.traced import Elected, alter, differences, numbers


@pytest.fixture
def led(begin: Callable[[], Trace]) -> Elected:
    """A process that led, lost the Lease to an edit, and led again."""
    lease = FakeLease()
    me = Elected(lease, begin())
    me.take(el.LeaseSeen(None, read=True))
    assert me.driver.state.phase is Phase.LEADING
    me.take(el.Tick(me.now), 2.0)
    lease.edit(labels={"secret-label": "x"}, holderIdentity="other", leaseTransitions=7)
    me.take(el.Tick(me.now), 2.0)
    assert me.driver.state.phase is Phase.LOST
    me.take(el.Resume(), 1.0)
    lease.edit(holderIdentity="")
    me.take(me.client.read(1.0), 1.0)
    assert [grant.stamp.token for grant in me.grants] == [1, 8]
    me.take(el.Resume())  # cannot come while it leads
    return me


def test_the_core_takes_the_same_steps_again(led: Elected, file: Path) -> None:
    assert len(numbers(file, "step")) >= 9
    assert '"actions":null' in file.read_text()  # the event that could not come
    assert differences(file) == []


def test_a_term_that_recovered_does_so_again(begin: Callable[[], Trace], file: Path) -> None:
    me = Elected(FakeLease(), begin())
    me.take(el.LeaseSeen(None, read=True))
    me.take(el.Tick(me.now + 12.0), 12.0)
    assert (me.driver.state.phase, bool(me.grants[0].held)) == (Phase.RECOVERING, True)
    me.take(el.Tick(me.now))
    assert (me.driver.state.phase, me.grants[0].held) == (Phase.LEADING, "")
    assert '"is":"Reopen"' in file.read_text()
    assert differences(file) == []


def test_labels_of_the_lease_are_not_written(led: Elected, file: Path) -> None:
    assert "secret-label" not in file.read_text()


CHANGES: dict[str, Callable[[Any], None]] = {
    "another action": lambda data: data["actions"].reverse(),
    "no action": lambda data: data.update(actions=[]),
    "a higher token": lambda data: data["event"]["record"].update(transitions=99),
    "no event of the election": lambda data: data["event"].update({"is": "Put"}),
    "a word that there is not": lambda data: data["event"].update(more=1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_line_that_says_something_else_is_noticed(led: Elected, file: Path, change: Callable[[Any], None]) -> None:
    answered = numbers(file, "step")[1]  # the first term begins
    alter(file, answered, change)
    found = differences(file)
    assert len(found) == 1
    assert str(found[0]).startswith(f"{file}:")
    # A time is noticed at the step itself, or at the next one that depends on it.
    assert int(found[0].where.rpartition(":")[2]) >= answered
    assert " of the election" in found[0].sentence


def test_another_time_is_noticed(led: Elected, file: Path) -> None:
    alter(file, 2, lambda data: data.update(now=data["now"] - 20))
    assert "step 1 of the election, LeaseSeen while following" in differences(file)[0].sentence


def test_a_step_that_is_missing_is_noticed(led: Elected, file: Path) -> None:
    lines = file.read_text().splitlines()
    del lines[numbers(file, "step")[1] - 1]
    file.write_text("\n".join(lines) + "\n")
    (found,) = differences(file)
    assert found.where == f"{file}:{numbers(file, 'step')[1]}"
    assert "while acquiring" in found.sentence


EVENTS: list[el.Event] = [
    el.Tick(),
    el.Tick(3.25),
    el.ReadFailed("no answer"),
    el.LeaseUnusable("no number", "7", read=True),
    el.RaiseFloor(9),
    el.HolderGone("pod-1_u_r"),
    el.HeadStart(1.5),
    el.StepDown("asked"),
    el.Failed("timeout"),
    el.LegacyFailed("403"),
    el.Release(),
    el.Stop(),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_read_as_they_were_written(event: el.Event) -> None:
    assert event_of(as_json(event)) == event
