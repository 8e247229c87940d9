"""The runner's steps in orders that a real cluster rarely gives; the elector is a stand-in."""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from kopf_ha.adapters import Outcome
from kopf_ha.core.fence import Fence
from kopf_ha.core.gate import Gate
from kopf_ha.core.grant import Grant
from kopf_ha.core.orders import ByChoice
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import ConfigurationError, Denied, FloorLost, GateClosed, NoTerm, StaleLeader
from kopf_ha.run.arguments import options_for
from kopf_ha.run.build import build
from kopf_ha.run.ending import EXIT_LOST, EXIT_STUCK
from kopf_ha.run.inbox import Ended, Held, Inbox, Ordered, Quit, Reopened, Started, Stopped
from kopf_ha.run.journal import Journal
from kopf_ha.run.metrics import ENDS
from kopf_ha.run.runner import Runner
from kopf_ha.run.term import Term
from kopf_ha.run.unknown import PATIENCE
from kopf_ha.settings import Settings
from tests.run.support import make_runner


class Elector:
    """Keeps what it was told, in order."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.told: list[Any] = []
        self.state, self.last_error, self.pause = "following", "", None
        self.released = threading.Event()
        self.taken = None

    def tell_end(self, text: str) -> None:
        """For people, and in no order with the rest."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*args: Any, **more: Any) -> None:
            self.told.append(
                (name, *(a for a in args if isinstance(a, int | str) and name != "release"), *more.values())
            )

        return tell


class Stub(Term):
    """A term without a thread. Once its handlers have ended, it keeps what the elector was told until then."""

    stuck = False
    elector: Elector

    def start(self) -> None:
        self.told: list[Any] = ["start"]

    def stop(self, patience: float = 0.0) -> None:
        self.told.append(("stop", patience, bool(self.grant.closed)))

    def join(self, timeout: float) -> bool:
        self.told.append("join")
        self.until_drained = list(self.elector.told)
        return not self.stuck


class Exit(Exception):
    pass


@pytest.fixture
def timers() -> list[tuple[float, Callable[[], None]]]:
    return []


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, timers: Any, now: list[float]) -> Callable[..., Runner]:
    def exit_(status: int) -> None:
        raise Exit(status)

    monkeypatch.setattr(os, "_exit", exit_)
    monkeypatch.setattr("kopf_ha.run.ending.later", lambda seconds, fn: None)  # would end the tests' process
    monkeypatch.setattr("logging.shutdown", lambda: None)
    monkeypatch.setattr("kopf_ha.run.journal.Events", MagicMock())

    def runner(**given: Any) -> Runner:
        settings = Settings(**{"after_loss": "follow", **given})
        inbox: Inbox = queue.SimpleQueue()
        elector = Elector()

        def make_term(grant: Grant) -> Stub:
            made = Stub(grant, options_for(None, (), True), MagicMock(), MagicMock(), MagicMock())
            made.elector = elector
            return made

        return Runner(
            settings=settings,
            inbox=inbox,
            elector=elector,  # type: ignore[arg-type]
            fence=Fence(settings.lease),
            journal=Journal(settings, MagicMock()),
            enforcement=MagicMock(),
            make_term=make_term,
            pods=MagicMock(),
            run_lock=MagicMock(),
            everywhere=MagicMock(),
            later=lambda seconds, fn: timers.append((seconds, fn)),
            clock=lambda: now[0],
        )

    return runner


def grant(token: int) -> Grant:
    return Grant(Stamp(token, "me", "ns/op", "uid"), deadline=1e9)


def lose(runner: Runner, one: Grant, cause: str = "lost") -> int | None:
    one.close(cause)
    return runner.step(Stopped(one, cause))


def told(runner: Runner) -> list[Any]:
    return runner.elector.told  # type: ignore[attr-defined, no-any-return]


def refusal(runner: Runner, one: Grant | None, error: Any) -> None:
    runner.on_outcome(Outcome("pykube", Request("PATCH", "/x"), one, error))


def test_each_refusal_after_the_first_names_the_cause_once(make: Any, now: list[float]) -> None:
    runner, one = make(), Grant(Stamp(7, "me", "ns/op", "uid"), deadline=now[0] - 1)
    runner.step(Started(one))
    said = []
    for name in "abc":
        gate = Gate(Request("PATCH", f"/{name}"), name, one, lambda: now[0])
        with pytest.raises(GateClosed) as refused:
            next(gate.check())
        refusal(runner, one, refused.value)
        said.append(str(refused.value))
    assert said == [f"PATCH {name}: term 7 is over (its lease ran out on this machine)" for name in "abc"]
    assert one.closed == "its lease ran out on this machine"
    assert told(runner) == [("step_down", one.closed, one)]


def test_a_lost_term_is_drained_before_the_election_goes_on(make: Any, now: list[float]) -> None:
    runner, one = make(), grant(7)
    runner.step(Started(one))
    term = runner.term
    now[0] += 60
    assert lose(runner, one) is None
    # No patience: its handlers can write nothing more.
    assert term.told == ["start", ("stop", 0.0, True), "join"]
    # Before that, two terms of this process could write at once.
    assert term.until_drained == []
    assert told(runner) == [("resume",)]
    # Its thread's end comes when the term is over already.
    assert runner.step(Ended(term, GateClosed("x"))) is None
    assert told(runner) == [("resume",)]


@pytest.mark.parametrize("ends", ["lost", "asked to stop"])
def test_a_term_that_is_drained_lets_nothing_wait_at_its_gate(make: Any, ends: str) -> None:
    """A handler that waits for an outage to end would be waited for until the process is killed."""
    runner = make()
    one = Grant(Stamp(7, "me", "ns/op", "uid"), deadline=1e9, recovers=1e9)
    runner.step(Started(one))
    one.hold("not renewed")
    assert one.may_reopen(0.0)
    waits: list[bool] = []
    join = runner.term.join

    def drained(timeout: float) -> bool:
        waits.append(one.may_reopen(0.0))
        return bool(join(timeout))

    runner.term.join = drained
    lose(runner, one) if ends == "lost" else runner.step(Quit("SIGTERM"))
    assert waits == [False]


def test_an_outage_that_a_term_survives_is_reported_and_ends_nothing(make: Any) -> None:
    runner, one = make(), grant(7)
    value = runner.journal.metrics.registry.get_sample_value
    runner.journal.watch(MagicMock(grant=one))
    runner.step(Started(one))
    for outcome, end in (("recovered", Reopened(one)), ("lost", Stopped(one, "held by b"))):
        one.hold("not renewed")
        assert runner.step(Held(one, "not renewed")) is None
        assert value("kopf_ha_held") == 1
        if outcome == "recovered":
            one.reopen(2e9)
        else:
            one.close("held by b")
        assert runner.step(end) is None
        assert value("kopf_ha_held") == 0
        assert value("kopf_ha_recoveries_total", {"outcome": outcome}) == 1
    posted = [call.args[1] for call in runner.journal.events.post.call_args_list]
    assert posted.count("Recovered") >= 1
    assert runner.term is None


def test_news_of_an_older_term_do_not_touch_the_present_one(make: Any) -> None:
    runner, old, new = make(), grant(7), grant(9)
    runner.step(Started(old))
    old_term = runner.term
    lose(runner, old)
    runner.step(Started(new))
    present = runner.term
    runner.step(Stopped(old, "late news"))
    runner.step(Ended(old_term, RuntimeError("late news")))
    refusal(runner, old, GateClosed("late write"))
    assert runner.term is present
    assert present.told == ["start"]
    assert not new.closed
    assert not [t for t in told(runner) if t[0] == "step_down"]


def test_a_term_that_fails_steps_down_once(make: Any) -> None:
    runner, one = make(), grant(7)
    runner.step(Started(one))
    runner.step(Ended(runner.term, ConfigurationError("no such kind")))
    assert told(runner) == [("step_down", "the term failed: ConfigurationError: no such kind", one)]
    one.close("step down")  # as the elector does before it returns
    runner.step(Ended(runner.term, RuntimeError("Kopf stopped by itself")))
    assert len(told(runner)) == 1


def test_short_terms_are_further_and_further_apart(make: Any, timers: Any, now: list[float]) -> None:
    """I7: and a term that lived longer than a lease duration ends the row."""
    runner = make()
    for token in range(1, 12):
        one = grant(token)
        runner.step(Started(one))
        now[0] += 1
        lose(runner, one)
    waits = [seconds for seconds, _ in timers]
    assert len(waits) == 11
    assert 0.8 <= waits[0] <= 1.2
    assert all(later > sooner for sooner, later in itertools.pairwise(waits[:5]))
    assert all(seconds <= 60 * 1.2 for seconds in waits)
    assert ("resume",) not in told(runner)
    timers[-1][1]()
    assert told(runner) == [("resume",)]
    one = grant(50)
    runner.step(Started(one))
    now[0] += runner.settings.lease_duration
    lose(runner, one)
    assert told(runner) == [("resume",)] * 2
    assert runner.failures == 0


def test_asked_to_stop_while_it_waits_after_failures(make: Any, timers: Any) -> None:
    runner, one = make(), grant(7)
    runner.step(Started(one))
    lose(runner, one)
    assert runner.step(Quit("SIGTERM")) == 0
    assert told(runner) == [("release",)]


def test_stopping_by_choice_closes_the_gate_after_the_drain(make: Any) -> None:
    runner, one = make(drain_timeout=10), grant(7)
    runner.step(Started(one))
    term = runner.term
    assert runner.step(Quit("SIGTERM")) == 0
    assert term.told == ["start", ("stop", 8.0, False), "join"]
    assert term.until_drained == []  # the Lease is renewed until then, and nobody else leads
    assert one.closed
    assert told(runner) == [("release",)]


def test_asked_to_stop_while_it_is_busy_it_is_unready_at_once(make: Any) -> None:
    runner = make()
    assert not runner.vitals().stopping
    runner.quit("SIGTERM")
    runner.quit("Pod deleted")
    assert runner.vitals().stopping == "SIGTERM"


def test_asked_to_stop_before_the_new_term_began(make: Any) -> None:
    """The grant is in the inbox behind the signal; releasing closes it."""
    runner = make()
    assert runner.step(Quit("SIGTERM")) == 0
    assert told(runner) == [("release",)]
    assert runner.term is None


@pytest.mark.parametrize("event", ["lost", "quit"])
def test_handlers_that_outlive_the_drain_end_the_process(make: Any, event: str) -> None:
    runner, one = make(), grant(7)
    runner.step(Started(one))
    runner.term.stuck = True
    with pytest.raises(Exit, match=str(EXIT_STUCK)):
        _ = lose(runner, one) if event == "lost" else runner.step(Quit("SIGTERM"))
    assert one.closed
    assert not [t for t in told(runner) if t[0] in ("release", "resume")]


def test_after_loss_exit_only_after_code_of_the_operator_ran(make: Any) -> None:
    runner, one, two = make(after_loss="exit"), grant(7), grant(8)
    runner.step(Started(one))
    assert lose(runner, one) is None
    runner.step(Started(two))
    runner.term.kopf_ran = True
    assert lose(runner, two) == EXIT_LOST
    # Given back if it is still this process's, so that nobody waits for it to expire.
    assert told(runner)[-1] == ("release",)


def test_lost_floor_raises_at_once_the_first_time(make: Any, timers: Any) -> None:
    runner, one, two = make(), grant(7), grant(501)
    runner.step(Started(one))
    runner.step(Ended(runner.term, FloorLost("higher", 500)))
    assert told(runner) == [("raise_floor", 500)]
    lose(runner, one)
    assert told(runner)[-1] == ("resume",)
    assert not timers
    runner.step(Started(two))
    refusal(runner, two, FloorLost("higher again", 900))
    assert two.closed
    lose(runner, two)
    assert len(timers) == 1, "never a hot loop"


def test_lost_floor_with_after_loss_exit_raises_the_lease_first(make: Any, timers: Any) -> None:
    runner, one, two = make(after_loss="exit"), grant(7), grant(501)
    runner.step(Started(one))
    runner.term.kopf_ran = True
    refusal(runner, one, FloorLost("higher", 500))
    assert lose(runner, one) is None
    assert told(runner) == [("raise_floor", 500), ("resume",)]
    assert runner.step(Started(two)) == EXIT_LOST
    assert runner.term is None, "no code of the operator runs in it"
    assert told(runner)[-1] == ("release",)


def test_lost_floor_that_cannot_be_raised_in_time(make: Any, timers: Any) -> None:
    runner, one = make(after_loss="exit"), grant(7)
    runner.step(Started(one))
    runner.term.kopf_ran = True
    refusal(runner, one, FloorLost("higher", 500))
    lose(runner, one)
    timers[0][1]()
    assert not runner.asked, "a first signal is not taken for a second"
    assert runner.step(runner.inbox.get_nowait()) == EXIT_LOST


def test_refusals_close_the_gate_before_anything_else(make: Any) -> None:
    runner, one = make(), grant(7)
    runner.step(Started(one))
    refusal(runner, one, NoTerm("a thread"))
    refusal(runner, None, NoTerm("a thread"))
    assert not one.closed, "the term is not to blame"
    refusal(runner, one, StaleLeader("newer"))
    assert one.closed == "newer"
    assert told(runner) == [("step_down", "newer", one)]
    refusal(runner, one, StaleLeader("again"))
    assert len(told(runner)) == 1


def test_the_election_s_own_end_ends_the_runner(make: Any) -> None:
    runner = make(lease_duration=1, renew_deadline=0.5, retry_period=0.1)
    runner.elector.state, runner.elector.last_error = "stopped", "it broke"
    event = runner.next()
    assert event == Quit("the election ended: it broke")
    assert runner.step(event) == EXIT_LOST


def test_the_loop_gives_signs_of_life_often_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    client = MagicMock()
    client.configuration.host = "https://api"
    monkeypatch.setattr("kopf_ha.run.build.make_client", lambda *_, **__: client)
    for retry in (0.1, 0.5, 2.0):
        settings = Settings(lease_duration=60, renew_deadline=30, retry_period=retry)
        assert build(settings, options_for(None, (), True)).make_term(grant(1)).pulse <= min(1.0, retry)


def test_what_runs_beside_the_terms_ends_with_the_runner(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a step fails: then nobody is left to end the term, so its gate is closed before anything else."""
    for step, status in ((lambda event: 3, 3), (MagicMock(side_effect=ValueError("a bug")), ValueError("a bug"))):
        runner = make()
        runner.grant = one = grant(7)
        monkeypatch.setattr(runner, "next", lambda: Quit("x"))
        monkeypatch.setattr(runner, "step", step)
        if status == 3:
            assert runner.run() == 3
            assert ("stop",) not in told(runner)
        else:
            with pytest.raises(ValueError, match="a bug"):
                runner.run()
            assert one.closed == "the runner failed"
            assert told(runner)[-1] == ("stop",)
        for part in (runner.pods, runner.run_lock, runner.everywhere, runner.enforcement):
            part.stop.assert_called()


# --- what people order by annotations of the Lease


PAUSED = ByChoice("paused by ann: etcd", "paused")


def test_an_ordered_end_drains_with_the_gate_open_and_gives_the_lease_back_after_that(make: Any) -> None:
    runner, one = make(drain_timeout=10), grant(7)
    runner.step(Started(one))
    term = runner.term
    assert runner.step(Ordered(one, PAUSED)) is None
    assert term.told == ["start", ("stop", 8.0, False), "join"]
    assert term.until_drained == [], "the Lease is renewed until then"
    assert told(runner) == [("step_down", PAUSED, one)]
    assert lose(runner, one, PAUSED) is None
    assert told(runner)[1:] == [("resume",)]
    assert runner.term is None


@pytest.mark.parametrize(
    "order", [PAUSED, ByChoice("handed over to pod b", "handover"), ByChoice("a kind has status.fencing now", "mended")]
)
def test_an_ordered_end_is_no_failure(make: Any, timers: Any, order: ByChoice, caplog: Any) -> None:
    runner = make()
    for token in range(7, 12):
        one = grant(token)
        runner.step(Started(one))
        runner.step(Ordered(one, order))
        lose(runner, one, order)
    assert (timers, runner.failures) == ([], 0)
    posted = [(call.args[1], call.args[2], call.kwargs["warning"]) for call in runner.journal.events.post.mock_calls]
    assert (order.reason.capitalize(), f"me stopped leading, token 7: {order}", False) in posted
    value = runner.journal.metrics.registry.get_sample_value
    ended = {
        name: value("kopf_ha_terms_ended_total", {"name": runner.settings.lease_name, "reason": name}) for name in ENDS
    }
    assert ended == dict.fromkeys(ENDS, 0.0) | {order.reason: 5.0}
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


def test_after_an_ordered_end_a_process_that_cannot_lead_again_exits_well(make: Any) -> None:
    runner, one, two = make(after_loss="exit"), grant(7), grant(8)
    for each, ran, status in ((one, False, None), (two, True, 0)):
        runner.step(Started(each))
        runner.term.kopf_ran = ran
        runner.step(Ordered(each, PAUSED))
        assert lose(runner, each, PAUSED) == status


def test_a_term_that_is_lost_while_it_drains_by_choice_was_lost(make: Any, timers: Any) -> None:
    runner, one = make(after_loss="exit"), grant(7)
    runner.step(Started(one))
    runner.term.kopf_ran = True
    runner.step(Ordered(one, PAUSED))
    assert lose(runner, one, "Lease ns/op was deleted") == EXIT_LOST


def test_an_order_about_a_term_that_is_over_changes_nothing(make: Any) -> None:
    runner, one, two = make(), grant(7), grant(8)
    runner.step(Ordered(one, PAUSED))
    runner.step(Started(two))
    runner.step(Ordered(one, PAUSED))
    two.close("lost")
    runner.step(Ordered(two, PAUSED))
    assert runner.term.told == ["start"]
    assert told(runner) == []


def test_a_signal_while_an_ordered_end_drains_stops_the_process(make: Any) -> None:
    runner, one = make(), grant(7)
    runner.step(Started(one))
    runner.step(Ordered(one, PAUSED))
    assert runner.step(Quit("SIGTERM")) == 0
    assert told(runner)[-1] == ("release",)


# --- credentials that the API server does not know


def answered(runner: Runner, one: Grant | None, status: int, client: str = "pykube", refused: Any = None) -> None:
    runner.on_outcome(Outcome(client, Request("PATCH", "/x"), one, refused, status))


@pytest.fixture
def leads(make: Any) -> tuple[Runner, Grant]:
    runner, one = make(), grant(7)
    runner.step(Started(one))
    return runner, one


def test_a_term_in_which_nothing_can_be_written_ends(leads: tuple[Runner, Grant], now: list[float]) -> None:
    runner, one = leads
    answered(runner, one, 200)
    now[0] += 3600
    for _ in range(3):
        answered(runner, one, 401)
        assert told(runner) == []
        now[0] += PATIENCE / 3
    now[0] += 1
    answered(runner, one, 401)
    [(name, cause, given)] = told(runner)
    assert (name, given) == ("step_down", one)
    assert "answered 401 to every write by pykube for 61 s" in cause
    assert "expired token" in cause


def test_one_that_is_known_again_goes_on(
    leads: tuple[Runner, Grant], now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    runner, one = leads
    for status in (200, 404, 500):
        answered(runner, one, 401)
        now[0] += PATIENCE + 1
        answered(runner, one, status)
        answered(runner, one, 401)
    assert told(runner) == []
    assert "401" not in caplog.text


def test_one_in_which_another_client_can_write_goes_on_and_says_which_cannot(
    leads: tuple[Runner, Grant], now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    runner, one = leads
    for _ in range(3):
        answered(runner, one, 401)
        now[0] += PATIENCE
        answered(runner, one, 200, "kopf")
    answered(runner, one, 401)
    assert told(runner) == []
    said = [r.getMessage() for r in caplog.records if "401" in r.getMessage()]
    assert len(said) == 1
    assert "every write by pykube" in said[0]


def test_what_got_no_answer_or_belongs_to_no_term_says_nothing(leads: tuple[Runner, Grant], now: list[float]) -> None:
    runner, one = leads
    answered(runner, one, 401)
    now[0] += PATIENCE + 1
    answered(runner, None, 401)
    answered(runner, None, 200)
    refusal(runner, one, NoTerm("x"))
    assert told(runner) == []
    denied = Denied("x")
    denied.answer = Response(403)
    answered(runner, one, 0, refused=denied)
    answered(runner, one, 401)
    assert told(runner) == [], "the API server knew who it was"


def test_each_term_counts_anew(leads: tuple[Runner, Grant], now: list[float]) -> None:
    runner, one = leads
    answered(runner, one, 401)
    now[0] += PATIENCE + 1
    lose(runner, one)
    two = grant(8)
    runner.step(Started(two))
    told(runner).clear()
    answered(runner, two, 401)
    assert told(runner) == []


@pytest.mark.parametrize(("name", "warned"), [("", True), ("shop", False)])
def test_a_lease_that_others_may_elect_by_is_said_to_be_that(
    journal: Journal, name: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Outside of a pod nobody names the operator. Two of them would elect one leader."""
    make_runner(journal, lease_name=name).start()
    assert ("only one of them leads; give each its own" in caplog.text) is warned
