"""Whether the objects of a kind are protected: tries some writes of a stale leader, by dry runs."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice
from typing import Any

from kopf_ha.api import Api, refusal
from kopf_ha.core.refusal import by_policy, by_rule
from kopf_ha.core.token import TOKEN_MAX, MalformedStamp, Stamp, stamp_of
from kopf_ha.core.wire import MERGE_PATCH
from kopf_ha.errors import ApiRefused, ConfigurationError, Unfenced
from kopf_ha.run.kinds import ServedKind, locate, schema_of
from kopf_ha.run.leasetest import ATTEMPTS, DRY_RUN, HELP
from kopf_ha.run.namespaces import Namespaces

#: The uid of a pod that does not exist.
NOBODY = "00000000-0000-0000-0000-000000000000"

_SCHEMA = "its CRD needs `kopf-ha manifests --only schema`"

#: Sentences about what the policies do not refuse, and about what the CRD's rule does not refuse.
Missing = tuple[list[str], list[str]]


class KindTest:
    """Tries kinds, and remembers one object of each.

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
            self._examples.pop(kind, None)  # gone meanwhile, which is no refusal
        return [], []

    def unfit(self, api: Api, kind: str) -> str:
        """Return why a kind must not be written (I1); empty if it may be.

        Raises:
            ConfigurationError: a deciding kind is not installed.
            ApiRefused: the API server did not say.
        """
        try:
            stamped = schema_of(api, locate(api, kind).any)
        except Unfenced as error:
            return str(error)
        except ConfigurationError:
            if kind in self._deciding:
                raise
            return ""  # not installed (any more): there is nothing to write
        return f"{kind}: no served version has status.fencing; {_SCHEMA}" if stamped is False else ""

    def _example(self, api: Api, kind: str) -> tuple[str, dict[str, Any]]:
        """Return the path of some object, and the object; both are empty if there is none."""
        if path := self._examples.get(kind):
            answer = api.request("GET", path)
            if answer.ok:
                return path, dict(answer.json)
            if answer.status != 404:
                raise refusal(f"cannot read {path}", answer)
        base = locate(api, kind)
        items = list(islice(self._some(api, base), 1)) or [{}]
        path = self._examples[kind] = base.target(items[0]).path if items[0] else ""
        return path, items[0]

    def _some(self, api: Api, kind: ServedKind) -> Iterator[dict[str, Any]]:
        """Yield objects of a kind, at most one of each namespace that may be listed."""
        names = self._namespaces.find(api).names if kind.namespaced else None
        if names is None:
            yield from api.call("GET", kind.collection + "?limit=1").get("items") or ()
            return
        for name in names:
            try:
                yield from api.call("GET", kind.collection_in(name) + "?limit=1").get("items") or ()
            except ApiRefused as error:
                if error.status != 403:
                    raise  # a namespace without a role, or that does not exist yet; the barrier names it


def wrong_stamps(api: Api, kind: str, path: str, body: dict[str, Any], mine: Stamp) -> Missing | None:
    """Ask whether an object would take another pod's stamp, or a lower token (I1, I3); None when it is gone.

    Raises:
        ApiRefused: an answer is neither yes nor no.
    """
    path += "/status" + DRY_RUN
    try:
        recorded = stamp_of(body)
    except MalformedStamp:
        recorded = None  # the barrier names it
    token = recorded.token if recorded else 0
    above = min(max(token, mine.token) + 1, TOKEN_MAX)
    foreign = api.request("PATCH", path, _status(Stamp(above, "selftest", mine.lease, NOBODY)), MERGE_PATCH)
    if foreign.status == 404:
        # Without a name in the answer there is no `/status`. The stamps of such a kind are in its metadata.
        details = (foreign.json or {}).get("details") or {}
        return None if details.get("name") else ([], [])
    if not foreign.ok and not by_policy(foreign):
        raise refusal(f"cannot find out whether {kind} is protected", foreign)
    accepted = [f"{kind}: a status write is accepted without its writer's own stamp; {HELP}"] if foreign.ok else []
    if token < 2:
        return accepted, []
    lower = api.request("PATCH", path, _status(Stamp(token - 1, mine.holder, mine.lease, mine.pod_uid)), MERGE_PATCH)
    if lower.status == 404:
        return None
    if by_rule(lower):
        return accepted, []
    # The rule is asked before the policies: where one of these answers, it is not there.
    if lower.ok or by_policy(lower):
        return accepted, [f"{kind}: a recorded token can be lowered; {_SCHEMA}"]
    raise refusal(f"cannot find out whether {kind} is protected", lower)


def _status(stamp: Stamp) -> dict[str, Any]:
    return {"status": {"fencing": stamp.as_status()}}
