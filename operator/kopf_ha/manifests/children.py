"""The policies for children: kinds without `status.fencing`, whose stamp is four annotations."""

from __future__ import annotations

from kopf_ha.core.refusal import about_tokens
from kopf_ha.core.token import ANNOTATION_HOLDER, ANNOTATION_LEASE, ANNOTATION_POD_UID, ANNOTATION_TOKEN, TOKEN_MAX
from kopf_ha.manifests import cel
from kopf_ha.manifests.cel import Policy, Rule, annotation, text
from kopf_ha.manifests.description import Child, Description


def child_policies(description: Description, child: Child) -> list[Policy]:
    """Return the policies of one child kind."""
    return [written(description, child), protected(description, child)]


def written(description: Description, child: Child) -> Policy:
    """Return the policy for the operator's own writes to children (I3).

    A creation or change must carry the writer's own stamp, with a token above the recorded one, or the recorded stamp.
    A deletion carries no stamp, so the recorded one must be the writer's. `policies.stamped` explains which rules are
    about tokens.
    """
    lease, stale = text(description.lease), about_tokens(description.lease)
    what = f"an object of {child.kind}"
    recorded = "'token ' + string(variables.before) + ' of ' + variables.beforeHolder"
    rules = [
        Rule("bound", "variables.writer != ''", cel.UNBOUND),
        Rule(
            "subresource",
            f"variables.sub in {cel.texts(['', 'status'])}",
            "fencing: a write to this subresource carries no fencing stamp, so it cannot be fenced",
        ),
        Rule(
            "other-lease",
            f"variables.beforeLease in ['', {lease}]",
            f"fencing: the object is fenced by another Lease than {description.lease}",
            f"'fencing: the object is fenced by Lease ' + variables.beforeLease + ' (' + {recorded} + '), not by '"
            f" + {lease}",
        ),
        *_recognised(description, child),
        Rule(
            "stamp",
            f"object == null || variables.after > 0 && variables.after <= {TOKEN_MAX}"
            f" && variables.afterHolder != '' && {annotation(ANNOTATION_LEASE, 'object')}.orValue('') == {lease}",
            f"fencing: {what} must carry its writer's fencing stamp in annotations: {', '.join(cel.STAMP)}",
        ),
        Rule(
            "token",
            "object == null || variables.after > variables.before || (variables.after == variables.before"
            " && variables.afterPod == variables.beforePod && variables.afterHolder == variables.beforeHolder)",
            f"{stale}the stamp's token is stale",
            f"{text(stale + 'stale leader: the write carries token ')} + string(variables.after) + ' of '"
            f" + variables.afterHolder + ', the object records ' + {recorded}",
        ),
        Rule(
            "writer",
            "object == null || variables.afterPod == variables.writer",
            f"{stale}{what} must carry its writer's own fencing stamp",
            f"{text(stale + 'a write must carry the stamp of its own writer, pod ')} + variables.writer"
            " + ', this one has token ' + string(variables.after) + ' of ' + variables.afterHolder",
        ),
        Rule(
            "stamped-first",
            "request.operation != 'DELETE' || variables.beforePod == variables.writer",
            f"{stale}the object is not stamped by this writer; stamp it first",
            f"{text(stale + 'pod ')} + variables.writer + ' has not stamped the object, which records ' +"
            f" (variables.before == 0 ? 'no token' : {recorded}) + '; stamp it first'",
        ),
        cel.conditional_delete(what),
    ]
    return Policy(
        name=f"{description.prefix}-child-{child.kind}",
        description=description,
        groups=[child.group],
        resources=[child.plural, f"{child.plural}/*"],
        operations=["CREATE", "UPDATE", "DELETE"],
        conditions=[cel.operator_only(description), *cel.not_exempt(description, description.exempt_of(child.kind))],
        variables=[
            ("writer", cel.WRITER),
            ("sub", cel.SUB),
            *_stamp("before", "oldObject"),
            ("beforeLease", _text(ANNOTATION_LEASE, "oldObject")),
            *_stamp("after", "object"),
        ],
        rules=rules,
    )


def protected(description: Description, child: Child) -> Policy:
    """Return the policy by which only the operator changes a stamp of its Lease, or creates an object with one.

    The fence would take a forged stamp for that of a newer leader, and would not create the next object of that name
    (I2).
    """
    ours = text(description.lease)
    stamped = f"({_text(ANNOTATION_LEASE, 'oldObject')} == {ours} || {_text(ANNOTATION_LEASE, 'object')} == {ours})"
    return Policy(
        name=f"{description.prefix}-annotations-{child.kind}",
        description=description,
        groups=[child.group],
        resources=[child.plural, f"{child.plural}/status"],
        operations=["CREATE", "UPDATE"],
        conditions=[cel.others_only(description), cel.unless_asked(description, "stamped", stamped)],
        rules=[
            Rule(
                "stamp",
                f"oldObject != null && {cel.texts(cel.STAMP)}.all(k,"
                " object.metadata.?annotations[?k] == oldObject.metadata.?annotations[?k])",
                f"fencing: only {description.user} writes the annotations {', '.join(cel.STAMP)} of Lease"
                f" {description.lease}",
            )
        ],
    )


def _recognised(description: Description, child: Child) -> list[Rule]:
    """Return the rules by which the operator writes only its own children of this kind, in any namespace.

    It creates only objects that look like its children. It changes and deletes only objects that look like its children
    or have its stamp, which nobody else can write. So a child whose label a user removed stays the operator's, and so
    does a child without a stamp that it created before it was fenced. An object that a user created in a child's place
    stays the user's (I10).
    """
    if not child.labels and not child.owner:
        return []
    words = [f"label {key}={value}" for key, value in child.labels]
    if child.owner:
        words.append(f"an owner of kind {child.owner}")
    only = f"fencing: the operator {{}} only its own {child.kind}, those with {' and '.join(words)}"
    return [
        Rule(
            "own-made",
            f"request.operation != 'CREATE' || ({_looks(description, child, 'object')})",
            only.format("creates"),
        ),
        Rule(
            "own-written",
            f"request.operation == 'CREATE' || (variables.beforeLease == {text(description.lease)}"
            f" && variables.before > 0) || ({_looks(description, child, 'oldObject')})",
            f"{only.format('changes and deletes')} or its stamp",
        ),
    ]


def _looks(description: Description, child: Child, of: str) -> str:
    """Return the CEL expression for: the object looks like a child."""
    tests = [f"{of}.metadata.?labels[?{text(key)}].orValue('') == {text(value)}" for key, value in child.labels]
    if child.owner:
        tests.append(
            f"{of}.metadata.?ownerReferences.orValue([]).exists(o, o.kind == {text(child.owner)}"
            f" && o.apiVersion.startsWith({text(description.group + '/')}))"
        )
    return " && ".join(tests)


def _stamp(name: str, of: str) -> list[tuple[str, str]]:
    token = _text(ANNOTATION_TOKEN, of)
    return [
        (f"{name}Text", token),
        # Text that is not a number counts as no token. Without the policy above, anybody may have written it.
        (name, f"variables.{name}Text.matches('^[1-9][0-9]{{0,9}}$') ? int(variables.{name}Text) : 0"),
        (f"{name}Holder", _text(ANNOTATION_HOLDER, of)),
        (f"{name}Pod", _text(ANNOTATION_POD_UID, of)),
    ]


def _text(name: str, of: str) -> str:
    return f"({of} == null ? '' : {annotation(name, of)}.orValue(''))"
