"""A hook of MkDocs that makes pages written for GitHub fit the site.

- The pages link to code (`../operator/…`), but a site holds docs/ alone: such a link leads to the published sources,
  or becomes plain text where there are none.
- Pictures of the benchmarks are kept with their results: the site gets copies.
- In a table GitHub wants `a\\|b` in code, and MkDocs wants `a|b`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

# A warning of a logger below `mkdocs` ends a build with --strict.
log = logging.getLogger("mkdocs.hooks.kopf_ha")

_LINK = re.compile(r"\[(?P<text>[^\[\]]+)\]\((?P<path>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_ROW = re.compile(r"(?m)^\|.*\|$")


_PICTURES = "benchmarks/results"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the benchmarks' pictures to the site."""
    folder = Path(config.docs_dir).parent / _PICTURES
    for path in sorted(folder.glob("*.svg")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrite one page; a link to a file that does not exist is a warning."""
    docs = Path(config.docs_dir)

    def elsewhere(link: re.Match[str]) -> str:
        target = ((docs / page.file.src_uri).parent / link["path"]).resolve()
        if not target.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, link["path"])
        if not config.repo_url:
            return link["text"]
        kind = "tree" if target.is_dir() else "blob"
        path = target.relative_to(docs.parent)
        return f"[{link['text']}]({config.repo_url.rstrip('/')}/{kind}/main/{path}{link['anchor'] or ''})"

    def code(row: re.Match[str]) -> str:
        return re.sub(r"`[^`]*`", lambda span: span[0].replace(r"\|", "|"), row[0])

    return _ROW.sub(code, _LINK.sub(elsewhere, markdown.replace(f"](../{_PICTURES}/", "](results/")))
