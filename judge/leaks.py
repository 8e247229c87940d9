"""I7: what is left when a run has become quiet, of claims that are gone.

A run may end in the middle of things, so this is judged at its end, and only counts when it had become quiet. Nothing
says how long an entry may stay before: the history has revisions and no clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from judge.finding import Finding
from judge.history import History, uid_of
from judge.shapes import CHILDREN, allocation, is_claim, is_pool, published, recorded, stamp_of


def nothing_is_left(history: History, *, fenced: bool = False) -> Iterator[Finding]:
    """I7: no pool records an address for a claim that does not exist, and no ConfigMap publishes one for it.

    Kubernetes collects a ConfigMap whose owner is gone, so one that was created late is gone, too, in the end.

    Args:
        history: of the run.
        fenced: whether ConfigMaps without a stamp are users' and count for nothing.
    """
    claims = {uid_of(obj) for key, obj in history.end.items() if is_claim(key)}
    for key, obj in sorted(history.end.items()):
        if is_pool(key):
            for address, claim in sorted(recorded(obj)):
                if allocation(address, claim)[1] not in claims:
                    sentence = f"{key} still records {address} for {claim}, which does not exist"
                    yield Finding("I7", "address left behind", history.revision, str(key), (), sentence)
        child = published(obj) if key.resource == CHILDREN and (stamp_of(obj) or not fenced) else None
        if child and child[1] not in claims:
            sentence = f"{key} still publishes {child[0]} for the claim with uid {child[1]}, which does not exist"
            yield Finding("I7", "ConfigMap left behind", history.revision, str(key), (), sentence)
