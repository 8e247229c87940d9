"""A client that has read its token once sends the new one when the kubelet has written it."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import httpx
import kubernetes
import pytest
import requests
import yaml

from devcluster.waiting import until
from kopf_ha.adapters import _bearer
from kopf_ha.adapters._bearer import renewed
from testbed.account import project
from tests.core.fake_api import CHILD, stamp
from tests.fencing.clients import CLIENTS, MERGE, by_pykube
from tests.fencing.conftest import Terms, World
from tests.fencing.http_fake import HttpFake

MINE: dict[str, Any] = {
    "iss": "https://kubernetes.default.svc",
    "sub": "system:serviceaccount:ns:op",
    "aud": ["https://kubernetes.default.svc"],
    "kubernetes.io": {"namespace": "ns", "pod": {"name": "op-1", "uid": "u1"}},
}


def token(issued: int, **other: Any) -> str:
    parts = [{"alg": "RS256"}, {**MINE, "iat": issued, "exp": issued + 3600, **other}]
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts), "sig"])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_bearer, "TOKEN", tmp_path / "token")
    write(tmp_path, token(1))
    return tmp_path


def write(folder: Path, content: str) -> None:
    project(folder, {"token": content})


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_sends_the_newest(http: HttpFake, terms: Terms, file: Path, client: str) -> None:
    http.api.put(CHILD, {"spec": {}}, stamp(7))
    send = CLIENTS[client](http.url, token=token(1))
    with terms.term(7):
        assert send("PATCH", CHILD, {"spec": {"a": 1}}, MERGE)[0] == 200
        write(file, token(2))
        assert send("PATCH", CHILD, {"spec": {"a": 2}}, MERGE)[0] == 200
        assert send("GET", CHILD)[0] == 200
    tokens = [(r.method, h["authorization"].partition(" ")[2]) for r, h in lowered(http)]
    assert tokens == [("GET", token(1)), ("PATCH", token(1)), ("PATCH", token(2)), ("GET", token(2))]


def lowered(http: HttpFake) -> Any:
    return [(r, {k.lower(): v for k, v in h.items()}) for r, h in http.arrived]


@pytest.mark.parametrize(
    "given",
    [
        token(1, sub="system:serviceaccount:ns:another"),
        token(1, iss="another cluster"),
        token(1, aud=["vault"]),
        token(1, **{"kubernetes.io": {"namespace": "ns", "pod": {"name": "op-1", "uid": "u2"}}}),
        token(3),  # the file is behind
        "no-jwt",
        "a.b.c",
        "a.W10.c",
        "",
    ],
)
def test_no_other_token_is_replaced(file: Path, given: str) -> None:
    write(file, token(2))
    assert renewed(f"Bearer {given}") == f"Bearer {given}"
    assert renewed(f"Basic {token(1)}") == f"Basic {token(1)}"


def test_it_stays_as_it_is_without_a_file(file: Path) -> None:
    (file / "..data").unlink()
    assert renewed(f"bearer {token(1)}") == f"bearer {token(1)}"
    os.mkdir(file / "..data")
    assert renewed(f"bearer {token(1)}") == f"bearer {token(1)}"
    (file / "..data" / "token").write_text("")
    assert renewed(f"bearer {token(1)}") == f"bearer {token(1)}"


@pytest.mark.parametrize("package", [httpx, requests])
def test_another_service_gets_what_it_got(other: HttpFake, terms: Terms, file: Path, package: Any) -> None:
    write(file, token(2))
    headers = {"Authorization": f"Bearer {token(1)}"}
    package.get(other.url + CHILD, headers=headers)
    assert other.headers("GET")[0]["authorization"] == f"Bearer {token(1)}"


def test_what_the_caller_holds_is_not_changed(http: HttpFake, terms: Terms, file: Path) -> None:
    """A client may share its headers between requests."""
    write(file, token(2))
    configuration = kubernetes.client.Configuration()
    configuration.host = http.url
    api = kubernetes.client.ApiClient(configuration)
    headers = {"Authorization": f"bearer {token(1)}"}
    api.rest_client.request("GET", http.url + CHILD, headers)
    assert headers["Authorization"] == f"bearer {token(1)}"
    assert http.headers("GET")[0]["authorization"] == f"bearer {token(2)}"


def test_a_real_api_server_knows_the_newest(world: World, terms: Terms, tmp_path: Path) -> None:
    """An account is made anew. That takes the old tokens' validity as an hour does."""
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    account = f"{world.namespace}:op"

    def made() -> str:
        world.kubectl("create", "serviceaccount", "op")
        return world.kubectl("create", "token", "op").stdout.strip()

    old = made()
    world.kubectl("create", "rolebinding", "op", "--clusterrole=admin", f"--serviceaccount={account}")
    world.kubectl("create", "configmap", "c")
    config = yaml.safe_load(Path(world.kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": old}} for user in config["users"]]
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    send = by_pykube(str(tmp_path / "config"))
    until("the role", lambda: send("GET", world.maps("c"))[0] == 200)
    with terms.term(7):
        assert send("PATCH", world.maps("c"), {"data": {"by": "old"}}, MERGE)[0] == 200
        world.kubectl("delete", "serviceaccount", "op")
        new = made()
        until("the API server to forget the old token", lambda: send("GET", world.maps("c"))[0] == 401)
        assert send("PATCH", world.maps("c"), {"data": {"by": "nobody"}}, MERGE)[0] == 401
        (tmp_path / "token").write_text(new)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(_bearer, "TOKEN", tmp_path / "token")
            assert send("PATCH", world.maps("c"), {"data": {"by": "new"}}, MERGE)[0] == 200
    assert world.get("configmap", "c")["data"] == {"by": "new"}
    assert [o.status for o in terms.outcomes] == [200, 401, 200]
