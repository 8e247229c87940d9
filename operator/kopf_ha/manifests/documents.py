"""YAML documents as somebody wrote them. What is not changed keeps its text; what is changed keeps its comments."""

from __future__ import annotations

import copy
import difflib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.remarks import without_ours

_ENDINGS = (".yaml", ".yml", ".json")
_SEPARATOR = re.compile(r"^(?:---(?=\s|$)|\.\.\.(?=\s*$))[ \t]*", re.MULTILINE)
#: In quotes a template is YAML, too. A ConfigMap may contain one.
_HELM = re.compile(r"\{\{-?\s*(\.Values|\.Release|\.Chart|include )")
_WITH_TEXTS = ("ConfigMap", "Secret", "List")
#: Kinds that are never changed. A faster parser reads them, since policies are long.
_UNCHANGED = re.compile(r"^kind: ValidatingAdmissionPolicy", re.MULTILINE)


@dataclass
class Document:
    """One Kubernetes object.

    Args:
        source: the file that it is from, for messages.
        text: as it was given, with a newline at the end.
        data: its fields. They may be changed.
        tasks: what comments at its top, written by this command, say is left to do.
    """

    source: str
    text: str
    data: Any
    tasks: tuple[str, ...] = ()
    given: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.given = copy.deepcopy(self.data)

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.data["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace; empty if it names none."""
        return str(self.data["metadata"].get("namespace") or "")

    @property
    def group(self) -> str:
        """Its API group; empty for the core group."""
        group, slash, _ = str(self.data["apiVersion"]).partition("/")
        return group if slash else ""

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"

    @property
    def changed(self) -> bool:
        """Whether its fields were changed."""
        return bool(self.data != self.given)

    def rendered(self) -> str:
        """Return its text, written anew only if it was changed, in the style in which it was given."""
        return _dumped(self.data, _indented(self)) if self.changed else self.text

    def diff(self) -> str:
        """Return what was changed as a unified diff; empty if nothing was."""
        old, new = self.text.splitlines(keepends=True), self.rendered().splitlines(keepends=True)
        names = f"{self.source}: {self.title}", "with kopf-ha"
        return "".join(difflib.unified_diff(old, new, *names))


@contextmanager
def in_form() -> Iterator[None]:
    """Say in words that manifests which are read do not have the form that Kubernetes asks for.

    Raises:
        ConfigurationError: an item is missing, or is of another type.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"something in the manifests does not have the form that Kubernetes asks for ({error!r}); kubectl apply"
            " --dry-run=server says what it is"
        ) from error


def read(paths: list[str], stdin: str = "") -> list[Document]:
    """Return the objects in these files and directories, and in `stdin` for the path ``-``; those of lists one by one.

    Raises:
        ConfigurationError: something there cannot be read, or is no Kubernetes object.
    """
    return [document for source, text in _texts(paths, stdin) for document in parse(source, text)]


def parse(source: str, text: str) -> Iterator[Document]:
    """Give the objects in a stream of YAML or JSON.

    Raises:
        ConfigurationError: it cannot be read, or something in it is no Kubernetes object.
    """
    comments = ""
    for part in _SEPARATOR.split(text):
        own, tasks = without_ours(part.lstrip("\n"))
        part, comments = comments + own, ""
        data = _load(source, part)
        if data is None:
            comments = part if part.strip() else ""  # they belong to what follows
            continue
        for one in _objects(data):
            _check_object(source, one, part)
            as_given = one is data and not part.lstrip().startswith("{")  # JSON is written as YAML
            yield Document(source, part.rstrip() + "\n" if as_given else _dumped(one), one, tuple(tasks))


def in_one_line(data: Any) -> Any:
    """Return maps and lists so that they are written in one line."""
    if isinstance(data, dict):
        made: Any = CommentedMap({k: in_one_line(v) for k, v in data.items()})
    elif isinstance(data, list):
        made = CommentedSeq([in_one_line(v) for v in data])
    else:
        return data
    made.fa.set_flow_style()
    return made


def _texts(paths: list[str], stdin: str) -> Iterator[tuple[str, str]]:
    for name in paths:
        if name == "-":
            yield "stdin", stdin
            continue
        path = Path(name)
        if not path.exists():
            raise ConfigurationError(f"there is no file {name}")
        files = sorted(p for p in path.iterdir() if p.suffix in _ENDINGS) if path.is_dir() else [path]
        if not files:
            raise ConfigurationError(f"the directory {name} has no file that ends in {', '.join(_ENDINGS)}")
        for file in files:
            try:
                yield str(file), file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror or "" if isinstance(error, OSError) else "it is no text in UTF-8"
                raise ConfigurationError(f"{file} cannot be read: {why.lower()}") from error


def _load(source: str, text: str) -> Any:
    try:
        return _loaded(source, text)
    except RecursionError as error:
        raise ConfigurationError(f"{source} cannot be read: it is nested too deeply") from error


def _loaded(source: str, text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            pass  # a flow mapping of YAML
    try:
        if _UNCHANGED.search(text):
            return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        return _yaml().load(text)
    except (YAMLError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{source} is no YAML{_hint(text)}: {error}") from error


def _hint(text: str) -> str:
    return "; it is a template, so render it first: helm template … | kopf-ha manifests -f -" if "{{" in text else ""


def _objects(data: Any) -> Iterator[Any]:
    if isinstance(data, dict) and str(data.get("kind", "")).endswith("List") and isinstance(data.get("items"), list):
        for item in data["items"]:
            yield from _objects(item)
    else:
        yield data


def _check_object(source: str, data: Any, text: str) -> None:
    if isinstance(data, dict) and data.get("kind") in ("Kustomization", "Component"):
        raise ConfigurationError(
            f"{source} is for kustomize; render it first: kubectl kustomize DIRECTORY | kopf-ha manifests -f -"
        )
    if not isinstance(data, dict) or not all(isinstance(data.get(k), str) for k in ("kind", "apiVersion")):
        raise ConfigurationError(
            f"{source} has a document that is no Kubernetes object, with kind and apiVersion{_hint(text)}"
        )
    metadata = data.get("metadata")
    names = [str(metadata.get(k, "")) for k in ("name", "namespace")] if isinstance(metadata, dict) else []
    if any("{{" in n for n in names) or (data["kind"] not in _WITH_TEXTS and _HELM.search(text)):
        raise ConfigurationError(f"{source} has values that are not filled in{_hint(text)}")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise ConfigurationError(
            f"{source} has an object of kind {data['kind']} without metadata.name{_hint(text) or '; name it'}"
        )


def _yaml(*, indented: bool = False) -> YAML:
    made = YAML()
    made.preserve_quotes = True
    made.width = 4096  # no line is folded anew
    made.indent(mapping=2, sequence=4 if indented else 2, offset=2 if indented else 0)
    made.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    return made


def _dumped(data: Any, indented: bool = False) -> str:
    out = io.StringIO()
    _yaml(indented=indented).dump(data if isinstance(data, CommentedMap) else dict(data), out)
    return out.getvalue()


def _indented(document: Document) -> bool:
    """Return whether lists are indented in the document: the style by which fewer lines of it change."""
    lines = document.text.splitlines()

    def same(indented: bool) -> int:
        return sum(1 for line in difflib.ndiff(lines, _dumped(document.given, indented).splitlines()) if line[0] == " ")

    return same(True) > same(False)
