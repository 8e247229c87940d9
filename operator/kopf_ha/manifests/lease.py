"""The policies for the Lease: it counts the terms, so its `leaseTransitions` must never go down (I2)."""

from __future__ import annotations

from kopf_ha.core.lease import ENDED, PAUSED
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.manifests import cel
from kopf_ha.manifests.cel import Policy, Rule, text
from kopf_ha.manifests.description import Description

#: The rule that answers the self-test's question about the description that the policies were written from. It refuses
#: nothing else.
DESCRIBE = "describe"
#: Its message begins with this. The description follows.
DESCRIBED = "fencing: described by "

_GROUP, _LEASES = ["coordination.k8s.io"], ["leases"]


def lease_policies(description: Description) -> list[Policy]:
    """Return the policies of the Lease."""
    return [counted(description), kept(description)]


def counted(description: Description) -> Policy:
    """Return the policy for writes to the Lease (I2).

    `leaseTransitions` never goes down, and only the operator raises it. Each new holder raises it, and a replica can
    only name its own pod as the holder. While the Lease is paused, no term begins, whatever release a replica is of,
    and no replica ends the pause. The policy also tells the self-test what all policies were written from.
    """
    namespace, name = description.lease_parts
    own = "variables.writer != '' && {}.contains('_' + variables.writer + '_')"
    unowned = f"fencing: only {description.user}"
    return Policy(
        name=f"{description.prefix}-lease",
        description=description,
        groups=_GROUP,
        resources=_LEASES,
        operations=["CREATE", "UPDATE"],
        namespaces=[namespace],
        # The name is taken from the object: a request that deletes a collection has no name for resourceNames.
        conditions=[{"name": "this-lease", "expression": f"object.metadata.name == {text(name)}"}],
        variables=[
            ("operator", f"request.userInfo.username == {text(description.user)}"),
            ("writer", cel.WRITER),
            ("before", "oldObject == null ? -1 : oldObject.?spec.?leaseTransitions.orValue(-1)"),
            ("after", "object.?spec.?leaseTransitions.orValue(-1)"),
            ("holder", "object.?spec.?holderIdentity.orValue('')"),
            ("held", "oldObject == null ? '' : oldObject.?spec.?holderIdentity.orValue('')"),
            # Any value pauses, the empty one, too.
            ("paused", f"oldObject != null && oldObject.metadata.?annotations[?{text(PAUSED)}].hasValue()"),
            ("pauses", f"object.metadata.?annotations[?{text(PAUSED)}].hasValue()"),
        ],
        rules=[
            Rule(
                "rises",
                "variables.after >= variables.before",
                "fencing: leaseTransitions may not decrease, it is the fencing token",
                "'fencing: leaseTransitions is the fencing token, it may not go back from '"
                " + string(variables.before) + ' to '"
                " + (variables.after < 0 ? 'nothing' : string(variables.after))",
            ),
            Rule(
                "number",
                f"variables.after >= 0 && variables.after <= {TOKEN_MAX}",
                f"fencing: leaseTransitions is the fencing token, it must be a number from 0 to {TOKEN_MAX}",
            ),
            # Anybody may set the number where there is none: in a Lease that they create, or repair. Replicas continue
            # above it.
            Rule(
                "raised-by-operator",
                "variables.operator || variables.before == -1 || variables.after == variables.before",
                f"{unowned} raises leaseTransitions",
                f"{text(unowned)} + ' raises leaseTransitions, from ' + string(variables.before) + ' to '"
                " + string(variables.after)",
            ),
            Rule(
                "named-by-operator",
                "variables.operator || ((variables.holder == '' || variables.holder == variables.held)"
                f" && {_ended('object')} == {_ended('oldObject')})",
                f"{unowned} names a holder, and says how a term ended; others may only empty it",
            ),
            Rule(
                "new-holder-raises",
                "variables.holder == '' || variables.holder == variables.held || variables.after > variables.before",
                "fencing: a new holder must raise leaseTransitions",
                "'fencing: a new holder must raise leaseTransitions above ' + string(variables.before)"
                " + ', this one has ' + string(variables.after)",
            ),
            Rule(
                "own-pod",
                f"!variables.operator || variables.holder == '' || ({own.format('variables.holder')})",
                "fencing: a replica names only its own pod as the holder",
                cel.unless_unbound(
                    "fencing: a replica names only its own pod as the holder",
                    "', this is pod ' + variables.writer + ', not ' + variables.holder",
                ),
            ),
            Rule(
                "own-release",
                "!variables.operator || variables.holder != '' || variables.held == ''"
                f" || ({own.format('variables.held')})",
                "fencing: a replica gives back only its own Lease",
                cel.unless_unbound(
                    "fencing: a replica gives back only its own Lease",
                    "', this is pod ' + variables.writer + ', the holder is ' + variables.held",
                ),
            ),
            Rule(
                "raised-by-holder",
                "!variables.operator || variables.holder != '' || variables.after == variables.before",
                "fencing: leaseTransitions is raised only by a holder",
            ),
            Rule(
                "paused",
                "!variables.operator || !variables.paused || variables.after == variables.before",
                f"fencing: the Lease is paused, so no term begins until somebody removes the annotation {PAUSED}",
            ),
            Rule(
                "paused-by-people",
                "!variables.operator || variables.paused == variables.pauses",
                f"fencing: people pause and resume, replicas neither set nor remove the annotation {PAUSED}",
            ),
            Rule(DESCRIBE, "true", DESCRIBED + description.as_json(), question=DESCRIBE),
        ],
        scope="Namespaced",
    )


def _ended(of: str) -> str:
    """Return what a Lease says about how the last term ended. The next leader keeps it in the Term."""
    return cel.metadata("annotations", ENDED, of)


def kept(description: Description) -> Policy:
    """Return the policy by which the Lease is deleted only with its namespace: a new one counts from 0 again (I2)."""
    namespace, name = description.lease_parts
    return Policy(
        name=f"{description.prefix}-lease-kept",
        description=description,
        groups=_GROUP,
        resources=_LEASES,
        operations=["DELETE"],
        namespaces=[namespace],
        conditions=[{"name": "this-lease", "expression": f"oldObject.metadata.name == {text(name)}"}],
        rules=[
            Rule(
                "with-namespace",
                "namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp)",
                f"fencing: Lease {description.lease} counts the fencing tokens, so it is deleted only with its"
                f" namespace; in an emergency remove the binding {description.prefix}-lease-kept first",
            )
        ],
        scope="Namespaced",
    )
