"""Recognises refusals by our CRD rule and by our policies (I10). No other module recognises one.

An API server quotes in its messages what users wrote, so `message` is never searched. What refused the write stands
alone in `details.causes`, and is compared there as a whole, from its first character (docs/facts.md).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kopf_ha.core.target import Target
from kopf_ha.core.wire import Response

#: The message of the transition rule at the root of each stamped kind's schema.
RULE_MESSAGE = (
    "The fencing stamp in status.fencing may not be removed and its token may not go down, so this write comes from a"
    " stale leader or would let one through."
)

#: The annotation of an event with counts of stale writes that were refused, as ``gate=1,precondition=2``.
REFUSED = "kopf-ha.dev/refused-writes"

#: The message of the rule at the root of the schema of a Term.
TERM_RULE_MESSAGE = (
    "The token of a Term only rises, and holder and podUID change with it, so this write comes from a stale leader."
)

#: The messages of our policies begin with this. Those about tokens name the Lease before the colon (`about_tokens`).
FENCING = "fencing"

#: The names of our policies begin with this.
PREFIX = "kopf-ha"

#: What stands before the message of a schema's rule. Kubernetes 1.34 and older name the type of the value, too.
_INVALID = ("Invalid value: ", 'Invalid value: "object": ')
_POLICY = re.compile(
    r"ValidatingAdmissionPolicy '([a-z0-9.-]+)' with binding '([a-z0-9.-]+)' denied request: (.*)", re.DOTALL
)
#: A token: CEL writes an int32. Python refuses to parse thousands of digits.
_NUMBER = "[0-9]{1,10}"
#: What follows `about_term` in the message of the policy about the Term.
_LEADER = re.compile(rf"token ({_NUMBER}) leads, in pod (\S+), and this write is of (?:no pod|pod \S+)")
_GIVEN = re.compile(rf"fencing: Term \S+ has token ({_NUMBER}); a new holder must raise leaseTransitions above it")
_FIELD = re.compile(r"status\.fencing(\.\w+)?")


class Refusal(enum.Enum):
    """What refused a write."""

    NONE = enum.auto()  #: nothing of ours, so the client gets the answer
    RULE_TOKEN = enum.auto()  #: our CRD rule: the write would lower the token or remove the stamp
    POLICY_TOKEN = enum.auto()  #: a policy of ours, by a rule about tokens: this writer's term seems to be over
    POLICY_OTHER = enum.auto()  #: a policy of ours, by a rule that is not about tokens
    SCHEMA = enum.auto()  #: the schema of `status.fencing` does not accept our stamp

    @property
    def about_tokens(self) -> bool:
        """Whether the writer's term may be over. Only a new read of the object or the Lease can confirm it."""
        return self in (Refusal.RULE_TOKEN, Refusal.POLICY_TOKEN)


class Denial(NamedTuple):
    """The refusal of a ValidatingAdmissionPolicy: its name, and the message of its rule."""

    policy: str
    message: str

    @property
    def is_ours(self) -> bool:
        """Whether the policy is one of ours."""
        return self.policy.startswith(PREFIX)


def about_tokens(lease: str) -> str:
    """Return the beginning of the messages of our policies' rules about tokens.

    Args:
        lease: ``namespace/name`` of the Lease by which the tokens count.
    """
    return f"{FENCING} token of Lease {lease}: "


def about_term(lease: str) -> str:
    """Return the beginning of the message by which the policy about the Term refuses another pod's write.

    Args:
        lease: ``namespace/name`` of the Lease, and of its Term.
    """
    return f"{FENCING} term of Lease {lease}: "


def refusal_of(answer: Response, target: Target, lease: str) -> Refusal:
    """Return which of our rules refused a write, if one did.

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
    if denial is None or not denial.is_ours:
        return Refusal.NONE
    rules = ("-stamped", f"-child-{target.kind}")
    if answer.status == 403 and denial.policy.endswith(rules) and denial.message.startswith(about_tokens(lease)):
        return Refusal.POLICY_TOKEN
    return Refusal.POLICY_OTHER


def by_rule(answer: Response) -> bool:
    """Return whether the transition rule of the CRD refused a write."""
    return answer.status == 422 and any(
        cause.get("field") == "<nil>" and said_by_rule(cause.get("message")) for cause in _causes(answer)
    )


def said_by_rule(message: object) -> bool:
    """Return whether the message of a cause is that of the transition rule."""
    return message in [before + RULE_MESSAGE for before in _INVALID]


def denial_of(answer: Response) -> Denial | None:
    """Return which policy refused a write, ours or not; None if no policy did.

    Only policies whose binding has the same name are found, as ours have. The API server answers 422 instead of 403 if
    a rule could not be evaluated.
    """
    if answer.status not in (403, 422):
        return None
    for cause in _causes(answer):
        found = _POLICY.fullmatch(str(cause.get("message")))
        if found and found[1] == found[2] and "field" not in cause:
            return Denial(found[1], found[3])
    return None


def by_policy(answer: Response, name: str = "") -> bool:
    """Return whether a rule of one of our policies said no: of the policy `name`, or of any. RBAC answers 403, too."""
    denial = denial_of(answer)
    return answer.status == 403 and denial is not None and denial.is_ours and name in ("", denial.policy)


def given_before(answer: Response) -> int:
    """Return the token that the Term has, if an acquisition of the Lease was refused because of it; otherwise 0.

    Args:
        answer: of the API server to the acquisition.
    """
    denial = denial_of(answer)
    if answer.status != 403 or denial is None or not denial.is_ours or not denial.policy.endswith("-lease-term"):
        return 0
    found = _GIVEN.fullmatch(denial.message)
    return int(found[1]) if found else 0


class Leader(NamedTuple):
    """Who leads, as far as the API server knows that refused a write: its token and its pod's uid."""

    token: int
    pod_uid: str


def leader_in(answer: Response, lease: str) -> Leader | None:
    """Return who leads for the API server that refused a write of another pod; None if nothing of ours did.

    Args:
        answer: of the API server.
        lease: ``namespace/name`` of the writer's Lease.
    """
    denial = denial_of(answer)
    if answer.status != 403 or denial is None or not denial.is_ours or not denial.policy.endswith("-term"):
        return None
    about = about_term(lease)
    found = _LEADER.fullmatch(denial.message.removeprefix(about)) if denial.message.startswith(about) else None
    return Leader(int(found[1]), found[2]) if found else None


def sentence_of(answer: Response) -> str:
    """Return what may be shown of a refusal: our own messages and names of policies, and nothing that a user wrote.

    If a rule could not be evaluated, the API server quotes the object. Then only the policy is named.
    """
    if by_rule(answer):
        return RULE_MESSAGE
    if fields := _stamp_fields(answer):
        return f"the schema of the kind does not accept this term's stamp: {', '.join(fields)}"
    denial = denial_of(answer)
    if denial is None:
        return ""
    ours = denial.is_ours and denial.message.startswith(FENCING)
    return f"policy {denial.policy}" + (f": {denial.message}" if ours else "")


def outline(answer: Response) -> str:
    """Return what may be logged of any answer: ``403 Forbidden, policy NAME: message``, and nothing that it quotes."""
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
