"""What kopf_ha/_kopf relies on in Kopf's private parts: one assumption a test, and what breaks without it.

With a new release of Kopf these tests say what moved. They run Kopf itself, against an API server of one kind.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import getpass
import json
import logging
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import jsonpatch
import kopf
import pytest
from click.testing import CliRunner
from kopf import cli
from kopf._cogs.clients import api as clients_api
from kopf._cogs.clients import auth, errors, watching
from kopf._cogs.structs import credentials, ids, references
from kopf._core.reactor import running as kopf_running

import kopf_ha
from devcluster.waiting import until
from kopf_ha import _kopf
from kopf_ha._kopf import holding, patching
from kopf_ha.run.observe import ignore_stamps
from kopf_ha.run.term import list_in_pages
from tests.kopf_api import GROUP, IN_NS, LIST, KopfApi

T = TypeVar("T")
LONG = 30.0
HERE = Path(kopf_ha.__file__).parent


class Kopf:
    """An operator in a thread and loop of its own, as kopf-ha runs it."""

    def __init__(
        self,
        registry: kopf.OperatorRegistry,
        configured: Callable[[], None] | None = None,
        make_flow: _kopf.MakeFlow | None = None,
    ) -> None:
        self.registry = registry
        self.configured = configured
        self.make_flow = make_flow
        self.prepared: list[aiohttp.ClientSession] = []
        self.operator: _kopf.SpawnedOperator
        self.error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._spawned = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._spawned.wait(LONG), self.error
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LONG)
        assert not self._thread.is_alive()

    def ask(self, fn: Callable[[], T]) -> T:
        """Call a function in the loop."""

        async def call() -> T:
            return fn()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(LONG)

    def tasks(self, which: Callable[[asyncio.Task[Any]], bool]) -> list[asyncio.Task[Any]]:
        return self.ask(lambda: [task for task in asyncio.all_tasks() if which(task)])

    def cancel(self, which: Callable[[asyncio.Task[Any]], bool]) -> None:
        self.ask(lambda: [task.cancel() for task in asyncio.all_tasks() if which(task)])

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self.error = error
        self._spawned.set()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.persistence.finalizer = f"{GROUP}/finalizer"
        self.operator = await _kopf.spawn(
            registry=self.registry,
            settings=settings,
            memo=kopf.Memo(),
            lifecycle=None,
            namespaces=(),
            clusterwide=True,
            identity="me",
            vault=_kopf.PreparedVault(self._prepare),
            stop=self._stop,
            configured=self.configured,
            make_flow=self.make_flow,
        )
        for task in self.operator.tasks:
            task.add_done_callback(self._end)
        self._spawned.set()
        await self.operator.run()

    def _end(self, task: asyncio.Task[Any]) -> None:
        """Have Kopf wait for nothing when it stops."""
        self._stop.set()
        for other in asyncio.all_tasks():
            if _kopf.discovers(other):
                other.cancel()

    def _prepare(self, session: aiohttp.ClientSession, server: str) -> None:
        session.headers["User-Agent"] = "prepared"
        self.prepared.append(session)


@pytest.fixture
def api() -> Iterator[KopfApi]:
    served = KopfApi("a")
    yield served
    served.close()


@pytest.fixture
def registry(api: KopfApi) -> kopf.OperatorRegistry:
    """A registry that logs in at the API server."""
    made = _kopf.new_registry()
    kopf.on.login(registry=made, id="login")(lambda **_: kopf.ConnectionInfo(server=api.url))
    return made


# --- credentials


def test_kopf_uses_the_session_that_was_prepared_and_closes_it(api: KopfApi, registry: kopf.OperatorRegistry) -> None:
    """Else Kopf's own writes pass no fence (I8), or a session stays open after each term."""
    kopf.on.event("things", registry=registry)(lambda **_: None)
    with Kopf(registry) as running:
        until("Kopf to list", lambda: LIST in api.asked, LONG)
    assert api.agents == {"prepared"}
    assert [session.closed for session in running.prepared] == [True]


def test_credentials_that_got_a_401_are_taken_again(
    api: KopfApi, registry: kopf.OperatorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a 401 that is only passing ends the term."""
    monkeypatch.setattr(_kopf.vault, "PAUSES", (0, 0, 0))
    same = kopf.ConnectionInfo(server=api.url, token="t")
    logins: list[int] = []

    def login(**_: Any) -> kopf.ConnectionInfo:
        logins.append(1)
        return same

    kopf.on.login(registry=registry, id="login")(login)
    kopf.on.event("things", registry=registry)(lambda **_: None)
    api.unknown = lambda token: LIST in api.asked and len(logins) < 3  # one at a time: older Kopfs confuse several
    with Kopf(registry) as running:
        until("Kopf to watch", lambda: api._watches, LONG)
    assert len(running.prepared) == len(logins) == 3


# --- registries


def test_a_new_registry_has_kopfs_logins() -> None:
    """Else what runs on every replica cannot log in, unless the operator brings a login."""
    given = [h.id for h in kopf.get_default_registry()._activities.get_all_handlers()]
    assert _kopf.logins(_kopf.new_registry())
    assert [h.id for h in _kopf.logins(_kopf.new_registry())] == [i for i in given if i.startswith("login")]


@pytest.mark.parametrize(
    ("decorator", "options", "storing", "webhook", "runs"),
    [
        ("create", {}, True, False, False),
        ("update", {}, True, False, False),
        ("resume", {}, True, False, False),
        ("delete", {}, True, False, False),
        ("field", {"field": "spec"}, True, False, False),
        ("timer", {"interval": 1}, True, False, False),
        ("daemon", {}, True, False, False),
        ("validate", {}, False, True, True),
        ("mutate", {}, False, True, True),
        ("event", {}, False, False, True),
        ("index", {}, False, False, True),
        ("startup", {}, False, False, True),
        ("cleanup", {}, False, False, True),
        ("probe", {}, False, False, True),
        ("login", {}, False, False, False),
    ],
)
def test_each_decorator_registers_its_handler_where_we_look(
    decorator: str, options: dict[str, Any], storing: bool, webhook: bool, runs: bool
) -> None:
    """Else a handler that writes is let into what runs on every replica, or one that reads is not run there."""
    registry = _kopf.new_registry()
    kinds = () if decorator in ("startup", "cleanup", "probe", "login") else ("things",)
    getattr(kopf.on, decorator)(*kinds, registry=registry, id="h", **options)(lambda **_: None)
    named = {"h", "h/spec"}  # Kopf adds the field's name
    assert bool(named & set(_kopf.storing_handlers(registry))) == storing
    assert bool(named & set(_kopf.webhooks(registry))) == webhook
    assert _kopf.only_logs_in(registry) != runs


def test_logins_are_borrowed_unless_there_are_own_ones() -> None:
    """Else what runs on every replica logs in otherwise than the terms do."""
    mine, theirs = _kopf.new_registry(), _kopf.new_registry()
    kopf.on.login(registry=theirs, id="theirs")(lambda **_: None)
    kopf.on.startup(registry=mine, id="begin")(lambda **_: None)
    kopf.on.validate("things", registry=mine, id="check")(lambda **_: None)
    made = _kopf.with_logins_of(mine, theirs)
    assert [h.id for h in _kopf.logins(made)] == [h.id for h in _kopf.logins(theirs)]
    assert [h.id for h in _kopf.activities(made)] == ["begin"]
    assert _kopf.webhooks(made) == ["check"]
    assert "theirs" not in [h.id for h in _kopf.logins(mine)]
    kopf.on.login(registry=mine, id="mine")(lambda **_: None)
    assert _kopf.with_logins_of(mine, theirs) is mine


def test_the_part_for_every_replica_never_writes_and_is_prepared_as_a_whole() -> None:
    """Else the webhooks of an unchanged operator find no server there, or its handlers run on every replica."""
    registry = _kopf.new_registry()
    kopf.on.login(registry=registry, id="login")(lambda **_: None)
    for decorator in ("startup", "cleanup", "probe"):
        getattr(kopf.on, decorator)(registry=registry, id=decorator)(lambda **_: None)
    for decorator in ("validate", "create", "event"):
        getattr(kopf.on, decorator)("things", registry=registry, id=decorator)(lambda **_: None)
    kopf.index("things", registry=registry, id="index")(lambda **_: None)
    wrapped: list[str] = []
    made = _kopf.for_every_replica(registry, lambda name, fn: wrapped.append(name) or fn)  # type: ignore[func-returns-value]
    assert wrapped == [h.id for h in _kopf.activities(made)] == ["startup", "cleanup"]
    assert "login" in [h.id for h in _kopf.logins(made)]
    assert _kopf.webhooks(made) == ["validate"]
    assert [h.id for h in made._indexing.get_all_handlers()] == ["index"]
    assert _kopf.storing_handlers(made) == []
    assert not made._watching.get_all_handlers()


def test_a_lasting_webhook_is_the_same_webhook() -> None:
    """Else Kopf takes the webhooks of all replicas out of its configuration when one term ends."""
    registry = _kopf.new_registry()
    kopf.on.validate("things", registry=registry, id="check")(lambda **_: None)
    kopf.on.create("things", registry=registry, id="create")(lambda **_: None)
    made = _kopf.with_lasting_webhooks(registry)
    (before,), (after,) = registry._webhooks.get_all_handlers(), made._webhooks.get_all_handlers()
    assert (before.persistent, after.persistent) == (None, True)
    assert (before.fn, before.selector) == (after.fn, after.selector)
    assert _kopf.storing_handlers(made) == ["create"]
    kopf.on.create("things", registry=registry, id="later")(lambda **_: None)
    assert _kopf.storing_handlers(made) == ["create", "later"]


def test_our_watching_handler_sees_each_object_first(api: KopfApi, registry: kopf.OperatorRegistry) -> None:
    """Else handlers decide from bodies that the fence does not know, or begin in a term that is lost (I4)."""
    calls: list[tuple[str, str]] = []

    def note(who: str) -> Callable[..., None]:
        return lambda body, resource, **_: calls.append((who, f"{resource.plural}/{body['metadata']['name']}"))

    kopf.on.create("things", registry=registry, id="creation")(note("creation"))
    kopf.on.event("things", registry=registry, id="event")(note("event"))
    assert _kopf.watch_first(registry, note("ours"), "ours")
    assert not _kopf.watch_first(registry, note("ours"), "ours")
    with Kopf(registry):
        until("the creation to be handled", lambda: ("creation", "things/a") in calls, LONG)
    assert calls[:3] == [("ours", "things/a"), ("event", "things/a"), ("creation", "things/a")]


def test_handlers_wait_until_they_may_begin_and_ours_does_not(
    api: KopfApi, registry: kopf.OperatorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else handlers begin while the gate is held, maybe beside those of the next leader."""
    begins, asked, ours, theirs = (threading.Event() for _ in range(4))

    async def may_begin() -> None:
        asked.set()
        await asyncio.to_thread(begins.wait, LONG)

    monkeypatch.setattr(holding, "_may_begin", None)  # and put back
    _kopf.hold_handlers(may_begin)
    kopf.on.event("things", registry=registry, id="theirs")(lambda **_: theirs.set())
    _kopf.watch_first(registry, lambda **_: ours.set(), "ours")
    with Kopf(registry):
        assert ours.wait(LONG)
        assert asked.wait(LONG)
        assert not theirs.is_set()
        begins.set()
        assert theirs.wait(LONG)


# --- what a cycle leaves

#: Kopf waits for its own patch since 1.42, and has functions in a patch since 1.44.
waits = pytest.mark.skipif(
    not hasattr(kopf.OperatorSettings().persistence, "consistency_timeout"),
    reason="before 1.42 Kopf does not wait for its own patch, so its order stays",
)
has_functions = pytest.mark.skipif(not hasattr(kopf.Patch(), "fns"), reason="before 1.44 a patch has no functions")


@waits
def test_the_status_is_stored_before_kopf_notes_that_it_handled(api: KopfApi, registry: kopf.OperatorRegistry) -> None:
    """Else a status is lost if the term ends between the two writes, since the next leader's Kopf calls no handler."""
    api.has_status = True
    calls: list[str] = []

    def made(patch: kopf.Patch, name: str, **_: Any) -> None:
        calls.append(name)
        patch.status["done"] = "yes"

    kopf.on.create("things", registry=registry, id="made")(made)
    with Kopf(registry):
        until("two patches", lambda: len(api.patches) == 2, LONG)
        time.sleep(0.3)  # for a second call, which must not come
    assert [path.rpartition("/")[2] for path, _ in api.patches] == ["status", "a"]
    assert api.patches[0][1]["status"]["done"] == "yes"
    assert "status" not in api.patches[1][1]
    assert api.patches[1][1]["metadata"]["annotations"]
    assert calls == ["a"]


class Sent:
    """What `patch_obj` sends for an object with a status; each JSON patch of `conflicts` is refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *conflicts: str) -> None:
        self.body: dict[str, Any] = {"metadata": {"name": "a", "resourceVersion": "1"}, "status": {"items": [1]}}
        self.told: list[tuple[str, Any]] = []
        self.conflicts = list(conflicts)
        monkeypatch.setattr(clients_api, "patch", self._patch)

    async def _patch(self, *, url: str, payload: Any, **_: Any) -> Any:
        where = "status" if url.endswith("/status") else "object"
        if isinstance(payload, dict):
            self.told.append((where, payload))
            self.body = copy.deepcopy(self.body)
            for key, value in payload.items():
                self.body.setdefault(key, {}).update(value)
        else:
            self.told.append((where, [op["path"] for op in payload if op["op"] != "test"]))
            if where in self.conflicts:
                self.conflicts.remove(where)
                raise errors.APIUnprocessableEntityError("conflict", status=422, headers={})
            self.body = jsonpatch.apply_patch(self.body, payload)
        version = int(self.body["metadata"]["resourceVersion"]) + 1
        self.body["metadata"]["resourceVersion"] = str(version)
        return copy.deepcopy(self.body)

    def send(self, patch: kopf.Patch, *, waits: bool = True) -> tuple[Any, Any]:
        settings = kopf.OperatorSettings()
        if not waits:
            settings.persistence.consistency_timeout = 0
        resource = references.Resource("g", "v1", "things", namespaced=True, subresources=frozenset({"status"}))
        call = patching._patch_status_first(
            settings=settings, resource=resource, patch=patch, namespace="ns", name="a", logger=logging.getLogger()
        )
        answer: tuple[Any, Any] = asyncio.run(call)
        return answer

    def patch(self, *fns: Callable[[Any], None], **values: Any) -> kopf.Patch:
        return kopf.Patch(values, body=copy.deepcopy(self.body), fns=fns)  # type: ignore[arg-type]


def append(body: Any) -> None:
    body["status"]["items"].append(2)


def block(body: Any) -> None:
    """Like Kopf's own, which may be called again."""
    body["metadata"]["finalizers"] = ["me"]


NOTES = {"metadata": {"annotations": {"handled": "yes"}}}


@has_functions
def test_what_functions_change_in_the_status_is_stored_first_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what a handler appends to a list of the status is lost, or is there twice."""
    sent = Sent(monkeypatch)
    body, remaining = sent.send(sent.patch(append, block, **NOTES, status={"done": "yes"}))
    assert [where for where, _ in sent.told] == ["status", "status", "object", "object"]
    assert sent.told[1:] == [("status", ["/status/items/1"]), ("object", NOTES), ("object", ["/metadata/finalizers"])]
    assert body["status"] == {"items": [1, 2], "done": "yes"}
    assert body["metadata"]["finalizers"] == ["me"]
    assert not remaining


@has_functions
@pytest.mark.parametrize("refused", ["status", "object"])
def test_functions_that_met_a_conflict_are_left_for_the_next_cycle(
    monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """Else they are lost, and the current leader has noticed the fence."""
    sent = Sent(monkeypatch, *{"status": ["status", "status"], "object": ["object"]}[refused])
    body, remaining = sent.send(sent.patch(append, block, **NOTES))
    assert body["metadata"]["annotations"] == {"handled": "yes"}
    assert remaining
    sent.send(sent.patch(*remaining.fns))
    assert sent.body["status"] == {"items": [1, 2]}
    assert sent.body["metadata"]["finalizers"] == ["me"]


@has_functions
def test_a_function_may_leave_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent(monkeypatch)
    body, _ = sent.send(sent.patch(lambda body: body.pop("status"), block, **NOTES))
    assert "status" not in body
    assert body["metadata"]["finalizers"] == ["me"]


@has_functions
@pytest.mark.parametrize("values", [NOTES, {"status": {"done": "yes"}}, NOTES | {"status": {"done": "yes"}}])
def test_kopfs_own_order_stays_where_there_is_nothing_to_win(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    """Without the wait for its own patch, Kopf would take the status for a change of somebody, and handle it again."""
    sent = Sent(monkeypatch)
    sent.send(sent.patch(**values), waits=len(values) == 1)
    assert sent.told == [("object" if key == "metadata" else "status", {key: values[key]}) for key in values]


def test_files_and_modules_are_loaded_as_kopf_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `kopf-ha run` does not start."""
    (tmp_path / "contract_file.py").write_text("import contract_beside\nloaded = True")
    (tmp_path / "contract_beside.py").write_text("")
    (tmp_path / "contract_module.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path])
    _kopf.load([str(tmp_path / "contract_file.py")], ["contract_module"])
    assert {"contract_beside", "contract_module"} <= set(sys.modules)


# --- a running operator


def test_an_identity_spares_the_question_for_the_users_name(
    registry: kopf.OperatorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no term starts in a container whose uid has no name."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    with Kopf(registry) as running:
        assert running.operator.tasks
    assert running.error is None


def test_the_task_that_logs_in_is_found_and_its_end_is_seen(registry: kopf.OperatorRegistry) -> None:
    """Else a leader whose login fails waits for ever, with the Lease renewed."""

    def fail(**_: Any) -> None:
        raise kopf.PermanentError("no credentials")

    kopf.on.login(registry=registry, id="login")(fail)
    with Kopf(registry) as running:
        (login,) = running.operator.login
        until("the login to fail", login.done, LONG)
        failed = login.exception()
        assert failed is not None
        assert str(failed.__cause__) == "no credentials"


def test_the_first_root_task_to_end_ends_the_operator(registry: kopf.OperatorRegistry) -> None:
    """Else a leader without a part of Kopf goes on leading."""
    with Kopf(registry) as running:
        running.cancel(lambda task: task.get_name() == "resource observer")
        until("all root tasks to end", lambda: all(task.done() for task in running.operator.tasks), LONG)


def test_configured_is_called_between_the_startup_handlers_and_all_else(registry: kopf.OperatorRegistry) -> None:
    """Else what startup handlers decide cannot be corrected before Kopf acts upon it."""
    calls: list[str] = []
    kopf.on.startup(registry=registry, id="startup")(lambda **_: calls.append("startup"))
    kopf.on.login(registry=registry, id="login")(lambda **_: calls.append("login"))
    with Kopf(registry, lambda: calls.append("configured")):
        until("the login", lambda: "login" in calls, LONG)
    assert calls == ["startup", "configured", "login"]


@pytest.mark.filterwarnings("ignore:coroutine 'authenticator' was never awaited")  # Kopf's
def test_an_error_of_configured_ends_the_operator(registry: kopf.OperatorRegistry) -> None:
    """Else what is refused there runs all the same."""

    def refuse() -> None:
        raise ValueError("refused")

    with Kopf(registry, refuse) as running:
        until("the operator's end", lambda: running.error, LONG)
    assert str(running.error) == "refused"


def test_probes_run_as_for_kopf_s_liveness_endpoint(api: KopfApi, registry: kopf.OperatorRegistry) -> None:
    """Else `--liveness` shows other results than under `kopf run`, or none."""
    kopf.on.probe(registry=registry, id="names")(lambda **given: sorted(given["names"]))
    kopf.on.probe(registry=registry, id="nothing")(lambda **_: None)
    kopf.index("things", registry=registry, id="names")(lambda name, **_: {name: 1})
    with Kopf(registry) as running:
        until("the index to be filled", lambda: running.ask(running.operator.has_filled_indices), LONG)
        results = asyncio.run_coroutine_threadsafe(collect(running.operator), running._loop).result(LONG)
    assert results == {"names": ["a"]}


async def collect(operator: _kopf.SpawnedOperator) -> Any:
    return await operator.probe()


def test_sessions_of_credentials_that_an_application_has_got_are_prepared(api: KopfApi) -> None:
    """Else its Kopf writes past the fence (I8), or logs in again."""
    servers: list[str] = []

    async def main() -> None:
        vault = _kopf.PreparedVault(lambda session, server: servers.append(server))
        assert vault.is_empty()
        await vault.take(credentials.Vault())
        assert vault.is_empty()
        await vault.take(credentials.Vault({"mine": kopf.ConnectionInfo(server=api.url)}))
        async for _ in vault.extended(auth.APIContext):
            break
        await vault.close()

    asyncio.run(main())
    assert servers == [api.url]


@pytest.mark.parametrize("way", ["operator", "run", "command"])
def test_kopf_s_other_functions_end_in_spawn_tasks(way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else `kopf-ha exec` runs an operator that is not fenced."""
    calls: list[dict[str, Any]] = []

    async def spawn(**given: Any) -> list[asyncio.Task[None]]:
        calls.append(given)
        return [asyncio.create_task(asyncio.sleep(0))]

    for module in (kopf, kopf_running):
        monkeypatch.setattr(module, "spawn_tasks", module.spawn_tasks)  # put back at the end
    _kopf.replace_spawn_tasks(spawn)
    assert kopf.spawn_tasks is spawn
    if way == "operator":
        asyncio.run(kopf.operator(clusterwide=True))
    elif way == "run":
        kopf.run(clusterwide=True)
    else:
        (tmp_path / "op.py").touch()
        done = CliRunner().invoke(cli.main, ["run", "-A", str(tmp_path / "op.py"), "--liveness=http://x:1/y"])
        assert done.exit_code == 0, done.output
        assert calls[0]["liveness_endpoint"] == "http://x:1/y"
    assert [one["clusterwide"] for one in calls] == [True]


def test_discovery_is_told_from_other_tasks(api: KopfApi, registry: kopf.OperatorRegistry) -> None:
    """Else each term that ends while the API server is slow takes Kopf 5 s to stop."""
    api.held.add("/apis")
    kopf.on.event("things", registry=registry)(lambda **_: None)
    with Kopf(registry) as running:
        until("discovery to be under way", lambda: running.tasks(_kopf.discovers), LONG)
        assert not set(running.tasks(_kopf.discovers)) & set(running.operator.tasks)
        api.release()
        until("discovery to be over", lambda: not running.tasks(_kopf.discovers), LONG)


def test_a_worker_that_waits_to_try_again_is_told_from_one_that_handles(
    api: KopfApi, registry: kopf.OperatorRegistry
) -> None:
    """Else a term's end waits for retries that are minutes away, or cancels handlers that run."""
    handling, handled = threading.Event(), asyncio.Event()

    @kopf.on.create("things", registry=registry, id="creation")
    async def creation(**_: Any) -> None:
        handling.set()
        await handled.wait()
        raise kopf.TemporaryError("later", delay=3600)

    with Kopf(registry) as running:
        assert handling.wait(LONG)
        assert running.tasks(lambda task: task.get_name().startswith("worker for "))
        assert not running.tasks(_kopf.sleeps_between_tries)
        running.ask(handled.set)
        until("the worker to sleep", lambda: running.tasks(_kopf.sleeps_between_tries), LONG)
        running.cancel(_kopf.sleeps_between_tries)
    assert running.error is None


def test_indices_are_filled_when_their_kinds_were_listed_and_indexed(
    api: KopfApi, registry: kopf.OperatorRegistry
) -> None:
    """Else webhooks are answered from indices with half of the objects in them, or never."""
    indexing, indexed = threading.Event(), asyncio.Event()

    @kopf.index("things", registry=registry)
    async def names(name: str, **_: Any) -> dict[str, int]:
        indexing.set()
        await indexed.wait()
        return {name: 1}

    api.held.add(LIST)
    with Kopf(registry) as running:
        until("Kopf to list", lambda: LIST in api.asked, LONG)
        assert not running.ask(running.operator.has_filled_indices)
        api.release()
        assert indexing.wait(LONG)
        assert not running.ask(running.operator.has_filled_indices)
        running.ask(indexed.set)
        until("the indices", lambda: running.ask(running.operator.has_filled_indices), LONG)


def test_without_indices_they_are_filled_at_once(api: KopfApi, registry: kopf.OperatorRegistry) -> None:
    """Else a replica that only serves webhooks never becomes ready."""
    kopf.on.event("things", registry=registry)(lambda **_: None)
    api.held.add(LIST)
    with Kopf(registry) as running:
        until("the indices", lambda: running.ask(running.operator.has_filled_indices), LONG)


# --- the first list


class Backwards:
    """A flow that turns the list around, and hides some objects."""

    def __init__(self, kind: _kopf.Kind, hidden: Collection[str] = ()) -> None:
        self.kind = kind
        self.hidden = hidden
        self.noted: list[Any] = []  #: what was left out

    async def left_out(self, body: Any) -> None:
        self.noted.append(body)

    def is_hidden(self, event: Any) -> bool:
        return event["object"]["metadata"]["name"] in self.hidden

    async def ordered(self, source: AsyncIterator[Any], early: Any) -> AsyncIterator[Any]:
        listed: list[Any] = []
        async for event in source:
            if isinstance(event, dict) and event["type"] is None:
                listed.append(event)
                continue
            while listed:
                yield listed.pop()
            yield event


def recorded(made: list[Backwards]) -> _kopf.MakeFlow:
    def make(kind: _kopf.Kind) -> Backwards:
        made.append(Backwards(kind))
        return made[-1]

    return make


def seen_by(api: KopfApi, registry: kopf.OperatorRegistry, made: list[Backwards]) -> list[str]:
    """Run Kopf with such flows; give the objects in the order of its event handler."""
    names: list[str] = []

    async def handler(name: str, **_: Any) -> None:  # in threads, they would overtake one another
        names.append(name)

    kopf.on.event("things", registry=registry)(handler)
    with Kopf(registry, make_flow=recorded(made)):
        until("all objects", lambda: len(names) == 3, LONG)
    return names


@pytest.fixture
def three() -> Iterator[KopfApi]:
    served = KopfApi("a", "b", "c")
    yield served
    served.close()


def logging_in(api: KopfApi) -> kopf.OperatorRegistry:
    made = _kopf.new_registry()
    kopf.on.login(registry=made, id="login")(lambda **_: kopf.ConnectionInfo(server=api.url))
    return made


def test_a_flow_orders_the_objects_that_exist(three: KopfApi) -> None:
    """Else a new leader handles thousands of objects that need nothing before a new one."""
    made: list[Backwards] = []
    assert seen_by(three, logging_in(three), made) == ["c", "b", "a"]
    assert [one.kind.resource.plural for one in made] == ["things"], "and none for Kopf's own watches"


def test_no_handler_sees_what_a_flow_hides(three: KopfApi) -> None:
    """Else each separate stamp costs Kopf's whole cycle, and event handlers run once more than without the fence."""
    names: list[str] = []
    registry = logging_in(three)
    kopf.on.event("things", registry=registry)(lambda name, **_: names.append(name))
    with Kopf(registry, make_flow=lambda kind: Backwards(kind, hidden=["b"])):
        until("the others", lambda: {"a", "c"} <= set(names), LONG)
    assert sorted(names) == ["a", "c"]


def test_a_kind_with_an_index_is_left_in_kopfs_order(three: KopfApi) -> None:
    """Else handlers run before the index is filled, or never."""
    registry, made = logging_in(three), list[Backwards]()
    kopf.index("things", registry=registry)(lambda name, **_: {name: 1})
    assert sorted(seen_by(three, registry, made)) == ["a", "b", "c"]
    assert made == []


class Early(Backwards):
    """A flow that reads the watch beside the list only, while the list is held."""

    async def ordered(self, source: AsyncIterator[Any], early: Any) -> AsyncIterator[Any]:
        async for event in early():
            yield {**event, "type": None}


def test_a_watch_beside_the_list_begins_before_now(three: KopfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what was made while a long list is read waits for the end of the list. A 410 makes it begin now."""
    names: list[str] = []
    registry, since = logging_in(three), list[int]()
    kopf.on.event("things", registry=registry)(lambda name, **_: names.append(name))
    watch = watching.watch_objs

    async def watched(**given: Any) -> AsyncIterator[Any]:
        since.append(int(given["since"]))
        if len(since) == 1:
            yield {"type": "ERROR", "object": {"code": 410}}
        async for event in watch(**given):
            yield event

    for _ in range(3):
        three._patch(f"{IN_NS}/b", {"spec": {"a": 1}})
    monkeypatch.setattr(_kopf.first_list, "BACK", 2)
    monkeypatch.setattr(watching, "watch_objs", watched)
    with Kopf(registry, make_flow=Early):
        until("the watch", lambda: len(since) == 2, LONG)
        three._patch(f"{IN_NS}/c", {"spec": {"a": 1}})
        until("the event", lambda: names == ["c"], LONG)
    assert since == [2, 4]


def test_lists_come_in_pages_where_kopf_can() -> None:
    """Else thousands of objects are in memory at once."""
    settings = kopf.OperatorSettings()
    list_in_pages(settings)
    assert getattr(settings.watching, "chunk_size", 500) == 500
    settings.watching.chunk_size = 7
    list_in_pages(settings)
    assert settings.watching.chunk_size == 7, "the operator's own choice"


def handled(api: KopfApi, registry: kopf.OperatorRegistry) -> tuple[_kopf.Kind, Any]:
    """Run Kopf until it has handled the object; give what it thinks of the kind, and the object."""
    made: list[Backwards] = []
    with Kopf(registry, make_flow=recorded(made)):
        until("the object to be handled", lambda: "last-handled" in json.dumps(api.get("a")), LONG)
    return made[0].kind, api.get("a")


def changed(body: Any, **more: Any) -> Any:
    metadata = body["metadata"] | more.pop("metadata", {})
    metadata["annotations"] = body["metadata"]["annotations"] | more.pop("annotations", {})
    return {**copy.deepcopy(body), **more, "metadata": metadata}


def test_an_object_that_needs_something_is_told_from_one_that_was_handled(
    api: KopfApi, registry: kopf.OperatorRegistry
) -> None:
    """Else a change that was made while nobody led waits behind all others, or is left out."""
    kopf.on.create("things", registry=registry, id="creation")(lambda **_: None)
    kopf.on.update("things", registry=registry, id="update")(lambda **_: None)
    kind, body = handled(api, registry)
    progress = {"kopf.zalando.org/creation": '{"started":"2026-11-29T00:00:00","retries":1}'}
    never = changed(body, metadata={"annotations": {}})
    never["metadata"]["annotations"] = {}
    looks = {
        "as handled": body,
        "its status changed": changed(body, status={"a": 1}),
        "its spec changed": changed(body, spec={"a": 1}),
        "a part came": changed(body, data={"a": 1}),
        "its labels changed": changed(body, metadata={"labels": {"a": "1"}}),
        "a try is due": changed(body, annotations=progress),
        "never handled": never,
        "being deleted": changed(body, metadata={"deletionTimestamp": "2026-11-29T00:00:00Z"}),
        "a finalizer too many": changed(body, metadata={"finalizers": [f"{GROUP}/finalizer"]}),
    }
    assert {name for name, one in looks.items() if kind.is_urgent(one)} == {
        "its spec changed", "a part came", "never handled", "being deleted",
    }  # fmt: skip
    assert {name for name, one in looks.items() if kind.is_done(one)} == {"as handled", "its status changed"}


@pytest.mark.parametrize(
    "annotations",
    [
        {"kopf.zalando.org/last-handled-configuration": "not json"},
        {"kopf.zalando.org/last-handled-configuration": "[]"},
        {"kopf.zalando.org/last-handled-configuration": "5"},
        {"kopf.zalando.org/last-handled-configuration": '{"spec":5}'},
        {"kopf.zalando.org/last-handled-configuration": "[" * 100_000},
        {"kopf.zalando.org/creation": "not json"},
        {"kopf.zalando.org/creation": "[]"},
    ],
)
def test_annotations_that_a_user_spoiled_concern_that_object_only(
    api: KopfApi, registry: kopf.OperatorRegistry, annotations: dict[str, str]
) -> None:
    """Else one object of a tenant ends each term at its start (I10)."""
    kopf.on.create("things", registry=registry, id="creation")(lambda **_: None)
    kind, body = handled(api, registry)
    spoiled = changed(body, annotations=annotations)
    kind.is_urgent(spoiled)
    assert not kind.is_done(spoiled)


def test_an_object_with_a_finalizer_that_a_filter_may_not_want_is_not_done(
    api: KopfApi, registry: kopf.OperatorRegistry
) -> None:
    """Else Kopf does not remove its finalizer, and the object outlives the operator."""
    kopf.on.create("things", registry=registry, id="creation")(lambda **_: None)
    kind, body = handled(api, registry)
    held = changed(body, metadata={"finalizers": [f"{GROUP}/finalizer"]})

    def is_done(**filters: Any) -> bool:
        made = logging_in(api)
        kopf.on.create("things", registry=made, id="creation")(lambda **_: None)
        kopf.on.delete("things", registry=made, id="deletion", **filters)(lambda **_: None)
        return again(kind, made).is_done(held)

    assert is_done()
    assert not is_done(labels={"a": "b"})
    assert is_done(when=lambda **_: True), "Kopf's own choice, filters included"
    assert not is_done(when=lambda **_: False)


@pytest.mark.parametrize("decorator", ["resume", "event", "timer", "daemon", "delete"])
def test_an_object_is_not_done_if_a_handler_runs_for_all_or_it_lacks_a_finalizer(
    api: KopfApi, registry: kopf.OperatorRegistry, decorator: str
) -> None:
    """Else that handler does not run for what exists when a term begins, or a deletion does not wait for it."""
    kopf.on.create("things", registry=registry, id="creation")(lambda **_: None)
    kind, body = handled(api, registry)
    assert kind.is_done(body)
    options = {"interval": 60} if decorator == "timer" else {}
    getattr(kopf.on, decorator)("things", registry=registry, id="more", **options)(lambda **_: None)
    later = again(kind, registry)
    assert not later.is_done(body)
    assert not later.is_urgent(body)


@pytest.mark.parametrize("decorator", ["resume", "event", "timer", "daemon"])
def test_an_object_is_done_if_filters_keep_all_handlers_from_it(
    api: KopfApi, registry: kopf.OperatorRegistry, decorator: str
) -> None:
    """Else each object that exists costs a whole cycle, also where a filter could tell that it needs nothing."""
    kopf.on.create("things", registry=registry, id="creation")(lambda **_: None)
    kind, body = handled(api, registry)
    asked: list[dict[str, Any]] = []

    def wanted(**given: Any) -> bool:
        asked.append(given)
        return bool(given["body"]["metadata"].get("labels"))

    options = {"interval": 60} if decorator == "timer" else {}
    getattr(kopf.on, decorator)("things", registry=registry, id="more", when=wanted, **options)(lambda **_: None)
    later = again(kind, registry)
    assert later.is_done(body)
    assert {"memo", "name", "namespace", "body", "spec", "status", "patch", "logger"} <= asked[-1].keys()
    assert not later.is_done(changed(body, metadata={"labels": {"a": "b"}}))
    assert not dataclasses.replace(later, is_indexed=lambda: False).is_done(body), "it may ask an index"
    assert not dataclasses.replace(later, parts=kind.parts).is_done(body), "Kopf has a memo for it, which it may ask"


def test_events_that_concern_nobody_do_not_pass_kopfs_cycle(api: KopfApi, registry: kopf.OperatorRegistry) -> None:
    """Else each write of the operator's own costs a cycle. What follows such an event is handled as before (I7)."""
    made: list[Backwards] = []
    ran: list[tuple[str, Any]] = []

    def note(spec: Any, reason: str, **_: Any) -> None:
        ran.append((reason, spec.get("a")))

    def has_labels(body: kopf.Body, **_: Any) -> bool:
        return bool(body["metadata"].get("labels"))

    kopf.on.create("things", registry=registry, id="creation")(note)
    kopf.on.update("things", registry=registry, id="update")(note)
    kopf.on.event("things", registry=registry, id="news", when=has_labels)(lambda **_: ran.append(("event", None)))
    with Kopf(registry, make_flow=recorded(made)):
        until("its creation", lambda: ran and "last-handled" in json.dumps(api.get("a")), LONG)
        for number in range(2):
            api._patch(f"{IN_NS}/a", {"status": {"a": number}})
            until("it to be left out", lambda n=number: made[0].noted[-1:] and  # type: ignore[misc]
                  made[0].noted[-1].get("status", {}).get("a") == n, LONG)  # fmt: skip
        assert len(ran) == 1
        api._patch(f"{IN_NS}/a", {"spec": {"a": 5}})
        until("the update", lambda: ("update", 5) in ran, LONG)
        api._patch(f"{IN_NS}/a", {"metadata": {"labels": {"a": "b"}}})
        until("the event", lambda: ("event", None) in ran, LONG)


def test_an_event_concerns_somebody_if_kopf_has_something_to_remember_or_to_stop(
    api: KopfApi, registry: kopf.OperatorRegistry
) -> None:
    """Else a daemon runs on for an object that its filter does not want any more, or an error is not tried again."""
    kopf.on.create("things", registry=registry, id="creation")(lambda **_: None)
    kind, body = handled(api, registry)
    event = {"type": "MODIFIED", "object": body}
    memory = kind._memory(body)
    assert memory is not None, "Kopf has met it"
    assert kind.is_idle(event)
    assert not kind.is_idle({**event, "type": "DELETED"})
    assert not dataclasses.replace(kind, is_indexed=lambda: False).is_idle(event), "the worker has to say that it began"
    memory.error_throttler.source_of_delays = iter([1.0])
    assert not kind.is_idle(event)
    memory.error_throttler.source_of_delays = None
    assert kind.is_idle(event)
    kopf.on.daemon("things", registry=registry, id="more", when=lambda **_: False)(lambda **_: None)
    assert not dataclasses.replace(kind).is_idle(event)


def test_an_object_is_not_done_if_a_filter_writes_into_its_patch(api: KopfApi, registry: kopf.OperatorRegistry) -> None:
    """Kopf writes that, whether or not a handler runs. The next object has a patch of its own."""
    kopf.on.create("things", registry=registry, id="creation")(lambda **_: None)
    kind, body = handled(api, registry)

    def never(patch: kopf.Patch, body: kopf.Body, **_: Any) -> bool:
        assert not patch
        if "marked" in body["metadata"].get("annotations", {}):
            patch.status["seen"] = True
        return False

    kopf.on.resume("things", registry=registry, id="more", when=never)(lambda **_: None)
    later = again(kind, registry)
    marked = changed(body, annotations={"kopf.zalando.org/other": "is no progress of a handler"})
    marked["metadata"]["annotations"]["marked"] = ""
    marked["metadata"]["annotations"]["kopf.zalando.org/last-handled-configuration"] = json.dumps(
        {"spec": body["spec"], "metadata": {"annotations": {"marked": ""}}}
    )
    assert not later.is_done(marked)
    assert later.is_done(body)


PROGRESS = '{"started":"2026-11-29T00:00:00","retries":1}'


class OwnStorage(kopf.AnnotationsDiffBaseStorage):
    """An operator's own, for which a field of the status counts."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {**super().build(body=body, extra_fields=extra_fields), "more": body.get("status", {}).get("phase")}


@pytest.mark.parametrize("storage", [kopf.AnnotationsDiffBaseStorage(prefix=GROUP), kopf.StatusDiffBaseStorage(),
                                     OwnStorage(prefix=GROUP)])  # fmt: skip
@pytest.mark.parametrize("progress", [kopf.AnnotationsProgressStorage(prefix=GROUP), kopf.StatusProgressStorage(),
                                      kopf.SmartProgressStorage(prefix=GROUP)])  # fmt: skip
@pytest.mark.parametrize("fields", [set(), {("status", "phase")}])
def test_what_kopf_keeps_is_read_as_kopf_reads_it(storage: Any, progress: Any, fields: set[Any]) -> None:
    """The quick way and Kopf's own way say the same of each object."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage, settings.persistence.progress_storage = storage, progress
    asyncio.run(ignore_stamps(settings))
    keys = {ids.HandlerId("creation"), ids.HandlerId("a/field.of/it")}
    stored = _kopf.stored.Stored(settings.persistence, keys, fields)
    plain: Any = {
        "apiVersion": "v1", "kind": "Thing", "spec": {"a": 1}, "data": {"b": [1, 2]}, "status": {"phase": "x"},
        "metadata": {"name": "a", "uid": "u", "resourceVersion": "1", "labels": {"l": "1"}, "managedFields": [{}],
                     "annotations": {"own": "1", "fencing.kopf-ha.dev/a.b": "{}"}},
    }  # fmt: skip
    patch = kopf.Patch()
    storage.store(body=kopf.Body(plain), patch=patch, essence=storage.build(body=kopf.Body(plain), extra_fields=fields))
    seen = merged(plain, patch)
    tried = kopf.Patch()
    progress.store(key="a/field.of/it", record=json.loads(PROGRESS), body=kopf.Body(seen), patch=tried)
    looks = [
        plain, seen, merged(seen, tried), merged(seen, {"kind": "ReplicaSet"}), merged(seen, {"spec": {"a": 2}}),
        merged(seen, {"data": {"b": []}}), merged(seen, {"status": {"phase": "y"}}), merged(seen, {"more": 1}),
        merged(seen, {"metadata": {"labels": {"l": "2"}}}), merged(seen, {"metadata": {"annotations": {"own": "2"}}}),
        merged(seen, {"metadata": {"generation": 2}}), {**seen, "metadata": {"name": "a", "uid": "u"}},
    ]  # fmt: skip
    said = []
    for raw in looks:
        body, before = kopf.Body(raw), copy.deepcopy(raw)
        old, new = storage.fetch(body=body), storage.build(body=body, extra_fields=fields)
        old, new = (None if one is None else progress.clear(essence=one) for one in (old, new))
        same = None if old is None or old != new else (old, new)
        quick = _kopf.stored.QuickBody(raw)
        assert stored.essences(raw, quick) == same
        has = any(progress.fetch(key=one, body=body) is not None for one in keys)
        assert stored.has_progress(quick) == has
        assert raw == before
        assert dict(quick) == raw
        said.append((same is not None, has))
    assert {(True, False), (False, False), (True, True)} <= set(said)


def merged(body: Any, patch: Any) -> Any:
    """Apply a merge patch."""
    made = copy.deepcopy(body)
    for key, value in patch.items():
        made[key] = merged(made.get(key) or {}, value) if isinstance(value, dict) else value
    return made


def again(kind: _kopf.Kind, registry: kopf.OperatorRegistry) -> _kopf.Kind:
    """Give the kind as it is in a next term, with other handlers."""
    parts = {**kind.parts, "memories": type(kind.parts["memories"])()}
    return _kopf.Kind(kind.resource, registry, kind.settings, parts)


# --- the log


def test_kopfs_formatters_are_recognised_and_can_be_extended() -> None:
    """Else log lines name no term."""
    record = logging.LogRecord("kopf.objects", logging.INFO, "", 0, "said", (), None)
    record.k8s_ref = {"namespace": "ns", "name": "a"}

    class Text(_kopf.TextFormatter):
        def formatMessage(self, record: logging.LogRecord) -> str:
            record.message = f"extended {record.message}"
            return super().formatMessage(record)

    class Prefixed(_kopf.ObjectPrefix, Text):
        pass

    assert Text("%(message)s").format(record) == "extended said"
    assert Prefixed("%(message)s").format(record) == "extended [ns/a] said"
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        for log_format in kopf.LogFormat:
            kopf.configure(log_format=log_format)
            assert [h for h in root.handlers if isinstance(h.formatter, _kopf.Formatter)]
    finally:
        root.handlers[:], level = before
        root.setLevel(level)


def test_kopfs_lines_about_signals_and_about_a_handler_are_told_from_others(
    registry: kopf.OperatorRegistry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the operator's log speaks of our handler for each event of each object."""
    caplog.set_level(logging.DEBUG)
    for log in (_kopf.objects_log, _kopf.running_log):
        monkeypatch.setattr(log, "filters", [])  # a runner of this process leaves its own
    seen = threading.Event()
    kopf.on.event("things", registry=registry, id="theirs")(lambda **_: seen.set())
    _kopf.watch_first(registry, lambda **_: None, "ours")
    with Kopf(registry):
        assert seen.wait(LONG)

    def told(log: logging.Logger, which: Callable[[logging.LogRecord], bool]) -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == log.name and which(r)]

    assert len(told(_kopf.running_log, _kopf.tells_of_signals)) == 1
    about = told(_kopf.objects_log, lambda record: _kopf.tells_of_handler(record, "ours"))
    assert about
    assert not any("theirs" in line for line in about)
    assert not [r for r in caplog.records if "ours" in r.getMessage() and r.name != _kopf.objects_log.name]


# --- and nobody else


def test_no_other_file_touches_private_attributes_or_names_private_modules() -> None:
    """The import contract does not see attributes, or names of modules in texts."""
    registry = _kopf.new_registry()
    things = (
        registry,
        registry._activities,
        _kopf.logins(registry)[0],
        _kopf.PreparedVault(lambda session, server: None),
    )
    private = {name for thing in things for name in vars(thing) if name.startswith("_")}
    assert {"_watching", "_handlers", "_fallback", "_current"} <= private
    touched = re.compile(rf"(?<!\bself)\.({'|'.join(sorted(private))})\b|\bkopf\._")
    for path in HERE.rglob("*.py"):
        found = touched.search(path.read_text())
        assert found is None or path.parent == HERE / "_kopf", f"{path}: {found[0]}"
