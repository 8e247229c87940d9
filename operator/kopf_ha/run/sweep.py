"""Lists the deciding objects that a new leader has to stamp, wherever the operator looks (I4).

With `-n`, namespaces are listed one by one, so that a Role in each is enough, and another installation's objects are
left alone. A namespace that may not be listed costs no term: a role may be missing for a moment, and the namespace may
not exist yet, which the API server answers the same way. Nothing in it is decided from until it was listed and stamped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from kopf_ha.api import Api
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.errors import ApiRefused
from kopf_ha.run.deciding import PARALLEL, DecidingObject
from kopf_ha.run.kinds import ServedKind
from kopf_ha.run.namespaces import Namespaces

#: Objects of one kind, as they were listed.
Listed = tuple[ServedKind, list[dict[str, Any]]]

_CLUSTER_SCOPED = (
    "deciding kind {} is cluster-scoped, so -n does not limit it, and no Role can allow it: {}; bind a ClusterRole, as"
    " `kopf-ha manifests --kind PLURAL:cluster:deciding` writes"
)


@dataclass(eq=False)
class Sweep:
    """What is listed in one term, and what has still to be.

    Args:
        api: of a fenced client.
        fence: of this process; it learns the objects.
        grant: of the term.
        kinds: the deciding ones.
        namespaces: where the operator looks.
    """

    api: Api
    fence: Fence
    grant: Grant
    kinds: Sequence[ServedKind]
    namespaces: Namespaces = field(default_factory=Namespaces)
    #: Namespaces that could not be listed so far, and why; in a sentence.
    left: Mapping[str, str] = field(default_factory=dict, init=False)
    #: Why there may be more namespaces than are known; empty if there are none.
    trouble: str = field(default="", init=False)
    _listed: frozenset[str] = field(default=frozenset(), init=False)
    _began: bool = field(default=False, init=False)

    def run(self) -> list[Listed]:
        """List what was not listed so far, with consistent reads.

        Raises:
            ApiRefused: a kind cannot be listed in the whole cluster; another replica may be able to.
            Unreached: there is no answer.
        """
        found = self.namespaces.find(self.api)
        self.trouble = found.trouble
        listed: list[Listed] = []
        if not self._began:
            listed = [(k, self._everywhere(k)) for k in self.kinds if found.names is None or not k.namespaced]
            self._began = True
        if found.names is None:
            return listed
        new = [name for name in found.names if name not in self._listed]
        # At once: the API server lets a list wait if there was another one of the kind just before.
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="kopf-ha-sweep") as pool:
            many = list(pool.map(self._inside, new))
        self.left = {name: told for name, told in zip(new, many, strict=True) if isinstance(told, str)}
        self._listed |= set(new) - self.left.keys()
        return listed + [one for told in many if not isinstance(told, str) for one in told]

    def learn(self, listed: Sequence[Listed]) -> list[DecidingObject]:
        """Tell the fence of the objects, and return them."""
        objects = []
        for kind, bodies in listed:
            if kind.stamped is not None:
                # To read each object again before its stamp would take the barrier twice as long.
                self.fence.known.schemas[kind.any.kind_version] = kind.stamped
                for body in bodies:
                    self.fence.known.learn(kind.target(body), body)
            objects += [DecidingObject.of(kind, body) for body in bodies]
        return objects

    def finish(self, aside: Sequence[DecidingObject]) -> None:
        """Tell the grant from which objects nothing is decided: those set aside, and those not listed yet."""
        self.grant.set_aside = frozenset(one.uid for one in aside)
        self.grant.swept = self._listed if self.left or self.trouble else None

    def _everywhere(self, kind: ServedKind) -> list[dict[str, Any]]:
        try:
            return list(self.api.items(kind.collection))
        except ApiRefused as error:
            if error.status != 403 or not self.namespaces.patterns:
                raise
            raise ApiRefused(_CLUSTER_SCOPED.format(kind.name, error), 403, reason=error.reason) from error

    def _inside(self, namespace: str) -> list[Listed] | str:
        """Return the objects in a namespace, or why they cannot be listed."""
        try:
            return [(k, list(self.api.items(k.collection_in(namespace)))) for k in self.kinds if k.namespaced]
        except ApiRefused as error:
            if error.status != 403:
                raise
            return str(error)
