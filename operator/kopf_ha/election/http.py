"""Objects over HTTP, for the election: requests, watches, and what went wrong, in sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import urllib3
from kubernetes.client import ApiClient, ApiException
from urllib3 import exceptions as u3

from kopf_ha.errors import ElectionError

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


class Client:
    """Objects of one namespace. Not for two threads at once, but for `interrupt`.

    Args:
        api: an `ApiClient` of one's own: its user agent is set, and its retries are switched off, since a
            PUT that is sent again must be a decision of the election.
        namespace: theirs.
        noun: what sentences call them.
        resource: what RBAC calls them, and which.
        rule: the rule to name when there is no permission; empty if there is but one.
    """

    def __init__(self, api: ApiClient, namespace: str, noun: str, resource: str, rule: str = "") -> None:
        api.user_agent = USER_AGENT
        api.configuration.client_go_retries = False
        api.rest_client.pool_manager.connection_pool_kw["retries"] = False
        self._api = api
        self._namespace = namespace
        self._noun = noun
        self._resource = resource
        self._rule = rule
        self._watching: Any = None
        self._interrupted = False

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

    def _watch(
        self, method: Any, version: str, timeout: float, silence: float, **selector: Any
    ) -> Iterator[dict[str, Any]]:
        """Give the watch's events, bookmarks too, until the server ends it.

        Args:
            method: the client's, which lists.
            version: where to begin.
            timeout: seconds to connect.
            silence: seconds without a byte after which the connection is taken for dead.
            selector: what to watch.

        Raises:
            Unreached: refused, broken, or silent for too long; `status` 410 when `version` is too old.
        """
        answer = self._request(
            "watch",
            method,
            (timeout, silence),
            resource_version=version,
            allow_watch_bookmarks=True,
            watch=True,
            **selector,
        )
        self._watching = answer
        with closing(answer):
            if self._interrupted:  # looked at after `_watching` is set, so that no order of the two threads blocks
                return
            rest = b""
            for chunk in self._chunks(answer, silence):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = _parsed("watch", self._noun, line)
                    if event.get("type") == "ERROR":
                        status = event.get("object") or {}
                        raise Unreached(
                            f"the watch of {self._noun} ({self._resource}) ended: {status.get('message')}",
                            status=int(status.get("code") or 0),
                        )
                    yield event

    def _chunks(self, answer: urllib3.BaseHTTPResponse, silence: float) -> Iterator[bytes]:
        try:
            yield from answer.stream(None, decode_content=True)
        except (u3.HTTPError, OSError, ValueError) as e:
            raise self._unreached("watch", e, (0, silence)) from e

    def _call(self, verb: str, method: Any, timeout: float, *args: Any, **options: Any) -> dict[str, Any]:
        answer = self._request(verb, method, timeout, *args, **options)
        try:
            return _parsed(verb, self._noun, answer.data)
        except (u3.HTTPError, OSError) as e:  # the connection broke in the middle of the answer
            raise self._unreached(verb, e, timeout) from e

    def _request(self, verb: str, method: Any, timeout: Any, *args: Any, **options: Any) -> Any:
        name, rest = args[:1], args[1:]
        try:
            return method(
                *name,
                self._namespace,
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
            return Unreached(f"the API server at {host} gave no answer to {verb} of {self._noun} in {seconds:.1f} s")
        return Unreached(f"the connection to the API server at {host} broke in {verb} of {self._noun}: {error}")

    def _refused(self, verb: str, error: ApiException) -> Unreached:
        """Say what an answer outside of 2xx means and what to do about it."""
        status = int(error.status or 0)
        message = _message(error)
        if status == 0:  # the client's own name for a TLS error
            return Unreached(f"no TLS with the API server at {self._api.configuration.host}: {error.reason}")
        if status == 401:
            cause = "the API server does not know these credentials (401): expired token, or another cluster's"
        elif status == 403 and "being terminated" in message:
            cause = f"namespace {self._namespace} is being deleted"
        elif status == 403 and "cannot" in message and 'User "' in message:
            user = re.search(r'User "([^"]+)"', message)
            cause = (
                f"no permission to {verb} {self._resource}"
                f" as {user[1] if user else '?'}: apply the RBAC in deploy/{self._rule}"
            )
        elif status == 404 and "namespaces" in message:
            cause = f"namespace {self._namespace} does not exist: create it, or set another lease namespace"
        else:
            cause = f"the API server answered {status} to {verb} of {self._noun} ({self._resource}): {message}"
        return Unreached(cause, status=status, definite=400 <= status < 500 and status != 408)


def _parsed(verb: str, noun: str, data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unreached(f"what answered to {verb} of {noun} is no API server: {data[:80]!r}")
    return body


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return str(error.reason or error.body)[:300]
