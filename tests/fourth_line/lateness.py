"""How late the last accepted write of a stale leader was, by the API server's own clock, from its audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devcluster import ControlPlane
from testbed.stage import seconds, writer


@dataclass(frozen=True)
class Told:
    """What one write was told: when it arrived, when it was answered, and the answer."""

    arrived: float
    answered: float
    code: int
    message: str


class Audit:
    """Reads what is new in the audit log of one API server."""

    def __init__(self, plane: ControlPlane, server: int = 0) -> None:
        self._path = plane.audit_logs[server]
        self._read = self._path.stat().st_size

    def new(self) -> Iterator[dict[str, Any]]:
        """Give the events since the last call, whole lines only."""
        with self._path.open("rb") as log:
            log.seek(self._read)
            lines = log.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)


def told(event: dict[str, Any]) -> Told:
    status = event.get("responseStatus") or {}
    arrived, answered = seconds(event["requestReceivedTimestamp"]), seconds(event["stageTimestamp"])
    return Told(arrived, answered, int(status.get("code") or 0), str(status.get("message") or ""))


def writes(event: dict[str, Any], uid: str) -> bool:
    """Whether the event is a write of the pod with this uid, and not of its Term."""
    reads = event["verb"] in ("get", "list", "watch") and (event.get("objectRef") or {}).get("subresource") != "exec"
    return writer(event) == uid and not reads and (event.get("objectRef") or {}).get("resource") != "terms"
