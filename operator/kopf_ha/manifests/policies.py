"""The policies for stamped kinds, and all policies together.

They run inside the storage transaction: `oldObject` is the very revision that is replaced. The API server
checks a resourceVersion first, so who only lost a race gets 409 and no refusal.
"""

from __future__ import annotations

from kopf_ha.core.refusal import about_tokens
from kopf_ha.manifests import cel
from kopf_ha.manifests.cel import Object, rule, text
from kopf_ha.manifests.children import child_policies
from kopf_ha.manifests.description import Description, Kind
from kopf_ha.manifests.lease import lease_policies


def policies(description: Description) -> list[Object]:
    """Give all policies with their bindings, for the operator's writes and for everybody else's."""
    made = [*stamped(description), *stamp(description)]
    for kind in description.kinds:
        made += terminating(description, kind)
    for child in description.children:
        made += child_policies(description, child)
    return made + lease_policies(description)


def stamped(description: Description) -> list[Object]:
    """The operator's writes to stamped kinds (I1, I3, I4).

    A status write carries the writer's own stamp; everything else needs that stamp to be there already. So what
    a newer term has stamped is closed to an older one, whatever it sends, as long as it invents no token. Only the
    rules that show by tokens that the writer's term is over say so (I10): the fence ends a term by no other.
    """
    lease, stale = text(description.lease), about_tokens(description.lease)
    recorded = "'token ' + string(variables.before.token) + ' of ' + variables.before.holder"
    validations = [
        rule("variables.writer != ''", cel.UNBOUND),
        rule(
            f"variables.sub in {cel.texts(['', 'status'])}",
            "fencing: a write to this subresource carries no fencing stamp, so it cannot be fenced",
        ),
        rule(
            f"variables.before == null || variables.before.lease == {lease}",
            f"fencing: the object is fenced by another Lease than {description.lease}",
            f"'fencing: the object is fenced by Lease ' + variables.before.lease + ' (' + {recorded} + '), not by '"
            f" + {lease}",
        ),
        rule(
            "variables.sub != 'status' || variables.after != null",
            "fencing: a status write must carry its writer's fencing stamp, this one has none",
        ),
        rule(
            f"variables.sub != 'status' || variables.after.lease == {lease}",
            f"fencing: the stamp must name Lease {description.lease}",
        ),
        rule(
            "variables.sub != 'status' || variables.before == null"
            " || variables.after.token > variables.before.token || variables.after == variables.before",
            f"{stale}the stamp's token is stale",
            f"{text(stale + 'stale leader: the write carries token ')} + string(variables.after.token) + ' of '"
            f" + variables.after.holder + ', the object records ' + {recorded}",
        ),
        rule(
            "variables.sub != 'status' || variables.after.podUID == variables.writer",
            f"{stale}a status write must carry its writer's own fencing stamp",
            f"{text(stale + 'a status write must carry the stamp of its own writer, pod ')} + variables.writer"
            " + ', this one has token ' + string(variables.after.token) + ' of ' + variables.after.holder",
        ),
        rule(
            "variables.sub == 'status' || (variables.before != null && variables.before.podUID == variables.writer)",
            f"{stale}the object is not stamped by this writer; stamp it through /status first",
            f"{text(stale + 'pod ')} + variables.writer + ' has not stamped the object, which records ' +"
            f" (variables.before == null ? 'no token' : {recorded}) + '; stamp it through /status first'",
        ),
        cel.conditional_delete("an object"),
    ]
    exempt = [e for k in description.kinds for e in description.exempt_of(f"{k.plural}.{description.group}")]
    return cel.policy(
        f"{description.prefix}-stamped",
        [description.group],
        [r for k in description.kinds for r in (k.plural, f"{k.plural}/*")],
        ["UPDATE", "DELETE"],
        conditions=[cel.operator_only(description), *cel.not_exempt(exempt)],
        variables=[
            ("writer", cel.WRITER),
            ("sub", cel.SUB),
            ("before", "has(oldObject.status) && has(oldObject.status.fencing) ? oldObject.status.fencing : null"),
            (
                "after",
                "object != null && has(object.status) && has(object.status.fencing) ? object.status.fencing : null",
            ),
        ],
        validations=validations,
    )


def stamp(description: Description) -> list[Object]:
    """Nobody but the operator changes a stamp (trap 8). Every other field of the status stays editable."""
    return cel.policy(
        f"{description.prefix}-stamp",
        [description.group],
        [f"{k.plural}/status" for k in description.kinds],
        ["UPDATE"],
        conditions=[cel.others_only(description)],
        validations=[
            rule(
                "object.?status.?fencing == oldObject.?status.?fencing",
                f"fencing: only {description.user} changes status.fencing; in an emergency remove the binding"
                f" {description.prefix}-stamp first",
            )
        ],
    )


def terminating(description: Description, kind: Kind) -> list[Object]:
    """Nothing is newly allocated from or for an object that is being deleted, whoever writes (trap 1, I5).

    Removing its last finalizer is not compare-and-swap, so a late allocation could be lost with the object.
    """
    if not kind.maps and not kind.values:
        return []
    validations = [
        rule(
            f"!has(object.status) || !has(object.status.{field})"
            f" || (has(oldObject.status) && has(oldObject.status.{field})"
            f" && object.status.{field}.all(k, k in oldObject.status.{field}"
            f" && object.status.{field}[k] == oldObject.status.{field}[k]))",
            f"fencing: the object is being deleted, so status.{field} gets no new entry",
        )
        for field in kind.maps
    ] + [
        rule(
            f"!has(object.status) || !has(object.status.{field})"
            f" || (has(oldObject.status) && has(oldObject.status.{field})"
            f" && object.status.{field} == oldObject.status.{field})",
            f"fencing: the object is being deleted, so status.{field} gets no new value",
        )
        for field in kind.values
    ]
    return cel.policy(
        f"{description.prefix}-terminating-{kind.plural}",
        [description.group],
        [f"{kind.plural}/status"],
        ["UPDATE"],
        conditions=[{"name": "terminating", "expression": "has(oldObject.metadata.deletionTimestamp)"}],
        validations=validations,
        scope="Cluster" if kind.cluster else "Namespaced",
    )
