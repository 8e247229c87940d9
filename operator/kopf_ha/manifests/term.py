"""The Term, by which the API server knows who leads, and the policies about it (line 4 of the fence).

A Term is an object of a kind of its own, one for each Lease. The leader writes it right after it has acquired the
Lease. The policy `leading` has it as its parameter, and refuses all writes of the operator's account that another pod
sends: creations, kinds without a stamp, programs that no adapter reaches.

Each API server reads parameters from an informer, so the policy hears of a new term some milliseconds late, and a fault
can freeze it. I1 to I10 never rest on it.
"""

from __future__ import annotations

from kopf_ha.core.notes import note_name, section_of
from kopf_ha.core.refusal import about_term
from kopf_ha.manifests import cel
from kopf_ha.manifests.cel import TERM_API, TERMS, Object, Policy, Rule, text
from kopf_ha.manifests.description import Child, Description

#: The rule that answers the question which term an API server knows. It refuses nothing else.
KNOWN = "term"
#: Its message begins with this. ``TOKEN of pod UID`` follows.
KNOWN_TERM = "fencing: the term is "

_GROUP, _ = TERM_API.split("/")
_NUMBER = "^[1-9][0-9]{0,9}$"


def term_policies(description: Description) -> list[Policy]:
    """Return the policies by which the Term is compared, and those that protect it."""
    return [leading(description), written(description), kept(description), counted(description)]


def leading(description: Description) -> Policy:
    """Return the policy by which only the pod in the Term writes anything as the operator's account.

    Comparison is one-sided: an API server that has not heard of the new leader's Term yet accepts what carries a stamp
    of that leader, since its token is above the Term's. The new leader sends the rest again (I9).

    Exempt are events, reviews, and what elects the leader: the Lease, the Term, the lock of earlier replicas.
    """
    stale = about_term(description.lease)
    everything = {"apiVersions": ["*"], "operations": ["*"], "scope": "*"}
    return Policy(
        name=f"{description.prefix}-term",
        description=description,
        groups=["*"],
        resources=["*/*"],
        operations=["CREATE", "UPDATE", "DELETE", "CONNECT"],
        excluded=[
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], **everything},
            {"apiGroups": ["authentication.k8s.io", "authorization.k8s.io"], "resources": ["*"], **everything},
        ],
        conditions=[cel.operator_only(description), *_not_electing(description)],
        variables=[("writer", cel.WRITER), *_carried(description)],
        rules=[
            Rule(
                "leader",
                "variables.writer == params.spec.podUID || variables.carried >= params.spec.token",
                f"{stale}another pod leads",
                f"{text(f'{stale}token ')} + string(params.spec.token) + ' leads, in pod ' + params.spec.podUID"
                " + ', and this write is of ' + (variables.writer == '' ? 'no pod' : 'pod ' + variables.writer)",
            ),
            Rule(
                KNOWN,
                "true",
                f"{KNOWN_TERM}unknown",
                f"{text(KNOWN_TERM)} + string(params.spec.token) + ' of pod ' + params.spec.podUID",
                question=KNOWN,
            ),
        ],
        by_term=True,
    )


def written(description: Description) -> Policy:
    """Return the policy by which only the operator writes the Term, each replica for its own pod (I10).

    So only the pod that the Term names writes its history.
    """
    own = "object.spec.podUID == variables.writer"
    changed = (
        "(oldObject == null || object.spec != oldObject.spec"
        " || object.?history.orValue([]) != oldObject.?history.orValue([]))"
    )
    return Policy(
        name=f"{description.prefix}-term-written",
        description=description,
        groups=[_GROUP],
        resources=[TERMS],
        operations=["CREATE", "UPDATE"],
        namespaces=[description.lease_parts[0]],
        conditions=[_this_term(description, "object")],
        variables=[
            ("operator", f"request.userInfo.username == {text(description.user)}"),
            ("writer", cel.WRITER),
        ],
        rules=[
            Rule(
                "by-operator",
                f"variables.operator || !{changed}",
                f"fencing: only {description.user} writes Term {description.lease}; in an emergency remove the binding"
                f" {description.prefix}-term",
            ),
            Rule(
                "own-pod",
                f"!variables.operator || !{changed} || {own}",
                "fencing: a replica names only its own pod in the Term",
                cel.unless_unbound(
                    "fencing: a replica names only its own pod in the Term",
                    "', this is pod ' + variables.writer + ', not ' + object.spec.podUID",
                ),
            ),
        ],
        scope="Namespaced",
    )


def kept(description: Description) -> Policy:
    """Return the policy by which the Term is deleted only with its namespace: without it, line 4 is not there."""
    return Policy(
        name=f"{description.prefix}-term-kept",
        description=description,
        groups=[_GROUP],
        resources=[TERMS],
        operations=["DELETE"],
        namespaces=[description.lease_parts[0]],
        conditions=[_this_term(description, "oldObject")],
        rules=[
            Rule(
                "with-namespace",
                "namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp)",
                f"fencing: Term {description.lease} tells the API server who leads, so it is deleted only with its"
                f" namespace; in an emergency remove the binding {description.prefix}-term-kept first",
            )
        ],
        scope="Namespaced",
    )


def counted(description: Description) -> Policy:
    """Return the policy by which a new holder of the Lease counts on above the Term, also if the Lease was lost.

    One-sided, too: a Term that an API server knows late has a lower token, so it refuses nobody who counted right.
    """
    namespace, name = description.lease_parts
    again = f"fencing: Term {description.lease} has "
    above = "; a new holder must raise leaseTransitions above it"
    return Policy(
        name=f"{description.prefix}-lease-term",
        description=description,
        groups=["coordination.k8s.io"],
        resources=["leases"],
        operations=["CREATE", "UPDATE"],
        namespaces=[namespace],
        conditions=[{"name": "this-lease", "expression": f"object.metadata.name == {text(name)}"}],
        variables=[
            ("after", "object.?spec.?leaseTransitions.orValue(-1)"),
            ("holder", "object.?spec.?holderIdentity.orValue('')"),
            ("held", "oldObject == null ? '' : oldObject.?spec.?holderIdentity.orValue('')"),
        ],
        rules=[
            Rule(
                "above-term",
                "variables.holder == '' || variables.holder == variables.held || variables.after > params.spec.token",
                f"{again}a token of its own{above}",
                f"{text(f'{again}token ')} + string(params.spec.token) + {text(above)}",
            )
        ],
        by_term=True,
        scope="Namespaced",
    )


def _this_term(description: Description, of: str) -> Object:
    # The name is taken from the object: a request that deletes a collection has none.
    return {"name": "this-term", "expression": f"{of}.metadata.name == {text(description.lease_parts[1])}"}


def _not_electing(description: Description) -> list[Object]:
    """Return the conditions that leave out the objects by which the leader is elected."""
    namespace, name = description.lease_parts
    left_out = [
        ("not-the-lease", "coordination.k8s.io", "leases", namespace, name),
        ("not-the-term", _GROUP, TERMS, namespace, name),
    ]
    if lock := description.legacy:
        left_out.append(("not-the-legacy-lock", lock.group, lock.resource, lock.namespace, lock.name))
    # Its name as above; `CONNECT` has no object of the kind, and no resource of these has it.
    body = "(request.operation == 'DELETE' ? oldObject : object)"
    return [
        cel.unless_asked(
            description,
            condition,
            f"request.resource.group != {text(group)} || request.resource.resource != {text(plural)}"
            f" || request.?namespace.orValue('') != {text(where)} || {body}.metadata.name != {text(called)}",
            of_any_kind=True,
        )
        for condition, group, plural, where, called in left_out
    ]


def _carried(description: Description) -> list[tuple[str, str]]:
    """Return variables up to `carried`: the token of the writer's own stamp on what is written; 0 without one.

    A deletion carries none, so there the recorded one counts, as in the policies about stamps. Nothing here can fail,
    whatever an object looks like, since a failure would let the write pass.
    """
    found = [("body", "request.operation == 'DELETE' ? oldObject : object")]
    tokens = []
    if description.stamped:
        found += _stamped(description)
        tokens.append("variables.stamped")
    for section, kinds in _by_section(description).items():
        found += _noted(description, section, kinds)
        tokens.append(f"variables.{section}Token")
    higher = "0"
    for token in tokens:
        higher = token if higher == "0" else f"({token} > {higher} ? {token} : {higher})"
    return [*found, ("carried", f"variables.writer == '' ? 0 : {higher}")] if tokens else [("carried", "0")]


def _stamped(description: Description) -> list[tuple[str, str]]:
    """Return variables up to `stamped`: the token in `status.fencing`, if the stamp is the writer's own."""
    status, fencing = "variables.body.status", "variables.body.status.fencing"
    found = f"has({status}) && type({status}) == map && has({fencing}) && type({fencing}) == map"
    own = (
        f"variables.fencing.?lease.orValue('') == {text(description.lease)}"
        " && variables.fencing.?podUID.orValue('') == variables.writer"
        " && type(variables.fencing.?token.orValue('')) == int"
    )
    return [
        ("fencing", f"variables.body != null && {found} ? {fencing} : dyn({{}})"),
        ("stamped", f"{own} ? variables.fencing.token : 0"),
    ]


def _by_section(description: Description) -> dict[str, list[Child]]:
    """Return the kinds that have their stamp in the metadata, by where it is there."""
    found: dict[str, list[Child]] = {}
    for child in description.noted:
        found.setdefault(section_of(child.kind), []).append(child)
    return found


def _noted(description: Description, section: str, kinds: list[Child]) -> list[tuple[str, str]]:
    """Return variables up to the token in the note of the written kind, if that note is the writer's own."""
    name, parts = f"variables.{section}Note", f"variables.{section}Parts"
    names = ", ".join(f"{text(c.kind)}: {text(note_name(description.lease, c.kind))}" for c in kinds)
    kind = "request.resource.resource + (request.resource.group == '' ? '' : '.' + request.resource.group)"
    note = f"variables.body == null ? '' : variables.body.?metadata.?{section}[?{name}].orValue('')"
    if section == "labels":
        split, size, own = "split('.')", 3, f"{parts}[1] == variables.writer"
    else:
        own = f"{parts}[1] == {text(description.lease)} && {parts}[2] == variables.writer"
        split, size = "split(' ', 4)", 4
    return [
        (f"{section}Note", f"{{{names}}}[?{kind}].orValue('')"),
        (f"{section}Parts", f"({note}).{split}"),
        (
            f"{section}Token",
            f"{parts}.size() == {size} && {parts}[0].matches('{_NUMBER}') && {own} ? int({parts}[0]) : 0",
        ),
    ]
