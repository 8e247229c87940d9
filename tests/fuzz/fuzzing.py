"""What all fuzz tests share: how long they try, and values that are nearly right.

In the test suite each rule gets the same few examples every time. `make fuzz` sets `KOPF_HA_FUZZ` to a folder: then
there are many more, each time others, and what fails is kept in that folder and tried first the next time.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

CORPUS = os.environ.get("KOPF_HA_FUZZ", "")
#: Examples of each rule in one round of `make fuzz`.
MANY = 300

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=8), st.just("9" * 5000)
)
#: Whatever JSON can say.
anything = st.recursive(
    scalars, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=6), one, max_size=3), max_leaves=6
)


def fuzzed(examples: int = 60) -> settings:
    """Return how often a rule is tried.

    Args:
        examples: in the test suite.
    """
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    if not CORPUS:
        return settings(
            max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=slow
        )
    return settings(
        max_examples=max(MANY * examples // 60, 1),
        database=DirectoryBasedExampleDatabase(CORPUS),
        deadline=None,
        suppress_health_check=slow,
        print_blob=True,
    )


@st.composite
def nearly(draw: st.DrawFn, right: st.SearchStrategy[Any], changes: int = 3) -> Any:
    """Draw a value with a few places that are missing, or are anything instead of what they should be."""
    value = {"": copy.deepcopy(draw(right))}
    for _ in range(draw(st.integers(0, changes))):
        holder, key = draw(st.sampled_from(list(_places(value))))
        if draw(st.booleans()) and key != "":
            del holder[key]
        else:
            holder[key] = draw(anything)
    return value[""]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)
