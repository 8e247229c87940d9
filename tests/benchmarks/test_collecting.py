"""One run of all benchmarks: how its time is divided, and what becomes of one that fails."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence

import pytest

from benchmarks import waiting
from benchmarks.collect import BENCHMARKS, Benchmark, affordable, beside_go, collect, in_a_process, main, merged
from benchmarks.one import OWN
from benchmarks.report import Outcome
from benchmarks.result import Row, rows_of
from devcluster import ControlPlane

SHORT, LONG = Benchmark("short", 1, 10), Benchmark("long", 3, 30)
NODES = [Benchmark("failover", 1, 10, "nodes"), Benchmark("rollout", 1, 10, "nodes")]


class Machine:
    """A clock, and runs that take what they may."""

    def __init__(self) -> None:
        self.now, self.runs = 0.0, [["nothing"]]
        self.runs.clear()

    def run(self, group: Sequence[tuple[Benchmark, float]]) -> list[Outcome]:
        self.runs.append([f"{one.name} {seconds:.0f}" for one, seconds in group])
        self.now += sum(seconds for _, seconds in group)
        return [Outcome(one.name, "failed" if one is LONG else "done", "broken" * (one is LONG)) for one, _ in group]

    def collect(self, wanted: Sequence[Benchmark], seconds: float) -> list[Outcome]:
        return collect(wanted, seconds, self.run, lambda _: None, lambda: self.now)


def test_the_time_is_divided_by_weight_above_what_each_needs() -> None:
    machine = Machine()
    machine.collect([SHORT, LONG], 80)
    assert machine.runs == [["short 20"], ["long 60"]]
    assert machine.now == 80


def test_one_that_fails_is_noted_and_the_rest_goes_on() -> None:
    outcomes = Machine().collect([LONG, SHORT], 80)
    assert [(one.name, one.state) for one in outcomes] == [("long", "failed"), ("short", "done")]


def test_what_does_not_fit_is_left_out_with_its_reason() -> None:
    outcomes = Machine().collect([SHORT, LONG, *NODES[:1]], 25)
    assert [(one.name, one.state) for one in outcomes] == [
        ("long", "left out"),
        ("short", "done"),
        ("failover", "done"),
    ]
    assert "30 s" in outcomes[0].reason


def test_those_that_need_nodes_share_a_cluster() -> None:
    machine = Machine()
    machine.collect([SHORT, *NODES], 30)
    assert machine.runs == [["short 10"], ["failover 10", "rollout 10"]]


def test_a_part_replaces_what_was_measured_of_it_before() -> None:
    old = [Outcome("takeover", "done", seconds=1), Outcome("service", "done", seconds=1)]
    new = [Outcome("takeover", "done", seconds=2), Outcome("service", "left out"), Outcome("peers", "left out")]
    assert [(one.name, one.state, one.seconds) for one in merged(old, new)] == [
        ("service", "done", 1),
        ("takeover", "done", 2),
        ("peers", "left out", 0),
    ]


def test_first_service_stands_beside_a_go_controller_of_the_same_size() -> None:
    few = Row("first creation served after the Lease, 1000 claims", "s", [2.0], "100 claims", [1.0], ["median <= 1"])
    service = Outcome("service", "done", rows=[few, Row("memory of the leader, 1000 claims", "MB", [90.0])])
    go = Row("first new object, 1000 objects", "s", [0.5], "100 objects", [0.1], subject="go")
    other = Row("first new object, 10000 objects", "s", [5.0], "100 objects", [0.1], subject="go")
    once = beside_go([service, Outcome("controller", "done", rows=[other, go])])
    assert once[0].rows[:2] == service.rows
    (added,) = once[0].rows[2:]
    assert (added.what, added.values, added.ratio) == (few.what, few.values, 4.0)
    assert beside_go(once) == once


def test_a_process_that_fails_is_an_outcome() -> None:
    (outcome,) = in_a_process([(Benchmark("no_such_benchmark", 1, 1, "none"), 1.0)])
    assert outcome.state == "failed"
    assert "no_such_benchmark" in outcome.reason


def test_rows_with_an_empty_peer_are_rows() -> None:
    (row,) = rows_of([{"what": "its release: stamped", "unit": "ms", "values": [1.0], "peer": "", "peer_values": []}])
    assert (row.what, row.peer, row.values) == ("its release: stamped", "", [1.0])


def test_a_full_pool_has_a_goal() -> None:
    took = [{"served": seconds, "cpu": 0.0, "requests": 1.0} for seconds in (0.002, 0.001)]
    taken = [{"busy": 1.0, "cpu": 1.0, "writes": 0.0}] * 2
    row = rows_of(waiting.rows_of(5000, [[one] for one in took], taken))[0]
    assert (row.what, row.peer) == ("5000 wait: until the next claim is Ready", "5 wait")
    assert (row.goals, row.ratio) == (["ratio <= 1.25"], 0.5)


def test_an_unknown_name_is_an_error_that_says_which_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["collect", "servce"])
    with pytest.raises(SystemExit):
        main()
    assert "servce; there are service, " in capsys.readouterr().err


def test_a_run_of_five_minutes_has_what_matters_most() -> None:
    """Nodes take a minute to start, and their benchmarks several; a shorter Lease has to be waited for."""
    left_out = {"asked", "policies", "cpu", "lease", "start", "failover", "rollout", "term", "term_lag", "outage"}
    assert {one.name for one in affordable(BENCHMARKS, 300)} == {one.name for one in BENCHMARKS} - left_out
    assert affordable(BENCHMARKS, 2400) == list(BENCHMARKS)


@pytest.mark.parametrize("name", [one.name for one in BENCHMARKS])
def test_each_benchmark_can_be_called(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    signature = inspect.signature(module.run)
    if name in OWN:
        signature.bind(**OWN[name](1.0))
    else:
        signature.bind(None, None, 1.0)
    inspect.signature(ControlPlane).bind(**getattr(module, "PLANE", {}))
