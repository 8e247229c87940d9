"""Describes an operator by its documents: at level ``full`` with stamps, at level ``term`` without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests import definitions, rights, workload
from kopf_ha.manifests.definitions import group_of, kind_of, plural_of
from kopf_ha.manifests.description import TERM, Description
from kopf_ha.manifests.documents import Document
from kopf_ha.manifests.reader import Reader, Said
from kopf_ha.manifests.remarks import Remarks

_PEERING = ("kopf.dev", "zalando.org")


class Names(TypedDict):
    """What a description says at each level; see `Description`."""

    lease: str
    service_account: str
    prefix: str
    legacy_lock: str


def with_stamps(
    documents: Sequence[Document],
    said: Said,
    earlier: Description | None,
    container: Any,
    names: Names,
    remarks: Remarks,
) -> Description:
    """Return the description of an operator whose objects have stamps. Its CRDs and roles are changed.

    Args:
        documents: what was given, without what was generated.
        said: by options.
        earlier: what the operator was described by when this was written before.
        container: the operator's.
        names: what is known already.
        remarks: what somebody should know is added there.

    Raises:
        ConfigurationError: something is missing, or has more than one meaning.
    """
    if earlier and earlier.level == TERM:
        earlier = None  # it says nothing of kinds
    namespace, _, account = names["service_account"].partition("/")
    all_kinds = [d for d in documents if d.kind == "CustomResourceDefinition" and group_of(d) not in _PEERING]
    for definition in all_kinds:
        definitions.check(definition)
    roles, missing = rights.bound_roles(documents, namespace, account)
    allowed = rights.rights_of(roles, missing, {(group_of(d), plural_of(d)) for d in all_kinds})
    reader = Reader(said, earlier, container, allowed, remarks)
    own = reader.own(all_kinds)
    kinds = {(group_of(d), plural_of(d)): kind_of(d) for d in own}
    served = workload.served_namespaces(container, namespace)
    description = Description(
        group=reader.group,
        kinds=tuple(reader.kind(d) for d in own),
        children=tuple(reader.children(kinds, rights.why_unbound(documents, namespace, account))),
        exempt=reader.exempt,
        namespaces=reader.namespaces(served),
        **names,
    )
    if not description.kinds and not description.children:
        raise ConfigurationError(
            "the operator has no kinds of its own and writes no others, so there is nothing to fence"
        )
    reader.check_said(description)
    stamped = {f"{k.plural}.{description.group}" for k in description.stamped}
    for definition in own:
        if definition.name in stamped:
            definitions.merge_stamp(definition.data)
    for role in roles:
        rights.complete(role.data, {*kinds})
    if not description.namespaces and not served:
        held = rights.where_held(documents, namespace, account, {*kinds} or {*allowed.writes})
        reader.note_narrow_roles(held, container)
    return description


def without_stamps(
    documents: Sequence[Document],
    said: Said,
    earlier: Description | None,
    container: Any,
    names: Names,
    remarks: Remarks,
) -> Description:
    """Return the description of an operator of which only the leader writes. No document is changed.

    Args:
        documents, said, earlier, container, names, remarks: as for `with_stamps`.

    Raises:
        ConfigurationError: an option is about stamps.
    """
    given = {"group": said.group, "kind": said.kinds, "child": said.children, "deciding": said.deciding}
    if named := [f"--{name}" for name, value in (given | {"exempt": said.exempt}).items() if value]:
        raise ConfigurationError(
            f"at level term nothing has a stamp, so leave out {', '.join(named)}; --level full has stamps"
        )
    remarks.noted.append(
        "level term: objects have no stamp. A write of an earlier leader is accepted in a term's first milliseconds,"
        " and while a fault keeps an API server from hearing of the new leader; --level full refuses that, too"
    )
    return Description(group="", kinds=(), level=TERM, **names)
