"""Reads the API server's audit log: who sent which request, and what was answered."""

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
    """The revision that the request made, according to its answer. None if the audit policy keeps no answers."""
    dry_run: bool = False
    doubtful: bool = False
    """Whether a deletion's URL says that it was a dry run, but its body, which would count instead, was not kept."""
    reason: str = ""
    begun: str = ""
    """When the request was received; empty if that is unknown."""
    asked: int | None = None
    """The resourceVersion that the request named as its precondition. None without one, or if its body was not kept."""
    ended: bool = False
    """Whether it removed the last finalizer of a deleted object, which is gone then."""
    newest: bool = True
    """Whether the answer has to show the newest revision. A GET may ask for less."""

    @property
    def write(self) -> bool:
        """Whether it is a write, and not a dry run."""
        return self.verb in WRITES and not self.dry_run

    @property
    def accepted(self) -> bool:
        """Whether it succeeded (2xx)."""
        return 200 <= self.code < 300


def read_audit(paths: Iterable[str | Path]) -> list[AuditEntry]:
    """Read the logs of all API servers, and return the entries in the order of the answers.

    A killed API server can leave an incomplete line. It is skipped, so the writer of that request stays unknown.
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
    # the answer to the removal of the last finalizer is the object as it was before, with its old revision
    went = bool(meta.get("deletionTimestamp")) and not meta.get("finalizers") and event.get("verb") in EDITS
    dry_run, doubtful = _dry_run(event)
    # kubectl asks for tables, too
    shows = answer.get("kind") != "Status" and (event.get("verb") != "get" or bool(meta.get("uid")))
    return AuditEntry(
        finished=_sortable(event.get("stageTimestamp", "")),
        begun=_sortable(received) if (received := event.get("requestReceivedTimestamp", "")) else "",
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
        revision=int(version) if version.isdecimal() and shows and not went else None,
        dry_run=dry_run,
        doubtful=doubtful,
        reason=status.get("message") or status.get("reason", ""),
        asked=_asked(event),
        ended=went,
        newest="resourceVersion" not in parse_qs(urlsplit(event.get("requestURI", "")).query),
    )


def _asked(event: dict[str, Any]) -> int | None:
    """Return the resourceVersion that a request named as its precondition."""
    body, version = event.get("requestObject"), None
    if isinstance(body, list):  # a JSON patch
        tests = [o for o in body if isinstance(o, dict) and o.get("op") == "test"]
        version = next((o.get("value") for o in tests if o.get("path") == "/metadata/resourceVersion"), None)
    elif isinstance(body, dict):
        part = "preconditions" if event.get("verb") in DELETIONS else "metadata"
        version = (body.get(part) or {}).get("resourceVersion")
    details = (event.get("responseStatus") or {}).get("details") or {}
    if details.get("causes"):  # an apply met another field manager: that conflict is not about revisions
        return None
    return int(version) if isinstance(version, str) and version.isdecimal() else None


def _dry_run(event: dict[str, Any]) -> tuple[bool, bool]:
    """Return whether it was a dry run, and whether that is in doubt.

    If a DELETE has a body, the API server takes the options from the body and ignores `?dryRun=All` in the URL.
    """
    asked = "dryRun" in parse_qs(urlsplit(event.get("requestURI", "")).query)
    if event.get("verb") not in DELETIONS:
        return asked, False
    body = event.get("requestObject")
    if isinstance(body, dict):
        return bool(body.get("dryRun")), False
    return asked, asked and event.get("level") == "Metadata"


def _sortable(timestamp: str) -> str:
    """Return an RFC 3339 timestamp with six digits of a second, so that sorting text sorts by time."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<6}"
