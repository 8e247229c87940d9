"""What atheris needs of the rules: bytes alone draw an example of each."""

from __future__ import annotations

import inspect

from tests.fuzz.guided import rules


def test_bytes_draw_an_example_of_each_rule() -> None:
    found = dict(rules())
    assert len(found) > 10
    for name, rule in found.items():
        assert not inspect.signature(rule).parameters, f"{name} asks pytest for a fixture"
        assert callable(rule.hypothesis.fuzz_one_input)
