"""The clock by which grants end (I3)."""

from __future__ import annotations

import time

import pytest

from kopf_ha._context import CurrentTerm, boottime
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """A machine whose clocks say different things, as after a suspension, or when somebody has set the time."""
    now = {time.CLOCK_BOOTTIME: 5000.0, time.CLOCK_MONOTONIC: 100.0, time.CLOCK_REALTIME: 9.0}
    monkeypatch.setattr(time, "clock_gettime", now.__getitem__)
    monkeypatch.setattr(time, "monotonic", lambda: now[time.CLOCK_MONOTONIC])
    monkeypatch.setattr(time, "time", lambda: now[time.CLOCK_REALTIME])
    return now


def test_it_counts_the_time_for_which_the_machine_slept(clocks: dict[int, float]) -> None:
    """A Lease expires while its holder is suspended, so the holder's grant has to, too."""
    grant = Grant(Stamp(7, "me", "ns/op", "uid"), boottime() + 15)
    assert CurrentTerm(grant).remaining() == 15
    clocks[time.CLOCK_BOOTTIME] += 14  # of these the monotonic clock knows nothing
    assert CurrentTerm(grant).remaining() == 1
    clocks[time.CLOCK_BOOTTIME] += 1
    assert CurrentTerm(grant).remaining() == 0


def test_setting_the_time_lengthens_no_grant(clocks: dict[int, float]) -> None:
    grant = Grant(Stamp(7, "me", "ns/op", "uid"), boottime() + 15)
    clocks[time.CLOCK_REALTIME] -= 3600
    clocks[time.CLOCK_BOOTTIME] += 15
    assert CurrentTerm(grant).remaining() == 0
