"""The policies for children: kinds without `status.fencing`, whose stamp is in their metadata (`core/notes.py`).

The annotations of earlier releases count as recorded, so that no such stamp is lowered. A write has to carry the
stamp in its present form, so a replica of an earlier release is refused.

Of most subresources the body is the object, and its stamp counts there, too. A Scale, an Eviction, a Binding and a
TokenRequest show no stamp. They are refused to the operator, unless its description names them: then only the gate and
the object's revision hold (lines 1 and 2).
"""

from __future__ import annotations

from kopf_ha.core.notes import (
    ANNOTATION_HOLDER,
    ANNOTATION_LEASE,
    ANNOTATION_POD_UID,
    ANNOTATION_TOKEN,
    COPIES,
    EARLIER,
    LABELLED,
    note_name,
    section_of,
)
from kopf_ha.core.refusal import about_tokens
from kopf_ha.core.subresource import subresources_of
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.manifests import cel
from kopf_ha.manifests.cel import Policy, Rule, metadata, text
from kopf_ha.manifests.description import Child, Description

_NUMBER = "^[1-9][0-9]{0,9}$"

#: Where the body of a write without a stamp names the revision of its object, by subresource.
_REVISION = {"eviction": "deleteOptions.?preconditions.?resourceVersion", "binding": "metadata.?resourceVersion"}


def child_policies(description: Description, child: Child) -> list[Policy]:
    """Return the policies of one child kind."""
    return [written(description, child), *conditioned(description, child), protected(description, child)]


def written(description: Description, child: Child) -> Policy:
    """Return the policy for the operator's own writes to children (I3).

    A creation or change must carry the writer's own stamp, with a token above the recorded one, or the recorded stamp.
    A deletion carries no stamp, so the recorded one must be the writer's. `policies.stamped` explains which rules are
    about tokens.
    """
    stale = about_tokens(description.lease)
    what = f"an object of {child.kind}"
    note = f"{section_of(child.kind)[:-1]} {note_name(description.lease, child.kind)}"
    recorded = "'token ' + string(variables.before) + ' of ' + variables.beforeHolder"
    none = f"fencing: {what} must carry its writer's fencing stamp in the {note}"
    rules = [
        Rule("bound", "variables.writer != ''", cel.UNBOUND),
        cel.known_subresource(["", *_whole(child)], _option(description, child)),
        *_recognised(description, child),
        Rule(
            "stamp",
            f"object == null || variables.after > 0 && variables.after <= {TOKEN_MAX} && variables.afterHolder != ''",
            none,
            text(none + cel.NOT_FENCED),
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
            f" (variables.before == 0 ? 'no token' : {recorded}) + '; stamp it first'"
            f" + (variables.before == 0 ? {text(cel.NOT_FENCED)} : '')",
        ),
        cel.conditional_delete(what),
    ]
    return Policy(
        name=f"{description.prefix}-child-{child.kind}",
        description=description,
        groups=[child.group],
        resources=[child.plural, f"{child.plural}/*", *_bindings(child)],
        operations=["CREATE", "UPDATE", "DELETE"],
        conditions=[cel.operator_only(description), *cel.not_exempt(description, _left_out(description, child))],
        variables=[
            ("writer", cel.WRITER),
            ("sub", _sub(child)),
            *_recorded(description, child),
            *_noted(description, child, "after", "object"),
        ],
        rules=rules,
    )


def conditioned(description: Description, child: Child) -> list[Policy]:
    """Return the policy by which the operator's evictions and bindings name a revision, if it may make some.

    A Scale always shows the revision of its object, whether its writer named one or not. A TokenRequest shows none.
    """
    exempt = description.exempt_of(child.kind)
    named = [name for name in child.unseen if name in _REVISION and f"{child.plural}/{name}" not in exempt]
    if not named:
        return []
    return [
        Policy(
            name=f"{description.prefix}-revision-{child.kind}",
            description=description,
            groups=[child.group],
            resources=[*(f"{child.plural}/{name}" for name in named), *_bindings(child, "binding" in named)],
            operations=["CREATE"],
            conditions=[cel.operator_only(description)],
            variables=[("sub", _sub(child))],
            rules=[
                Rule(
                    name,
                    f"variables.sub != '{name}' || dyn(object).?{_REVISION[name]}.orValue('') != ''",
                    f"fencing: this write must name the revision that was decided from, in"
                    f" {_REVISION[name].replace('?', '')}",
                )
                for name in named
            ],
        )
    ]


def protected(description: Description, child: Child) -> Policy:
    """Return the policy by which only the operator changes a stamp of its Lease, or creates an object with one.

    The fence would take a forged stamp for that of a newer leader, and would not create the next object of that name
    (I2). What a rollback puts back into a Deployment's annotations may only be lower than what is there; its label
    stays, and counts.
    """
    section, name = section_of(child.kind), note_name(description.lease, child.kind)
    stamped = " || ".join(f"{metadata(section, name, of)} != ''" for of in ("oldObject", "object"))
    entry = f"metadata.?{section}[?{text(name)}]"
    rule = f"oldObject != null && object.{entry} == oldObject.{entry}"
    words = f"the {section[:-1]} {name}"
    if child.kind not in COPIES:
        ours = f"{_names_lease(description, 'oldObject')} || {_names_lease(description, 'object')}"
        stamped += f" || {ours}"
        same = f"{cel.texts(EARLIER)}.all(k, object.metadata.?annotations[?k] == oldObject.metadata.?annotations[?k])"
        if child.kind in LABELLED:
            same = f"({same} || {_earlier(description, 'object')} <= {_earlier(description, 'oldObject')})"
        rule += f" && (!({ours}) || {same})"
        words += f" and the annotations {', '.join(EARLIER)}"
    return Policy(
        name=f"{description.prefix}-annotations-{child.kind}",
        description=description,
        groups=[child.group],
        resources=[child.plural, *(f"{child.plural}/{name}" for name in _whole(child))],
        operations=["CREATE", "UPDATE"],
        conditions=[cel.others_only(description), cel.unless_asked(description, "stamped", f"({stamped})")],
        rules=[
            Rule(
                "stamp",
                rule,
                f"fencing: only {description.user} writes {words}, the stamp of Lease {description.lease}",
            )
        ],
    )


def _whole(child: Child) -> list[str]:
    """Return the subresources whose body is the object, with its stamp."""
    return [name for name, part in subresources_of(child.kind).items() if part.shows_stamp]


def _left_out(description: Description, child: Child) -> list[str]:
    """Return the subresources that no rule about stamps is for, as ``plural/subresource``."""
    names = [*description.exempt_of(child.kind), *(f"{child.plural}/{name}" for name in child.unseen)]
    return [*names, *(f"{name}/" for name in _bindings(child, "pods/binding" in names))]


def _bindings(child: Child, needed: bool = True) -> list[str]:
    """Return the resource ``bindings`` for Pods: a Binding that is sent there is one of the Pod that it names."""
    return ["bindings"] if needed and child.kind == "pods" else []


def _sub(child: Child) -> str:
    """Return the CEL expression for the subresource that is written."""
    return f"request.resource.resource == 'bindings' ? 'binding' : ({cel.SUB})" if _bindings(child) else cel.SUB


def _option(description: Description, child: Child) -> str:
    """Return the option of `kopf-ha manifests` that describes this kind."""
    return f"--child {child.kind}" if child in description.children else f"--kind {child.plural}"


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
            f"request.operation == 'CREATE' || variables.before > 0 || ({_looks(description, child, 'oldObject')})",
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


def _recorded(description: Description, child: Child) -> list[tuple[str, str]]:
    """Return variables for the recorded stamp: `before`, `beforePod` and `beforeHolder`. The higher token counts."""
    if child.kind in COPIES:
        return _noted(description, child, "before", "oldObject")
    parts = (("", "0"), ("Pod", ANNOTATION_POD_UID), ("Holder", ANNOTATION_HOLDER))
    earlier = [("earlier", _earlier(description, "oldObject"))]
    earlier += [(f"earlier{part}", metadata("annotations", name, "oldObject")) for part, name in parts[1:]]
    either = "variables.noted{0} : variables.earlier{0}"
    return [
        *_noted(description, child, "noted", "oldObject"),
        *earlier,
        *((f"before{part}", f"variables.noted >= variables.earlier ? {either.format(part)}") for part, _ in parts),
    ]


def _noted(description: Description, child: Child, name: str, of: str) -> list[tuple[str, str]]:
    """Return variables for the note of `object` or `oldObject`: its token, or 0 without one, its pod and its holder.

    What is no stamp counts as none: without the policy above, anybody may have written it.
    """
    section = section_of(child.kind)
    parts = f"variables.{name}Parts"
    if section == "labels":
        split, size, pod, holder, rest = "split('.')", 3, 1, 2, ""
    else:
        split, size, pod, holder = "split(' ', 4)", 4, 2, 3
        rest = f" && {parts}[1] == {text(description.lease)}"
    return [
        (f"{name}Parts", f"{metadata(section, note_name(description.lease, child.kind), of)}.{split}"),
        (name, f"{parts}.size() == {size} && {parts}[0].matches('{_NUMBER}'){rest} ? int({parts}[0]) : 0"),
        (f"{name}Pod", f"variables.{name} > 0 ? {parts}[{pod}] : ''"),
        (f"{name}Holder", f"variables.{name} > 0 ? {parts}[{holder}] : ''"),
    ]


def _names_lease(description: Description, of: str) -> str:
    """Return the CEL expression for: the annotations of earlier releases are a stamp of this Lease."""
    return f"{metadata('annotations', ANNOTATION_LEASE, of)} == {text(description.lease)}"


def _earlier(description: Description, of: str) -> str:
    """Return the CEL expression for the token in the annotations of earlier releases; 0 without one of this Lease."""
    token = metadata("annotations", ANNOTATION_TOKEN, of)
    return f"({_names_lease(description, of)} && {token}.matches('{_NUMBER}') ? int({token}) : 0)"
