"""Reads the whole history from etcd, through the JSON gateway on its client URL.

Every revision of etcd changes at least one key. So a watch of all keys from the start must show every revision up to
the current one. A missing revision is an error, and so is a compacted history. Secrets are left out, since a history
may be attached to a bug report.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import requests

from judge.history import PREFIX, History, HistoryError, Key, Object, replay
from judge.shapes import JUDGED

#: The revision of an empty etcd.
EMPTY = 1
ALL_KEYS = {"key": "AA==", "range_end": "AA=="}  # from "\0" to the end
SILENT = frozenset({"secrets"})


def read_history(
    endpoint: str,
    ca: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    *,
    timeout: float = 30.0,
    known: History | None = None,
) -> History:
    """Read all revisions up to the current one.

    Args:
        endpoint: the URL for clients.
        ca: the authority of its certificate.
        cert: of this client.
        key: of this client.
        timeout: the longest time without data, in seconds.
        known: the same etcd's history up to an earlier revision, which is not read again.

    Raises:
        HistoryError: etcd cannot be read, or its history is incomplete.
    """
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(ca) if ca else True
        session.cert = (str(cert), str(key)) if cert and key else None
        url = endpoint.rstrip("/")
        try:
            until = _current_revision(session, url, timeout)
            last = known.revision if known else EMPTY
            request = {"create_request": {**ALL_KEYS, "start_revision": str(last + 1), "fragment": True}}
            with session.post(f"{url}/v3/watch", json=request, stream=True, timeout=timeout) as response:
                response.raise_for_status()
                messages = map(json.loads, lines(response.iter_content(1 << 20)))
                return replay(until, writes(messages, until, last), known)
        except (requests.RequestException, ValueError) as error:
            raise HistoryError(f"etcd at {endpoint} could not be read: {error}") from error


def _current_revision(session: requests.Session, url: str, timeout: float) -> int:
    request = {**ALL_KEYS, "limit": "1", "keys_only": True}
    response = session.post(f"{url}/v3/kv/range", json=request, timeout=timeout)
    response.raise_for_status()
    return int(response.json()["header"]["revision"])


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Split a stream of chunks into lines."""
    parts: list[bytes] = []
    for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join([*parts, end])
            parts = []
            if line.strip():
                yield line
        parts.append(rest)
    if line := b"".join(parts).strip():
        yield line


def writes(
    messages: Iterable[dict[str, Any]], until: int, last: int = EMPTY
) -> Iterator[tuple[int, Key, Object | None]]:
    """Turn the answers of a watch into writes, after one revision and up to another.

    A missing revision raises HistoryError.
    """
    if last >= until:
        return
    for message in messages:
        if "error" in message:
            raise HistoryError(f"etcd ended the watch: {message['error']}")
        answer = message.get("result", message)
        if answer.get("canceled"):
            compacted = answer.get("compact_revision")
            why = f"compacted up to revision {compacted}" if compacted else answer.get("cancel_reason", "no reason")
            raise HistoryError(f"etcd does not have the whole history: {why}")
        for event in answer.get("events", ()):
            revision = int(event["kv"]["mod_revision"])
            if revision > until:
                return
            if revision > last + 1:
                raise HistoryError(f"revisions {last + 1} to {revision - 1} are missing")
            last = revision
            write = _write(event)
            if write:
                yield revision, *write
        # the events of one revision can be split into fragments of one answer
        if last >= until and not answer.get("fragment"):
            return
    raise HistoryError(f"the watch ended at revision {last} of {until}")


def _write(event: dict[str, Any]) -> tuple[Key, Object | None] | None:
    path = base64.b64decode(event["kv"]["key"]).decode("utf-8", "replace")
    if not path.startswith(PREFIX):
        return None
    key = Key.parse(path)
    if key.resource in SILENT:
        return None
    if event.get("type") == "DELETE":
        return key, None
    raw = base64.b64decode(event["kv"].get("value", ""))
    try:
        value = json.loads(raw)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return key, value
    if key.resource in JUDGED:
        raise HistoryError(f"{path} is not JSON: the API server needs --storage-media-type=application/json")
    return None
