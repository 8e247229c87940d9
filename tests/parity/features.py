"""The features of Kopf that the parity suite tries: an object for each, what it is, and which handlers run at least.

The operator imports this module, so it imports nothing of kopf-ha.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SIZES = ("1", "2", "3")  #: of each object, in the three phases


@dataclass(frozen=True)
class Feature:
    """One feature, tried in three phases, each with how often which handlers run.

    Args:
        made: after its object was created.
        edited: after its object was edited, or deleted if `deletes`.
        later: after the operator was started anew, or another replica took over; meanwhile the object was edited again.
        deletes: the object is deleted in the second phase.
        spec: of the object, besides the size.
        edits: whether the object is edited in the third phase.
    """

    made: Mapping[str, int] = field(default_factory=dict)
    edited: Mapping[str, int] = field(default_factory=dict)
    later: Mapping[str, int] = field(default_factory=dict)
    deletes: bool = False
    spec: Mapping[str, Any] = field(default_factory=dict)
    edits: bool = True


#: By the name of the object, which is also the value of its label ``feature``.
FEATURES: dict[str, Feature] = {
    "create": Feature({"create": 1, "create-async": 1}),
    "update": Feature({}, {"update": 1}, {"update": 1}),
    "field": Feature({"field": 1}, {"field": 1}, {"field": 1}),
    "resume": Feature({}, {}, {"resume": 1}),
    "resume-unedited": Feature({}, {}, {"resume": 1}, edits=False),
    "all-causes": Feature({"any": 1}, {"any": 1}, {"any": 1}),
    "delete": Feature({}, {"delete": 1, "delete-async": 1}, deletes=True),
    "delete-optional": Feature(deletes=True),
    "delete-later": Feature({"begin": 1}, {}, {"delete": 1}),
    "temporary": Feature({"temporary": 3}),
    "permanent": Feature({"permanent": 1}),
    "retries": Feature({"retries": 2}),
    "ignored": Feature({"ignored": 1}),
    "subhandlers": Feature({"parent": 2, "0": 1, "1": 2}, {"parent": 1, "0": 1, "1": 1}),
    "timer": Feature({"timer": 2}, {}, {"timer": 2}, edits=False),
    "timer-often": Feature({"often": 3}, edits=False),
    "daemon": Feature({"begins": 1}, {}, {"ends": 1, "begins": 1}, edits=False),
    "daemon-async": Feature({"begins": 1}, {}, {"ends": 1, "begins": 1}, edits=False),
    "daemon-async-delete": Feature({"begins": 1}, {"ends": 1}, deletes=True),
    "index": Feature({"indexed": 1}, {"indexed": 1}, {"indexed": 1}),
    "event": Feature({"ADDED": 1, "created": 1}, {"DELETED": 1}, deletes=True),
    "posts": Feature({"posts": 1}),
    "filters": Feature({"filters": 1}, {"when": 1, "value": 1}, {"label": 1}),
    "children": Feature({"adopts": 1}, {"changes": 1}, {"changes": 1}),
    "memo": Feature({"memo": 1}, {"memo": 1}, {"memo": 1}),
    "patch": Feature({"patch": 1}, {"patch": 1}, {"patch": 1}),
    "results": Feature({"results": 1}),
}
#: Of ConfigMaps.
BUILT_IN: dict[str, Feature] = {
    "builtin": Feature({"create": 1}, {"update": 1}, {"update": 1}),
    "builtin-delete": Feature({"create": 1}, {"delete": 1}, deletes=True),
}
