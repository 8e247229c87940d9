"""docs/refused.md, from a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.kit.client import Answer
from tests.policies.fenced import Fenced
from tests.policies.refused import Row
from tests.policies.unrefused import Case

TITLES = {
    "FencedPool": "A deciding kind (pools)",
    "FencedClaim": "Another stamped kind (claims)",
    "ConfigMap": "Children (ConfigMaps)",
    "Lease": "The Lease",
}
INTRO = """\
# What the API server refuses

`KOPF_HA_REWRITE=1 pytest tests/policies/test_policies_refused.py` generates this page. Without the variable, the test
checks it.

The test sends raw requests with the credentials of two pods of the operator, without the fence in the process. The
stale leader's pod (`old`) had token 7. The current leader's pod (`new`) has token 8 and has stamped the object. RBAC
allows everything here, so that only the API server's line of the fence refuses. The RBAC from `kopf-ha manifests`
allows less.

- `403 stamped` and similar: the policy of this name refused.
- `422 schema`: the CRD's rule refused. It runs before the policies, so a lower token gets the rule's message.
- Only `422 schema` and messages that begin with `fencing token of Lease` are about tokens. Only they can show that a
  term is over. All others are about one write.
- Every deletion has to name a `resourceVersion`. So a `delete` without one and the deletion of a collection are always
  refused.
- A refused request changed nothing, not even the resourceVersion.
"""
LIMITS = """\
## What it cannot refuse

Each case was tried on the same API server. The last column says what protects instead.

"""
REST = """
One request cannot show these cases:

- **Removing the last finalizer is not compare-and-swap.** The API server checks policies and resourceVersion, then
  deletes the object without checking the resourceVersion again. A stamp that arrives between these steps is answered
  with 200 and is lost with the object. So nothing new is allocated from or for an object that is being deleted: the
  policies `terminating-*` refuse it, whoever writes.
- **Credentials of a force-deleted pod** work for about ten more seconds. They count as a stale leader's, as above.
- **Administrators** can remove the policies. In an emergency, run
  `kubectl delete validatingadmissionpolicybinding NAME`.
"""


def page(fenced: Fenced, rows: Sequence[Row], cases: Iterable[Case]) -> str:
    """Give the whole page."""
    parts = [INTRO]
    for target, title in TITLES.items():
        parts.append(f"\n## {title}\n\n| request | stale leader | current leader | message to the stale leader |\n")
        parts.append("|---|---|---|---|\n")
        for row in rows:
            if row.target == target:
                told = "" if row.stale.ok or not row.stale.by else _sentence(fenced, row.stale)
                cells = (row.verb, _cell(fenced, row.stale), _cell(fenced, row.current), told)
                parts.append("| " + " | ".join(cells) + " |\n")
    parts.append("\n" + LIMITS + "| case | answer | what protects instead |\n|---|---|---|\n")
    for case in cases:
        instead = case.instead or ("" if case.answer.ok else _sentence(fenced, case.answer))
        parts.append(f"| {case.what} | {_cell(fenced, case.answer)} | {instead} |\n")
    return "".join(parts) + REST


def _cell(fenced: Fenced, answer: Answer) -> str:
    if answer.ok:
        return f"**{answer.status}**"
    by = answer.by.removeprefix(fenced.description.prefix + "-")
    return f"{answer.status} {by}".strip()


def _sentence(fenced: Fenced, answer: Answer) -> str:
    text = fenced.plain(answer.message)
    for mark in ("denied request: ", "Invalid value: ", '"object": '):  # the last one before Kubernetes 1.35
        text = text.rpartition(mark)[2]
    return text.replace("|", "\\|")
