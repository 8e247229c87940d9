"""A run of the model as a story for people, and as a list of moves that `replay` runs again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.bounds import Bounds
from model.clocks import Clocks
from model.cluster import Cluster
from model.explorer import Explored, Move
from model.promises import Broken


class Impossible(ValueError):
    """A list of moves that the model cannot make; the message says which one, and what is possible instead."""


@dataclass(frozen=True)
class Run:
    """A run that was made again.

    Args:
        told: for each move what happened and what it changed, a sentence each.
        broken: what the last move broke; None for nothing.
        state: the last one.
        model: what was run.
    """

    told: tuple[str, ...]
    broken: Broken | None
    state: Any
    model: Any


def replay(moves: Sequence[str], bounds: Bounds, *, clocks: bool = False, only: Sequence[str] = ()) -> Run:
    """Make a run again, move by move.

    Args:
        moves: as `Explored.trace` has them.
        bounds: what it was explored with.
        clocks: whether it is a run of `clocks`, the election alone.
        only: names of promises; all others are not asked about. Empty for all.

    Raises:
        Impossible: the model, and so the core, does not make such a move there.
    """
    model: Any = Clocks(bounds) if clocks else Cluster(bounds)
    state, told, broken = model.begin(), [], None
    for i, label in enumerate(moves):
        possible: dict[str, Move] = {move.label: move for move in model.moves(state)}
        if broken is not None or label not in possible:
            why = f" after {broken}" if broken is not None else ""
            many = "".join(f"\n  {other}" for other in possible)
            raise Impossible(f"move {i + 1}, {label!r}, cannot happen{why}; possible:{many}")
        move = possible[label]
        told.append(_sentence(label, model.changes(state, move.state)))
        found = move.broken or model.judge(move.state)
        broken = found if found is not None and (not only or found.promise in only) else None
        state = move.state
    return Run(tuple(told), broken, state, model)


def story(found: Explored, *, clocks: bool = False, only: Sequence[str] = ()) -> str:
    """Tell what was found: a story in sentences, and the same as a test."""
    if found.broken is None:
        return f"{found}: every promise holds."
    run = replay(found.trace, found.bounds, clocks=clocks, only=only)
    lines = [f"{i:3}. {text}" for i, text in enumerate(run.told, 1)]
    return "\n".join(
        [
            f"{found.broken.promise} does not hold: {found.broken.why}. The shortest run to it ({found}):",
            "",
            *lines,
            "",
            "The same as a test:",
            "",
            as_test(found, clocks=clocks, only=only),
        ]
    )


def as_test(found: Explored, *, clocks: bool = False, only: Sequence[str] = ()) -> str:
    """Return a trace as a test to be pasted into a file of tests."""
    assert found.broken is not None  # noqa: S101  there is no trace otherwise
    options = (", clocks=True" if clocks else "") + (f", only={list(only)!r}" if only else "")
    moves = "\n".join(f"        {move!r}," for move in found.trace)
    return (
        "from model import Bounds, replay\n\n\n"
        "def test_found_by_the_model():\n"
        f"    moves = [\n{moves}\n    ]\n"
        f"    assert replay(moves, {_as_code(found.bounds)}{options}).broken is None\n"
    )


def _as_code(bounds: Bounds) -> str:
    usual = Bounds(replicas=0, terms=0)
    given = [
        f"{name}={getattr(bounds, name)!r}" for name in vars(usual) if getattr(bounds, name) != getattr(usual, name)
    ]
    return f"Bounds({', '.join(given)})"


def _sentence(label: str, changes: Sequence[str]) -> str:
    text = label[0].upper() + label[1:]
    return f"{text}: {', '.join(changes)}." if changes else f"{text}."
