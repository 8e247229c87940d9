"""Which changes are made at random."""

from __future__ import annotations

import pytest

from mutants.judged import JUDGED
from mutants.points import compiles, points_in
from mutants.random_ones import chosen
from mutants.reached import core_texts


def changes(text: str) -> set[str]:
    made = {point.applied(text) for point in points_in("x.py", text)}
    return {one for one in made if compiles(one)}


@pytest.mark.parametrize(
    ("text", "mutants"),
    [
        ("a = b < c", {"a = (b <= c)", "a = (b >= c)"}),
        ("a = b is c", {"a = (b is not c)"}),
        ("a = b in c", {"a = (b not in c)"}),
        ("a = b and c", {"a = (b or c)", "a = (b)", "a = (c)"}),
        ("a = not b", {"a = (b)"}),
        ("a = max(b, c)", {"a = min(b, c)"}),
        ("a = b - c", {"a = (b + c)"}),
        ("a = 7", {"a = 8"}),
        ("a = True", {"a = False"}),
        ("a = 'key'", {"a = 'key~'"}),
        ("a = b['ä'] + c", {"a = b['ä~'] + c", "a = (b['ä'] - c)"}),
        ("f(a)", {"pass"}),
        ("def f(a):\n    a.b = c", {"def f(a):\n    pass"}),
        ("def f(a):\n    return a", {"def f(a):\n    return None"}),
        ("if a:\n    f", {"if True:\n    f", "if False:\n    f", "if a:\n    pass"}),
        ("raise a", {"pass"}),
        # What is not run, or is for people, stays.
        ('"""text"""', set()),
        ("a: int", set()),
        ("def f(a: 1) -> 2:\n    ...", set()),
        ("a = f'key'", set()),
        ("a = 'a sentence'", set()),
    ],
)
def test_each_change_is_a_mistake_that_people_make(text: str, mutants: set[str]) -> None:
    assert changes(text) == mutants


def test_the_same_seed_gives_the_same_changes() -> None:
    few, more = chosen(3, 20), chosen(3, 40)
    assert more[:20] == few
    assert [key for _, key in chosen(4, 20)] != [key for _, key in few]


def test_what_somebody_judged_is_still_there() -> None:
    """A line that was edited has to be judged again."""
    texts = core_texts()
    lines = {path: {" ".join(line.split()) for line in text.splitlines()} for path, text in texts.items()}
    gone = [key for key in JUDGED if len(key[1].splitlines()) == 1 and key[1] not in lines[key[0]]]
    multiline = {key for key in gone if key[1] in " ".join(texts[key[0]].split())}
    assert set(gone) == multiline
