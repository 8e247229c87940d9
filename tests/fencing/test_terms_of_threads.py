"""Code that runs in no term cannot write: an unset term never means "the current one"."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes
import pytest
import urllib3
from kopf._cogs.clients import errors as kopf_errors

import kopf_ha
from kopf_ha import adapters
from kopf_ha.adapters.kubernetes_client import exempt
from kopf_ha.core.fence import Fence
from kopf_ha.errors import GateClosed, NoTerm, Refused, StaleLeader
from tests.core.fake_api import CHILD, stamp
from tests.fencing.clients import CLIENTS, MERGE, by_kubernetes
from tests.fencing.conftest import Terms
from tests.fencing.http_fake import HttpFake

EVERY = pytest.mark.parametrize("client", CLIENTS)
Runs = Callable[[Callable[[], Any]], Any]


def in_thread(fn: Callable[[], Any]) -> Any:
    result: list[Any] = []

    def main() -> None:
        try:
            result.append(fn())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def in_executor(fn: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result()


def in_loops_executor(fn: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, fn)

    return asyncio.run(main())


ELSEWHERE = pytest.mark.parametrize("elsewhere", [in_thread, in_executor, in_loops_executor])


@pytest.fixture
def edit(http: HttpFake, client: str) -> Callable[[], Any]:
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    send = CLIENTS[client](http.url)
    return lambda: send("PATCH", CHILD, {"spec": {"a": 1}}, MERGE)[0]


@EVERY
@ELSEWHERE
def test_a_thread_of_its_own_has_no_term(
    http: HttpFake, terms: Terms, edit: Callable[[], Any], elsewhere: Runs
) -> None:
    with terms.term(7), pytest.raises(NoTerm, match="bind"):
        elsewhere(edit)
    assert http.writes() == []


@EVERY
@ELSEWHERE
def test_a_bound_function_has_the_term_it_was_bound_in(
    http: HttpFake, terms: Terms, edit: Callable[[], Any], elsewhere: Runs
) -> None:
    with terms.term(7) as grant:
        bound = kopf_ha.current_term().bind(edit)
    assert elsewhere(bound) == 200
    recorded = http.api.recorded(CHILD)
    assert recorded is not None
    assert recorded.token == 7
    # It ends with its term, and another term of this process is none of its own.
    grant.close("lost")
    with terms.term(9), pytest.raises(GateClosed, match="term 7"):
        elsewhere(bound)


@EVERY
def test_kopfs_threads_and_tasks_are_in_the_term(http: HttpFake, terms: Terms, edit: Callable[[], Any]) -> None:
    async def handler() -> Any:
        return await asyncio.to_thread(edit)

    with terms.term(7):
        assert asyncio.run(handler()) == 200


def test_async_req_has_no_term(http: HttpFake, terms: Terms) -> None:
    configuration = kubernetes.client.Configuration()
    configuration.host = http.url
    core = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    with terms.term(7):
        late = core.patch_namespaced_config_map("x", "a", {"data": {}}, async_req=True)
        with pytest.raises(NoTerm, match="async_req"):
            late.get()
        assert core.read_namespaced_config_map("x", "a", async_req=True).get().metadata.name == "x"
    assert http.writes() == []


@EVERY
def test_outside_of_any_term_only_reads_pass(http: HttpFake, terms: Terms, client: str) -> None:
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    send = CLIENTS[client](http.url)
    assert send("GET", CHILD)[0] == 200
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(NoTerm):
            send(method, CHILD, {})
    assert http.writes() == []


@EVERY
def test_a_write_while_no_operator_runs_is_refused(
    installed: None, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = HttpFake()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(fake.port))
    try:
        with pytest.raises(NoTerm, match="while no operator runs"):
            CLIENTS[client](fake.url)("DELETE", CHILD)
        assert fake.arrived == []
    finally:
        fake.close()


def test_an_exempt_client_is_the_elections(http: HttpFake, terms: Terms) -> None:
    configuration = kubernetes.client.Configuration()
    configuration.host = http.url
    api = exempt(kubernetes.client.ApiClient(configuration))
    got = api.rest_client.request("PATCH", http.url + CHILD, {"Content-Type": MERGE}, {"spec": {}})
    assert got.status == 404
    assert len(http.writes()) == 1
    assert terms.outcomes == []
    with pytest.raises(NoTerm):
        by_kubernetes(http.url)("PATCH", CHILD, {}, MERGE)


def test_installing_twice_fences_once(http: HttpFake, terms: Terms) -> None:
    adapters.install()
    http.api.put(CHILD, {"spec": {}}, stamp(7))
    with terms.term(7):
        by_kubernetes(http.url)("PATCH", CHILD, {"spec": {}}, MERGE)
    assert len(terms.outcomes) == 1


@EVERY
def test_mode_none_is_what_the_client_does_by_itself(http: HttpFake, terms: Terms, client: str) -> None:
    terms.fence.mode = "none"
    http.api.put(CHILD, {"spec": {}}, stamp(8))
    send = CLIENTS[client](http.url)
    assert in_thread(lambda: send("PATCH", CHILD, {"spec": {"a": 1}}, MERGE))[0] == 200
    assert http.writes()[0].json == {"spec": {"a": 1}}


@pytest.mark.parametrize("refusal", [NoTerm, GateClosed, StaleLeader])
def test_a_refusal_is_none_of_kopfs_retried_errors(refusal: type[Refused]) -> None:
    retried = (
        aiohttp.ClientConnectionError,
        kopf_errors.APIServerError,
        TimeoutError,
        kopf_errors.APIForbiddenError,
        kopf_errors.APITooManyRequestsError,
        urllib3.exceptions.HTTPError,
        OSError,
    )
    assert not issubclass(refusal, retried)


def test_clients_that_nothing_fences_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx_aiohttp", sys)
    assert adapters.uncovered() == ["httpx-aiohttp (transports for httpx)"]


def test_clients_with_an_adapter_are_not_named() -> None:
    assert {"httpx", "httpx2", "kr8s", "lightkube", "kubernetes_asyncio", "kubernetes.aio"} <= set(sys.modules)
    assert adapters.uncovered() == []


def test_programs_that_nothing_fences_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert adapters.programs() == []
    (tmp_path / "helm").touch(mode=0o755)
    assert adapters.programs() == ["helm"]


def test_one_process_has_one_wiring(terms: Terms) -> None:
    with (
        pytest.raises(RuntimeError, match="one fenced operator at a time"),
        adapters.wired(adapters.Wiring(Fence("a/b"), lambda outcome: None)),
    ):
        pass
