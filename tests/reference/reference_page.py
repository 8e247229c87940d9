"""Writes docs/reference.md from the code: each command's help, the metrics, the fields of the CRDs.

`KOPF_HA_REWRITE=1 pytest tests/reference` writes it anew. Without the variable, the test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
import yaml
from prometheus_client import REGISTRY

import kopf_ha_ipam.conflicts  # registers its metrics
from kopf_ha.cli import main
from kopf_ha.run.metrics import Metrics
from kopf_ha.settings import Settings
from testbed.deployment import ROOT

#: Columns of help texts.
WIDTH = 100
SCOPES = {"Cluster": "cluster-scoped", "Namespaced": "in a namespace"}
INTRODUCTION = """\
# Reference

A test generates this page from the code (`tests/reference`). The [settings](options.md) have a page of their own, and
[how the fence works](fencing.md) explains `status.fencing`, the Lease and the Term.
"""


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, "## Commands\n", *commands(), "## Metrics\n", *metrics(), "## Custom resources\n", *kinds()]
    return "\n".join(parts)


def commands() -> Iterator[str]:
    """Give each command with its help, those of groups after the group."""
    yield "As `--help` prints it.\n"
    yield from _command(main, "kopf-ha", None)


def _command(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    context = command.context_class(
        command, info_name=path.rpartition(" ")[2], parent=parent, terminal_width=WIDTH, **command.context_settings
    )
    text = re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.MULTILINE)
    yield f"### {path}\n\n```text\n{text}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _command(inner, f"{path} {name}", context)


def metrics() -> Iterator[str]:
    """Give a table of the metrics: the library's, and the reference operator's own."""
    yield "[Observability](observability.md#metrics) says how to read them. `name` is the Lease's name.\n"
    yield "| metric | type | labels | help |\n|---|---|---|---|"
    made = Metrics(Settings(lease_name="x", lease_namespace="x"))
    made._writes.labels("c", "k", "o")  # it has no value before the first write
    ours = [m for m in REGISTRY.collect() if m.name.startswith("kopf_ha_ipam")]
    assert kopf_ha_ipam.conflicts.GIVEN_TWICE
    for metric in sorted([*made.registry.collect(), *ours], key=lambda m: m.name):
        if not metric.name.startswith(("kopf_ha", "leader_election")):
            continue  # the process's own
        labels = {label for sample in metric.samples for label in sample.labels} - {"le"}
        name = metric.name + ("_total" if metric.type == "counter" else "")
        shown = ", ".join(f"`{one}`" for one in sorted(labels))
        yield f"| `{name}` | {metric.type} | {shown} | {metric.documentation} |"
    yield ""


def kinds() -> Iterator[str]:
    """Give a table of fields for each CRD of the repository."""
    yield "`kubectl explain` says the same. The Term belongs to the library, the others to the reference operator.\n"
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        definition = yaml.safe_load(path.read_text())
        if definition["kind"] != "CustomResourceDefinition":
            continue
        spec = definition["spec"]
        names, (version,) = spec["names"], spec["versions"]
        schema = version["schema"]["openAPIV3Schema"]
        yield f"### {names['kind']}\n"
        about = _line(schema.get("description", ""))
        yield f"`{names['plural']}.{spec['group']}/{version['name']}`, {SCOPES[spec['scope']]}. {about}\n"
        yield "| field | type | what it is |\n|---|---|---|"
        for field, kind, about in _fields(schema):
            yield f"| `{field}` | {kind} | {about} |"
        yield ""
        rules = [rule["message"] for rule in schema.get("x-kubernetes-validations", ())]
        yield "".join(f"- {_line(rule)}\n" for rule in rules)


def _fields(schema: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    required = set(schema.get("required") or ())
    for name, inner in (schema.get("properties") or {}).items():
        where = f"{path}.{name}" if path else name
        if where in ("apiVersion", "kind", "metadata"):
            continue
        yield where, _type(inner), _about(inner, name in required)
        if inner.get("type") == "array":
            yield from _fields(inner["items"], f"{where}[]")
        else:
            yield from _fields(inner, where)


def _type(schema: Any) -> str:
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return str(schema.get("format") or kind)


def _about(schema: Any, required: bool) -> str:
    said = [_line(schema.get("description", ""))]
    said += [_line(rule["message"]) for rule in schema.get("x-kubernetes-validations", ())]
    limits = [
        f"{word} {schema[key]}" for key, word in (("minimum", "at least"), ("maximum", "at most")) if key in schema
    ]
    limits += ["one of " + ", ".join(f"`{v}`" for v in schema["enum"])] if "enum" in schema else []
    limits += ["required"] if required else []
    return " ".join([one for one in said if one] + ([f"({'; '.join(limits)})"] if limits else []))


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
