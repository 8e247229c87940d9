"""Reads an operator's kinds, children and namespaces from its documents and from options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kopf_ha.core.subresource import subresources_of
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests import definitions, programs, rights, workload
from kopf_ha.manifests.definitions import group_of, plural_of
from kopf_ha.manifests.description import Child, Description, Kind, did_you_mean
from kopf_ha.manifests.documents import Document
from kopf_ha.manifests.remarks import Remarks

#: Instead of a kind or a child: there is none.
NONE = "none"

#: By these characters Kopf tells patterns from names of namespaces; `$` is of a variable that has no known value.
_PATTERN = frozenset("*?!,[]$")
#: What subresources do, for people.
_VERBS = {"scale": "scales", "eviction": "evicts", "binding": "binds"}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the command line says beside the documents. What is empty is read or guessed.

    Args:
        deployment: ``name`` or ``namespace/name`` of the operator's Deployment.
        container: the name of the operator's container.
        group: the API group of its own kinds.
        kinds: more about its own kinds; `NONE` for none.
        children: kinds that it writes beside these; `NONE` for none. They take the place of those that are remembered.
        deciding: deciding kinds, as ``plural.group``; `NONE` for none. They take the place of those as well.
        exempt: see `Description`; `NONE` for none.
        lease, service_account, prefix, legacy_lock, namespaces: see `Description`.
        level: see `Description`; None as the last time.
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
    level: str | None = None


class Reader:
    """Reads kinds and children from the documents, and remembers what it guessed."""

    def __init__(
        self, said: Said, earlier: Description | None, container: Any, allowed: rights.Rights, remarks: Remarks
    ) -> None:
        self.said, self.earlier, self.allowed, self.remarks = said, earlier, allowed, remarks
        self.group = ""
        self.deciding = [d for d in said.deciding or workload.given_deciding(container) if d != NONE]
        if in_command := {*programs.option(container, "--deciding")} - {*self.deciding}:
            raise ConfigurationError(
                f"the operator's command says --deciding {', '.join(sorted(in_command))}; change it there, too"
            )
        counted = Counter(Kind.parse(t).plural for t in said.kinds)
        if twice := next((name for name, n in counted.items() if n > 1), ""):
            raise ConfigurationError(f"{twice} is named twice; write one --kind with all of its parts")
        self._said = {k.plural: k for k in (Kind.parse(t) for t in said.kinds if t != NONE)}
        remembered = (replace(k, annotations=False) for k in (earlier.kinds if earlier else ()))
        if said.deciding:
            remembered = (replace(k, deciding=False) for k in remembered)
        self._kinds = {k.plural: k for k in remembered} | self._said

    @property
    def exempt(self) -> tuple[str, ...]:
        """Subresources that the operator writes without the fence."""
        if self.said.exempt or not self.earlier:
            return tuple(e for e in self.said.exempt if e != NONE)
        return self.earlier.exempt

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
            own = [d for d in all_kinds if (group_of(d), plural_of(d)) in self.allowed.seen]
            if not own:
                raise ConfigurationError(
                    "the operator's roles name none of the kinds "
                    + ", ".join(d.name for d in all_kinds)
                    + "; name the file with its roles with -f"
                )
        groups = Counter(group_of(d) for d in own)
        decided = next((d.partition(".")[2] for d in self.deciding), "")
        earlier = self.earlier.group if self.earlier else ""
        self.group = self.said.group or decided or earlier or groups.most_common(1)[0][0]
        if self.group not in groups:
            raise ConfigurationError(f"there is no CustomResourceDefinition of group {self.group} among the documents")
        if len(groups) > 1:
            others = ", ".join(sorted(groups.keys() - {self.group}))
            self.remarks.guessed.append(
                f"{self.group} is the operator's own group; what it writes of {others} is fenced by annotations;"
                " --group says otherwise"
            )
        return [d for d in own if group_of(d) == self.group]

    def kind(self, definition: Document) -> Kind:
        """Return one of the operator's own kinds."""
        plural = plural_of(definition)
        made = self._kinds.get(plural, Kind(plural))
        why = definitions.why_annotations(definition.data)
        if why:
            self.remarks.noted.append(f"{definition.name} is fenced by an annotation, since {why}")
        elif definition.data["spec"].get("conversion", {}).get("strategy") == "Webhook":
            self.remarks.guessed.append(f"the conversion webhook of {definition.name} keeps status.fencing")
        return replace(
            made,
            cluster=definition.data["spec"]["scope"] == "Cluster",
            deciding=made.deciding or definition.name in self.deciding,
            annotations=bool(why) or made.annotations,
            scale=made.scale or ((self.group, plural), "scale") in self.allowed.subresources,
        )

    def children(self, own: Mapping[rights.KindName, str], unbound: str) -> list[Child]:
        """Return the other kinds that the operator writes.

        Args:
            own: its own kinds, each with its `kind`.
            unbound: the sentence that no role is bound to its service account; empty if one is.

        Raises:
            ConfigurationError: no document and no option says which ones, or an option cannot be meant.
        """
        given = self._given_children(own, with_roles=not unbound)
        remembered = self.earlier.children if self.earlier and not self.said.children else ()
        made = {c.kind: c for c in (*remembered, *given)}
        if not made and not self.said.children and not self.earlier:
            self._check_readable(unbound)
        for kind in self.allowed.writes:
            name = rights.kind_name(kind)
            if kind in own or name in made or NONE in self.said.children:
                continue
            made[name] = Child(kind[1], kind[0], subresources=self._subresources(kind))
        self._guess_about(list(made.values()), own)
        return list(made.values())

    def _given_children(self, own: Mapping[rights.KindName, str], *, with_roles: bool) -> list[Child]:
        """Return what options say about children."""
        given = [Child.parse(t, own.values()) for t in self.said.children if t != NONE]
        counted = Counter(c.kind for c in given)
        known = {rights.kind_name(k) for k in (*self.allowed.writes, *self.allowed.apart, *own)}
        for child in given:
            if counted[child.kind] > 1:
                raise ConfigurationError(f"{child.kind} is named twice; write one --child with all of its parts")
            if with_roles and not self.allowed.unreadable and child.kind not in known:
                raise ConfigurationError(
                    f"--child {child.kind}: no role lets the operator write them{did_you_mean(child.kind, known)}"
                )
        return given

    def _guess_about(self, children: Sequence[Child], own: Mapping[rights.KindName, str]) -> None:
        guessed, noted = self.remarks.guessed, self.remarks.noted
        owner = next(iter(own.values())) if len(own) == 1 else "KIND"
        free = [c for c in children if not c.labels and not c.owner]
        if free:
            flags = " ".join("--child " + replace(c, owner=owner if own else "").flag(not own) for c in free)
            instead = ", or LABEL=VALUE in the place of owner=…" if own else ""
            guessed.append(
                f"the operator may write any object of {', '.join(c.kind for c in free)}; if all of its own have an"
                f" owner or a label, say so: {flags}{instead}"
            )
        for child in children:
            if child.owner and child.owner not in own.values():
                guessed.append(
                    f"{child.owner} is a kind of the group {self.group}, of which there is no CustomResourceDefinition"
                    f" here{did_you_mean(child.owner, own.values())}; if it is none, the policies refuse every write of"
                    f" {child.kind}"
                )
        for kind, reason in self.allowed.apart.items():
            noted.append(f"{rights.kind_name(kind)} are fenced in the operator's process only: {reason}")
        self._note_subresources(children)
        if own and not any(k in self.deciding for k in map(rights.kind_name, own)) and not self._decided():
            guessed.append(
                "no kind is deciding. If a handler reads all objects of a kind to decide about another (free addresses"
                " of a pool), name it: --deciding PLURAL.GROUP. If each handler looks only at its own object, there is"
                " nothing to do."
            )

    def _decided(self) -> bool:
        return any(k.deciding for k in self._kinds.values())

    def _subresources(self, kind: rights.KindName) -> tuple[str, ...]:
        """Return the subresources that the roles allow the operator to write, of those that the fence knows."""
        known = subresources_of(rights.kind_name(kind))
        return tuple(sub for k, sub in self.allowed.subresources if k == kind and sub in known)

    def _note_subresources(self, children: Iterable[Child]) -> None:
        """Say which writes to subresources in which no policy sees a stamp are allowed, or refused from now on."""
        for child in children:
            known = subresources_of(child.kind)
            for (kind, sub), role in self.allowed.subresources.items():
                if rights.kind_name(kind) != child.kind or sub not in known or known[sub].shows_stamp:
                    continue
                without = replace(child, subresources=tuple(s for s in child.subresources if s != sub))
                named = child.labels or child.owner  # by an option, with all of its parts
                if sub in child.subresources and not named:
                    self.remarks.guessed.append(
                        f"the operator writes {child.kind}/{sub}, since {role} allows it; if it never"
                        f" {_VERBS.get(sub, 'does that to')} them, say --child {without.flag()}, and the policies"
                        " refuse it"
                    )
                elif sub not in child.subresources and f"{child.kind}/{sub}" not in self.exempt:
                    more = replace(child, subresources=(*child.subresources, sub))
                    self.remarks.guessed.append(
                        f"the operator does not write {child.kind}/{sub}, which {role} allows it, and the policies"
                        f" refuse that now; if it does, say --child {more.flag()}"
                    )

    def _check_readable(self, unbound: str) -> None:
        advice = (
            f"name each kind that it writes besides its own with --child, such as --child secrets, or --child {NONE}."
            " A kind that you forget is fenced in the operator's process only: no policy protects it from a stale"
            " leader"
        )
        if unbound:
            raise ConfigurationError(
                f"{unbound}. {rights.CORRECT}. If the roles are in another file, name it with -f, too. If they are in"
                f" no file, {advice}"
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
            self.remarks.guessed.append(
                "the policies and the role for the operator's own kinds hold in all namespaces, since"
                f" {', '.join(patterns)} is a pattern or has no value here; --namespace names those that there are"
            )
        return names

    def note_narrow_roles(self, held: set[str], container: Any) -> None:
        """Say that the operator seems to serve some namespaces only, which its command does not show."""
        if not held or "" in held or workload.names_all_namespaces(container):
            return
        flags = " ".join(f"--namespace {name}" for name in sorted(held))
        self.remarks.guessed.append(
            "the policies and the role for the operator's own kinds hold in all namespaces, since its command shows no"
            f" -n. Its own roles hold only in {', '.join(sorted(held))}: if it serves no other, say {flags}"
        )

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
