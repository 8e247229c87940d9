"""At which level the API server enforces the fence, from what the self-test found out."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kopf_ha.manifests.description import FULL, Description
from kopf_ha.manifests.term import term_policies
from kopf_ha.run.leasetest import HELP
from kopf_ha.run.termobject import TermObject
from kopf_ha.settings import Settings

#: The levels, and what each means.
LEVELS = {
    "full": "it knows who leads, and compares the stamps of objects",
    "term": "it knows who leads, and compares no stamps",
    "stamps": "it compares the stamps of objects, and does not know who leads",
    "none": "no policy is in force, so all it compares are stamps in the status of kinds whose CRD has the rule",
}


def level_of(
    described: Description | None, lacking: Collection[str], term: TermObject, unfit: Collection[str] = ()
) -> str:
    """Return the level: one of `LEVELS`. What is missing of it is reported by itself.

    Args:
        described: what the policies were written from; None if none answered.
        lacking: the names of policies that are not whole.
        term: the Term, as it was found last.
        unfit: kinds that should carry a stamp and do not.
    """
    if described is None:
        return "none"
    line4 = {policy.name for policy in term_policies(described)}
    knows = f"{described.prefix}-term" not in lacking and not term.trouble and not term.deaf
    compares = described.level == FULL and not set(lacking) - line4 and not unfit
    if knows:
        return "full" if compares else "term"
    return "stamps" if compares else "none"


def missing_level(described: Description | None, settings: Settings) -> Iterator[str]:
    """Yield a sentence if the policies are of a lower level than this replica expects.

    Args:
        described: what the policies were written from; None if none answered.
        settings: name the level.
    """
    if described is not None and settings.level == FULL != described.level:
        yield (
            f"the policies of Lease {settings.lease} are of level {described.level}, and this replica expects level"
            f" {settings.level}; {HELP}, or run it with --level={described.level}"
        )
