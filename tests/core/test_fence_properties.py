"""Several leaders, users and a server, in any order of single requests: the promises hold without the gate.

No grant ever expires here and no refusal closes one: every writer is a leader that does not know that it lost,
and handlers that catch everything. A request may be answered late, or never, and still take effect.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import Refused
from tests.core.fake_api import (
    APPLY,
    CHILD,
    JSON_PATCH,
    STRATEGIC,
    WIDGET,
    Accepted,
    Attempt,
    FakeApi,
    Process,
    patch,
    recorded_in,
    stamp,
    write,
)

PATHS = st.sampled_from([WIDGET, WIDGET + "/status", CHILD])
WHO = st.integers(0, 5)
BLIND_WAYS = ["blind list", "blind json", "blind put"]
WAYS = st.sampled_from(
    ["merge", "own", "strategic", "json", "list", "apply", "put", "delete", "old put", "scale", "all", *BLIND_WAYS]
)
#: They name no revision, so they may undo what a user wrote, with the fence and without.
BLIND = re.compile(r'"(blind|/spec/blind)\d')


class Writers(RuleBasedStateMachine):
    """Leaders of rising tokens, as an election gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.api = FakeApi()
        self.writers: list[Process] = []
        self.attempts: list[tuple[Attempt, int, Process]] = []
        self.late: list[tuple[Request, str]] = []
        self.bodies: dict[str, Any] = {}  #: what somebody read some time ago
        self.count = 0
        self.checked = 0
        for path in (WIDGET, CHILD):
            self.made_by_user(path)
        self.new_leader(False)

    def made_by_user(self, path: str) -> None:
        self.api.put(path, {"metadata": {"labels": {"user": "0"}}, "spec": {"user": 0, "list": ["user 0"]}})

    def lead(self, mine: Stamp) -> Process:
        self.api.elect(mine)
        self.writers.append(Process(self.api, mine))
        return self.writers[-1]

    # --- leaders

    @rule(again=st.booleans())
    def new_leader(self, again: bool) -> None:
        """Another process, or one of an earlier term once more."""
        token = 7 + len(self.writers)
        if not again or not self.writers:
            self.lead(stamp(token))
            return
        before = self.writers[0]
        process = self.lead(stamp(token, before.grant.stamp.holder))
        process.fence = before.fence
        process.fence.known.new_term()

    @rule(who=WHO, path=PATHS)
    def watch(self, who: int, path: str) -> None:
        if self.there(path):
            self.pick(who).watch(path.removesuffix("/status"))

    # --- their writes, a request at a time

    @rule(who=WHO, path=PATHS, way=WAYS)
    def start(self, who: int, path: str, way: str) -> None:
        self.count += 1
        process = self.pick(who)
        asked = self.request(path, way, self.count)
        if asked is not None:
            self.attempts.append((process.attempt(asked), self.count, process))

    @rule(who=WHO, path=PATHS, way=WAYS)
    def write_at_once(self, who: int, path: str, way: str) -> None:
        self.start(who, path, way)
        if self.attempts:
            self.finish(len(self.attempts) - 1)

    @rule(who=WHO, path=st.sampled_from([WIDGET, CHILD]))
    def create(self, who: int, path: str) -> None:
        self.count += 1
        body = {"metadata": {"name": "x"}, "spec": {f"w{self.count}": 1, "user": 0, "list": []}}
        collection = path.removesuffix("/x")
        process = self.pick(who)
        self.attempts.append((process.attempt(write("POST", collection, body)), self.count, process))

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 20))
    def step(self, which: int) -> None:
        attempt = self.attempts[which % len(self.attempts)][0]
        if not attempt.ended:
            attempt.step()
        self.settle()

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 20))
    def finish(self, which: int) -> None:
        attempt = self.attempts[which % len(self.attempts)][0]
        while not attempt.ended:
            attempt.step()
        self.settle()

    @precondition(lambda self: self.attempts)
    @rule(which=st.integers(0, 20))
    def client_gives_up(self, which: int) -> None:
        """The API server may finish a request long after that."""
        attempt, _, process = self.attempts.pop(which % len(self.attempts))
        if attempt.pending is not None:
            self.late.append((attempt.pending, process.grant.stamp.holder))

    @precondition(lambda self: self.late)
    @rule(which=st.integers(0, 20))
    def late_request(self, which: int) -> None:
        self.api.handle(*self.late.pop(which % len(self.late)))

    # --- users

    @rule(path=st.sampled_from([WIDGET, CHILD]))
    def user_edits(self, path: str) -> None:
        self.count += 1

        def edit(body: Any) -> None:
            body["spec"]["user"] = self.count
            body["spec"].setdefault("list", []).append(f"user {self.count}")
            body["metadata"].setdefault("labels", {})["user"] = str(self.count)

        if self.there(path):
            self.api.edit(path, edit)

    @rule(path=st.sampled_from([WIDGET, CHILD]))
    def user_recreates(self, path: str) -> None:
        self.made_by_user(path)

    @rule(path=st.sampled_from([WIDGET, CHILD]))
    def somebody_reads(self, path: str) -> None:
        if self.there(path):
            self.bodies[path] = copy.deepcopy(self.api.get(path))

    # --- how

    def pick(self, who: int) -> Process:
        return self.writers[-1 - who % len(self.writers)]

    def there(self, path: str) -> bool:
        return self.api.target(path).key in self.api.objects

    def request(self, path: str, way: str, n: int) -> Request | None:
        main = path.removesuffix("/status")
        part = "status" if path.endswith("/status") else "spec"
        if way == "merge":
            return patch(path, {part: {f"w{n}": 1}})
        if way == "strategic":
            return patch(path, {part: {f"w{n}": 1}}, STRATEGIC)
        if way == "apply":
            return patch(path, {"metadata": {"name": "x"}, part: {f"w{n}": 1}}, APPLY)
        if way == "delete":
            return write("DELETE", main)
        if way == "all":
            return write("DELETE", main.removesuffix("/x"))
        if way == "scale":
            return patch(main + "/scale", {"spec": {"replicas": n}, f"w{n}": 1})
        if way == "blind list":
            return patch(main, {"spec": {"list": [f"w{n}"], f"blind{n}": 1, f"w{n}": 1}})
        if way == "blind json":
            ops = [
                {"op": "add", "path": f"/spec/blind{n}", "value": 1},
                {"op": "add", "path": f"/spec/w{n}", "value": 1},
            ]
            return patch(main, [*ops, {"op": "replace", "path": "/spec/list/0", "value": f"w{n}"}], JSON_PATCH)
        if way == "blind put":
            return write("PUT", path, {"metadata": {"name": "x"}, part: {f"blind{n}": 1, f"w{n}": 1}})
        if way == "old put":
            body = copy.deepcopy(self.bodies.get(main))
        else:
            body = copy.deepcopy(self.api.get(main)) if self.there(main) else None
        if body is None:
            return None
        version = body["metadata"]["resourceVersion"]
        if way == "own":
            return patch(path, {"metadata": {"resourceVersion": version}, part: {f"w{n}": 1}})
        if way == "list":
            items = [*body["spec"].get("list", []), f"w{n}"]
            return patch(main, {"metadata": {"resourceVersion": version}, "spec": {"list": items}})
        if way == "json":
            test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
            return patch(main, [test, {"op": "add", "path": f"/spec/w{n}", "value": 1}], JSON_PATCH)
        # An operator that builds objects anew and knows nothing of stamps.
        body["metadata"].pop("annotations", None)
        body.setdefault("status", {}).pop("fencing", None)
        body.setdefault(part, {})[f"w{n}"] = 1
        return write("PUT", path, body)

    def settle(self) -> None:
        for attempt, n, process in self.attempts:
            if attempt.ended:
                self.check_answer(attempt, n, process)
        self.attempts = [entry for entry in self.attempts if not entry[0].ended]

    def check_answer(self, attempt: Attempt, n: int, process: Process) -> None:
        if attempt.error is not None:
            assert isinstance(attempt.error, Refused), repr(attempt.error)
        elif attempt.result is not None and attempt.result.ok and "items" not in attempt.result.json:
            made = [a for a in self.api.accepted if a.who == process.grant.stamp.holder]
            deleted = any(a.request.method == "DELETE" for a in made)
            assert deleted or any(
                f'"w{n}"'.encode() in a.request.body or f"/w{n}".encode() in a.request.body for a in made
            )

    # --- what must hold, of every write that was accepted

    @invariant()
    def promises(self) -> None:
        for accepted in self.api.accepted[self.checked :]:
            self.check_accepted(accepted)
        self.checked = len(self.api.accepted)

    def check_accepted(self, accepted: Accepted) -> None:
        path = WIDGET if "/t.dev/" in accepted.request.path else CHILD
        before = recorded_in(accepted.before, path == WIDGET, "configmaps") if accepted.before else None
        after = recorded_in(accepted.after, path == WIDGET, "configmaps") if accepted.after else None
        if accepted.after is None:
            assert before is not None, "deleted what the writer had not stamped"
            assert before.holder == accepted.who
            return
        if accepted.before is None:
            assert path == WIDGET or (after is not None and after.holder == accepted.who)
            return
        assert accepted.before["metadata"]["uid"] == accepted.after["metadata"]["uid"]
        assert after is not None, "I1: a write went in and left no stamp"
        assert after.holder == accepted.who, "I2: a write went in under another's stamp"
        if before is not None:
            assert after.token >= before.token, "I1, I3: the token went down"
            assert after.token > before.token or after == before, "I2: two holders under one token"
        if BLIND.search(accepted.request.body.decode()):
            return
        for part, field in (("spec", "user"), ("metadata", "labels")):
            assert accepted.after[part].get(field) == accepted.before[part].get(field), "I6: a user's edit was lost"
        theirs = {i for i in accepted.before["spec"].get("list", []) if i.startswith("user")}
        assert theirs <= set(accepted.after["spec"].get("list", [])), "I6: a user's item was lost"

    def teardown(self) -> None:
        """The newest leader can still write: nothing is frozen (I7)."""
        self.attempts.clear()
        self.promises()
        newest = self.lead(stamp(7 + len(self.writers) + 5))
        for path in (WIDGET, CHILD):
            if self.there(path):
                assert newest.patch(path, {"spec": {"last": 1}}).status == 200
                assert self.api.recorded(path) == newest.grant.stamp


class Twins(Writers):
    """The Lease lost its count: tokens are given twice, and lower ones again."""

    @rule(token=st.integers(1, 12), who=WHO)
    def lost_floor(self, token: int, who: int) -> None:
        self.lead(stamp(token, f"twin{len(self.writers)}"))


BOUNDS = settings(max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("machine", [Writers, Twins])
def test_whatever_the_order(machine: type[Writers]) -> None:
    run_state_machine_as_test(machine, settings=BOUNDS)
