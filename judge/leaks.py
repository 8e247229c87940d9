"""I7: after a quiet run, nothing is left of claims that are gone.

This is judged at the end of a run, and counts only if the run had become quiet: a run may end while something is under
way. How long an entry may stay before cannot be judged, because the history has revisions and no clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from judge.finding import Finding
from judge.history import History, uid_of
from judge.shapes import CHILDREN, allocation, is_claim, is_pool, published, recorded, stamp_of


def nothing_is_left(history: History, *, fenced: bool = False) -> Iterator[Finding]:
    """I7: find addresses that a pool records, or a ConfigMap publishes, for a claim that does not exist.

    Kubernetes collects ConfigMaps whose owner is gone, so at the end one that was created late is gone, too.

    Args:
        history: the history of the run.
        fenced: whether ConfigMaps without a stamp are users', and are ignored.
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
