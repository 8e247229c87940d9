"""When the API server is asked whether it enforces the fence, and what follows. The self-test is a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.errors import ConfigurationError, Unreached
from kopf_ha.run.enforcement import ASK_AGAIN, KNOWN, REST, Enforcement


class SelfTest:
    """Gives or raises what it was told to, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.clean = False
        self.unfit: dict[str, str] = {}
        self.protected: frozenset[str] = frozenset()
        self.described: Any = None
        self.lacking: frozenset[str] = frozenset()
        self.answer: list[str] | Exception = []
        self.asked: list[dict[str, Any]] = []

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
        self.enforcement = Enforcement(
            self.selftest,  # type: ignore[arg-type]
            self.fence,
            self.journal,
            token=lambda: self.token,
            required=required,
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


@pytest.mark.parametrize("answer", [Unreached("away"), ["it can be lowered"]])
def test_where_it_is_required_both_end_the_term_at_its_begin_only(answer: Any) -> None:
    world, one = World(required=True), grant()
    world.selftest.answer = answer
    with pytest.raises((Unreached, ConfigurationError), match=r"away|does not enforce the fence: it can be lowered"):
        world.enforcement.begin(one)
    world.timers[-1][1]()


def test_before_a_fast_takeover_few_questions_are_enough_where_all_were_right(world: World) -> None:
    assert world.enforcement.confirm() == ""
    world.selftest.clean, world.selftest.answer = True, ["it can be lowered"]
    assert world.enforcement.confirm() == "it can be lowered"
    world.selftest.answer = Unreached("away")
    assert world.enforcement.confirm() == "unknown whether the API server enforces the fence: away"
    assert [asked["whole"] for asked in world.selftest.asked] == [True, False, False]


@pytest.mark.parametrize(
    ("required", "clean", "passed", "whole"),
    [
        (False, True, KNOWN - 1, False),
        (False, True, KNOWN, True),
        (False, False, 0, True),
        (True, True, 0, True),
    ],
)
def test_what_a_follower_just_asked_is_not_asked_again_before_handlers_run(
    required: bool, clean: bool, passed: float, whole: bool
) -> None:
    world, one = World(required), grant()
    world.fence.known.schemas["a.b", "v1", "xs"] = True
    world.enforcement.look_ahead()
    world.selftest.clean = clean
    world.now += passed
    world.enforcement.begin(one)
    assert [asked["whole"] for asked in world.selftest.asked] == [True, whole]
    assert all(asked["kinds"] == {"xs.a.b"} for asked in world.selftest.asked)
    seconds, again = world.timers[-1]
    assert seconds == (ASK_AGAIN if whole else REST)
    again()
    assert world.selftest.asked[-1]["whole"]
    assert world.timers[-1][0] == ASK_AGAIN


def test_a_replica_that_never_asked_asks_everything_before_handlers_run(world: World) -> None:
    world.selftest.clean = True
    world.enforcement.begin(grant())
    assert world.selftest.asked[0]["whole"]
