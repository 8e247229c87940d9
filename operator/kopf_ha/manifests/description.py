"""The description of an operator that its manifests are written from: a few names, checked at once."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass

from kopf_ha.core.legacy_lock import LegacyLock
from kopf_ha.core.refusal import PREFIX
from kopf_ha.core.subresource import subresources_of
from kopf_ha.errors import ConfigurationError

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KIND = re.compile(r"[A-Za-z][-A-Za-z0-9]*")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?")
#: Not empty, as Kubernetes would let it be: to a policy every object without the label looks as if it had that.
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?")

#: How much is written: only what the Term needs, or the stamps, too.
TERM, FULL = "term", "full"
LEVELS = (FULL, TERM)

#: The version of the format in which policies contain the description. It changes when the meaning changes.
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the operator's own kinds.

    Args:
        plural: its plural name, as in the CRD.
        annotations: its CRD has no `status.fencing`, so the stamp is an annotation.
        cluster: whether it is cluster-scoped.
        deciding: whether other objects' state is decided from it.
        maps: fields of its status that are maps of what it allocates: a terminating object gets no new entry.
        values: fields of its status that hold what was allocated to it: a terminating object gets no new value.
        scale: the operator writes its ``scale``, in which no policy sees a stamp.
    """

    plural: str
    cluster: bool = False
    deciding: bool = False
    maps: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    annotations: bool = False
    scale: bool = False

    def __post_init__(self) -> None:
        _check(_LABEL, self.plural, "a kind's plural, as in addresspools")
        for field in (*self.maps, *self.values):
            _check(_FIELD, field, f"a field of the status of {self.plural}")

    @classmethod
    def parse(cls, text: str) -> Kind:
        """Read ``plural[:cluster][:deciding][:annotations][:scale][:map=FIELD][:value=FIELD]``.

        Raises:
            ConfigurationError: the text has an unknown part.
        """
        plural, *parts = text.split(":")
        flags = {"cluster": False, "deciding": False, "annotations": False, "scale": False}
        fields: dict[str, list[str]] = {"map": [], "value": []}
        for part in parts:
            key, equals, value = part.partition("=")
            if not equals and part in flags:
                flags[part] = True
            elif equals and key in fields:
                if not value:
                    raise ConfigurationError(
                        f"{part!r} in kind {text!r} has no value; write the name of a field of the status"
                    )
                fields[key].append(value)
            elif part != "namespaced":
                raise ConfigurationError(
                    f"{part!r} in kind {text!r} must be cluster, namespaced, deciding, annotations,"
                    " scale, map=FIELD or value=FIELD"
                )
        return cls(plural, maps=tuple(fields["map"]), values=tuple(fields["value"]), **flags)

    @property
    def subresources(self) -> tuple[str, ...]:
        """The subresources beside ``status`` that the operator writes."""
        return ("scale",) if self.scale else ()


@dataclass(frozen=True, slots=True)
class Child:
    """A kind of objects that the operator creates, with the stamp in annotations.

    Args:
        plural: its plural name, as in its API.
        group: its API group; empty for the core group.
        labels: labels that all children have, as pairs of key and value.
        owner: the kind in an owner reference that all children have.
        subresources: those that the operator writes. Of some a policy sees neither stamp nor labels (`unseen`).

    With labels or an owner, the operator may create, change and delete only objects that have them.
    """

    plural: str
    group: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    owner: str = ""
    subresources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(_LABEL, self.plural, "a child kind's plural, as in configmaps or deployments.apps")
        if self.group:
            _check(_NAME, self.group, f"the API group of {self.plural}")
        if self.owner:
            _check(_KIND, self.owner, f"the owner's kind of {self.plural}, as in AddressClaim")
        for key, value in self.labels:
            _check(_LABEL_KEY, key, "a label's key")
            _check(_LABEL_VALUE, value, f"a value of the label {key}")
        known = subresources_of(self.kind)
        for name in self.subresources:
            if name not in known:
                raise ConfigurationError(
                    f"{name!r} in child {self.kind} is neither LABEL=VALUE nor owner=KIND nor a subresource of it that"
                    f" the fence knows: {', '.join(sorted(known))}"
                )

    @property
    def kind(self) -> str:
        """``plural.group``, or ``plural`` in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def unseen(self) -> tuple[str, ...]:
        """The subresources among those that the operator writes in which no policy sees the stamp."""
        known = subresources_of(self.kind)
        return tuple(name for name in self.subresources if not known[name].shows_stamp)

    def flag(self, with_label: bool = False) -> str:
        """Return what `parse` reads; with a place for a label if somebody has to fill that in."""
        labels = [f"{key}={value}" for key, value in self.labels] + (["LABEL=VALUE"] if with_label else [])
        owner = [f"owner={self.owner}"] if self.owner else []
        return ":".join([self.kind, *labels, *owner, *self.subresources])

    @classmethod
    def parse(cls, text: str, kinds: Collection[str] = ()) -> Child:
        """Read ``plural[.group][:LABEL=VALUE…][:owner=KIND][:SUBRESOURCE…]``.

        Args:
            text: what somebody wrote.
            kinds: the kinds of the operator's own, as in its CRDs, as far as they are known.

        Raises:
            ConfigurationError: the text has an unknown part, or the owner is not written as a kind is.
        """
        kind, *parts = text.split(":")
        plural, _, group = kind.partition(".")
        labels, owner, subresources = [], "", []
        for part in parts:
            key, equals, value = part.partition("=")
            if not equals:
                subresources.append(part)
            elif not key or not value:
                raise ConfigurationError(
                    f"{part!r} in child {text!r} has no {'value' if key else 'key'}; write LABEL=VALUE or owner=KIND"
                )
            elif key == "owner" and owner:
                raise ConfigurationError(f"child {text!r} has two owners; name one kind that all of them have")
            elif key == "owner":
                owner = value
            else:
                labels.append((key, value))
        _check_letters(text, owner, kinds)
        return cls(plural, group, tuple(labels), owner, tuple(dict.fromkeys(subresources)))


@dataclass(frozen=True, kw_only=True)
class Description:
    """One operator.

    Args:
        group: the API group of its kinds; empty if it has none.
        kinds: its own kinds, if it has some. They have `status.fencing`, or the stamp in an annotation.
        children: other kinds that it writes, with the stamp in an annotation.
        lease: ``namespace/name`` of the Lease whose `leaseTransitions` is the token.
        service_account: ``namespace/name`` of the account that its pods run as. Nothing else may use it.
        prefix: the beginning of all objects' names. If empty, it is ``kopf-ha-NAMESPACE.NAME`` of the service account.
            No two accounts have the same, since a namespace's name has no dot.
        exempt: subresources of kinds and children that the operator writes without the fence, as
            ``plural[.group]/subresource``. They must be the same as its ``--exempt`` options.
        legacy_lock: the lock of replicas from before kopf-ha, as ``RESOURCE/[NAMESPACE/]NAME``; for its role, and
            because every replica may write it.
        namespaces: the namespaces that it serves, as with ``-n``; empty for all. Then another installation, with
            another account and another Lease, can serve others.
        level: one of `LEVELS`. With ``term`` only the leader's pod writes as the account; nothing has a stamp, so there
            are neither kinds nor children.

    Raises:
        ConfigurationError: a name is malformed. The message says how it is written.
    """

    group: str
    kinds: tuple[Kind, ...]
    lease: str
    service_account: str
    children: tuple[Child, ...] = ()
    prefix: str = ""
    exempt: tuple[str, ...] = ()
    legacy_lock: str = ""
    namespaces: tuple[str, ...] = ()
    level: str = FULL

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigurationError(f"the level {self.level!r} must be one of {', '.join(LEVELS)}")
        if self.level == TERM and (self.kinds or self.children or self.exempt or self.group):
            raise ConfigurationError(
                "at level term nothing has a stamp, so leave out --group, --kind, --child and --exempt;"
                " --level full has stamps"
            )
        if (self.group or self.kinds) and ("." not in self.group or not _NAME.fullmatch(self.group)):
            raise ConfigurationError(f"{self.group!r} is not an API group of custom resources, as in ipam.example.com")
        for what, value in (("Lease", self.lease), ("service account", self.service_account)):
            namespace, slash, name = value.partition("/")
            if not slash or not _LABEL.fullmatch(namespace) or not _NAME.fullmatch(name):
                raise ConfigurationError(f"{what} {value!r} must be written namespace/name")
        if self.legacy_lock:
            LegacyLock.parse(self.legacy_lock, self.lease_parts[0])
        names = [k.plural for k in self.kinds], [c.kind for c in self.children]
        for many, option in ((names[0], "kind"), (names[1], "child"), (self.namespaces, "")):
            twice = next((n for n in many if many.count(n) > 1), None)
            if twice:
                how = f"; write one --{option} with all of its parts" if option else ""
                raise ConfigurationError(f"{twice} is named twice{how}")
        known = {f"{k.plural}.{self.group}" for k in self.kinds} | set(names[1])
        for child in self.children:
            if child.owner and not self.group:
                raise ConfigurationError(f"an owner of {child.kind} must be of the operator's own kinds; it has none")
            if child.group == self.group and child.plural in names[0]:
                raise ConfigurationError(f"{child.kind} is named both as a kind and as a child")
        for entry in self.exempt:
            kind, slash, sub = entry.partition("/")
            if not slash or not sub or kind not in known:
                raise ConfigurationError(
                    f"exempt {entry!r} must be written plural[.group]/subresource, of one of {', '.join(sorted(known))}"
                )
        for name in self.namespaces:
            _check(_LABEL, name, "a namespace's name; policies and roles name each, so patterns cannot be used")
        if not self.prefix:
            object.__setattr__(self, "prefix", f"{PREFIX}-{'.'.join(self.account_parts)}")
        if not self.prefix.startswith(PREFIX) or not _NAME.fullmatch(self.prefix):
            raise ConfigurationError(f"the prefix {self.prefix!r} must begin with {PREFIX}: the fence looks for it")

    def as_json(self) -> str:
        """Return the description in one line, for `from_json`."""
        given = asdict(self)
        del given["legacy_lock"]  # no rule depends on it
        for one in (*given["kinds"], *given["children"]):
            for name in ("scale", "subresources"):
                if not one.get(name, True):
                    del one[name]  # which earlier releases cannot read
        if not self.namespaces:
            del given["namespaces"]  # which earlier releases cannot read
        if self.level == FULL:
            del given["level"]  # which earlier releases cannot read
        return json.dumps({"format": FORMAT, **given}, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Description:
        """Read what `as_json` returned.

        Raises:
            ConfigurationError: another version of kopf-ha wrote it in another format.
        """
        try:
            given = json.loads(line)
            if given.pop("format") != FORMAT:
                raise ValueError("it has another format")
            kinds = (k | {"maps": tuple(k["maps"]), "values": tuple(k["values"])} for k in given.pop("kinds"))
            children = (
                c | {"labels": tuple((k, v) for k, v in c["labels"]), "subresources": tuple(c.get("subresources", ()))}
                for c in given.pop("children")
            )
            return cls(
                kinds=tuple(Kind(**k) for k in kinds),
                children=tuple(Child(**c) for c in children),
                exempt=tuple(given.pop("exempt")),
                namespaces=tuple(given.pop("namespaces", ())),
                **given,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"this version cannot read the description: {error}") from error

    @property
    def lease_parts(self) -> tuple[str, str]:
        """Namespace and name of the Lease."""
        namespace, _, name = self.lease.partition("/")
        return namespace, name

    @property
    def legacy(self) -> LegacyLock | None:
        """The lock of replicas from before kopf-ha; None if there are none."""
        return LegacyLock.parse(self.legacy_lock, self.lease_parts[0]) if self.legacy_lock else None

    @property
    def account_parts(self) -> tuple[str, str]:
        """Namespace and name of the service account."""
        namespace, _, name = self.service_account.partition("/")
        return namespace, name

    @property
    def stamped(self) -> tuple[Kind, ...]:
        """The kinds that have `status.fencing`."""
        return tuple(k for k in self.kinds if not k.annotations)

    @property
    def noted(self) -> tuple[Child, ...]:
        """The kinds that have the stamp in their metadata: own kinds, and children."""
        own = (Child(k.plural, self.group, subresources=k.subresources) for k in self.kinds if k.annotations)
        return (*own, *self.children)

    @property
    def user(self) -> str:
        """The user name of the operator's requests."""
        return "system:serviceaccount:" + ":".join(self.account_parts)

    def exempt_of(self, kind: str) -> list[str]:
        """Return the exempt subresources of ``plural[.group]``, as ``plural/subresource``."""
        split = (e.partition("/") for e in self.exempt)
        return [f"{k.partition('.')[0]}/{sub}" for k, _, sub in split if k == kind]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about a name that is not known."""
    by_letters = {k.lower(): k for k in sorted(known)}
    close = difflib.get_close_matches(name.lower(), by_letters, 1, 0.5)
    return f"; did you mean {by_letters[close[0]]}?" if close else ""


def _check_letters(child: str, owner: str, kinds: Collection[str]) -> None:
    """Check that an owner has a kind's capital letters. With others the policies would refuse every write.

    Raises:
        ConfigurationError: it is a plural, or has other letters than the kind that is known.
    """
    in_capitals = owner[:1].isupper() and owner.lower() not in {k.lower() for k in kinds}
    if owner and owner not in kinds and not in_capitals:
        raise ConfigurationError(
            f"owner={owner} in child {child!r} is not written as in its CRD, where spec.names.kind is such as"
            f" AddressClaim{did_you_mean(owner, kinds)}"
        )


def _check(pattern: re.Pattern[str], value: str, what: str) -> None:
    if not pattern.fullmatch(value):
        raise ConfigurationError(f"{value!r} is not {what}")
