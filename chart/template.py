"""Writes objects with placeholders as a Helm template.

A placeholder is a word that no manifest contains. Whole objects are written as YAML first, so that each placeholder is
in a plain string or a line of its own, and then replaced in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from kopf_ha.manifests.render import render

#: Names, by their placeholders. They are valid names themselves, since the library checks them.
NAMESPACE, ACCOUNT, LEASE, NAME = "zz-namespace", "zz-account", "zz-lease", "kopf-ha-zz-prefix"
#: Other values.
IMAGE, REPLICAS, VERSION, CHILD_NOTE = "zz-image", "zz-replicas", "zz-version", "zz-child-note"

#: Each file begins with these, so that expressions within CEL stay readable.
VARIABLES = """\
{{- $namespace := .Release.Namespace }}
{{- $name := include "kopf-ha-ipam.name" . }}
{{- $account := include "kopf-ha-ipam.account" . }}
{{- $lease := include "kopf-ha-ipam.lease" . }}
{{- $stamp := printf "%s/%s configmaps" $namespace $lease | sha256sum | trunc 16 }}
"""
_EXPRESSIONS = {
    NAMESPACE: "$namespace",
    ACCOUNT: "$account",
    LEASE: "$lease",
    NAME: "$name",
    IMAGE: 'include "kopf-ha-ipam.image" .',
    VERSION: ".Chart.AppVersion",
    CHILD_NOTE: "$stamp",
}
#: Numbers: without quotes also where they are alone.
_NUMBERS = {REPLICAS: ".Values.replicas"}


class Blocks:
    """Hands out placeholders for lines of the template that take the place of an entry of a mapping or a list."""

    def __init__(self) -> None:
        self._blocks: list[tuple[str, ...]] = []

    def entry(self, *lines: str) -> str:
        """Return a placeholder for these lines: a key (its value is None), or an element of a list.

        Each line gets the entry's indentation, but for those that begin with ``{{-``. In a line, ``{margin}`` is that
        indentation, and ``{indent}`` that of what is below the entry.
        """
        self._blocks.append(lines)
        return f"zz-block-{len(self._blocks) - 1}-"

    def put(self, text: str) -> str:
        """Replace all of them."""

        def lines(found: re.Match[str]) -> str:
            margin = found["margin"]
            widths = {"{margin}": str(len(margin)), "{indent}": str(len(margin) + 2)}
            made = ""
            for line in self._blocks[int(found["number"])]:
                for word, width in widths.items():
                    line = line.replace(word, width)
                made += f"{line if line.startswith('{{-') else margin + line}\n"
            return made

        return re.sub(r"(?m)^(?P<margin> *)(?:- )?zz-block-(?P<number>\d+)-(?:: null)?\n", lines, text)


def template(objects: Sequence[Mapping[str, Any]], blocks: Blocks, source: str, condition: str = "") -> str:
    """Return a file of the chart.

    Args:
        objects: with placeholders.
        blocks: those that the objects contain.
        source: where people change them, for the comment.
        condition: the value that switches them on; empty if they are always there.

    Raises:
        ValueError: a placeholder is left, or YAML does not keep what was written.
    """
    text = render(objects)
    if list(yaml.safe_load_all(text)) != list(objects):
        raise ValueError("something is not the same after it was written: a text with several lines is folded wrongly")
    # Prometheus has expressions of the same form, which are not Helm's.
    text = text.replace("{{", '{{ "{{" }}')
    text = blocks.put(text)
    for placeholder, expression in _EXPRESSIONS.items():
        # Alone, a name such as 123 or on would be no string.
        text = re.sub(rf"(?m)(?<=: ){placeholder}$|(?<=- ){placeholder}$", f"{{{{ {expression} | quote }}}}", text)
        text = text.replace(placeholder, f"{{{{ {expression} }}}}")
    for placeholder, expression in _NUMBERS.items():
        text = text.replace(placeholder, f"{{{{ {expression} }}}}")
    if left := re.findall(r"\S*zz-\S*", text):
        raise ValueError(f"placeholders are left: {left}")
    comment = f"{{{{- /* Written by python -m chart from {source}. Change it there. */ -}}}}\n"
    body = VARIABLES + "---\n" + text
    return comment + (f"{{{{- if {condition} }}}}\n{body}{{{{- end }}}}\n" if condition else body)
