"""The commands in hints."""

from __future__ import annotations

import shlex

from kopf_ha.manifests.description import FULL, Description, Kind
from kopf_ha.oncall.checks.facts import Facts


def regenerate(facts: Facts, description: Description, *only: str) -> str:
    """Return the command that writes manifests of an operator again, and applies them.

    Args:
        facts: whether its own manifests were given.
        description: what they are written from.
        only: parts, as for ``--only``; none for all.
    """
    given = facts.files or flags(description)
    parts = "".join(f" --only {part}" for part in only)
    return f"kopf-ha manifests {given}{parts} | {facts.kubectl} apply -f -"


def flags(description: Description) -> str:
    """Return the options by which `kopf-ha manifests` writes this description."""
    words = [f"--group {description.group}"] if description.group else []
    words += [f"--kind {_kind(kind)}" for kind in description.kinds]
    words += [f"--child {child.flag()}" for child in description.children]
    words += [f"--lease {description.lease}", f"--service-account {description.service_account}"]
    words += [f"--namespace {name}" for name in description.namespaces]
    words += [f"--exempt {shlex.quote(one)}" for one in description.exempt]
    words += [f"--prefix {description.prefix}"]
    words += [f"--legacy-lock {description.legacy_lock}"] if description.legacy_lock else []
    words += [f"--level {description.level}"] if description.level != FULL else []
    return " ".join(words)


def _kind(kind: Kind) -> str:
    parts = [kind.plural]
    parts += [name for name in ("cluster", "deciding", "annotations", "scale") if getattr(kind, name)]
    parts += [f"map={name}" for name in kind.maps] + [f"value={name}" for name in kind.values]
    return ":".join(parts)
