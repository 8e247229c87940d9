"""The model: an explorer of the core that ships, over a small API server, a network, clocks and users.

    found = explore(Cluster(Bounds(terms=2)))
    assert found.broken is None, story(found)

It calls `kopf_ha.core` for whatever the election and the fence do; the rest is small and written here (docs/model.md).
`python -m model` explores the bounds that the documentation names.
"""

from model.bounds import DEFENCES, Bounds
from model.clocks import Clocks
from model.cluster import Cluster
from model.explorer import Explored, explore
from model.promises import Broken
from model.story import Impossible, Run, replay, story

__all__ = [
    "DEFENCES",
    "Bounds",
    "Broken",
    "Clocks",
    "Cluster",
    "Explored",
    "Impossible",
    "Run",
    "explore",
    "replay",
    "story",
]
