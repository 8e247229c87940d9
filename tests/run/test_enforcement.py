"""When the API server is asked whether it enforces the fence, and what follows. The self-test is a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.orders import ByChoice
from kopf_ha.core.target import Target
from kopf_ha.core.token import Stamp
from kopf_ha.errors import ConfigurationError, Unreached
from kopf_ha.run.enforcement import ASK_AGAIN, KNOWN, REST, Enforcement


class SelfTest:
    """Gives or raises what it was told to, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.clean = False
        self.unfit: dict[str, str] = {}
        self.stamped: frozenset[str] = frozenset()
        self.protected: frozenset[str] = frozenset()
        self.described: Any = None
        self.lacking: frozenset[str] = frozenset()
        self.answer: list[str] | Exception = []
        self.asked: list[dict[str, Any]] = []
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True

    def ask(self, token: int, timeout: float = 30, **more: Any) -> list[str]:
        self.asked.append({"token": token, **more})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class World:
    def __init__(self, required: bool = False) -> None:
        self.selftest, self.fence, self.journal, self.term = SelfTest(), Fence("ns/op"), MagicMock(), MagicMock()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.token, self.now = 7, 1000.0
        self.heard, self.told = "", list[str]()
        self.ended: list[tuple[Grant, ByChoice]] = []
        self.enforcement = Enforcement(
            self.selftest,  # type: ignore[arg-type]
            self.fence,
            self.journal,
            token=lambda: self.token,
            required=required,
            tell=self.told.append,
            hear=lambda: self.heard,
            begin_again=lambda grant, cause: self.ended.append((grant, cause)),
            term=self.term,
            later=lambda seconds, fn: self.timers.append((seconds, fn)),
            clock=lambda: self.now,
        )


@pytest.fixture
def world() -> World:
    return World()


def grant(token: int = 7) -> Grant:
    return Grant(Stamp(token, "me", "ns/op", "uid"), deadline=1e9)


@pytest.mark.parametrize("protected", [(), ("as.t.dev",), ("as.t.dev", "bs.t.dev")])
def test_stamps_in_metadata_decide_only_where_a_policy_protects_them(world: World, protected: tuple[str, ...]) -> None:
    """I4: whoever may edit such an object could take its stamp away."""
    world.selftest.protected = frozenset(protected)
    world.enforcement.require(["as.t.dev"] if protected else [])
    if len(protected) < 2:
        with pytest.raises(ConfigurationError, match=r"kind .*bs\.t\.dev has no status\.fencing.*:annotations"):
            world.enforcement.require(["as.t.dev", "bs.t.dev"])


def test_the_api_server_is_asked_again_after_any_exception(world: World) -> None:
    """Otherwise a policy that is taken out of force later would not be noticed."""
    one, world.selftest.answer = grant(), ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        world.enforcement.begin(one)
    for number in range(1, 4):
        assert len(world.timers) == number
        with pytest.raises(ValueError, match="a bug"):
            world.timers[-1][1]()
    one.close("lost")
    world.timers[-1][1]()
    assert len(world.timers) == 4, "nobody asks for a term that is over"


def test_a_follower_looks_ahead_again_after_any_exception(world: World) -> None:
    world.selftest.answer = ValueError("a bug")
    for number in range(1, 4):
        with pytest.raises(ValueError, match="a bug"):
            world.enforcement.look_ahead()
        assert len(world.timers) == number


def test_a_follower_looks_ahead_before_and_after_its_terms(world: World) -> None:
    world.enforcement.look_ahead()
    one = grant()
    world.enforcement.begin(one)
    assert len(world.selftest.asked) == 2
    world.timers[0][1]()
    assert len(world.selftest.asked) == 2, "it leads, and asks as the leader"
    one.close("lost")
    world.timers[-1][1]()
    assert len(world.selftest.asked) == 3
    world.enforcement.stop()
    world.timers[-1][1]()
    assert len(world.selftest.asked) == 3
    assert {seconds for seconds, _ in world.timers} == {ASK_AGAIN}


def test_what_is_unknown_or_missing_is_told_and_keeps_nobody_from_leading(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    one, world.selftest.answer = grant(), Unreached("away")
    world.enforcement.begin(one)
    assert "unknown whether the API server enforces the fence: away" in caplog.text
    world.selftest.answer, world.selftest.unfit = ["it can be lowered"], {"xs.a.b": "why"}
    world.timers[-1][1]()
    world.journal.not_enforced.assert_called_once_with(["it can be lowered"])
    assert world.fence.known.unfit == {"xs.a.b": "why"}


def test_a_kind_that_got_the_stamp_while_a_term_went_without_needs_a_new_term(world: World) -> None:
    """The term knows the schema from its first write, and its barrier stamped what it stamped (I4)."""
    one = grant()
    lacking, other = Target("t.dev", "v1", "widgets", "ns", "any"), Target("t.dev", "v1", "gadgets", "ns", "any")
    world.fence.known.schemas |= {lacking.kind_version: False, other.kind_version: True}
    world.selftest.stamped = frozenset({"gadgets.t.dev"})
    world.enforcement.begin(one)
    assert world.ended == []
    world.selftest.stamped = frozenset({"gadgets.t.dev", "widgets.t.dev"})
    world.timers[-1][1]()
    ((ended, cause),) = world.ended
    assert (ended, cause.reason) == (one, "mended")
    assert cause == "widgets.t.dev had no status.fencing when this term began, and has it now"
    one.close("over")
    world.timers[-1][1]()
    assert len(world.ended) == 1


@pytest.mark.parametrize("answer", [Unreached("away"), ["it can be lowered"]])
def test_where_it_is_required_both_end_the_term_at_its_begin_only(answer: Any) -> None:
    world, one = World(required=True), grant()
    world.selftest.answer = answer
    with pytest.raises((Unreached, ConfigurationError), match=r"away|does not enforce the fence: it can be lowered"):
        world.enforcement.begin(one)
    world.timers[-1][1]()


def test_before_a_fast_takeover_few_questions_are_enough_where_all_were_right(world: World) -> None:
    world.selftest.clean = True
    assert world.enforcement.confirm() == ""
    world.selftest.clean, world.selftest.answer = True, ["it can be lowered"]
    assert world.enforcement.confirm() == "it can be lowered"
    world.selftest.answer = Unreached("away")
    assert world.enforcement.confirm() == "unknown whether the API server enforces the fence: away"
    world.now += KNOWN
    world.enforcement.confirm()
    assert [asked["whole"] for asked in world.selftest.asked] == [True, False, False, True]


@pytest.mark.parametrize(
    ("clean", "passed", "seconds"), [(True, 0, REST), (True, KNOWN - 1, REST), (True, KNOWN, 0), (False, 0, 0)]
)
def test_what_a_follower_asked_is_asked_again_once_the_first_objects_are_served(
    world: World, clean: bool, passed: float, seconds: float
) -> None:
    world.fence.known.schemas["a.b", "v1", "xs"] = True
    world.enforcement.look_ahead()
    world.selftest.clean = clean
    world.now += passed
    world.enforcement.begin_soon(grant())
    assert len(world.selftest.asked) == 1, "nothing waits for the answer"
    assert world.timers[-1][0] == seconds
    world.timers[-1][1]()
    assert [asked["whole"] for asked in world.selftest.asked] == [True, True]
    assert all(asked["kinds"] == {"xs.a.b"} for asked in world.selftest.asked)
    assert world.timers[-1][0] == ASK_AGAIN


def test_where_it_is_required_everything_is_asked_whatever_is_known() -> None:
    world = World(required=True)
    world.enforcement.look_ahead()
    world.selftest.clean = True
    world.enforcement.begin(grant())
    assert [asked["whole"] for asked in world.selftest.asked] == [True, True]


def test_a_follower_asks_once_as_long_as_the_leader_says_that_nothing_is_missing(world: World) -> None:
    world.selftest.clean = True
    world.enforcement.look_ahead()
    for number in range(30):
        world.heard = f"7-{number}"
        world.now += ASK_AGAIN
        world.timers[-1][1]()
    assert len(world.selftest.asked) == 1
    world.enforcement.confirm()
    assert not world.selftest.asked[-1]["whole"], "each rule was in force a minute ago"
    world.heard = ""
    world.now += ASK_AGAIN
    world.timers[-1][1]()
    assert world.selftest.asked[-1]["whole"], "the leader misses something"


def test_a_follower_of_a_leader_that_says_nothing_asks_seldom(world: World) -> None:
    world.enforcement.look_ahead()
    world.selftest.clean = True
    for _ in range(20):
        world.now += ASK_AGAIN
        world.timers[-1][1]()
    assert len(world.selftest.asked) == 3


def test_what_the_leader_says_is_not_enough_for_a_replica_that_misses_something(world: World) -> None:
    world.enforcement.look_ahead()
    world.heard = "7-1"
    world.timers[-1][1]()
    assert len(world.selftest.asked) == 2


def test_a_leader_tells_followers_that_nothing_is_missing(world: World) -> None:
    world.enforcement.begin_soon(grant())
    for _ in range(2):
        world.timers[-1][1]()
    world.selftest.answer = ["it can be lowered"]
    world.timers[-1][1]()
    assert world.told == ["7-1", "7-2", ""]


@pytest.mark.parametrize("asks", ["look_ahead", "confirm", "again"])
def test_the_end_of_the_process_interrupts_the_questions_without_an_error(
    world: World, caplog: pytest.LogCaptureFixture, asks: str
) -> None:
    """The interpreter takes no job of a pool any more. A traceback would make an orderly stop look like a bug."""

    def ending(*_: Any, **__: Any) -> list[str]:
        world.enforcement.stop()
        raise RuntimeError("cannot schedule new futures after shutdown")

    world.selftest.ask = ending  # type: ignore[method-assign]
    if asks == "again":
        world.enforcement.begin_soon(grant())
        world.timers.pop()[1]()
    else:
        getattr(world.enforcement, asks)()
    assert world.selftest.stopped
    assert world.timers == [], "nobody asks again"
    assert caplog.messages == []
