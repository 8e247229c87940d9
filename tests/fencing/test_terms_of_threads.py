"""What a handler starts belongs to its term. Unset never means "the current one", so code in no term cannot write."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from multiprocessing import Pool
from multiprocessing.pool import Pool as Pool_
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes
import pytest
import urllib3
from kopf._cogs.clients import errors as kopf_errors

import kopf_ha
from kopf_ha import adapters
from kopf_ha._context import current_grant, entered_everywhere, inherit, only_reads
from kopf_ha.adapters.kubernetes_client import exempt
from kopf_ha.core.fence import Fence
from kopf_ha.errors import GateClosed, NoTerm, Refused, StaleLeader
from tests.core.fake_api import CHILD, stamp
from tests.fencing.clients import CLIENTS, MERGE, by_kubernetes
from tests.fencing.conftest import Terms
from tests.fencing.http_fake import HttpFake

EVERY = pytest.mark.parametrize("client", CLIENTS)
#: Runs a function somewhere else, and returns what it returned, or raises what it raised.
Runs = Callable[[Callable[[], Any]], Any]


def in_thread(fn: Callable[[], Any], make: Callable[[Callable[[], None]], threading.Thread] | None = None) -> Any:
    result: Future[Any] = Future()

    def main() -> None:
        try:
            result.set_result(fn())
        except BaseException as error:
            result.set_exception(error)

    thread = make(main) if make else threading.Thread(target=main)
    thread.start()
    thread.join()
    return result.result()


class OwnRun(threading.Thread):
    """As many operators have them; it never calls the `run` of its base class."""

    def __init__(self, main: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.main = main

    def run(self) -> None:
        self.main()


class OwnStart(OwnRun):
    def start(self) -> None:
        self.name = "started"
        super().start()


class OwnSubmit(ThreadPoolExecutor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return super().submit(lambda: fn(*args, **kwargs))


def in_thread_of_a_thread(fn: Callable[[], Any]) -> Any:
    return in_thread(lambda: in_thread(fn))


def in_executor(fn: Callable[[], Any], kind: type[ThreadPoolExecutor] = ThreadPoolExecutor) -> Any:
    with kind(1) as pool:
        return pool.submit(fn).result()


def by_map(fn: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return next(iter(pool.map(lambda one: fn(), [1])))


def in_callback(fn: Callable[[], Any]) -> Any:
    result: Future[Any] = Future()
    added = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(added.wait).add_done_callback(lambda done: settle(result, fn))
        added.set()
    return result.result()


def settle(result: Future[Any], fn: Callable[[], Any]) -> None:
    try:
        result.set_result(fn())
    except BaseException as error:
        result.set_exception(error)


def in_loops_executor(fn: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, fn)

    return asyncio.run(main())


def in_loop_of_a_thread(fn: Callable[[], Any]) -> Any:
    async def main() -> Any:
        async def task() -> Any:
            return await asyncio.to_thread(fn)

        return await asyncio.create_task(task())

    return in_thread(lambda: asyncio.run(main()))


def in_pools_callback(fn: Callable[[], Any]) -> Any:
    result: Future[Any] = Future()
    with ThreadPool(1) as pool:
        pool.apply_async(int, callback=lambda done: settle(result, fn)).wait()
        return result.result(60)


def in_pool(run: Callable[[ThreadPool, Callable[..., Any]], Any]) -> Runs:
    def main(fn: Callable[[], Any]) -> Any:
        with ThreadPool(1) as pool:
            return run(pool, lambda *_: fn())

    return main


WAYS: dict[str, Runs] = {
    "thread": in_thread,
    "own run": lambda fn: in_thread(fn, OwnRun),
    "own start": lambda fn: in_thread(fn, OwnStart),
    "timer": lambda fn: in_thread(fn, lambda main: threading.Timer(0, main)),
    "thread of a thread": in_thread_of_a_thread,
    "loop of a thread": in_loop_of_a_thread,
    "executor": in_executor,
    "own submit": lambda fn: in_executor(fn, OwnSubmit),
    "map": by_map,
    "loop's executor": in_loops_executor,
    "callback": in_callback,
    "pool apply": in_pool(lambda pool, fn: pool.apply(fn)),
    "pool apply_async": in_pool(lambda pool, fn: pool.apply_async(fn).get()),
    "pool map": in_pool(lambda pool, fn: pool.map(fn, [1])[0]),
    "pool map_async": in_pool(lambda pool, fn: pool.map_async(fn, [1]).get()[0]),
    "pool starmap": in_pool(lambda pool, fn: pool.starmap(fn, [(1,)])[0]),
    "pool starmap_async": in_pool(lambda pool, fn: pool.starmap_async(fn, [(1,)]).get()[0]),
    "pool imap": in_pool(lambda pool, fn: next(iter(pool.imap(fn, [1])))),
    "pool imap_unordered": in_pool(lambda pool, fn: next(iter(pool.imap_unordered(fn, [1])))),
    "pool callback": in_pools_callback,
}
EVERY_WAY = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def edit(http: HttpFake, client: str) -> Callable[[], Any]:
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    send = CLIENTS[client](http.url)
    return lambda: send("PATCH", CHILD, {"spec": {"a": 1}}, MERGE)[0]


@pytest.fixture
def token(installed: None) -> Callable[[], int | None]:
    """A function that tells in which term it runs."""

    def ask() -> int | None:
        grant = current_grant()
        return grant.stamp.token if grant else None

    return ask


@EVERY
@pytest.mark.parametrize("way", ["thread", "loop's executor", "pool apply_async"])
def test_what_a_handler_starts_writes_in_its_term(
    http: HttpFake, terms: Terms, edit: Callable[[], Any], way: str
) -> None:
    with terms.term(7):
        assert WAYS[way](edit) == 200
    recorded = http.api.recorded(CHILD)
    assert recorded is not None
    assert recorded.token == 7


@EVERY
@pytest.mark.parametrize("way", ["thread", "loop's executor", "pool apply_async"])
def test_what_is_started_in_no_term_writes_in_none(
    http: HttpFake, terms: Terms, edit: Callable[[], Any], way: str
) -> None:
    with pytest.raises(NoTerm, match=r"started while its module was imported.*; start it in an on\.startup handler"):
        WAYS[way](edit)
    assert http.writes() == []


@EVERY_WAY
def test_it_belongs_to_the_term_of_whoever_started_it(terms: Terms, token: Callable[[], int | None], way: str) -> None:
    assert WAYS[way](token) is None
    with terms.term(7):
        assert WAYS[way](token) == 7
    with entered_everywhere():
        assert WAYS[way](only_reads)
    assert WAYS[way](token) is None


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ThreadPool, OwnSubmit])
@pytest.mark.parametrize("first", [7, 9])
def test_a_pool_that_lives_longer_than_a_term(
    terms: Terms, token: Callable[[], int | None], make: type[Any], first: int
) -> None:
    """Its thread is started in one term; each job has the term of whoever submits it."""
    with terms.term(first):
        pool = make(1)
        submit: Any = pool.apply_async if isinstance(pool, ThreadPool) else pool.submit
        threads = [submit(threading.get_ident)]
        jobs = [submit(token)]
    jobs.append(submit(token))
    with terms.term(8):
        jobs.append(submit(token))
        threads.append(submit(threading.get_ident))
    jobs.append(submit(token))
    ask = "get" if isinstance(pool, ThreadPool) else "result"
    assert [getattr(job, ask)() for job in jobs] == [first, None, 8, None]
    assert len({getattr(thread, ask)() for thread in threads}) == 1
    getattr(pool, "terminate", None) and pool.terminate()
    getattr(pool, "shutdown", None) and pool.shutdown()


def test_the_threads_of_a_pool_have_no_term_themselves(terms: Terms, token: Callable[[], int | None]) -> None:
    seen: list[int | None] = []
    with terms.term(7):
        with ThreadPoolExecutor(1, initializer=lambda: seen.append(token())) as executor:
            executor.submit(int).result()
        with ThreadPool(1, initializer=lambda: seen.append(token())) as pool:
            pool.apply(int)
    assert seen == [None, None]


def test_callbacks_of_a_pool_of_processes(terms: Terms, token: Callable[[], int | None]) -> None:
    """They run in a thread of this process; the jobs run in others, and are pickled."""
    seen: list[int | None] = []
    with terms.term(7):
        pool = Pool(1)
    with terms.term(9):
        pool.apply_async(int, callback=lambda done: seen.append(token())).get()
    pool.map_async(int, [1], callback=lambda done: seen.append(token())).get()
    pool.close()
    pool.join()
    assert seen == [9, None]


@EVERY
@pytest.mark.parametrize("way", ["thread", "executor", "pool apply_async"])
def test_a_job_of_one_term_never_writes_in_a_later_one(
    http: HttpFake, terms: Terms, edit: Callable[[], Any], way: str
) -> None:
    """It is started in term 7, and comes to write when the same process leads in term 9."""
    later = threading.Event()

    def late() -> Any:
        later.wait()
        return edit()

    caller = ThreadPoolExecutor(1)
    with terms.term(7) as grant:
        running = caller.submit(WAYS[way], late)
    grant.close("lost")
    with terms.term(9):
        later.set()
        with pytest.raises(GateClosed, match="term 7"):
            running.result()
        assert WAYS[way](edit) == 200
    caller.shutdown()


@EVERY
@pytest.mark.parametrize("way", ["thread", "executor", "loop's executor"])
def test_a_bound_function_has_the_term_it_was_bound_in(
    http: HttpFake, terms: Terms, edit: Callable[[], Any], way: str
) -> None:
    with terms.term(7) as grant:
        bound = kopf_ha.current_term().bind(edit)
    assert WAYS[way](bound) == 200
    recorded = http.api.recorded(CHILD)
    assert recorded is not None
    assert recorded.token == 7
    # It ends with its term, and another term of this process is none of its own.
    grant.close("lost")
    with terms.term(9), pytest.raises(GateClosed, match="term 7"):
        WAYS[way](bound)


def test_nothing_else_of_the_context_is_carried(terms: Terms) -> None:
    theirs: ContextVar[str] = ContextVar("theirs", default="unset")
    with terms.term(7):
        theirs.set("set")
        assert [WAYS[way](theirs.get) for way in ("thread", "executor", "pool apply")] == ["unset"] * 3


def test_a_thread_keeps_the_term_of_the_context_that_it_was_given(
    terms: Terms, token: Callable[[], int | None]
) -> None:
    """Python 3.14 has an argument for it."""
    seen: list[int | None] = []
    with terms.term(9):
        run = inherit(lambda: seen.append(token()))
    with terms.term(7):
        copy_context().run(run)
    run()
    assert seen == [7, 9]


def test_a_thread_that_cannot_start_is_left_as_it_was(terms: Terms) -> None:
    thread = OwnRun(lambda: None)
    with terms.term(7):
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
    assert "run" not in vars(thread)


def test_installed_twice_it_is_carried_once(terms: Terms) -> None:
    before = [threading.Thread.start, ThreadPoolExecutor.submit, Pool_.__init__, Pool_.apply_async]
    adapters.install()
    assert [threading.Thread.start, ThreadPoolExecutor.submit, Pool_.__init__, Pool_.apply_async] == before


def test_async_req_is_in_the_term(http: HttpFake, terms: Terms) -> None:
    configuration = kubernetes.client.Configuration()
    configuration.host = http.url
    core = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    http.api.put(CHILD, {"spec": {}}, stamp(6))
    with terms.term(7) as grant:
        patched = core.patch_namespaced_config_map("x", "a", {"data": {}}, async_req=True).get()
        assert patched.metadata.annotations["kopf-ha.dev/token"] == "7"
    grant.close("lost")
    # The client's threads were started in term 7.
    with pytest.raises(NoTerm):
        core.patch_namespaced_config_map("x", "a", {"data": {}}, async_req=True).get()
    with terms.term(9):
        core.patch_namespaced_config_map("x", "a", {"data": {}}, async_req=True).get()
        assert core.read_namespaced_config_map("x", "a", async_req=True).get().metadata.name == "x"
    recorded = http.api.recorded(CHILD)
    assert recorded is not None
    assert recorded.token == 9


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
