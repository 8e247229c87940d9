"""A hook of MkDocs for links that leave docs/: to the published sources, or, where there are none, plain text.

The pages link to code as GitHub shows it (`../operator/…`), but a site holds docs/ alone.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

# A child of this logger counts as a warning for --strict.
log = logging.getLogger("mkdocs.hooks.docs_links")

_LINK = re.compile(r"\[(?P<text>[^\[\]]+)\]\((?P<path>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrite the links of one page; one to a file that does not exist is a warning."""
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

    return _LINK.sub(elsewhere, markdown)
