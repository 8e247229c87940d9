"""Globals that a module fills from the cluster are as old as the term, and not as the follower."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import kopf
import pytest

from devcluster.waiting import until
from kopf_ha import _registry
from kopf_ha._context import current_grant
from kopf_ha._kopf import new_registry
from kopf_ha.adapters import noting_reads
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.run import entry, loading
from kopf_ha.run.ending import EXIT_LOST
from kopf_ha.run.inbox import Load, Started, Stopped
from kopf_ha.settings import Settings
from testbed.replica import ABSENT, SOURCE
from tests.core.fake_api import CHILD, WIDGET
from tests.fencing.clients import by_kubernetes, by_pykube
from tests.fencing.http_fake import HttpFake
from tests.run.support import LONG, Replica, World, caught, make_runner


@pytest.fixture
def http(fenced_clients: None) -> Iterator[HttpFake]:
    fake = HttpFake()
    yield fake
    fake.close()


@pytest.mark.parametrize("make", [by_kubernetes, by_pykube])
def test_reads_of_objects_are_noted(http: HttpFake, make: Any) -> None:
    send = make(http.url)
    send("GET", CHILD)
    with noting_reads() as reads:
        assert reads == []
        send("GET", CHILD)
        send("GET", WIDGET)
        for path in ("/version", "/api/v1", "/apis", "/openapi/v3"):
            send("GET", path)
        caught(lambda: send("DELETE", CHILD))
        other = threading.Thread(target=send, args=("GET", CHILD))  # it may read at any time
        other.start()
        other.join()
    assert reads == ["configmaps", "widgets.t.dev"]
    send("GET", CHILD)
    assert len(reads) == 2


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often the process would have started again."""
    starts: list[str] = []
    registry = new_registry()
    monkeypatch.setattr(loading, "start_again", lambda environment, folder: starts.append("again"))
    monkeypatch.setattr(_registry, "everywhere", lambda: registry)
    return starts


def reads_of(http: HttpFake) -> Callable[[], None]:
    return lambda: by_kubernetes(http.url)("GET", CHILD) and None


def test_a_module_that_reads_starts_the_process_again(http: HttpFake, again: list[str]) -> None:
    loading.load_at_start(Settings(), lambda: None)
    assert again == []
    loading.load_at_start(Settings(), reads_of(http))
    assert again == ["again"]


def test_a_default_registry_that_a_module_sets_is_the_operator_s(
    fenced_clients: None, again: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, before, built = kopf.OperatorRegistry(), kopf.get_default_registry(), MagicMock()
    monkeypatch.setattr(entry, "build", built)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    try:
        entry.run_program(Settings(), prepare=lambda: kopf.set_default_registry(theirs))
    finally:
        kopf.set_default_registry(before)
    assert built.call_args.args[1].registry is theirs


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"load": "start"}, "--load is start"),
        ({"after_loss": "follow"}, "--after-loss=follow keeps them for later terms"),
    ],
)
def test_where_that_cannot_help_a_warning_says_what_to_do(
    http: HttpFake, again: list[str], caplog: pytest.LogCaptureFixture, given: dict[str, Any], why: str
) -> None:
    loading.load_at_start(Settings(**given), reads_of(http))
    assert again == []
    assert f"(configmaps), and are not loaded again when a term begins, since {why}" in caplog.text
    assert "read it in an on.startup handler" in caplog.text


@pytest.mark.parametrize("on", [kopf.on.event, kopf.on.create])
def test_handlers_of_every_replica_are_needed_at_the_start(
    http: HttpFake, again: list[str], caplog: pytest.LogCaptureFixture, on: Any
) -> None:
    """Those that are not allowed are an error at the start, too."""
    on("things", registry=_registry.everywhere())(lambda **_: None)
    loading.load_at_start(Settings(), reads_of(http))
    assert again == []
    assert "since handlers of kopf_ha.everywhere have to run before" in caplog.text


def test_an_error_while_loading_is_known_at_the_start(http: HttpFake, again: list[str]) -> None:
    def load() -> None:
        reads_of(http)()
        raise ModuleNotFoundError("nothing")

    with pytest.raises(ModuleNotFoundError):
        loading.load_at_start(Settings(), load)
    assert again == []


def test_the_second_start_is_of_this_very_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loading._MARK, str(os.getpid() + 1))  # as a child of the operator would see it
    assert not loading.is_second_start()
    monkeypatch.setenv(loading._MARK, str(os.getpid()))
    assert loading.is_second_start()
    assert not loading.is_second_start()


def grant(token: int) -> Grant:
    return Grant(Stamp(token, "me", "ns/op", "uid"), deadline=1e9)


def test_it_is_loaded_once_in_no_term_by_the_runner(journal: Any) -> None:
    """What a module starts has no term, as at a start."""
    where: list[Any] = []
    runner, one = make_runner(journal), grant(7)
    runner.load = lambda: where.append((threading.current_thread(), current_grant()))
    runner.step(Started(one))
    runner.term = runner.make_term(one)
    runner.term.grant, runner.term.kopf_ran = one, False
    for _ in range(2):
        done: Future[None] = Future()
        runner.step(Load(one, done))
        assert done.result(0) is None
    assert where == [(threading.current_thread(), None)]
    assert runner.term.kopf_ran


def test_it_is_not_loaded_for_a_term_that_is_over(journal: Any) -> None:
    runner, one, two = make_runner(journal), grant(7), grant(9)
    runner.load = lambda: pytest.fail("it follows")
    runner.step(Started(two))
    runner.term = runner.make_term(two)
    runner.term.grant = two
    two.close("lost")
    for late in (one, two):
        done: Future[None] = Future()
        runner.step(Load(late, done))
        with pytest.raises(CancelledError):
            done.result(0)
    assert runner.load is not None


def test_an_error_that_comes_up_in_the_term_ends_the_process(journal: Any) -> None:
    """A second attempt would register handlers twice."""
    runner, one = make_runner(journal), grant(7)
    runner.load = lambda: sys.exit("no")
    runner.step(Started(one))
    runner.term = runner.make_term(one)
    runner.term.grant, runner.term.kopf_ran = one, False
    done: Future[None] = Future()
    runner.step(Load(one, done))
    with pytest.raises(SystemExit):
        done.result(0)
    one.close("failed")
    assert runner.step(Stopped(one, "failed")) == EXIT_LOST


GLOBALS = """
import logging, os, signal, threading, kubernetes
os.chdir("/")
os.environ["KOPF_HA_LEASE_NAME"] = "another"
kubernetes.config.load_kube_config()
api = kubernetes.client.CustomObjectsApi()
found = api.list_namespaced_custom_object(GROUP, "v1", {namespace!r}, "things")["items"]
THINGS = [o["metadata"]["name"] for o in found]
logging.getLogger("op").warning("IMPORTED %s in %s", THINGS, threading.current_thread().name)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    api.patch_namespaced_custom_object(GROUP, "v1", {namespace!r}, "things", "a", {{"spec": {{"by": "import"}}}})
except kopf_ha.NoTerm:
    logging.getLogger("op").warning("REFUSED")

@kopf.on.create(GROUP, "v1", "things")
def made(name, patch, **_):
    patch.spec["by"] = ",".join(THINGS)
"""


def in_container(given: Replica) -> Replica:
    """Start a replica again, as process 1 with processes of its own."""
    given.kill()
    assert given.log_path is not None
    given.log_path.unlink()
    given.warm = False
    given.argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *given.argv]
    given.start()
    return given


def ask_to_stop(given: Replica) -> None:
    """Signal process 1 as a kubelet does. A kernel drops what process 1 does not handle."""
    children = Path(f"/proc/{given.pid}/task/{given.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0, reason="to be process 1 takes root")
def test_it_is_process_1_after_a_second_start(replica: Callable[..., Replica], world: World, tmp_path: Path) -> None:
    world.create("Thing", "a")
    code = GLOBALS.format(namespace=world.namespace) + 'logging.getLogger("op").warning("PID %s", os.getpid())\n'
    env = {"POD_NAME": "p", "POD_UID": "u", "KOPF_HA_RUN_DIR": str(tmp_path)}
    one = in_container(replica(code, "op.py", env=env))
    until("its handler", lambda: world.get("things", "a")["spec"].get("by") == "a", LONG)
    one.see("PID 1$", count=2)
    (lock,) = tmp_path.glob("kopf-ha-*.lock")
    assert lock.read_text() == world.lease()["holderIdentity"] + "\n", "the first start is no process of its own"
    ask_to_stop(one)
    assert one.wait() == 0
    assert not world.lease().get("holderIdentity")


#: Runs in the new program before all else.
WAITS = """
import os, time
if os.environ.get("_KOPF_HA_LOADS_IN_TERM"):
    print("NEW", flush=True)
    while not os.path.exists({path!r}):
        time.sleep(0.01)
"""


def test_asked_to_stop_while_it_starts_again(replica: Callable[..., Replica], world: World, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WAITS.format(path=str(tmp_path / "go")))
    one = replica(GLOBALS.format(namespace=world.namespace), env={"PYTHONPATH": f"{tmp_path}:{ABSENT}:{SOURCE}"})
    one.see("NEW")
    one.terminate()
    (tmp_path / "go").touch()
    assert one.wait() == 128 + signal.SIGTERM


def test_a_list_that_was_made_at_import_is_as_old_as_the_term(replica: Callable[..., Replica], world: World) -> None:
    world.create("Thing", "a")
    code = GLOBALS.format(namespace=world.namespace)
    first = replica(code)
    until("the first's handler", lambda: world.get("things", "a")["spec"].get("by") == "a", LONG)
    second = replica(code)
    second.see("follows Lease")
    second.see("starting again, to load them when the term begins")
    assert second.log.count("IMPORTED") == 1, "it found no error then, and keeps nothing of it"
    world.create("Thing", "b")
    until("the first's handler", lambda: world.get("things", "b")["spec"].get("by") == "a", LONG)
    first.terminate()
    assert first.wait() == 0, "its module took the signal, and it was taken back"
    second.see(r"IMPORTED \['a', 'b'\] in MainThread")
    world.create("Thing", "c")
    until("the second's handler", lambda: world.get("things", "c")["spec"].get("by") == "a,b", LONG)
    assert second.log.count("REFUSED") == 2, "a module has no term, whenever it is loaded"


def test_it_does_as_it_is_told(replica: Callable[..., Replica], world: World) -> None:
    world.create("Thing", "a")
    one = replica(GLOBALS.format(namespace=world.namespace), "op.py", "--load=start")
    until("its handler", lambda: world.get("things", "a")["spec"].get("by") == "a", LONG)
    one.see("not loaded again when a term begins, since --load is start")
    assert one.log.count("IMPORTED") == 1
