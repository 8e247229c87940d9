"""An API server that is just enough for one Kopf: one kind, whose objects can be listed, watched and patched."""

from __future__ import annotations

import copy
import json
import queue
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

GROUP = "contract.kopf-ha.test"
LIST = f"/apis/{GROUP}/v1/things"
IN_NS = f"/apis/{GROUP}/v1/namespaces/ns/things"
#: A group that is served by a server of its own.
AGGREGATED = "aggregated.kopf-ha.test"
METRICS = f"/apis/{AGGREGATED}/v1/metrics"

_VERBS = ["list", "watch", "patch"]
_NAMESPACES = {"name": "namespaces", "singularName": "namespace", "kind": "Namespace", "namespaced": False}
_METRICS = {"name": "metrics", "singularName": "metric", "kind": "Metric", "namespaced": True}
_THINGS = {"name": "things", "singularName": "thing", "kind": "Thing", "namespaced": True}
_STATUS = {"name": "things/status", "singularName": "", "kind": "Thing", "namespaced": True, "verbs": ["patch"]}


class KopfApi:
    """Serves on a loopback port. What is in `held` is not answered before it is taken out."""

    def __init__(self, *names: str) -> None:
        self.held: set[str] = set()
        self.asked: set[str] = set()
        self.agents: set[str] = set()  #: who asked, by their headers
        self.unknown: Callable[[str], bool] = lambda token: False  #: whether a bearer token gets a 401
        self.tokens: list[str] = []  #: of each GET
        self.gets: list[str] = []  #: the path of each GET, in order
        self.has_status = False  #: whether /status is a subresource
        self.patches: list[tuple[str, Any]] = []  #: the path of each PATCH, and its body
        self.refused: dict[str, tuple[int, Any]] = {}  #: status and body for a path; text if it is no object
        self._changed = threading.Condition()
        self._objects = {name: self._made(name) for name in names}
        self._watches: list[queue.SimpleQueue[Any]] = []
        self._version = 1
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.release()
        with self._changed:
            for watch in self._watches:
                watch.put(None)
        self._server.shutdown()
        self._server.server_close()

    def get(self, name: str) -> Any:
        with self._changed:
            return copy.deepcopy(self._objects[name])

    def release(self) -> None:
        with self._changed:
            self.held.clear()
            self._changed.notify_all()

    def _made(self, name: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": "1"}
        return {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": metadata, "spec": {}}

    def _get(self, path: str) -> Any:
        things = [copy.deepcopy(o) for o in self._objects.values()]
        return {
            "/api": {"versions": ["v1"]},
            "/api/v1/namespaces/kube-system": {"metadata": {"name": "kube-system", "uid": "uid-kube-system"}},
            "/api/v1": {"resources": [_NAMESPACES | {"verbs": _VERBS}]},
            "/apis": {
                "groups": [
                    {"name": group, "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}}
                    for group in (GROUP, AGGREGATED)
                ]
            },
            f"/apis/{GROUP}/v1": {"resources": [_THINGS | {"verbs": _VERBS}] + [_STATUS] * self.has_status},
            f"/apis/{AGGREGATED}/v1": {"resources": [_METRICS | {"verbs": _VERBS}]},
            METRICS: {"kind": "MetricList", "metadata": {"resourceVersion": str(self._version)}, "items": []},
            IN_NS: {"kind": "ThingList", "metadata": {"resourceVersion": str(self._version)}, "items": things},
            LIST: {"kind": "ThingList", "metadata": {"resourceVersion": str(self._version)}, "items": things},
        }.get(path)

    def _patch(self, path: str, patch: Any) -> Any:
        with self._changed:
            self.patches.append((path, patch))
            changed = self._objects[path.split("/")[7]]
            _merge(changed, patch)
            self._version += 1
            changed["metadata"]["resourceVersion"] = str(self._version)
            for watch in self._watches:
                watch.put({"type": "MODIFIED", "object": copy.deepcopy(changed)})
            return copy.deepcopy(changed)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                with api._changed:
                    api.asked.add(path)
                    api.gets.append(path)
                    api.agents.add(self.headers["User-Agent"])
                    token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
                    api.tokens.append(token)
                    api._changed.wait_for(lambda: path not in api.held)
                if api.unknown(token):
                    self._answer({"kind": "Status", "code": 401, "message": "Unauthorized"}, 401)
                elif path in api.refused:
                    status, body = api.refused[path]
                    self._answer(body, status)
                elif "watch=true" in query:
                    self._watch(int(parse_qs(query)["resourceVersion"][0]))
                else:
                    self._answer(api._get(path))

            def do_PATCH(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(api._patch(self.path, json.loads(body)))

            def _answer(self, body: Any, status: int = 0) -> None:
                self.send_response(status or (404 if body is None else 200))
                text = isinstance(body, str)
                self.send_header("Content-Type", "text/plain" if text else "application/json")
                self.end_headers()
                try:
                    self.wfile.write((body if text else json.dumps(body or {"kind": "Status", "code": 404})).encode())
                except ConnectionError:
                    pass  # whoever asked does not wait any more

            def _watch(self, since: int) -> None:
                events: queue.SimpleQueue[Any] = queue.SimpleQueue()
                with api._changed:
                    api._watches.append(events)
                    for body in api._objects.values():  # patched between the list and this watch
                        if int(body["metadata"]["resourceVersion"]) > since:
                            events.put({"type": "MODIFIED", "object": copy.deepcopy(body)})
                self.send_response(200)
                self.end_headers()
                while (event := events.get()) is not None:
                    self.wfile.write(json.dumps(event).encode() + b"\n")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    """Apply a JSON merge patch."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
