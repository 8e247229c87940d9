"""Manifests of an operator that the tests write, and what `kopf-ha manifests -f` makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from kopf_ha.manifests import Description, Kind
from kopf_ha.manifests.command import manifests

#: Of the names of what is generated for these files.
PREFIX = Description(
    group="toys.example.com", kinds=(Kind("toys"),), lease="play/toys", service_account="play/toys"
).prefix

ROLES = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: toys}
rules:
- {apiGroups: [toys.example.com], resources: [toys, toys/status], verbs: ["*"]}
RULES
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: toys}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: toys}
subjects: [{kind: ServiceAccount, name: toys, namespace: play}]
"""


def load(text: str) -> list[dict[str, Any]]:
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def crd(plural: str = "toys", group: str = "toys.example.com", **version: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"status": {"type": "object"}}}
    made = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    made |= {"schema": {"openAPIV3Schema": schema}} | version
    names = {"kind": plural.title(), "plural": plural}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [made]},
    }


def deployment(*command: str, **pod: Any) -> dict[str, Any]:
    container = {"name": "operator", "image": "toys:1", "command": list(command or ("kopf", "run", "-A", "toys.py"))}
    container |= pod.pop("container", {})
    template = {"metadata": {}, "spec": {"serviceAccountName": "toys", "containers": [container]} | pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "toys", "namespace": "play"},
        "spec": {"selector": {}, "template": template},
    }


def roles(*rules: dict[str, Any]) -> str:
    return ROLES.replace("RULES\n", "".join(f"- {json.dumps(rule)}\n" for rule in rules))


def rule(group: str, resource: str, *verbs: str, **more: Any) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} | more


class Files:
    """An operator's manifests in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **contents: Any) -> None:
        for name, content in contents.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (self.folder / f"{name}.yaml").write_text(text)

    def run(self, *args: str, stdin: str | None = None) -> Result:
        files = ["-f", "-"] if stdin is not None else ["-f", str(self.folder)]
        return CliRunner().invoke(manifests, [*files, *args], input=stdin)

    def made(self, *args: str, stdin: str | None = None) -> str:
        """What it prints; which, fed in again, has to be printed again."""
        result = self.run(*args, stdin=stdin)
        assert result.exit_code == 0, result.output
        again = self.run(stdin=result.stdout)
        assert again.stdout == result.stdout
        return str(result.stdout)

    def refused(self, *args: str) -> str:
        result = self.run(*args)
        assert result.exit_code == 2, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return " ".join(result.output.partition("Error: ")[2].split())


def one(text: str, kind: str, name: str = "toys") -> dict[str, Any]:
    (found,) = (d for d in load(text) if d["kind"] == kind and d["metadata"]["name"] == name)
    return dict(found)


def container(text: str) -> dict[str, Any]:
    return dict(one(text, "Deployment")["spec"]["template"]["spec"]["containers"][0])


def policy_names(text: str) -> set[str]:
    return {d["metadata"]["name"] for d in load(text) if d["kind"] == "ValidatingAdmissionPolicy"}


def described(text: str) -> Description:
    mark = "fencing: described by "
    for d in load(text):
        for validation in d.get("spec", {}).get("validations", ()) if "Policy" in d["kind"] else ():
            if validation["message"].startswith(mark):
                return Description.from_json(validation["message"].removeprefix(mark))
    raise AssertionError("nothing describes the operator")


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    at: Any = document
    for key in parents:
        at = at[int(key) if key.isdigit() else key]
    at[last] = value
    return document
