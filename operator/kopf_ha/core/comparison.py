"""Mode `rv`: optimistic concurrency, as most operators do it. It is for comparison only and fences nothing."""

from __future__ import annotations

from kopf_ha.core.asked import Asked
from kopf_ha.core.change import conditional, with_body
from kopf_ha.core.target import Target, api_root
from kopf_ha.core.wire import Flow, Request

ATTEMPTS = 5


def optimistic(request: Request, target: Target | None) -> Flow:
    """Condition a merge patch on a revision. After a conflict, read again and try again, whoever wrote in between."""
    if target is None or not target.name or not request.is_merge_patch:
        return (yield request)
    asked = Asked.parse(request, target)
    version = asked.version
    read = Request("GET", api_root(request.path) + target.path)
    for _ in range(ATTEMPTS):
        if version is None:
            answer = yield read
            version = str(((answer.json or {}).get("metadata") or {}).get("resourceVersion") or "")
            if not answer.ok or not version:
                return answer
        answer = yield with_body(request, conditional(asked, version=version, uid=""))
        if answer.status != 409:
            return answer
        version = None
    return answer
