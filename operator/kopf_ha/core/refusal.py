"""The one place that recognises a refusal by our CRD rule or by one of our policies (I10).

An API server quotes in its messages what users wrote. So nothing is looked for in `message`: what refused stands
alone in `details.causes`, and is compared there as a whole, from its first character (docs/facts.md).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kopf_ha.core.target import Target
from kopf_ha.core.wire import Response

#: The sentence of the transition rule at the root of each stamped kind's schema.
RULE_MESSAGE = (
    "The fencing stamp in status.fencing may not be removed and its token may not go down, so this write comes from a"
    " stale leader or would let one through."
)

#: What our policies' sentences begin with; those about tokens name the Lease before the colon (`about_tokens`).
FENCING = "fencing"

#: What our policies' names begin with.
PREFIX = "kopf-ha"

_POLICY = re.compile(
    r"ValidatingAdmissionPolicy '([a-z0-9.-]+)' with binding '([a-z0-9.-]+)' denied request: (.*)", re.DOTALL
)
_FIELD = re.compile(r"status\.fencing(\.\w+)?")


class Refusal(enum.Enum):
    """What refused a write."""

    NONE = enum.auto()  #: nothing of ours: the answer is the client's
    RULE_TOKEN = enum.auto()  #: our CRD rule: the token would go down, or the stamp away
    POLICY_TOKEN = enum.auto()  #: a policy of ours: by its tokens this writer's term is over
    POLICY_OTHER = enum.auto()  #: a policy of ours, by a rule that is not about tokens
    SCHEMA = enum.auto()  #: the schema of `status.fencing`, which does not take our stamp

    @property
    def about_tokens(self) -> bool:
        """Whether the writer's term may be over. Only a fresh read of the object tells that it is."""
        return self in (Refusal.RULE_TOKEN, Refusal.POLICY_TOKEN)


class Denial(NamedTuple):
    """A policy's refusal: the policy's name, and the sentence of the rule."""

    policy: str
    message: str


def about_tokens(lease: str) -> str:
    """Give what the sentences of our policies' rules about tokens begin with.

    Args:
        lease: ``namespace/name`` of the Lease by which the tokens count.
    """
    return f"{FENCING} token of Lease {lease}: "


def refusal_of(answer: Response, target: Target, lease: str) -> Refusal:
    """Say what of ours refused a write, if it was ours.

    Args:
        answer: of the API server.
        target: what was written.
        lease: ``namespace/name`` of the writer's Lease.
    """
    if by_rule(answer):
        return Refusal.RULE_TOKEN
    if _stamp_fields(answer):
        return Refusal.SCHEMA
    denial = denial_of(answer)
    if denial is None or not denial.policy.startswith(PREFIX):
        return Refusal.NONE
    rules = ("-stamped", f"-child-{target.kind}")
    if answer.status == 403 and denial.policy.endswith(rules) and denial.message.startswith(about_tokens(lease)):
        return Refusal.POLICY_TOKEN
    return Refusal.POLICY_OTHER


def by_rule(answer: Response) -> bool:
    """Say whether the CRD's transition rule refused a write."""
    return answer.status == 422 and any(
        cause.get("field") == "<nil>" and cause.get("message") == f"Invalid value: {RULE_MESSAGE}"
        for cause in _causes(answer)
    )


def denial_of(answer: Response) -> Denial | None:
    """Give the policy that refused a write, whosever it is; None when no policy did.

    The policy and its binding have one name, as ours have. A rule that could not be evaluated answers 422.
    """
    if answer.status not in (403, 422):
        return None
    for cause in _causes(answer):
        found = _POLICY.fullmatch(str(cause.get("message")))
        if found and found[1] == found[2] and "field" not in cause:
            return Denial(found[1], found[3])
    return None


def sentence_of(answer: Response) -> str:
    """Give what may be shown of a refusal, without any value that a user wrote: our own sentences, names of policies.

    A rule that could not be evaluated says why in words of the object's; so only its policy is named.
    """
    if by_rule(answer):
        return RULE_MESSAGE
    if fields := _stamp_fields(answer):
        return f"the schema of the kind does not take this term's stamp: {', '.join(fields)}"
    denial = denial_of(answer)
    if denial is None:
        return ""
    ours = denial.policy.startswith(PREFIX) and denial.message.startswith(FENCING)
    return f"policy {denial.policy}" + (f": {denial.message}" if ours else "")


def outline(answer: Response) -> str:
    """Give what may be logged of any answer: ``403 Forbidden, policy NAME: sentence``, and nothing that it quotes."""
    status = answer.json
    reason = status.get("reason") if isinstance(status, Mapping) else None
    told = str(answer.status)
    if isinstance(reason, str) and reason.isascii() and reason.isalpha():
        told += f" {reason}"
    sentence = sentence_of(answer)
    return f"{told}, {sentence}" if sentence else told


def _stamp_fields(answer: Response) -> list[str]:
    fields = (cause.get("field") for cause in _causes(answer)) if answer.status == 422 else ()
    return [field for field in fields if isinstance(field, str) and _FIELD.fullmatch(field)]


def _causes(answer: Response) -> Iterator[Mapping[str, Any]]:
    status = answer.json
    details = status.get("details") if isinstance(status, Mapping) and status.get("kind") == "Status" else None
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return (cause for cause in (causes if isinstance(causes, list) else ()) if isinstance(cause, Mapping))
