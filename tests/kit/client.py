"""A client of the API server that no fence reaches, in a process whose clients are fenced, too."""

from __future__ import annotations

import functools
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from devcluster import Cluster
from kopf_ha.adapters.requests_client import plain_send
from kopf_ha.core.token import Stamp

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


#: Seconds in which an API server begins to serve a new kind.
SERVED = 10.0


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    body: dict[str, Any]
    warning: str = ""

    @property
    def message(self) -> str:
        return str(self.body.get("message") or "")

    @property
    def ok(self) -> bool:
        return self.status < 300

    @property
    def by(self) -> str:
        """Who refused: the policy's name, `schema`, or nothing."""
        found = re.search(r"ValidatingAdmissionPolicy '([^']+)'", self.message)
        return found[1] if found else "schema" if self.status == 422 and "fencing stamp" in self.message else ""


class _Unfenced(HTTPAdapter):
    """What requests has by itself."""

    send = plain_send


def unfenced_session(retries: Retry | int = 0) -> requests.Session:
    """Give a session that no fence reaches, in whichever process it is."""
    made = requests.Session()
    made.mount("https://", _Unfenced(max_retries=retries))
    return made


def _session() -> requests.Session:
    # An API server that was restarted has dropped its connections; a write may not be sent twice.
    return unfenced_session(Retry(3, backoff_factor=0.1, allowed_methods={"GET"}, raise_on_status=False))


@dataclass
class Client:
    """The bearer of a token, who sends what it likes.

    Args:
        server: the API server's address.
        ca: the authority of its certificate; None for the system's.
        token: of a service account.
        pod: the name of the pod that the token is bound to.
        uid: that pod's.
    """

    server: str
    ca: Path | None
    token: str
    pod: str = ""
    uid: str = ""
    session: requests.Session = field(default_factory=_session, repr=False)

    def __call__(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Answer:
        until = time.monotonic() + SERVED
        while (got := self._send(method, path, body, content_type)).text.startswith("404 page not found"):
            # The definition is established, and this API server does not serve it yet.
            if time.monotonic() > until:
                return Answer(404, {"message": got.text})
            time.sleep(0.1)
        return Answer(got.status_code, got.json(), got.headers.get("Warning", ""))

    def _send(self, method: str, path: str, body: Any, content_type: str) -> requests.Response:
        return self.session.request(
            method,
            self.server + path,
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type},
            # not the session's: a variable of the environment would win over it
            verify=str(self.ca) if self.ca else True,
            timeout=30,
        )

    def must(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> dict[str, Any]:
        """Send what has to be accepted; give the answer's body."""
        answer = self(method, path, body, content_type)
        assert answer.ok, f"{method} {path}: {answer.status} {answer.message}"
        return answer.body

    def stamp(self, token: int, lease: str) -> Stamp:
        """Give the stamp of a term of this pod."""
        return Stamp(token, f"{self.pod}_{self.uid}_1", lease, self.uid)


@functools.cache
def administrator(cluster: Cluster) -> Client:
    """Give a client that may do everything; one for each cluster."""
    kubectl, account = cluster.kubectl, "administrator-of-tests"
    kubectl("create", "serviceaccount", account, "-n", "kube-system", check=False)  # it may be there
    who = f"--serviceaccount=kube-system:{account}"
    kubectl("create", "clusterrolebinding", account, "--clusterrole=cluster-admin", who, check=False)
    token = kubectl("create", "token", account, "-n", "kube-system", "--duration=4h").stdout.strip()
    return Client(cluster.servers[0], cluster.ca_file, token)
