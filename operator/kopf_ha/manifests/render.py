"""Writes objects as readable YAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

#: Longer lines are folded, so that people can read expressions.
WIDTH = 110


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = ">" if len(value) > WIDTH - 20 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def render(objects: Iterable[Any], header: str = "") -> str:
    """Return the objects as a YAML stream, with `header` as a comment at the top."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    texts = [yaml.dump(o, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True) for o in objects]
    return comment + "---\n".join(texts)
