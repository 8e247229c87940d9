"""What the API server would let through, asked by dry runs before the barrier (trap 13).

Line 3 can be switched off without anybody noticing: a namespace overlay that leaves the service account's name
in the policies, a CRD without the rule. So a new leader asks for what must be refused, and names what is not.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kopf_ha.core.token import TOKEN_MAX, MalformedStamp, Stamp, stamp_of
from kopf_ha.core.wire import Response
from kopf_ha.run.api import Api
from kopf_ha.run.barrier import find_kind
from kopf_ha.settings import Settings

#: The uid of a pod that is nobody's.
NOBODY = "00000000-0000-0000-0000-000000000000"
ATTEMPTS = 5
#: Questions that are asked at once.
PARALLEL = 4

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

    def ask(self, token: int, timeout: float = 30.0) -> list[str]:
        """Give a sentence for each protection that is missing.

        A deciding kind without objects cannot be asked about: there is nothing to write to.

        Args:
            token: of the term that is about to begin, or the highest known.
            timeout: seconds for each answer.

        Raises:
            ConfigurationError: a deciding kind is not installed.
            LookupError: the answer to a question is neither yes nor no.
            urllib3.exceptions.HTTPError: no answer.
        """
        mine = Stamp(token, self._settings.identity, self._settings.lease, self._settings.pod_uid)
        api = _Asking(self._api, timeout)
        # At once, since a follower asks before it takes over.
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="kopf-ha-selftest") as pool:
            about = [pool.submit(lease_missing, api, self._settings)]
            about += [pool.submit(self._kind_missing, api, kind, mine) for kind in self._settings.deciding]
        return [sentence for one in about for sentence in one.result()]

    def _kind_missing(self, api: Api, kind: str, mine: Stamp) -> list[str]:
        path, body = self._example(api, kind)
        return kind_missing(api, kind, path, body, mine) if body else []

    def _example(self, api: Api, kind: str) -> tuple[str, dict[str, Any]]:
        """Give an object and its path; nothing if there is none."""
        if path := self._examples.get(kind):
            answer = api.request("GET", path)
            if answer.ok:
                return path, dict(answer.json)
            if answer.status != 404:
                raise LookupError(f"cannot read {path}: {answer.status} {answer.message}")
        base = find_kind(api, kind)
        items = _read(api, base.collection + "?limit=1").get("items") or [{}]
        path = self._examples[kind] = base.path(items[0]) if items[0] else ""
        return path, items[0]


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


def lease_missing(api: Api, settings: Settings) -> list[str]:
    """Ask whether `leaseTransitions` could be lowered (I2)."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{settings.lease_namespace}/leases/{settings.lease_name}"
    for _ in range(ATTEMPTS):
        body = _read(api, path)
        # PUT, since that is what the replicas are allowed to do; with the revision read, so that nothing is lost.
        count = (body.get("spec") or {}).get("leaseTransitions")
        if not count:
            raise LookupError(f"Lease {settings.lease} counts no terms: leaseTransitions is {count}")
        body["spec"]["leaseTransitions"] = count - 1
        answer = api.request("PUT", path + _DRY, body)
        if answer.status != 409:  # a renewal came in between
            break
    if _by_policy(answer):
        return []
    if answer.ok:
        return [f"leaseTransitions of Lease {settings.lease} can be lowered, so tokens could be given twice; {_HELP}"]
    raise LookupError(f"cannot find out whether Lease {settings.lease} is protected: {answer.status} {answer.message}")


def kind_missing(api: Api, kind: str, path: str, body: dict[str, Any], mine: Stamp) -> list[str]:
    """Ask whether an object would take another pod's stamp, or a lower token (I1, I3)."""
    path += "/status" + _DRY
    try:
        recorded = stamp_of(body, stamped=True)
    except MalformedStamp:
        recorded = None  # the barrier names it
    token = recorded.token if recorded else 0
    foreign = Stamp(min(max(token, mine.token) + 1, TOKEN_MAX), "selftest", mine.lease, NOBODY)
    missing = []
    if not _refused(api, kind, path, foreign):
        missing.append(f"{kind}: a status write is accepted without its writer's own stamp; {_HELP}")
    if token > 1 and not _refused(api, kind, path, Stamp(token - 1, mine.holder, mine.lease, mine.pod_uid)):
        missing.append(f"{kind}: a recorded token can be lowered; its CRD needs `kopf-ha manifests --only schema`")
    return missing


def _read(api: Api, path: str) -> dict[str, Any]:
    answer = api.request("GET", path)
    if not answer.ok:
        raise LookupError(f"cannot read {path}: {answer.status} {answer.message}")
    return dict(answer.json)


def _by_policy(answer: Response) -> bool:
    """Whether a policy of ours refused; RBAC answers 403 as well."""
    return answer.status == 403 and "ValidatingAdmissionPolicy 'kopf-ha" in answer.message


def _refused(api: Api, kind: str, path: str, stamp: Stamp) -> bool:
    """Whether our policy or our CRD rule refuses this stamp; also when the object is gone meanwhile.

    Raises:
        LookupError: something else did.
    """
    answer = api.request("PATCH", path, {"status": {"fencing": stamp.as_status()}}, _MERGE)
    if answer.ok:
        return False
    if _by_policy(answer) or answer.status == 404 or (answer.status == 422 and "fencing" in answer.message):
        return True
    raise LookupError(f"cannot find out whether {kind} is protected: {answer.status} {answer.message}")
