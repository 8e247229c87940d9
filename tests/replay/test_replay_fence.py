"""What the fence took in and did is written down, and the core does the same again."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kopf_ha.core.grant import Grant
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import GateClosed, Refused
from tests.core.fake_api import (
    APPLY,
    CHILD,
    JSON_PATCH,
    MERGE,
    POD,
    STRATEGIC,
    WIDGET,
    Body,
    FakeApi,
    Process,
    denied,
    patch,
    stamp,
    write,
)
from tests.core.test_fence_transparency import MAIN, OBJECT, PARTS
from tests.replay.traced import TracedProcess, alter, differences, numbers

#: Stands for what is nobody's business.
PRIVATE = "private-words"
SECRET = "/api/v1/namespaces/a/secrets/x"

WAYS = {**MAIN, **{f"{name} {n}": one for name, many in PARTS.items() for n, one in enumerate(many)}}


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_core_does_the_same_again(
    me: Process, api: FakeApi, file: Path, path: str, way: Callable[[str, Body], Request]
) -> None:
    """Every way to write, with an object that an earlier term stamped, and with somebody who is faster."""
    api.put(path, {**OBJECT, "data": {"k": PRIVATE}}, stamp(6))
    me.watch(path)
    request = way(path, copy.deepcopy(api.get(path)))
    edits = iter([lambda body: body["spec"].update(theirs=PRIVATE)])

    def edit(sent: Request) -> Response | None:
        place = api.place(path)
        if sent.method in ("PATCH", "PUT") and place.key in api.objects and (change := next(edits, None)):
            api.edit(path, change)
        return None

    api.intercept = edit
    for _ in range(2):
        with contextlib.suppress(Refused):
            me.send(request)
    assert numbers(file, "sent")
    assert differences(file) == []


PRIVATE_WRITES: dict[str, Request] = {
    "merge": patch(CHILD, {"data": {"k": PRIVATE}, "metadata": {"annotations": {"theirs": PRIVATE}}}),
    "strategic": patch(CHILD, {"data": {"$patch": "replace", "k": PRIVATE}}, STRATEGIC),
    "JSON patch": patch(CHILD, [{"op": "add", "path": "/data", "value": {"k": PRIVATE}}], JSON_PATCH),
    "apply": patch(CHILD, {"metadata": {"name": "x"}, "data": {"k": PRIVATE}}, APPLY),
    "status": patch(WIDGET + "/status", {"status": {"said": PRIVATE}}),
    "Secret": patch(SECRET, {"stringData": {"k": PRIVATE}}),
    "token review": write("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": PRIVATE}}),
    "exec": write("POST", POD + "/exec", query=f"command={PRIVATE}"),
}


@pytest.mark.parametrize("request_", PRIVATE_WRITES.values(), ids=PRIVATE_WRITES)
def test_nothing_of_what_users_wrote_is_in_the_trace(me: Process, api: FakeApi, file: Path, request_: Request) -> None:
    for path in (WIDGET, CHILD, SECRET, POD):
        body = {"data": {"k": PRIVATE}, "spec": {"s": PRIVATE}, "metadata": {"labels": {"l": PRIVATE}}}
        api.put(path, body, stamp(6))
    exempt = ("exec", "tokenreviews")
    api.intercept = lambda sent: Response(201, PRIVATE.encode()) if sent.path.endswith(exempt) else None
    me.send(request_)
    text = file.read_text()
    assert PRIVATE not in text
    assert differences(file) == []
    assert len({bool(numbers(file, what)) for what in ("asked", "sent", "answered", "ended")}) == 1


def test_of_a_secret_not_even_a_mark_is_kept(me: Process, api: FakeApi, file: Path) -> None:
    api.put(SECRET, {"data": {"k": PRIVATE}})
    me.send(patch(SECRET, {"data": {"k": PRIVATE}}))
    assert '"data":{"k":"#"}' in file.read_text()


def test_refusals_are_shown_in_our_own_words_alone(me: Process, api: FakeApi, file: Path) -> None:
    """I10: the sentences by which the core recognises a refusal, and nothing that somebody put beside them."""
    api.put(CHILD, {}, stamp(7))
    said = ("kopf-ha-op-child-configmaps", f"fencing: {PRIVATE}"[:9]), ("theirs", PRIVATE)
    for policy, message in said:
        api.intercept = lambda sent, policy=policy, message=message: (  # type: ignore[misc]
            denied(policy, message) if sent.method == "PATCH" else None
        )
        with contextlib.suppress(Refused):
            me.send(patch(CHILD, {"data": {"k": "v"}}))
    assert PRIVATE not in file.read_text()
    assert differences(file) == []


def stale(me: Process, api: FakeApi) -> None:
    """Write once, and then as a leader that lost the Lease."""
    api.put(WIDGET, {}, stamp(6))
    me.send(patch(WIDGET + "/status", {"status": {"s": 1}}))
    api.elect(stamp(8))
    api.edit(WIDGET, lambda body: body["status"]["fencing"].update(token=8, holder="pod8", podUID="uid-pod8"))
    with pytest.raises(Refused):
        me.send(patch(WIDGET + "/status", {"status": {"s": 2}}))
    me.grant.close("lost")
    with pytest.raises(Refused):
        me.send(patch(WIDGET + "/status", {"status": {"s": 3}}))


def test_a_stale_leader_is_refused_again(me: Process, api: FakeApi, file: Path) -> None:
    stale(me, api)
    text = file.read_text()
    assert '"refused":"StaleLeader","line":"precondition"' in text or '"refused":"StaleLeader"' in text
    assert '"refused":"GateClosed","line":"gate"' in text
    assert differences(file) == []


CHANGES: dict[str, tuple[str, int, Callable[[Any], None]]] = {
    "a request with a later deadline": ("sent", -1, lambda data: data["request"].update(timeout=99.0)),
    "a stamp of another token": (
        "sent",
        2,
        lambda data: data["request"]["body"]["status"]["fencing"].update(token=5),
    ),
    "a request that was not sent": ("sent", 0, lambda data: data["request"].update(path="/api/v1/pods")),
    "an answer that says something else": ("answered", 2, lambda data: data["answer"].update(status=409)),
    "another outcome": ("ended", 0, lambda data: data.update(status=500)),
    "another refusal": ("ended", -1, lambda data: data.update(refused="StaleLeader")),
    "a closed gate that was open": ("sent", 1, lambda data: data["reads"].__setitem__(0, ["closed", "over"])),
    "a read that was not": ("ended", 0, lambda data: data["reads"].append(["closed", ""])),
    "no read": ("sent", 1, lambda data: data["reads"].clear()),
    "an object that was known": (
        "asked",
        1,
        lambda data: data["request"].update(path=CHILD),
    ),
    "a line that is none": ("answered", 1, lambda data: data.pop("answer")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_line_that_says_something_else_is_noticed(
    me: Process, api: FakeApi, file: Path, change: tuple[str, int, Callable[[Any], None]]
) -> None:
    stale(me, api)
    what, which, how = change
    number = numbers(file, what)[which]
    alter(file, number, how)
    found = differences(file)
    assert found
    assert int(found[0].where.rpartition(":")[2]) >= number
    assert found[0].sentence.startswith("write ")


def test_a_write_that_is_under_way_when_the_process_is_killed(me: Process, api: FakeApi, file: Path) -> None:
    """What was sent is there before it leaves. No answer is no difference."""
    api.put(WIDGET, {}, stamp(7))
    me.attempt(patch(WIDGET + "/status", {"status": {"s": 1}}))
    assert numbers(file, "sent")
    assert not numbers(file, "answered")
    assert differences(file) == []


def test_what_is_known_decides_in_the_replay_too(api: FakeApi, file: Path) -> None:
    """Kopf's patch with the revision that its watch showed is sent without a read, and again so."""
    me = TracedProcess(api, stamp(7), file, deciding=["widgets.t.dev"])
    api.put(WIDGET, {}, stamp(7))
    me.send(patch(WIDGET, {"metadata": {"labels": {"a": "b"}}}))  # the schema is known now
    me.watch(WIDGET)
    me.saw = True
    before = len(api.log)
    me.send(patch(WIDGET + "/status", {"status": {"s": 1}}, MERGE))
    assert len(api.log) == before + 1
    assert differences(file) == []


@pytest.mark.parametrize("end", ["opens", "closes"])
def test_a_write_that_waited_at_the_gate_waits_again(me: TracedProcess, file: Path, end: str) -> None:
    me.api.put(WIDGET, {"spec": {}}, stamp(6))
    me.grant = Grant(me.grant.stamp, me.clock + 10.0, recovers=15.0)
    me.grant.hold("not renewed")
    late = me.attempt(patch(WIDGET, {"spec": {"mine": PRIVATE}}))
    late.step()
    assert late.waits
    if end == "opens":
        me.grant.reopen(me.clock + 20.0)
        assert late.finish().ok
    else:
        me.grant.close("another one leads")
        with pytest.raises(GateClosed):
            late.finish()
    assert '"held"' in file.read_text()
    assert differences(file) == []
