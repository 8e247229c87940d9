"""The policies for stamped kinds, and the list of all policies.

They run inside the storage transaction: `oldObject` is exactly the revision that is replaced. The API server checks a
resourceVersion first, so a writer that only lost a race gets 409 and not a refusal.

The rules about the operator's account and about stamps of its Lease hold in every namespace: they are nobody else's.
Those about everybody's writes hold in the namespaces that the operator serves, so that another installation can serve
others.
"""

from __future__ import annotations

from kopf_ha.core.refusal import about_tokens
from kopf_ha.manifests import cel
from kopf_ha.manifests.cel import Object, Policy, Rule, text
from kopf_ha.manifests.children import child_policies
from kopf_ha.manifests.description import Description, Kind
from kopf_ha.manifests.lease import lease_policies
from kopf_ha.manifests.term import term_policies

#: Untyped, because the self-test's question is about a Lease.
NOW, WAS = "dyn(object)", "dyn(oldObject)"


def policies(description: Description) -> list[Object]:
    """Return all policies with their bindings, for the operator's writes and for those of everybody else."""
    return [o for policy in all_policies(description) for o in policy.objects()]


def all_policies(description: Description) -> list[Policy]:
    """Return all policies. The self-test asks about each of their rules."""
    made = [stamped(description), stamp(description), schema(description)] if description.stamped else []
    made += [terminating(description, kind) for kind in description.kinds if kind.maps or kind.values]
    for child in description.noted:
        made += child_policies(description, child)
    return made + lease_policies(description) + term_policies(description)


def stamped(description: Description) -> Policy:
    """Return the policy for the operator's own writes to stamped kinds (I1, I3, I4).

    A status write must carry the writer's own stamp. Every other write needs that stamp on the object already. So an
    older term can write nothing that a newer term has stamped, unless it invents a token.

    Messages of rules that compare tokens begin with `about_tokens`. Only these rules prove that the writer's term is
    over, so only they make the fence end it (I10).
    """
    lease, stale = text(description.lease), about_tokens(description.lease)
    recorded = "'token ' + string(variables.before.token) + ' of ' + variables.before.holder"
    none = "fencing: a status write must carry its writer's fencing stamp, this one has none"
    rules = [
        Rule("bound", "variables.writer != ''", cel.UNBOUND),
        cel.known_subresource(["", "status"], "--kind PLURAL"),
        Rule(
            "other-lease",
            f"variables.before == null || variables.before.lease == {lease}",
            f"fencing: the object is fenced by another Lease than {description.lease}",
            f"'fencing: the object is fenced by Lease ' + variables.before.lease + ' (' + {recorded} + '), not by '"
            f" + {lease}",
        ),
        Rule(
            "status-stamp",
            "variables.sub != 'status' || variables.after != null",
            none,
            text(none + cel.NOT_FENCED),
        ),
        Rule(
            "stamp-lease",
            f"variables.sub != 'status' || variables.after.lease == {lease}",
            f"fencing: the stamp must name Lease {description.lease}",
        ),
        Rule(
            "token",
            "variables.sub != 'status' || variables.before == null"
            " || variables.after.token > variables.before.token || variables.after == variables.before",
            f"{stale}the stamp's token is stale",
            f"{text(stale + 'stale leader: the write carries token ')} + string(variables.after.token) + ' of '"
            f" + variables.after.holder + ', the object records ' + {recorded}",
        ),
        Rule(
            "writer",
            "variables.sub != 'status' || variables.after.podUID == variables.writer",
            f"{stale}a status write must carry its writer's own fencing stamp",
            f"{text(stale + 'a status write must carry the stamp of its own writer, pod ')} + variables.writer"
            " + ', this one has token ' + string(variables.after.token) + ' of ' + variables.after.holder",
        ),
        Rule(
            "stamped-first",
            "variables.sub == 'status' || (variables.before != null && variables.before.podUID == variables.writer)",
            f"{stale}the object is not stamped by this writer; stamp it through /status first",
            f"{text(stale + 'pod ')} + variables.writer + ' has not stamped the object, which records ' +"
            f" (variables.before == null ? 'no token' : {recorded}) + '; stamp it through /status first'"
            f" + (variables.before == null ? {text(cel.NOT_FENCED)} : '')",
        ),
        cel.conditional_delete("an object"),
    ]
    left_out = [e for k in description.stamped for e in description.exempt_of(f"{k.plural}.{description.group}")]
    left_out += [f"{k.plural}/{name}" for k in description.stamped for name in k.subresources]
    return Policy(
        name=f"{description.prefix}-stamped",
        description=description,
        groups=[description.group],
        resources=[r for k in description.stamped for r in (k.plural, f"{k.plural}/*")],
        operations=["UPDATE", "DELETE"],
        conditions=[cel.operator_only(description), _news(description), *cel.not_exempt(description, left_out)],
        variables=[
            ("writer", cel.WRITER),
            ("sub", cel.SUB),
            ("before", f"has({WAS}.status) && has({WAS}.status.fencing) ? {WAS}.status.fencing : null"),
            (
                "after",
                f"object != null && has({NOW}.status) && has({NOW}.status.fencing) ? {NOW}.status.fencing : null",
            ),
        ],
        rules=rules,
    )


def _news(description: Description) -> Object:
    """Return the condition that leaves out writes for which every rule of `stamped` holds.

    Nearly all are: the object records the writer's pod and this Lease, and a status write carries the recorded stamp.
    The API server evaluates all rules of a policy, and the messages of those that hold, too. This is one expression.
    """
    was, recorded = f"{WAS}.?status.?fencing", f"{WAS}.?status.?fencing.?podUID.orValue('')"
    known = [
        "request.operation == 'UPDATE'",
        f"{was}.?lease.orValue('') == {text(description.lease)}",
        f"{recorded} != ''",
        f"{recorded} == {cel.WRITER}",
        f"({cel.SUB}) in ['', 'status'] && (({cel.SUB}) == '' || {NOW}.?status.?fencing == {was})",
    ]
    return {"name": "news", "expression": f"!({' && '.join(known)})"}


def stamp(description: Description) -> Policy:
    """Return the policy by which only the operator changes a stamp (I1). Users can edit the rest of the status."""
    return Policy(
        name=f"{description.prefix}-stamp",
        description=description,
        groups=[description.group],
        resources=[f"{k.plural}/status" for k in description.stamped],
        operations=["UPDATE"],
        conditions=[cel.others_only(description)],
        namespaces=description.namespaces,
        rules=[
            Rule(
                "stamp",
                f"{NOW}.?status.?fencing == {WAS}.?status.?fencing",
                f"fencing: only {description.user} changes status.fencing; in an emergency remove the binding"
                f" {description.prefix}-stamp first",
            )
        ],
    )


def schema(description: Description) -> Policy:
    """Return the policy by which each served version of the kinds keeps the stamp and its rule (I1, I2).

    An edit through a version without the field removes the object's stamp, whatever the rule of another version says.
    After that a stale writer could get through.
    """
    names = [f"{k.plural}.{description.group}" for k in description.stamped]
    served = f"{NOW}.spec.versions.all(v, has(v.served) && !v.served || ({{}}))"
    rules = "v.?schema.?openAPIV3Schema[?'x-kubernetes-validations'].orValue([])"
    apart = f"in an emergency remove the binding {description.prefix}-schema first"
    return Policy(
        name=f"{description.prefix}-schema",
        description=description,
        groups=["apiextensions.k8s.io"],
        resources=["customresourcedefinitions"],
        operations=["CREATE", "UPDATE"],
        conditions=[cel.unless_asked(description, "kinds", f"object.metadata.name in {cel.texts(names)}")],
        rules=[
            Rule(
                "stamp-in-all-versions",
                served.format(
                    "v.?subresources.?status.hasValue()"
                    " && v.?schema.?openAPIV3Schema.?properties.?status.?properties.?fencing.hasValue()"
                ),
                "fencing: a served version lacks status.fencing or the status subresource, so an edit by it would"
                f" remove an object's stamp; add what `kopf-ha manifests --only schema` prints to each; {apart}",
            ),
            Rule(
                "rule-in-all-versions",
                served.format(f"{rules}.exists(r, r.rule.contains('oldSelf.status.fencing.token'))"),
                "fencing: a served version lacks the rule about status.fencing, so a token could go down by it; add"
                f" what `kopf-ha manifests --only schema` prints to each; {apart}",
            ),
        ],
        scope="Cluster",
    )


def terminating(description: Description, kind: Kind) -> Policy:
    """Return the policy by which nothing new is allocated from or for an object that is being deleted (I5).

    It applies to all writers. Removing the last finalizer is not compare-and-swap, so a late allocation could be lost
    with the object.
    """
    rules = [
        Rule(
            f"status.{field}",
            f"!has({NOW}.status) || !has({NOW}.status.{field})"
            f" || (has({WAS}.status) && has({WAS}.status.{field})"
            f" && {NOW}.status.{field}.all(k, k in {WAS}.status.{field}"
            f" && {NOW}.status.{field}[k] == {WAS}.status.{field}[k]))",
            f"fencing: the object is being deleted, so status.{field} gets no new entry",
        )
        for field in kind.maps
    ] + [
        Rule(
            f"status.{field}",
            f"!has({NOW}.status) || !has({NOW}.status.{field})"
            f" || (has({WAS}.status) && has({WAS}.status.{field})"
            f" && {NOW}.status.{field} == {WAS}.status.{field})",
            f"fencing: the object is being deleted, so status.{field} gets no new value",
        )
        for field in kind.values
    ]
    return Policy(
        name=f"{description.prefix}-terminating-{kind.plural}",
        description=description,
        groups=[description.group],
        # Without the subresource the status is written with the object.
        resources=[f"{kind.plural}/status", *([kind.plural] if kind.annotations else [])],
        operations=["UPDATE"],
        conditions=[cel.unless_asked(description, "terminating", "has(oldObject.metadata.deletionTimestamp)")],
        rules=rules,
        namespaces=description.namespaces,
        scope="Cluster" if kind.cluster else "Namespaced",
    )
