"""One Lease over HTTP: read, write, list, watch; and what went wrong, in sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import urllib3
from kubernetes.client import ApiClient, ApiException, CoordinationV1Api
from urllib3 import exceptions as u3

from kopf_ha.core.lease import LeaseRecord
from kopf_ha.errors import ElectionError
from kopf_ha.settings import Settings

try:
    from importlib.metadata import version

    USER_AGENT = f"kopf-ha-election/{version('kopf-ha')}"
except ImportError:  # a checkout that was never installed
    USER_AGENT = "kopf-ha-election/unknown"


class Unreached(ElectionError):
    """A request without a usable answer.

    Attributes:
        status: the HTTP status; 0 when there was no answer.
        definite: it certainly changed nothing: it never left, or was refused. Otherwise it may have been
            done, or be done later: an API server goes on for up to 34 s after its client gave up.
    """

    def __init__(self, cause: str, *, status: int = 0, definite: bool = False) -> None:
        super().__init__(cause)
        self.status = status
        self.definite = definite


class LeaseClient:
    """The Lease of `settings`. Not for two threads at once, but for `interrupt`.

    Args:
        settings: where the Lease is.
        api: an `ApiClient` of one's own: its user agent is set, and its retries are switched off, since a
            PUT that is sent again must be a decision of the election.
    """

    def __init__(self, settings: Settings, api: ApiClient) -> None:
        api.user_agent = USER_AGENT
        api.configuration.client_go_retries = False
        api.rest_client.pool_manager.connection_pool_kw["retries"] = False
        self._api = api
        self._leases = CoordinationV1Api(api)
        self._settings = settings
        self._watching: Any = None
        self._interrupted = False

    def read(self, timeout: float) -> LeaseRecord | None:
        """GET the Lease from the quorum; None when there is none.

        Raises:
            Unreached: no usable answer within `timeout` seconds.
            MalformedLease: it cannot be understood.
        """
        try:
            body = self._call("get", self._leases.read_namespaced_lease, timeout, self._settings.lease_name)
        except Unreached as e:
            if e.status == 404:
                return None
            raise
        return LeaseRecord.parse(body)

    def write(self, record: LeaseRecord, timeout: float) -> LeaseRecord:
        """PUT the record on its resourceVersion, or POST it when it has none.

        Raises:
            Unreached: `status` 409 is a conflict; a PUT answers 404 when the Lease is gone.
            MalformedLease: the answer cannot be understood.
        """
        s = self._settings
        body = record.as_object(s.lease_namespace, s.lease_name)
        if record.resource_version:
            answer = self._call("update", self._leases.replace_namespaced_lease, timeout, s.lease_name, body=body)
        else:
            answer = self._call("create", self._leases.create_namespaced_lease, timeout, body=body)
        return LeaseRecord.parse(answer)

    def list(self, timeout: float) -> tuple[dict[str, Any] | None, str]:
        """LIST the one Lease from the quorum: its object or None, and the resourceVersion to watch from.

        Raises:
            Unreached: no usable answer.
        """
        answer = self._call("list", self._leases.list_namespaced_lease, timeout, field_selector=self._selector)
        items = answer.get("items") or []
        return (items[0] if items else None), str(answer["metadata"]["resourceVersion"])

    def watch(self, version: str, timeout: float, silence: float) -> Iterator[dict[str, Any]]:
        """Give the watch's events, bookmarks too, until the server ends it.

        Args:
            version: where to begin.
            timeout: seconds to connect.
            silence: seconds without a byte after which the connection is taken for dead.

        Raises:
            Unreached: refused, broken, or silent for too long; `status` 410 when `version` is too old.
        """
        answer = self._request(
            "watch",
            self._leases.list_namespaced_lease,
            (timeout, silence),
            field_selector=self._selector,
            resource_version=version,
            allow_watch_bookmarks=True,
            watch=True,
        )
        self._watching = answer
        with closing(answer):
            if self._interrupted:  # looked at after `_watching` is set, so that no order of the two threads blocks
                return
            rest = b""
            for chunk in self._chunks(answer, silence):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = _parsed("watch", line)
                    if event.get("type") == "ERROR":
                        status = event.get("object") or {}
                        raise Unreached(
                            f"the watch of Lease {self._settings.lease} ended: {status.get('message')}",
                            status=int(status.get("code") or 0),
                        )
                    yield event

    def interrupt(self) -> None:
        """End a `watch` that another thread is blocked in, and any later one."""
        self._interrupted = True
        if self._watching is not None:
            try:
                self._watching.shutdown()
            except Exception:  # noqa: BLE001, S110  it had ended, or urllib3 is older: it ends with the next event
                pass

    def close(self) -> None:
        """Drop the connections."""
        self._api.close()

    @property
    def _selector(self) -> str:
        return f"metadata.name={self._settings.lease_name}"

    def _chunks(self, answer: urllib3.BaseHTTPResponse, silence: float) -> Iterator[bytes]:
        try:
            yield from answer.stream(None, decode_content=True)
        except (u3.HTTPError, OSError, ValueError) as e:
            raise self._unreached("watch", e, (0, silence)) from e

    def _call(self, verb: str, method: Any, timeout: float, *args: Any, **options: Any) -> dict[str, Any]:
        answer = self._request(verb, method, timeout, *args, **options)
        try:
            return _parsed(verb, answer.data)
        except (u3.HTTPError, OSError) as e:  # the connection broke in the middle of the answer
            raise self._unreached(verb, e, timeout) from e

    def _request(self, verb: str, method: Any, timeout: Any, *args: Any, **options: Any) -> Any:
        name, rest = args[:1], args[1:]
        try:
            return method(
                *name,
                self._settings.lease_namespace,
                *rest,
                _preload_content=False,
                _request_timeout=timeout,
                **options,
            )
        except ApiException as e:
            raise self._refused(verb, e) from e
        except (u3.HTTPError, OSError) as e:
            raise self._unreached(verb, e, timeout) from e

    def _unreached(self, verb: str, error: Exception, timeout: Any) -> Unreached:
        """Say why there is no answer."""
        host = self._api.configuration.host
        if isinstance(error, u3.NameResolutionError):
            return Unreached(f"cannot reach the API server: the name in {host} does not resolve", definite=True)
        if isinstance(error, u3.ConnectTimeoutError) and not isinstance(error, u3.NewConnectionError):
            return Unreached(f"cannot reach the API server at {host}: no connection in time", definite=True)
        if isinstance(error, u3.NewConnectionError):
            why = str(error.__cause__ or error)
            why = "connection refused" if "refused" in why else why
            return Unreached(f"cannot reach the API server at {host}: {why}", definite=True)
        if isinstance(error, u3.SSLError):
            return Unreached(f"no TLS with the API server at {host}: {error}")
        if isinstance(error, (u3.TimeoutError, TimeoutError)):
            seconds = timeout[1] if isinstance(timeout, tuple) else timeout
            return Unreached(f"the API server at {host} gave no answer to {verb} of the Lease in {seconds:.1f} s")
        return Unreached(f"the connection to the API server at {host} broke in {verb} of the Lease: {error}")

    def _refused(self, verb: str, error: ApiException) -> Unreached:
        """Say what an answer outside of 2xx means and what to do about it."""
        s, status = self._settings, int(error.status or 0)
        message = _message(error)
        if status == 0:  # the client's own name for a TLS error
            return Unreached(f"no TLS with the API server at {self._api.configuration.host}: {error.reason}")
        if status == 401:
            cause = "the API server does not know these credentials (401): expired token, or another cluster's"
        elif status == 403 and "being terminated" in message:
            cause = f"namespace {s.lease_namespace} is being deleted"
        elif status == 403 and "cannot" in message and 'User "' in message:
            user = re.search(r'User "([^"]+)"', message)
            cause = (
                f"no permission to {verb} leases.coordination.k8s.io {s.lease}"
                f" as {user[1] if user else '?'}: apply the RBAC in deploy/"
            )
        elif status == 404 and "namespaces" in message:
            cause = f"namespace {s.lease_namespace} does not exist: create it, or set another lease namespace"
        else:
            cause = f"the API server answered {status} to {verb} of Lease {s.lease}: {message}"
        return Unreached(cause, status=status, definite=400 <= status < 500 and status != 408)


def _parsed(verb: str, data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unreached(f"what answered to {verb} of the Lease is no API server: {data[:80]!r}")
    return body


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return str(error.reason or error.body)[:300]
