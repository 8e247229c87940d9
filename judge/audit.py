"""The API server's audit log: who asked for what, and what was answered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
EDITS = frozenset({"update", "patch"})
DELETIONS = frozenset({"delete", "deletecollection"})
POD = "authentication.kubernetes.io/pod-"


@dataclass(frozen=True)
class AuditEntry:
    """One request that was answered."""

    finished: str
    user: str
    pod: str
    pod_uid: str
    agent: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    revision: int | None
    """The revision that it made, by the answer, where the audit policy keeps answers."""
    dry_run: bool = False
    doubtful: bool = False
    """A deletion whose URL says that it was a dry run, and whose body, which would count instead, was not kept."""
    reason: str = ""

    @property
    def write(self) -> bool:
        """Whether it asked for a change that counts."""
        return self.verb in WRITES and not self.dry_run

    @property
    def accepted(self) -> bool:
        """Whether the answer was a yes."""
        return 200 <= self.code < 300


def read_audit(paths: Iterable[str | Path]) -> list[AuditEntry]:
    """Read the logs of all API servers, in the order of the answers.

    A line that was cut off, as a killed API server leaves it, is skipped: who made that write is then not known.
    """
    entries = []
    for path in paths:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and event.get("stage") == "ResponseComplete":
                    entries.append(parse(event))
    return sorted(entries, key=lambda entry: entry.finished)


def parse(event: dict[str, Any]) -> AuditEntry:
    """Read one event of the audit log."""
    user = event.get("impersonatedUser") or event.get("user") or {}
    extra = user.get("extra") or {}
    ref = event.get("objectRef") or {}
    status = event.get("responseStatus") or {}
    answer = event.get("responseObject") or {}
    meta = answer.get("metadata") or {}
    version = str(meta.get("resourceVersion", ""))
    # who removes the last finalizer is answered with the object as it was before it went, and its old revision
    went = bool(meta.get("deletionTimestamp")) and not meta.get("finalizers") and event.get("verb") in EDITS
    dry_run, doubtful = _dry_run(event)
    return AuditEntry(
        finished=_sortable(event.get("stageTimestamp", "")),
        user=user.get("username", ""),
        pod=(extra.get(f"{POD}name") or [""])[0],
        pod_uid=(extra.get(f"{POD}uid") or [""])[0],
        agent=event.get("userAgent", ""),
        verb=event.get("verb", ""),
        resource=ref.get("resource", ""),
        subresource=ref.get("subresource", ""),
        namespace=ref.get("namespace", ""),
        name=ref.get("name") or meta.get("name", ""),
        code=int(status.get("code") or 0),
        revision=int(version) if version.isdecimal() and answer.get("kind") != "Status" and not went else None,
        dry_run=dry_run,
        doubtful=doubtful,
        reason=status.get("message") or status.get("reason", ""),
    )


def _dry_run(event: dict[str, Any]) -> tuple[bool, bool]:
    """Whether it was a dry run, and whether that is in doubt.

    When a DELETE has a body, the API server takes its options from there and ignores the URL: `?dryRun=All` deletes.
    """
    asked = "dryRun" in parse_qs(urlsplit(event.get("requestURI", "")).query)
    if event.get("verb") not in DELETIONS:
        return asked, False
    body = event.get("requestObject")
    if isinstance(body, dict):
        return bool(body.get("dryRun")), False
    return asked, asked and event.get("level") == "Metadata"


def _sortable(timestamp: str) -> str:
    """RFC 3339 with six digits of a second, so that text sorts as time."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<6}"
