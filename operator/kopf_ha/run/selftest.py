"""What the API server would let through, asked by dry runs before the barrier, and by the leader again and again.

Line 3 can be switched off without anybody noticing: a binding that was removed for a repair, a namespace overlay that
leaves the service account's name in the policies, a CRD without the rule. So a new leader asks for what must be
refused, and names what is not.

What the policies were written from, the Lease's own tells: so the questions are made by the code that wrote them, and
there is one for each policy and for each of its rules. Each is a dry-run update of the Lease that changes nothing,
which the replica may send anyway; its field manager names the rule. To that the policy says no, and by that it shows
that it, its binding and the rule are in force for this replica. Beside these some of what a stale leader would write
is tried in earnest, by dry runs, too.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from kopf_ha.core.refusal import by_policy, by_rule, denial_of
from kopf_ha.core.token import TOKEN_MAX, MalformedStamp, Stamp, stamp_of
from kopf_ha.core.wire import Response
from kopf_ha.errors import ConfigurationError, Unfenced
from kopf_ha.manifests.cel import QUESTION, Policy, Rule
from kopf_ha.manifests.description import Description
from kopf_ha.manifests.lease import DESCRIBE, DESCRIBED
from kopf_ha.manifests.policies import all_policies
from kopf_ha.run.api import Api
from kopf_ha.run.barrier import locate, schema_of
from kopf_ha.settings import Settings

#: The uid of a pod that is nobody's.
NOBODY = "00000000-0000-0000-0000-000000000000"
ATTEMPTS = 5
#: Questions that are asked at once.
PARALLEL = 8

_MERGE = "application/merge-patch+json"
_DRY = "?dryRun=All"
_HELP = "apply the policies that `kopf-ha manifests` writes for this Lease and service account"


class SelfTest:
    """Asks for what must be refused. Anybody may, a follower, too: what is asked for is nobody's right.

    It remembers one object of each kind. That spares a list when it matters, and the list costs more than itself: the
    API server lets a consistent list of a kind wait for up to 0.1 s when there was another one just before, and the
    barrier's comes next.

    Args:
        api: of an unfenced client with the replica's own credentials: the fence lets nobody write the Lease.
        settings: the Lease and the deciding kinds.
    """

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings
        self._examples: dict[str, str] = {}
        #: Whether nothing was missing in the last whole answer.
        self.clean = False
        #: Kinds that a served version of theirs makes unfit to be written (I1), and why: as of the last whole answer.
        self.unfit: dict[str, str] = {}

    def ask(self, token: int, timeout: float = 30.0, *, kinds: Iterable[str] = (), whole: bool = True) -> list[str]:
        """Give a sentence for each protection that is missing.

        A kind without objects is asked about by its policies and its definition only: there is nothing to write to.

        Args:
            token: of the term that is about to begin, or the highest known.
            timeout: seconds for each answer.
            kinds: that are known to be stamped, beside those that are deciding and those that the policies are about.
            whole: ask about each rule; otherwise only about each policy and the deciding kinds, which is quicker.

        Raises:
            ConfigurationError: a deciding kind is not installed.
            LookupError: the answer to a question is neither yes nor no.
            urllib3.exceptions.HTTPError: no answer.
        """
        if whole:
            self.clean = False
        mine = Stamp(token, self._settings.identity, self._settings.lease, self._settings.pod_uid)
        api = _Asking(self._api, timeout)
        lease = _Lease(api, self._settings)
        # At once, since a follower asks before it takes over.
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="kopf-ha-selftest") as pool:
            lowered = pool.submit(lease.can_be_lowered)
            tried = {k: pool.submit(self._try, api, k, mine) for k in self._settings.deciding}
            described = lease.description()
            known = {*self._settings.deciding, *kinds}
            missing: dict[str, list[str]] = {}
            if described is not None:
                missing = _policies_missing(pool, lease, described, whole)
                known |= {f"{k.plural}.{described.group}" for k in described.kinds}
            if whole:
                tried |= {k: pool.submit(self._try, api, k, mine) for k in sorted(known - tried.keys())}
                unfit = {k: pool.submit(self._unfit, api, k) for k in sorted(known)}
                self.unfit = {k: why for k, f in unfit.items() if (why := f.result())}
            found = list(_of_lease(lowered.result(), described, missing, self._settings))
            found += [sentence for many in missing.values() for sentence in many]
            stamped = described is not None and f"{described.prefix}-stamped" in missing
            for kind, future in tried.items():
                foreign, rule = future.result()
                # A policy that is not in force is named already.
                found += [] if stamped else foreign
                found += [] if kind in self.unfit else rule
        found += self.unfit.values()
        if whole:
            self.clean = not found
        return found

    def _try(self, api: Api, kind: str, mine: Stamp) -> tuple[list[str], list[str]]:
        """Try to stamp an object wrongly, if there is one: give what the policy and what the rule let through."""
        for _ in range(ATTEMPTS):
            path, body = self._example(api, kind)
            if not body:
                break
            found = kind_missing(api, kind, path, body, mine)
            if found is not None:
                return found
            self._examples.pop(kind, None)  # gone meanwhile, which is no refusal
        return [], []

    def _example(self, api: Api, kind: str) -> tuple[str, dict[str, Any]]:
        """Give an object and its path; nothing if there is none."""
        if path := self._examples.get(kind):
            answer = api.request("GET", path)
            if answer.ok:
                return path, dict(answer.json)
            if answer.status != 404:
                raise LookupError(f"cannot read {path}: {answer.status} {answer.message}")
        base = locate(api, kind)
        items = _read(api, base.collection + "?limit=1").get("items") or [{}]
        path = self._examples[kind] = base.path(items[0]) if items[0] else ""
        return path, items[0]

    def _unfit(self, api: Api, kind: str) -> str:
        """Say why a kind must not be written; empty if it may."""
        try:
            stamped = schema_of(api, locate(api, kind).any)
        except Unfenced as error:
            return str(error)
        except ConfigurationError:
            if kind in self._settings.deciding:
                raise
            return ""  # not installed (any more): there is nothing to write
        if stamped is False:
            return f"{kind}: no served version has status.fencing; its CRD needs `kopf-ha manifests --only schema`"
        return ""


class _Asking(Api):
    """The same client with less patience."""

    def __init__(self, api: Api, timeout: float) -> None:
        super().__init__(api.client)
        self._patience = timeout

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "", timeout: float = math.inf
    ) -> Response:
        """Send one request; see `Api.request`."""
        return super().request(method, path, body, content_type, min(timeout, self._patience))


class _Lease:
    """Asks by dry-run updates of the Lease. That is what the replicas are allowed to do with it."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._name = settings.lease
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{settings.lease_namespace}/leases/{settings.lease_name}"
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}

    def description(self) -> Description | None:
        """Give what the policies were written from; None when none of this version's answers this replica."""
        answer = self._put(manager=QUESTION + DESCRIBE)
        if answer.ok:
            return None
        denial = denial_of(answer)
        if answer.status != 403 or denial is None or not denial.message.startswith(DESCRIBED):
            raise LookupError(f"cannot find out what protects Lease {self._name}: {answer.status} {answer.message}")
        try:
            return Description.from_json(denial.message.removeprefix(DESCRIBED))
        except ConfigurationError:
            return None

    def has(self, policy: Policy, rule: Rule) -> bool:
        """Say whether a rule is in force for this replica: that very policy has to say no, and nothing else counts.

        Raises:
            LookupError: something else did.
        """
        answer = self._put(manager=rule.asked(policy.name))
        if answer.ok:
            return False
        if by_policy(answer, policy.name):
            return True
        raise LookupError(f"cannot find out whether {policy.name} is in force: {answer.status} {answer.message}")

    def can_be_lowered(self) -> bool:
        """Try to lower the count of terms (I2)."""
        answer = self._put(lower=1)
        if not answer.ok and not by_policy(answer):
            raise LookupError(
                f"cannot find out whether Lease {self._name} is protected: {answer.status} {answer.message}"
            )
        return answer.ok

    def _put(self, manager: str = "", lower: int = 0) -> Response:
        """Update it by a dry run, on the revision read; again if a renewal came in between."""
        query = _DRY + (f"&fieldManager={quote(manager, safe='')}" if manager else "")
        body = self._read()
        for _ in range(ATTEMPTS):
            count = (body.get("spec") or {}).get("leaseTransitions")
            if not count:
                raise LookupError(f"Lease {self._name} counts no terms: leaseTransitions is {count}")
            changed = body | {"spec": body["spec"] | {"leaseTransitions": count - lower}}
            answer = self._api.request("PUT", self._path + query, changed)
            if answer.status != 409:
                break
            body = self._read(other_than=body)
        return answer

    def _read(self, other_than: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._lock:
            if not self._known or self._known is other_than:
                self._known = _read(self._api, self._path)
            return self._known


def _policies_missing(pool: Executor, lease: _Lease, described: Description, whole: bool) -> dict[str, list[str]]:
    """Ask about each policy; give sentences by the policy's name."""
    asking: list[tuple[Policy, Rule, Future[bool]]] = [
        (policy, rule, pool.submit(lease.has, policy, rule))
        for policy in all_policies(described)
        for rule in (policy.rules if whole else policy.rules[:1])
        if not rule.question  # which was answered before
    ]
    lacking: dict[str, list[Rule]] = {}
    answered = set()
    for policy, rule, has in asking:
        if has.result():
            answered.add(policy.name)
        else:
            lacking.setdefault(policy.name, []).append(rule)
    return {
        name: [f"policy {name} lacks its rule {r.name} ({r.message}); {_HELP}" for r in rules]
        if name in answered
        else [f"policy {name} is not in force, or its binding; {_HELP}"]
        for name, rules in lacking.items()
    }


def _of_lease(
    lowered: bool, described: Description | None, missing: dict[str, list[str]], settings: Settings
) -> Iterator[str]:
    if lowered and (described is None or f"{described.prefix}-lease" not in missing):
        yield f"leaseTransitions of Lease {settings.lease} can be lowered, so tokens could be given twice; {_HELP}"
    elif described is None:
        yield f"the policies of Lease {settings.lease} do not answer: of another version, or about others; {_HELP}"
    if described is not None:
        kinds = {f"{k.plural}.{described.group}" for k in described.kinds}
        for kind in settings.deciding:
            if kind not in kinds:
                yield f"{kind}: a deciding kind that policy {described.prefix}-stamped is not about; {_HELP}"


def kind_missing(
    api: Api, kind: str, path: str, body: dict[str, Any], mine: Stamp
) -> tuple[list[str], list[str]] | None:
    """Ask whether an object would take another pod's stamp, or a lower token (I1, I3); None when it is gone."""
    path += "/status" + _DRY
    try:
        recorded = stamp_of(body, stamped=True)
    except MalformedStamp:
        recorded = None  # the barrier names it
    token = recorded.token if recorded else 0
    above = min(max(token, mine.token) + 1, TOKEN_MAX)
    foreign = api.request("PATCH", path, _status(Stamp(above, "selftest", mine.lease, NOBODY)), _MERGE)
    if foreign.status == 404:
        return None
    if not foreign.ok and not by_policy(foreign):
        raise LookupError(f"cannot find out whether {kind} is protected: {foreign.status} {foreign.message}")
    accepted = [f"{kind}: a status write is accepted without its writer's own stamp; {_HELP}"] if foreign.ok else []
    if token < 2:
        return accepted, []
    lower = api.request("PATCH", path, _status(Stamp(token - 1, mine.holder, mine.lease, mine.pod_uid)), _MERGE)
    if lower.status == 404:
        return None
    if by_rule(lower):
        return accepted, []
    # The rule is asked before the policies: where one of these answers, it is not there.
    if lower.ok or by_policy(lower):
        return accepted, [f"{kind}: a recorded token can be lowered; its CRD needs `kopf-ha manifests --only schema`"]
    raise LookupError(f"cannot find out whether {kind} is protected: {lower.status} {lower.message}")


def _status(stamp: Stamp) -> dict[str, Any]:
    return {"status": {"fencing": stamp.as_status()}}


def _read(api: Api, path: str) -> dict[str, Any]:
    answer = api.request("GET", path)
    if not answer.ok:
        raise LookupError(f"cannot read {path}: {answer.status} {answer.message}")
    return dict(answer.json)
