"""Where an operator looks: everywhere, or in the namespaces that it was given with `-n`.

Kopf takes names, and patterns such as ``team-*,!team-x``. Patterns need the permission to list namespaces. Without it
Kopf serves the names alone, and so does this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kopf_ha import _kopf
from kopf_ha.api import Api
from kopf_ha.errors import ApiRefused


@dataclass(frozen=True, slots=True)
class Found:
    """Namespaces at one moment.

    Args:
        names: of the namespaces; None for the whole cluster.
        whole: whether these are all that the operator serves at that moment, so that any other is younger.
        trouble: why they are not, in a sentence; empty if they are.
    """

    names: tuple[str, ...] | None
    whole: bool = True
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The namespaces that an operator serves.

    Args:
        patterns: names and patterns as Kopf takes them; empty for the whole cluster.
    """

    patterns: tuple[str, ...] = ()

    @property
    def exact(self) -> tuple[str, ...]:
        """Those that are names and not patterns."""
        return _kopf.exact_namespaces(self.patterns)

    def find(self, api: Api) -> Found:
        """Ask the cluster for the namespaces, if there are patterns. A name counts whether it exists or not.

        Raises:
            ApiError: the cluster did not say.
        """
        if not self.patterns:
            return Found(None)
        exact = self.exact
        if len(exact) == len(set(self.patterns)):
            return Found(exact)
        try:
            listed = [str(item["metadata"]["name"]) for item in api.items("/api/v1/namespaces")]
        except ApiRefused as error:
            if error.status != 403:
                raise
            return Found(exact, whole=False, trouble=f"the patterns of -n are not served: {error}")
        return Found(tuple(sorted({*exact, *(n for n in listed if _kopf.serves(n, self.patterns))})))

    def uncovered(self, covered: Sequence[str]) -> tuple[str, ...]:
        """Return which of these policies do not cover, that were written for some namespaces; empty for none.

        Args:
            covered: the namespaces of the policies; empty if they hold everywhere.
        """
        if not covered:
            return ()
        return tuple(p for p in self.patterns if p not in covered) if self.patterns else ("*",)
