"""Child processes write nothing, however they are started: the term is their parent's (I8)."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import kubernetes
import pytest

import kopf_ha
from kopf_ha.errors import NoTerm
from tests.core.fake_api import CHILD, WIDGET, stamp
from tests.fencing.clients import CLIENTS, MERGE
from tests.fencing.conftest import Terms
from tests.fencing.http_fake import HttpFake

STARTS = ["fork", "spawn", "forkserver"]
BLOCKING = ["kubernetes", "pykube"]
START = pytest.mark.parametrize("start", STARTS)
#: The two that are always there, and with spawn the others, which a new interpreter fences when it imports them.
WITHIN = {"fork": BLOCKING, "forkserver": BLOCKING, "spawn": [client for client in CLIENTS if client != "kopf"]}


def read(client: str, url: str) -> int:
    return CLIENTS[client](url)("GET", CHILD)[0]


def write(client: str, url: str) -> int:
    return CLIENTS[client](url)("PATCH", CHILD, {"spec": {"by": "a child"}}, MERGE)[0]


def grandchild(client: str, url: str, start: str) -> int:
    with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as pool:
        return pool.submit(write, client, url).result()


def into(pipe: Any, client: str, url: str) -> None:
    try:
        pipe.send(write(client, url))
    except BaseException as error:
        pipe.send(error)


@START
def test_it_reads_and_does_not_write(http: HttpFake, terms: Terms, start: str) -> None:
    """One child for all clients, since a new interpreter imports them for seconds."""
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    with terms.term(7), ProcessPoolExecutor(1, multiprocessing.get_context(start)) as pool:
        for client in WITHIN[start]:
            assert pool.submit(read, client, http.url).result() == 200, client
            with pytest.raises(NoTerm, match=r"child process, .*: return the result"):
                pool.submit(write, client, http.url).result()
            # Its parent writes on.
            by = {"by": f"the parent, with {client}"}
            assert CLIENTS[client](http.url)("PATCH", CHILD, {"spec": by}, MERGE)[0] == 200
            assert http.api.get(CHILD)["spec"] == by


@START
def test_a_process_of_its_own_and_its_children(http: HttpFake, terms: Terms, start: str) -> None:
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    context: Any = multiprocessing.get_context(start)
    ours, theirs = context.Pipe()
    with terms.term(7):
        child = context.Process(target=into, args=(theirs, "kubernetes", http.url))
        child.start()
        error = ours.recv()
        child.join()
        with ProcessPoolExecutor(1, context) as pool, pytest.raises(NoTerm, match="child process"):
            pool.submit(grandchild, "pykube", http.url, start).result()
    assert isinstance(error, NoTerm)
    assert http.writes() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is none")
def test_a_plain_fork(http: HttpFake, terms: Terms) -> None:
    """At once, and not when the lease of its parent's grant, as it was then, ran out."""
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    with terms.term(7):
        bound = kopf_ha.current_term().bind(lambda: write("kubernetes", http.url))
        child = os.fork()
        if not child:
            code = 1
            try:
                bound()
            except NoTerm:
                code = 42
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert http.writes() == []
    assert terms.outcomes == []


@START
def test_what_its_function_needs_is_found(http: HttpFake, terms: Terms, start: str, monkeypatch: pytest.MonkeyPatch,
                                          tmp_path: Path) -> None:  # fmt: skip
    """Nothing is asked of the path of modules that a child begins with."""
    (tmp_path / "only_here.py").write_text("def answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found]

    with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as pool:
        assert pool.submit(only_here.answer).result() == 42
    sys.modules.pop("only_here")


PRELOADED = """
import os, kubernetes
configuration = kubernetes.client.Configuration()
configuration.host = os.environ["URL"]
api = kubernetes.client.ApiClient(configuration)

def write():
    headers = {"Content-Type": "application/merge-patch+json"}
    return api.rest_client.request("PATCH", os.environ["URL"] + os.environ["WHAT"], headers, {"spec": {"a": 1}}).status
"""
MAIN = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import preloaded

if __name__ == "__main__":
    from kopf_ha import adapters
    adapters.install()
    context = multiprocessing.get_context("START")
    PREPARE
    with ProcessPoolExecutor(1, context) as pool:
        print(repr(pool.submit(preloaded.write).exception()))
"""


ALONE = {
    "httpx": "import httpx; httpx.patch(url, json={})",
    "httpx2": "import httpx2; httpx2.patch(url, json={})",
    "requests": "import requests; requests.patch(url, json={})",
    "kubernetes_asyncio": "import kubernetes_asyncio.client as c; asyncio.run(by_generated(c))",
    "kubernetes.aio": "import kubernetes.aio.client as c; asyncio.run(by_generated(c))",
}
IN_CHILD = """
import asyncio, os
url = os.environ["URL"] + os.environ["WHAT"]

async def by_generated(c):
    async with c.ApiClient(c.Configuration(host=os.environ["URL"])) as api:
        await api.rest_client.request("PATCH", url, body={})

def write():
    CODE
"""


@pytest.mark.parametrize("client", ALONE)
def test_a_new_interpreter_that_imports_one_client(http: HttpFake, tmp_path: Path, client: str) -> None:
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    (tmp_path / "preloaded.py").write_text(IN_CHILD.replace("CODE", ALONE[client]))
    (tmp_path / "main.py").write_text(MAIN.replace("START", "spawn").replace("PREPARE", ""))
    env = os.environ | {"URL": http.url, "WHAT": CHILD, "PYTHONPATH": str(Path(kopf_ha.__file__).parents[1])}
    done = subprocess.run([sys.executable, tmp_path / "main.py"], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("NoTerm('a write in a child process"), done.stdout + done.stderr
    assert http.writes() == []


def test_what_the_server_of_forkserver_loaded(http: HttpFake, tmp_path: Path) -> None:
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    (tmp_path / "preloaded.py").write_text(PRELOADED)
    preload = 'context.set_forkserver_preload(["preloaded"])'
    (tmp_path / "main.py").write_text(MAIN.replace("START", "forkserver").replace("PREPARE", preload))
    env = os.environ | {"URL": http.url, "WHAT": CHILD, "PYTHONPATH": str(Path(kopf_ha.__file__).parents[1])}
    done = subprocess.run([sys.executable, tmp_path / "main.py"], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("NoTerm('a write in a child process"), done.stdout + done.stderr
    # The job may have caught it, and nobody collects what happens in a child.
    assert "kubernetes: NoTerm: a write in a child process" in done.stderr
    assert http.writes() == []


def test_a_client_that_was_there_before(http: HttpFake, terms: Terms, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that the server of `forkserver` made, when it loaded the operator's module."""
    from kubernetes.client import rest

    from kopf_ha.adapters import install
    from kopf_ha.adapters.kubernetes_client import exempt

    fenced_init, fenced_request = rest.RESTClientObject.__init__, rest.RESTClientObject.request
    monkeypatch.setattr(rest.RESTClientObject, "__init__", fenced_init.__wrapped__)
    monkeypatch.setattr(rest.RESTClientObject, "request", fenced_request.__wrapped__)
    made = []
    for _ in range(2):
        configuration = kubernetes.client.Configuration()
        configuration.host = http.url
        made.append(kubernetes.client.ApiClient(configuration))
    http.api.put(WIDGET, {"spec": {}}, stamp(6))
    before, election = made[0], exempt(made[1])

    def edit(api: Any) -> int:
        headers = {"Content-Type": MERGE, "Accept": "*/*"}
        return int(api.rest_client.request("PATCH", http.url + WIDGET, headers, {"spec": {"a": 1}}).status)

    assert edit(before) == edit(election) == 200, "nothing is installed"
    install()
    with pytest.raises(NoTerm):
        edit(before)
    assert edit(election) == 200
    with terms.term(7):
        assert edit(before) == 200
