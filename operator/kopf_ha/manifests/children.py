"""The policies for children, which have no status of ours: their stamp is four annotations."""

from __future__ import annotations

from kopf_ha.core.refusal import about_tokens
from kopf_ha.core.token import ANNOTATION_HOLDER, ANNOTATION_LEASE, ANNOTATION_POD_UID, ANNOTATION_TOKEN, TOKEN_MAX
from kopf_ha.manifests import cel
from kopf_ha.manifests.cel import Object, annotation, rule, text
from kopf_ha.manifests.description import Child, Description


def child_policies(description: Description, child: Child) -> list[Object]:
    """Give the policies of one child kind."""
    return [*written(description, child), *protected(description, child)]


def written(description: Description, child: Child) -> list[Object]:
    """The operator's writes to children (I3).

    A creation or change carries the writer's own stamp, above the recorded one or the same; a deletion carries
    none, so the recorded one must be the writer's. Which rules are about tokens: see `policies.stamped`.
    """
    lease, stale = text(description.lease), about_tokens(description.lease)
    what = f"an object of {child.kind}"
    recorded = "'token ' + string(variables.before) + ' of ' + variables.beforeHolder"
    validations = [
        rule("variables.writer != ''", cel.UNBOUND),
        rule(
            f"variables.sub in {cel.texts(['', 'status'])}",
            "fencing: a write to this subresource carries no fencing stamp, so it cannot be fenced",
        ),
        rule(
            f"variables.beforeLease in ['', {lease}]",
            f"fencing: the object is fenced by another Lease than {description.lease}",
            f"'fencing: the object is fenced by Lease ' + variables.beforeLease + ' (' + {recorded} + '), not by '"
            f" + {lease}",
        ),
        *_recognised(description, child),
        rule(
            f"object == null || variables.after > 0 && variables.after <= {TOKEN_MAX}"
            f" && variables.afterHolder != '' && {annotation(ANNOTATION_LEASE, 'object')}.orValue('') == {lease}",
            f"fencing: {what} must carry its writer's fencing stamp in annotations: {', '.join(cel.STAMP)}",
        ),
        rule(
            "object == null || variables.after > variables.before || (variables.after == variables.before"
            " && variables.afterPod == variables.beforePod && variables.afterHolder == variables.beforeHolder)",
            f"{stale}the stamp's token is stale",
            f"{text(stale + 'stale leader: the write carries token ')} + string(variables.after) + ' of '"
            f" + variables.afterHolder + ', the object records ' + {recorded}",
        ),
        rule(
            "object == null || variables.afterPod == variables.writer",
            f"{stale}{what} must carry its writer's own fencing stamp",
            f"{text(stale + 'a write must carry the stamp of its own writer, pod ')} + variables.writer"
            " + ', this one has token ' + string(variables.after) + ' of ' + variables.afterHolder",
        ),
        rule(
            "request.operation != 'DELETE' || variables.beforePod == variables.writer",
            f"{stale}the object is not stamped by this writer; stamp it first",
            f"{text(stale + 'pod ')} + variables.writer + ' has not stamped the object, which records ' +"
            f" (variables.before == 0 ? 'no token' : {recorded}) + '; stamp it first'",
        ),
        cel.conditional_delete(what),
    ]
    return cel.policy(
        f"{description.prefix}-child-{child.kind}",
        [child.group],
        [child.plural, f"{child.plural}/*"],
        ["CREATE", "UPDATE", "DELETE"],
        conditions=[cel.operator_only(description), *cel.not_exempt(description.exempt_of(child.kind))],
        variables=[
            ("writer", cel.WRITER),
            ("sub", cel.SUB),
            *_stamp("before", "oldObject"),
            ("beforeLease", _text(ANNOTATION_LEASE, "oldObject")),
            *_stamp("after", "object"),
        ],
        validations=validations,
    )


def protected(description: Description, child: Child) -> list[Object]:
    """Nobody but the operator changes a stamp of our Lease, or makes an object that has one.

    A forged one would be taken for a newer leader's, and the next of this name would not be made (I2).
    """
    ours = text(description.lease)
    return cel.policy(
        f"{description.prefix}-annotations-{child.kind}",
        [child.group],
        [child.plural, f"{child.plural}/status"],
        ["CREATE", "UPDATE"],
        conditions=[
            cel.others_only(description),
            {
                "name": "stamped",
                "expression": f"{_text(ANNOTATION_LEASE, 'oldObject')} == {ours}"
                f" || {_text(ANNOTATION_LEASE, 'object')} == {ours}",
            },
        ],
        validations=[
            rule(
                f"oldObject != null && {cel.texts(cel.STAMP)}.all(k,"
                " object.metadata.?annotations[?k] == oldObject.metadata.?annotations[?k])",
                f"fencing: only {description.user} writes the annotations {', '.join(cel.STAMP)} of Lease"
                f" {description.lease}",
            )
        ],
    )


def _recognised(description: Description, child: Child) -> list[Object]:
    """The operator makes no other objects of this kind than its children.

    Asked of creations only: an object of a child's name whose label a user took off, or that a user made, must
    not end the term of whoever comes to correct or remove it.
    """
    if not child.labels and not child.owner:
        return []
    tests, words = [], []
    for key, value in child.labels:
        tests.append(f"object.metadata.?labels[?{text(key)}].orValue('') == {text(value)}")
        words.append(f"label {key}={value}")
    if child.owner:
        tests.append(
            f"object.metadata.?ownerReferences.orValue([]).exists(o, o.kind == {text(child.owner)}"
            f" && o.apiVersion.startsWith({text(description.group + '/')}))"
        )
        words.append(f"an owner of kind {child.owner}")
    return [
        rule(
            f"request.operation != 'CREATE' || ({' && '.join(tests)})",
            f"fencing: of {child.kind} the operator makes only its own, those with {' and '.join(words)}",
        )
    ]


def _stamp(name: str, of: str) -> list[tuple[str, str]]:
    token = _text(ANNOTATION_TOKEN, of)
    return [
        (f"{name}Text", token),
        # What is no number counts as none: the annotations were never protected, then.
        (name, f"variables.{name}Text.matches('^[1-9][0-9]{{0,9}}$') ? int(variables.{name}Text) : 0"),
        (f"{name}Holder", _text(ANNOTATION_HOLDER, of)),
        (f"{name}Pod", _text(ANNOTATION_POD_UID, of)),
    ]


def _text(name: str, of: str) -> str:
    return f"({of} == null ? '' : {annotation(name, of)}.orValue(''))"
