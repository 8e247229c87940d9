"""Makes the manifests of a fenced operator from those that the operator has (`kopf-ha manifests -f`).

What is read is the operator's CRDs, its Deployment and its roles. What is written is the same documents with the
changes that the fence needs, and the objects that are generated from the description (`Description`).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests import rights, workload
from kopf_ha.manifests.chosen import account_of, deployment_of
from kopf_ha.manifests.description import FULL, TERM, Description
from kopf_ha.manifests.documents import Document
from kopf_ha.manifests.lease import DESCRIBED
from kopf_ha.manifests.levels import Names, with_stamps, without_stamps
from kopf_ha.manifests.policies import policies
from kopf_ha.manifests.priority import flow_schema
from kopf_ha.manifests.rbac import rbac
from kopf_ha.manifests.reader import NONE, Said
from kopf_ha.manifests.remarks import Remarks, comments
from kopf_ha.manifests.render import render
from kopf_ha.manifests.term_crd import definition, is_definition

#: Generated objects have this annotation, with the operator's service account. They are written anew each time.
WRITTEN_FOR = "kopf-ha.dev/written-for"
#: The first of them has this annotation if options named all children, whatever the roles allow.
CHILDREN = "kopf-ha.dev/children"
_DELETE = "when this is applied, delete what is not written any more, since kubectl apply does not: "

#: Kinds that are in a namespace and that come with an operator.
_NAMESPACED = frozenset(
    {"Deployment", "StatefulSet", "ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Secret", "Service", "Ingress"}
    | {"PodDisruptionBudget", "NetworkPolicy", "PersistentVolumeClaim", "HorizontalPodAutoscaler", "Job", "CronJob"}
)


@dataclass(frozen=True)
class Bundle:
    """The manifests of a fenced operator.

    Args:
        description: what is generated is generated from it.
        before: the documents that were given, without the Deployment.
        generated: objects that are new.
        deployment: the operator's Deployment.
        replaced: what was generated for it before, and is among the documents.
        remarks: what else somebody should know.
    """

    description: Description
    before: Sequence[Document]
    generated: Sequence[Any]
    deployment: Document
    replaced: Sequence[Document]
    remarks: Remarks

    def text(self, header: str) -> str:
        """Return all of it as YAML for `kubectl apply`: the Deployment comes last, when its roles are there."""
        parts = [d.rendered() for d in self.before]
        parts += [render([o]) for o in self.generated]
        top = comments(header, [*self.remarks.tasks(), *self.remarks.hints()])
        return top + "---\n".join([*parts, self.deployment.rendered()])

    def diff(self) -> str:
        """Return what is newly to do, what is changed in the documents as unified diffs, new objects, and the hints."""
        changes = [*(d.diff() for d in (*self.before, self.deployment)), *self._generated_diff()]
        said = "".join(changes) or "nothing changes\n"
        tasks, hints = ("".join(f"{line}\n" for line in s) for s in (self.remarks.new_tasks(), self.remarks.hints()))
        return tasks + said + hints

    def gone(self) -> dict[str, list[str]]:
        """Return what was generated before and is not any more, as ``kind/name`` for kubectl, by namespace."""
        now = {_key(o) for o in self.generated}
        made: dict[str, list[str]] = {}
        for kind, namespace, name in (_key(d.data) for d in self.replaced):
            if (kind, namespace, name) not in now:
                made.setdefault(namespace, []).append(f"{kind.lower()}/{name}")
        return made

    def _generated_diff(self) -> Iterator[str]:
        earlier = {_key(d.data): d for d in self.replaced}
        for made in self.generated:
            was = earlier.get(_key(made))
            if was is None:
                yield f"new: {made['kind']} {made['metadata']['name']}\n"
            elif was.data != made:
                old, new = (s.splitlines(keepends=True) for s in (was.text, render([made])))
                yield "".join(difflib.unified_diff(old, new, f"{was.source}: {was.title}", "with kopf-ha"))
        yield from (f"gone: {one}\n" for names in self.gone().values() for one in names)


def bundle(documents: Sequence[Document], said: Said) -> Bundle:
    """Return the manifests of the fenced operator that these documents are about. The documents are changed.

    Raises:
        ConfigurationError: something is missing, or has more than one meaning. The message says what to do.
    """
    _check_twice(documents)
    deployment = deployment_of(documents, said)
    container = workload.container_of(deployment.data, said.container)
    namespace, account = account_of(deployment, said)
    ours = f"{namespace}/{account}"
    remarks = Remarks(remembered=_remembered(documents))
    # Another operator may have brought the Term's definition. It is the same.
    replaced = [d for d in documents if _written_for(d) == ours or is_definition(d.data)]
    earlier = _described(replaced)
    if not said.children and any(_annotation(d, CHILDREN) for d in replaced):
        said = replace(said, children=(NONE, *(c.flag() for c in (earlier.children if earlier else ()))))
    documents = [d for d in documents if d not in replaced]
    level = said.level or (earlier.level if earlier else FULL)
    names = Names(
        lease=said.lease or (earlier.lease if earlier else "") or _lease(namespace, container, deployment),
        service_account=ours,
        prefix=said.prefix or (earlier.prefix if earlier else ""),
        legacy_lock=said.legacy_lock or workload.legacy_lock(container),
    )
    describe = without_stamps if level == TERM else with_stamps
    description = describe(documents, said, earlier, container, names, remarks)
    remarks.guessed += _sharing(documents, deployment, namespace, account) + _misspelt(documents, namespace, account)
    workload.adopt(deployment.data, container, description, remarks, earlier)
    _fill_namespace(documents, namespace)
    generated = [_signed(o, description) for o in _generated(description)]
    if NONE in said.children:
        generated[0]["metadata"]["annotations"][CHILDREN] = NONE
    generated.insert(0, definition())
    _check_names(documents, generated)
    before = [d for d in documents if d is not deployment]
    made = Bundle(description, before, generated, deployment, replaced, remarks)
    _note_gone(made)
    return made


def _note_gone(made: Bundle) -> None:
    """Say what is to be deleted, and no longer that something is which is written again."""
    remarks = made.remarks
    here = {f"{kind.lower()}/{name}" for kind, _, name in map(_key, made.generated)}
    for task in [t for t in remarks.remembered if t.startswith(_DELETE)]:
        given = [[w for w in c.split() if w not in here] for c in task.removeprefix(_DELETE).split(" && ")]
        left = [" ".join(words) for words in given if any("/" in w for w in words)]
        at = remarks.remembered.index(task)
        remarks.remembered[at : at + 1] = [_DELETE + " && ".join(left)] if left else []
    if gone := made.gone():
        deletes = (f"{'-n ' + where + ' ' if where else ''}delete {' '.join(names)}" for where, names in gone.items())
        remarks.once.append(_DELETE + " && ".join("kubectl " + d for d in deletes))


def _remembered(documents: Iterable[Document]) -> list[str]:
    """Return the tasks that the documents name, without those that are seen in the Deployment until they are done."""
    return list(dict.fromkeys(t for d in documents for t in d.tasks if not workload.is_seen(t)))


def _sharing(documents: Iterable[Document], deployment: Document, namespace: str, account: str) -> list[str]:
    """Return what to know about other workloads with the operator's service account."""
    said = []
    for other in documents:
        if other is deployment or other.group not in ("apps", "batch"):
            continue
        spec = other.data.get("spec") or {}
        spec = (spec.get("jobTemplate") or {}).get("spec") or spec
        pod = (spec.get("template") or {}).get("spec") or {}
        if pod.get("serviceAccountName") == account and (other.namespace or namespace) == namespace:
            said.append(
                f"{other.title} writes nothing, although it has the operator's service account. The policies would"
                " refuse its writes; if it writes, give it an account of its own"
            )
    return said


def _misspelt(documents: Sequence[Document], namespace: str, account: str) -> list[str]:
    """Return what to know if roles are bound to other accounts only. The policies would then judge nobody's writes."""
    unbound = rights.why_unbound(documents, namespace, account)
    if not unbound or not rights.bound_accounts(documents, namespace):
        return []
    return [f"{unbound}. {rights.CORRECT}"]


def _key(made: Any) -> tuple[str, str, str]:
    metadata = made["metadata"]
    return str(made["kind"]), str(metadata.get("namespace") or ""), str(metadata["name"])


def _described(documents: Iterable[Document]) -> Description | None:
    """Return the description that policies among the documents were written from, if this version can read it."""
    for document in documents:
        if document.kind != "ValidatingAdmissionPolicy":
            continue
        for rule in document.data["spec"].get("validations") or ():
            message = str(rule.get("message", ""))
            if message.startswith(DESCRIBED):
                try:
                    return Description.from_json(message.removeprefix(DESCRIBED))
                except ConfigurationError:
                    return None
    return None


def _generated(description: Description) -> list[Any]:
    # The operator's own roles allow it its children; `rights.complete` adds there what the fence needs.
    return [*rbac(replace(description, children=(), exempt=())), *flow_schema(description), *policies(description)]


def _signed(made: Any, description: Description) -> Any:
    return made | {"metadata": made["metadata"] | {"annotations": {WRITTEN_FOR: description.service_account}}}


def _written_for(document: Document) -> str:
    """Return the service account that an object was generated for; empty for all other objects."""
    return _annotation(document, WRITTEN_FOR)


def _annotation(document: Document, name: str) -> str:
    return str((document.data["metadata"].get("annotations") or {}).get(name, ""))


def _check_twice(documents: Sequence[Document]) -> None:
    # Each bundle has the Term's definition.
    counted = Counter((d.group, d.kind, d.namespace, d.name) for d in documents if not is_definition(d.data))
    for document in documents:
        if counted[document.group, document.kind, document.namespace, document.name] > 1:
            where = [d.source for d in documents if (d.kind, d.name) == (document.kind, document.name)]
            raise ConfigurationError(
                f"{document.title} is there twice, in {' and '.join(where)}; leave one of them out"
            )


def _check_names(documents: Sequence[Document], generated: Sequence[Any]) -> None:
    names = {_key(o) for o in generated}
    for document in documents:
        if (document.kind, document.namespace, document.name) in names:
            raise ConfigurationError(
                f"{document.title} in {document.source} has the name of an object that is written here; leave it out if"
                " kopf-ha manifests wrote it, or choose other names with --prefix"
            )


def _lease(namespace: str, container: Any, deployment: Document) -> str:
    where = workload.variable(container, "KOPF_HA_LEASE_NAMESPACE") or namespace
    return f"{where}/{workload.given_lease(container) or deployment.name}"


def _fill_namespace(documents: Iterable[Document], namespace: str) -> None:
    """Write the namespace into objects that name none, as Helm's output does: all of it belongs together."""
    for document in documents:
        if not document.namespace and document.kind in _NAMESPACED:
            document.data["metadata"]["namespace"] = namespace
