"""Whether the objects of a kind are protected: tries some writes of a stale leader, by dry runs."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any
from urllib.parse import urlencode

from kopf_ha.api import Api, refusal
from kopf_ha.core.refusal import by_policy, by_rule
from kopf_ha.core.token import MalformedStamp, Stamp, stamp_of
from kopf_ha.core.wire import MERGE_PATCH, is_gone
from kopf_ha.errors import ApiRefused, ConfigurationError, Unfenced
from kopf_ha.manifests.questions import BY_SELFTEST, DRY_RUN, another_pods, lower
from kopf_ha.run.kinds import ServedKind, locate, schema_of
from kopf_ha.run.leasetest import HELP
from kopf_ha.run.namespaces import Namespaces

#: Objects that one look for an example sees.
PAGE = 50
#: Objects that are tried one after the other, when each is gone meanwhile or is changed without a pause.
ATTEMPTS = 5

_SCHEMA = "its CRD needs `kopf-ha manifests --only schema`"

#: Sentences about what the policies do not refuse, and about what the CRD's rule does not refuse.
Missing = tuple[list[str], list[str]]


class KindTest:
    """Tries kinds, and remembers one object of each, with a stamp if there is one.

    That saves a list in a takeover. A list would also delay the barrier: the API server delays a consistent list of a
    kind by up to 0.1 s if there was another one just before.

    Args:
        deciding: kinds, ``plural.group``, that have to be installed.
        namespaces: where objects are looked for.
    """

    def __init__(self, deciding: Container[str], namespaces: Namespaces | None = None) -> None:
        self._deciding = deciding
        self._namespaces = namespaces or Namespaces()
        self._examples: dict[str, str] = {}
        self._after: dict[str, str] = {}  #: by collection: where the search for a stamp goes on

    def missing(self, api: Api, kind: str, mine: Stamp) -> Missing:
        """Try to stamp an object wrongly, if there is one; return what the API server accepts.

        Raises:
            ConfigurationError: the kind is not installed.
            ApiRefused: an answer is neither yes nor no.
        """
        for _ in range(ATTEMPTS):
            path, body = self._example(api, kind)
            if not body:
                break
            found = wrong_stamps(api, kind, path, body, mine)
            if found is not None:
                return found
            self._examples.pop(kind, None)  # gone meanwhile, or never at rest, which is no refusal
        return [], []

    def stamped(self, api: Api, kind: str) -> bool:
        """Return whether a kind carries `status.fencing`; False if it is not installed, or if nobody can tell.

        Raises:
            Unfenced: it must not be written, since a served version has no `status.fencing` (I1).
            ConfigurationError: a deciding kind is not installed.
            ApiRefused: the API server did not say.
        """
        try:
            found = schema_of(api, locate(api, kind).any)
        except ConfigurationError:
            if kind in self._deciding:
                raise
            return False  # not installed (any more): there is nothing to write
        if found is False:
            raise Unfenced(f"{kind}: no served version has status.fencing; {_SCHEMA}")
        return bool(found)

    def _example(self, api: Api, kind: str) -> tuple[str, dict[str, Any]]:
        """Return the path of some object, and the object; both are empty if there is none.

        It has a stamp if one with a stamp is found: of an object without one, no token can be lowered. Each call looks
        at one more page of objects, since there may be many, and none of them may have a stamp.
        """
        if path := self._examples.get(kind):
            answer = api.request("GET", path)
            if answer.ok and recorded_token(answer.json):
                return path, dict(answer.json)
            if not answer.ok and answer.status != 404:
                raise refusal(f"cannot read {path}", answer)
        base = locate(api, kind)
        found: dict[str, Any] | None = None
        for item in self._some(api, base):
            if recorded_token(item):
                found = item
                break
            found = found or item
        if found is None:
            self._examples.pop(kind, None)
            return "", {}
        path = self._examples[kind] = base.target(found).path
        return path, found

    def _some(self, api: Api, kind: ServedKind) -> Iterator[dict[str, Any]]:
        """Yield a page of objects of a kind; of each namespace that may be listed, if only some are served."""
        names = self._namespaces.find(api).names if kind.namespaced else None
        if names is None:
            yield from self._page(api, kind.collection)
            return
        for name in names:
            try:
                yield from self._page(api, kind.collection_in(name))
            except ApiRefused as error:
                if error.status != 403:
                    raise  # a namespace without a role, or that does not exist yet; the barrier names it

    def _page(self, api: Api, collection: str) -> list[dict[str, Any]]:
        """Return the next objects of a collection; the first ones again after the last."""
        after = self._after.pop(collection, "")
        query = urlencode({"limit": PAGE, **({"continue": after} if after else {})})
        answer = api.request("GET", f"{collection}?{query}")
        if not answer.ok and answer.status != 410:  # 410: that was too long ago
            raise refusal(f"cannot list {collection}", answer)
        found = answer.json if answer.ok else {}
        if then := (found.get("metadata") or {}).get("continue"):
            self._after[collection] = then
        items = list(found.get("items") or ())
        return self._page(api, collection) if after and not items else items


def recorded_token(body: dict[str, Any]) -> int:
    """Return the token in `status.fencing`; 0 if there is none that can be read. The barrier names such objects."""
    try:
        recorded = stamp_of(body)
    except MalformedStamp:
        return 0
    return recorded.token if recorded else 0


def wrong_stamps(api: Api, kind: str, path: str, body: dict[str, Any], mine: Stamp) -> Missing | None:
    """Ask whether an object would take another pod's stamp, or a lower token (I1, I3); None when it does not say.

    It is gone, or others change it so fast that the API server gives up (409). Anybody who may edit it can do that, and
    it says nothing about enforcement (I10).

    Raises:
        ApiRefused: an answer is neither yes nor no.
    """
    path += "/status" + DRY_RUN + BY_SELFTEST
    token, name = recorded_token(body), str(body["metadata"]["name"])
    foreign = api.request("PATCH", path, another_pods(token, mine), MERGE_PATCH)
    if foreign.status == 404:
        # If the path is not served, there is no `/status`. The stamps of such a kind are in its metadata.
        return None if is_gone(foreign, name) else ([], [])
    if foreign.status == 409:
        return None
    if not foreign.ok and not by_policy(foreign):
        raise refusal(f"cannot find out whether {kind} is protected", foreign)
    accepted = [f"{kind}: a status write is accepted without its writer's own stamp; {HELP}"] if foreign.ok else []
    if token < 2:
        return accepted, []
    sunk = api.request("PATCH", path, lower(token, mine), MERGE_PATCH)
    if sunk.status in (404, 409):
        return None
    if by_rule(sunk):
        return accepted, []
    # The rule is asked before the policies: where one of these answers, it is not there.
    if sunk.ok or by_policy(sunk):
        return accepted, [f"{kind}: a recorded token can be lowered; {_SCHEMA}"]
    raise refusal(f"cannot find out whether {kind} is protected", sunk)
