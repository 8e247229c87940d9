"""Makes the manifests of a fenced operator from those that the operator has (`kopf-ha manifests -f`).

What is read is the operator's CRDs, its Deployment and its roles. What is written is the same documents with the
changes that the fence needs, and the objects that are generated from the description (`Description`).
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kopf_ha.core.subresource import subresources_of
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests import definitions, rights, workload
from kopf_ha.manifests.description import Child, Description, Kind
from kopf_ha.manifests.documents import Document
from kopf_ha.manifests.lease import DESCRIBED
from kopf_ha.manifests.policies import policies
from kopf_ha.manifests.priority import flow_schema
from kopf_ha.manifests.rbac import rbac
from kopf_ha.manifests.render import render

#: Generated objects have this annotation, with the operator's service account. They are written anew each time.
WRITTEN_FOR = "kopf-ha.dev/written-for"
#: Instead of a kind or a child: there is none.
NONE = "none"

#: By these characters Kopf tells patterns from names of namespaces.
_PATTERN = frozenset("*?!,[]")

_PEERING = ("kopf.dev", "zalando.org")
#: Kinds that are in a namespace and that come with an operator.
_NAMESPACED = frozenset(
    {"Deployment", "StatefulSet", "ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Secret", "Service", "Ingress"}
    | {"PodDisruptionBudget", "NetworkPolicy", "PersistentVolumeClaim", "HorizontalPodAutoscaler", "Job", "CronJob"}
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the command line says beside the documents. What is empty is read or guessed.

    Args:
        deployment: ``name`` or ``namespace/name`` of the operator's Deployment.
        container: the name of the operator's container.
        group: the API group of its own kinds.
        kinds: more about its own kinds; `NONE` for none.
        children: kinds that it writes beside these; `NONE` for none.
        deciding: deciding kinds, as ``plural.group``.
        lease, service_account, prefix, exempt, legacy_lock, namespaces: see `Description`.
    """

    deployment: str = ""
    container: str = ""
    group: str = ""
    kinds: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    deciding: tuple[str, ...] = ()
    lease: str = ""
    service_account: str = ""
    prefix: str = ""
    exempt: tuple[str, ...] = ()
    legacy_lock: str = ""
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """The manifests of a fenced operator.

    Args:
        description: what is generated is generated from it.
        before: the documents that were given, without the Deployment.
        generated: objects that are new.
        deployment: the operator's Deployment.
        guessed: what no document says for certain, one sentence each.
    """

    description: Description
    before: Sequence[Document]
    generated: Sequence[Any]
    deployment: Document
    guessed: Sequence[str]

    def text(self, header: str) -> str:
        """Return all of it as YAML for `kubectl apply`: the Deployment comes last, when its roles are there."""
        parts = [d.rendered() for d in self.before]
        parts += [render([o]) for o in self.generated]
        return comments(header, self.guessed) + "---\n".join([*parts, self.deployment.rendered()])

    def diff(self) -> str:
        """Return what is changed in the documents as unified diffs, the names of new objects, and the guesses."""
        new = [f"new: {o['kind']} {o['metadata']['name']}\n" for o in self.generated]
        guessed = [f"guessed: {g}\n" for g in self.guessed]
        return "".join([*(d.diff() for d in (*self.before, self.deployment)), *new, *guessed])


def comments(header: str, guessed: Iterable[str]) -> str:
    """Return the comments at the top. `documents.parse` takes them away again."""
    lines = [header, *(f"guessed: {g}" for g in guessed)]
    return "".join(
        textwrap.fill(line, 118, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False) + "\n"
        for line in lines
    )


def bundle(documents: Sequence[Document], said: Said) -> Bundle:
    """Return the manifests of the fenced operator that these documents are about. The documents are changed.

    Raises:
        ConfigurationError: something is missing, or has more than one meaning. The message says what to do.
    """
    _check_twice(documents)
    deployment = _deployment(documents, said)
    container = workload.container_of(deployment.data, said.container)
    namespace, account = _account(deployment, said)
    ours = f"{namespace}/{account}"
    earlier = _described(d for d in documents if _written_for(d) == ours)
    documents = [d for d in documents if _written_for(d) != ours]
    all_kinds = [d for d in documents if d.kind == "CustomResourceDefinition" and _group(d) not in _PEERING]
    for definition in all_kinds:
        definitions.check(definition)
    roles, missing = rights.bound_roles(documents, namespace, account)
    allowed = rights.rights_of(roles, missing, {(_group(d), _plural(d)) for d in all_kinds})
    reader = _Reader(said, earlier, container, allowed)
    own = reader.own(all_kinds)
    description = Description(
        group=reader.group,
        kinds=tuple(reader.kind(d) for d in own),
        children=tuple(reader.children({(_group(d), _plural(d)) for d in own}, bool(roles or missing))),
        lease=said.lease or (earlier.lease if earlier else "") or _lease(namespace, container, deployment),
        service_account=f"{namespace}/{account}",
        prefix=said.prefix or (earlier.prefix if earlier else ""),
        exempt=said.exempt or (earlier.exempt if earlier else ()),
        legacy_lock=said.legacy_lock or workload.legacy_lock(container),
        namespaces=reader.namespaces(workload.served_namespaces(container)),
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
        rights.complete(role.data, {(_group(d), _plural(d)) for d in own})
    guessed = [*reader.guessed, *workload.adopt(deployment.data, container, description)]
    _fill_namespace(documents, namespace)
    generated = [_signed(o, description) for o in _generated(description)]
    _check_names(documents, generated)
    return Bundle(description, [d for d in documents if d is not deployment], generated, deployment, guessed)


class _Reader:
    """Reads kinds and children from the documents, and remembers what it guessed."""

    def __init__(self, said: Said, earlier: Description | None, container: Any, allowed: rights.Rights) -> None:
        self.said, self.earlier, self.allowed = said, earlier, allowed
        self.guessed: list[str] = []
        self.group = ""
        self.deciding = list(dict.fromkeys([*said.deciding, *workload.given_deciding(container)]))
        self._said = {k.plural: k for k in (Kind.parse(t) for t in said.kinds if t != NONE)}
        self._kinds = {k.plural: replace(k, annotations=False) for k in (earlier.kinds if earlier else ())} | self._said

    def own(self, all_kinds: Sequence[Document]) -> list[Document]:
        """Return the CRDs of the operator's own kinds, which are of one API group, if it has some.

        Raises:
            ConfigurationError: there are none, or it is not clear which ones they are.
        """
        if NONE in self.said.kinds or (self.earlier and not self.earlier.kinds and not self._said):
            return []
        if not all_kinds:
            raise ConfigurationError(
                "there is no CustomResourceDefinition among the documents; name the file with the operator's with -f,"
                f" or say --kind {NONE} if it has no kinds of its own"
            )
        own = all_kinds
        if self.allowed.seen and not self.allowed.unreadable:
            own = [d for d in all_kinds if (_group(d), _plural(d)) in self.allowed.seen]
            if not own:
                raise ConfigurationError(
                    "the operator's roles name none of the kinds "
                    + ", ".join(d.name for d in all_kinds)
                    + "; name the file with its roles with -f"
                )
        groups = Counter(_group(d) for d in own)
        decided = next((d.partition(".")[2] for d in self.deciding), "")
        earlier = self.earlier.group if self.earlier else ""
        self.group = self.said.group or decided or earlier or groups.most_common(1)[0][0]
        if self.group not in groups:
            raise ConfigurationError(f"there is no CustomResourceDefinition of group {self.group} among the documents")
        if len(groups) > 1:
            others = ", ".join(sorted(groups.keys() - {self.group}))
            self.guessed.append(
                f"{self.group} is the operator's own group; what it writes of {others} is fenced by annotations;"
                " --group says otherwise"
            )
        return [d for d in own if _group(d) == self.group]

    def kind(self, definition: Document) -> Kind:
        """Return one of the operator's own kinds."""
        plural = _plural(definition)
        made = self._kinds.get(plural, Kind(plural))
        why = definitions.why_annotations(definition.data)
        if why:
            self.guessed.append(f"{definition.name} is fenced by an annotation, since {why}")
        elif definition.data["spec"].get("conversion", {}).get("strategy") == "Webhook":
            self.guessed.append(f"the conversion webhook of {definition.name} keeps status.fencing")
        return replace(
            made,
            cluster=definition.data["spec"]["scope"] == "Cluster",
            deciding=made.deciding or definition.name in self.deciding,
            annotations=bool(why) or made.annotations,
            scale=made.scale or ((self.group, plural), "scale") in self.allowed.subresources,
        )

    def children(self, own: set[rights.KindName], with_roles: bool) -> list[Child]:
        """Return the other kinds that the operator writes.

        Raises:
            ConfigurationError: no document and no option says which ones.
        """
        texts = [t for t in self.said.children if t != NONE]
        said = {c.kind: c for c in (*(self.earlier.children if self.earlier else ()), *map(Child.parse, texts))}
        if not said and not self.said.children and not self.earlier:
            self._check_readable(with_roles)
        for kind in self.allowed.writes:
            name = rights.kind_name(kind)
            if kind in own or name in said or NONE in self.said.children:
                continue
            said[name] = Child(kind[1], kind[0], subresources=self._subresources(kind))
        for name, child in said.items():
            if not child.labels and not child.owner:
                self.guessed.append(
                    f"the operator may write any of the {name}; if all of its own have a label or an owner, say so:"
                    f" --child {name}:LABEL=VALUE or --child {name}:owner=KIND"
                )
        for kind, reason in self.allowed.apart.items():
            self.guessed.append(f"{rights.kind_name(kind)} are fenced in the operator's process only: {reason}")
        self._note_subresources(said.values())
        if own and not any(k in self.deciding for k in (f"{p}.{g}" for g, p in own)):
            self.guessed.append(
                "no kind is a deciding one; if other objects are decided from objects of one, as addresses from a pool,"
                f" say so: --deciding {rights.kind_name(min(own))}"
            )
        return list(said.values())

    def _subresources(self, kind: rights.KindName) -> tuple[str, ...]:
        """Return the subresources that the roles allow the operator to write, of those that the fence knows."""
        known = subresources_of(rights.kind_name(kind))
        return tuple(sub for k, sub in self.allowed.subresources if k == kind and sub in known)

    def _note_subresources(self, children: Iterable[Child]) -> None:
        """Say which subresources the operator may write although no policy sees a stamp there."""
        for child in children:
            for sub in child.unseen:
                role = self.allowed.subresources.get(((child.group, child.plural), sub), "an option")
                self.guessed.append(
                    f"the operator writes {child.kind}/{sub}, since {role} allows it;"
                    f" --child {child.kind} lets the policies refuse that"
                )

    def _check_readable(self, with_roles: bool) -> None:
        advice = (
            f"name each kind that it writes besides its own with --child, such as --child secrets, or --child {NONE}"
        )
        if not with_roles:
            raise ConfigurationError(
                "no role is bound to the operator's service account in the documents; name the file with its roles and"
                f" bindings with -f, or {advice}"
            )
        if self.allowed.unreadable:
            raise ConfigurationError(
                f"what the operator writes cannot be read from {', '.join(self.allowed.unreadable)}, which allows every"
                f" kind or is not among the documents; {advice}"
            )

    def namespaces(self, served: Sequence[str]) -> tuple[str, ...]:
        """Return the namespaces that the operator serves, by their names; none for all.

        Args:
            served: what its command names, also by patterns.

        Raises:
            ConfigurationError: the option says otherwise.
        """
        patterns = [name for name in served if set(name) & _PATTERN]
        if served and not patterns:
            if self.said.namespaces and {*self.said.namespaces} != {*served}:
                raise ConfigurationError(
                    f"--namespace {', '.join(self.said.namespaces)}: the operator's command names {', '.join(served)}"
                )
            return tuple(served)
        names = self.said.namespaces or (self.earlier.namespaces if self.earlier else ())
        if patterns and not names:
            self.guessed.append(
                "the policies and the role for the operator's own kinds hold in all namespaces, since"
                f" {', '.join(patterns)} is a pattern; --namespace names those that there are"
            )
        return names

    def check_said(self, description: Description) -> None:
        """Check that the options are about kinds that there are.

        Raises:
            ConfigurationError: one is not.
        """
        known = [f"{k.plural}.{description.group}" for k in description.kinds]
        for name in self.deciding:
            if name not in known:
                raise ConfigurationError(f"--deciding {name}: the operator's kinds are {', '.join(known)}")
        for plural in self._said:
            if plural not in {k.plural for k in description.kinds}:
                raise ConfigurationError(f"--kind {plural}: the operator's kinds are {', '.join(known)}")


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
    return str((document.data["metadata"].get("annotations") or {}).get(WRITTEN_FOR, ""))


def _check_twice(documents: Sequence[Document]) -> None:
    counted = Counter((d.group, d.kind, d.namespace, d.name) for d in documents)
    for document in documents:
        if counted[document.group, document.kind, document.namespace, document.name] > 1:
            where = [d.source for d in documents if (d.kind, d.name) == (document.kind, document.name)]
            raise ConfigurationError(
                f"{document.title} is there twice, in {' and '.join(where)}; leave one of them out"
            )


def _check_names(documents: Sequence[Document], generated: Sequence[Any]) -> None:
    names = {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in generated}
    for document in documents:
        if (document.kind, document.namespace, document.name) in names:
            raise ConfigurationError(
                f"{document.title} in {document.source} has the name of an object that is written here; leave it out if"
                " kopf-ha manifests wrote it, or choose other names with --prefix"
            )


def _deployment(documents: Sequence[Document], said: Said) -> Document:
    found = [d for d in documents if d.kind == "Deployment" and d.group == "apps"]
    for document in found:
        template = ((document.data.get("spec") or {}).get("template") or {}).get("spec") or {}
        if not template.get("containers"):
            raise ConfigurationError(f"{document.title} in {document.source} has no spec.template.spec.containers")
    names = ", ".join(d.title.partition(" ")[2] for d in found)
    if said.deployment:
        namespace, _, name = said.deployment.rpartition("/")
        chosen = [d for d in found if d.name == name and namespace in ("", d.namespace)]
        if len(chosen) != 1:
            raise ConfigurationError(f"--deployment {said.deployment} is none of: {names or 'no Deployment at all'}")
        return chosen[0]
    if not found:
        others = [d.title for d in documents if d.kind in ("StatefulSet", "DaemonSet", "Pod", "ReplicaSet", "Job")]
        raise ConfigurationError(
            "there is no Deployment among the documents; name the file with the operator's with -f"
            + (f". {' and '.join(others)} cannot be changed by this command; make a Deployment of it" if others else "")
        )
    if len(found) > 1:
        raise ConfigurationError(f"there are several Deployments: {names}; name the operator's with --deployment")
    return found[0]


def _account(deployment: Document, said: Said) -> tuple[str, str]:
    """Return namespace and name of the operator's service account."""
    pod = workload.pod_of(deployment.data)
    account = str(pod.get("serviceAccountName") or pod.get("serviceAccount") or "default")
    namespace = deployment.namespace or said.lease.partition("/")[0]
    if said.service_account:
        given, slash, name = said.service_account.partition("/")
        if not slash or not given or name != account or namespace not in ("", given):
            raise ConfigurationError(
                f"--service-account {said.service_account} is not the account {namespace or 'NAMESPACE'}/{account} that"
                f" {deployment.title} runs as"
            )
        return given, account
    if not namespace:
        raise ConfigurationError(
            f"{deployment.title} in {deployment.source} names no namespace; say where it runs with --service-account"
            f" NAMESPACE/{account}"
        )
    if account == "default":
        raise ConfigurationError(
            f"{deployment.title} runs as the service account default, as all Pods of its namespace do that name none,"
            " and the policies would fence their writes, too; give it an account of its own in serviceAccountName"
        )
    return namespace, account


def _lease(namespace: str, container: Any, deployment: Document) -> str:
    where = workload.variable(container, "KOPF_HA_LEASE_NAMESPACE") or namespace
    return f"{where}/{workload.given_lease(container) or deployment.name}"


def _fill_namespace(documents: Iterable[Document], namespace: str) -> None:
    """Write the namespace into objects that name none, as Helm's output does: all of it belongs together."""
    for document in documents:
        if not document.namespace and document.kind in _NAMESPACED:
            document.data["metadata"]["namespace"] = namespace


def _group(definition: Document) -> str:
    return str((definition.data.get("spec") or {}).get("group", ""))


def _plural(definition: Document) -> str:
    return str(((definition.data.get("spec") or {}).get("names") or {}).get("plural", ""))
