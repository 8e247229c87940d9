"""Whether a kind carries `status.fencing`, in all of its served versions (I1, I2).

If one served version lacks the field, any user's edit by that version removes an object's stamp, past the rule of the
other versions. After that a stale writer gets a 200. So one such version makes the whole kind unfit to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kopf_ha.core.known import Known
from kopf_ha.core.target import Target
from kopf_ha.core.wire import Flow, OwnRequestRefused, Request, Response, Steps
from kopf_ha.errors import Unfenced

#: Where definitions are.
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"

Send = Callable[[Request], Flow]


def _as_it_is(request: Request) -> Flow:
    return (yield request)


def is_stamped(target: Target, known: Known, root: str, send: Send) -> Steps[bool]:
    """Return whether the kind carries `status.fencing`. Its schema is asked once in a term.

    Raises:
        Unfenced: that cannot be found out, or a served version lacks the field. This is seen when the schema is asked,
            or by the leader's self-test later in the term.
        OwnRequestRefused: ask again later.
    """
    if target.built_in:
        return False
    if unfit := known.unfit.get(target.kind):
        raise Unfenced(unfit)
    stamped = known.schemas.get(target.kind_version)
    if stamped is None:
        definition = yield from send(definition_of(target, root))
        stamped = yield from _schema_by(definition, target, root, send)
        known.custom[target.kind] = definition.ok
        if stamped is None:
            raise Unfenced(
                f"{target}: cannot find out whether the kind has status.fencing; allow this service account to get"
                " customresourcedefinitions"
            )
        known.schemas[target.kind_version] = stamped
    return stamped


def ask_schema(target: Target, root: str = "", send: Send = _as_it_is) -> Steps[bool | None]:
    """Ask whether a kind is stamped: its definition, or the published schemas, which everybody may read.

    Args:
        target: an object of the kind, or its collection.
        root: what the API server's paths begin with, when it is behind a proxy.
        send: yields a request and returns its answer.

    Returns:
        Whether it is; None when neither source says.

    Raises:
        Unfenced: some of its served versions are stamped and some are not.
        OwnRequestRefused: ask again later.
    """
    definition = yield from send(definition_of(target, root))
    return (yield from _schema_by(definition, target, root, send))


def definition_of(target: Target, root: str) -> Request:
    """Return the request that reads the definition of a kind."""
    return Request("GET", f"{root}{CRDS}{target.kind}")


def _schema_by(definition: Response, target: Target, root: str, send: Send) -> Steps[bool | None]:
    if definition.ok:
        return crd_is_stamped(definition.json, target.kind)
    if definition.status not in (403, 404):
        raise OwnRequestRefused(definition)
    # The kind belongs to an aggregated API, or this account must not read definitions.
    answer = yield from send(Request("GET", f"{root}/apis/{target.group}"))
    if not answer.ok and answer.status not in (403, 404):
        raise OwnRequestRefused(answer)
    served = ((answer.json or {}).get("versions") or ()) if answer.ok else ()
    found: dict[str, bool] = {}
    for version in dict.fromkeys([target.version, *(str(v.get("version")) for v in served)]):
        answer = yield from send(Request("GET", f"{root}/openapi/v3/apis/{target.group}/{version}"))
        if answer.status in (403, 404):
            return None
        if not answer.ok:
            raise OwnRequestRefused(answer)
        stamped = _openapi_is_stamped(answer.json, target, version)
        if stamped is not None:
            found[version] = stamped
    return _all_or_none(found, target.kind) if target.version in found else None


def crd_is_stamped(crd: Any, kind: str) -> bool:
    """Return whether the served versions of a definition have `status.fencing`, and a `/status` to write it.

    Args:
        crd: the CustomResourceDefinition.
        kind: ``plural.group``, for the message.

    Raises:
        Unfenced: some served versions have it and some do not.
    """
    versions = ((crd or {}).get("spec") or {}).get("versions") or ()
    served = [v for v in versions if isinstance(v, Mapping) and v.get("served", True)]
    return _all_or_none(
        {
            str(v.get("name")): "status" in (v.get("subresources") or {})
            and _has_fencing((v.get("schema") or {}).get("openAPIV3Schema") or {})
            for v in served
        },
        kind,
    )


def _all_or_none(versions: Mapping[str, bool], kind: str) -> bool:
    lacking = [name for name, stamped in versions.items() if not stamped]
    if lacking and len(lacking) < len(versions):
        raise Unfenced(
            f"{kind}: {_versions(lacking)} served and {'lack' if len(lacking) > 1 else 'lacks'} status.fencing or the"
            " status subresource, so an edit by it would remove an object's stamp; add what `kopf-ha manifests --only"
            " schema` prints to each served version of the CRD, or stop serving the version"
        )
    return bool(versions) and not lacking


def _versions(names: Iterable[str]) -> str:
    many = list(names)
    return f"versions {', '.join(many)} are" if len(many) > 1 else f"version {many[0]} is"


def _openapi_is_stamped(document: Any, target: Target, version: str) -> bool | None:
    """Return it for one version, from its published OpenAPI document; None when the kind is not in there (yet)."""
    middle = "/namespaces/{namespace}" if target.namespace else ""
    path = f"/apis/{target.group}/{version}{middle}/{target.resource}/{{name}}"
    paths = document.get("paths") or {}
    item = paths.get(path)
    if item is None:
        return None
    kind = next(
        (
            op["x-kubernetes-group-version-kind"]
            for op in item.values()
            if isinstance(op, dict) and "x-kubernetes-group-version-kind" in op
        ),
        None,
    )
    for schema in ((document.get("components") or {}).get("schemas") or {}).values():
        if kind in (schema.get("x-kubernetes-group-version-kind") or ()):
            return f"{path}/status" in paths and _has_fencing(schema)
    return None


def _has_fencing(schema: Any) -> bool:
    status = (schema.get("properties") or {}).get("status") or {}
    return "fencing" in (status.get("properties") or {})
