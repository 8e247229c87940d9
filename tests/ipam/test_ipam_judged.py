"""What the judge says of a real run that became quiet, and of the same run with one thing otherwise.

The replicas write traces, which are put through the core again, and are joined with the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from devcluster import ControlPlane
from judge import Expectations, History, Key, judge, read_audit
from judge.history import Object, replay
from replay import read, report
from replay.joined import deadlines
from tests.kit.history import history_of
from tests.kit.ipam import Ipam, address

Writes = list[tuple[int, Key, Object | None]]


def recorded(plane: ControlPlane, since: int) -> History:
    """All changes of what was made since then."""
    whole = history_of(plane)
    born = {c.uid for c in whole.changes if c.before is None and c.revision > since}
    return History(whole.revision, tuple(c for c in whole.changes if c.uid in born))


def token(obj: Object | None) -> int:
    return int((((obj or {}).get("status") or {}).get("fencing") or {}).get("token", 0))


def test_a_run_that_became_quiet(ipam: Ipam, control_plane: ControlPlane) -> None:
    since = int(ipam.get("namespace", ipam.namespace)["metadata"]["resourceVersion"])
    traces = [ipam.folder / f"{name}.trace" for name in "ab"]
    first = ipam.operator("a", KOPF_HA_TRACE=str(traces[0]))
    ipam.apply(ipam.pool("small", cidr="10.96.0.0/29", gateway="10.96.0.1"))  # gives .2 to .6
    ipam.apply(*(ipam.claim(f"c{n}", "small") for n in range(7)), ipam.claim("early", "red"))
    ipam.until_ready(*(f"c{n}" for n in range(5)))
    for name, reason in (("c5", "PoolExhausted"), ("c6", "PoolExhausted"), ("early", "PoolNotFound")):
        ipam.until_reason("addressclaim", name, reason)
    ipam.delete("addressclaim", "c0")
    ipam.until_ready("c5")
    hold = '{"metadata":{"finalizers":["ipam.kopf-ha.dev/finalizer","example.com/x"]}}'
    ipam.kubectl("patch", "addressclaim", "c1", "--type=merge", "-p", hold)
    ipam.delete("addressclaim", "c1", wait=False)
    ipam.until_reason("addressclaim", "c1", "Released")

    ipam.expendable.add(first)
    first.kill()
    ipam.vacate_lease()
    second = ipam.operator("b", KOPF_HA_TRACE=str(traces[1]))
    ipam.until_leader(second)
    ipam.kubectl("patch", "addressclaim", "c1", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    ipam.until_ready("c6")
    ipam.apply(ipam.pool("red", cidr="10.96.1.0/29"))
    ipam.until_ready("early")
    ipam.delete("addressclaim", "c6")
    ipam.until("its address to be back", lambda: len(ipam.get("apool", "small")["status"]["allocations"]) == 4)
    ipam.until_quiet()
    ipam.check_consistent()

    history = recorded(control_plane, since)
    quiet = Expectations(quiet_after=history.revision, lease_tampered=True, audit_whole=True, min_terms=2)
    verdict = judge(history, read_audit(control_plane.audit_logs), quiet)
    assert verdict.ok, verdict
    assert not [n for n in verdict.notes if "run ended" in n or "audit entry" in n]

    runs = [run for path in traces for run in read(path)]
    found = report.check(runs, history, tampered=True)
    assert not found.differences, report.text(found)
    assert [len(deadlines(run)) > 0 for run in runs] == [True, True]  # each of them led
    wrote = [{line.data["client"] for line in run.of("asked")} for run in runs]
    assert all(clients >= {"kopf", "pykube"} for clients in wrote), wrote

    def kinds(changed: Iterable[tuple[int, Key, Object | None]]) -> set[tuple[str, str]]:
        made = replay(history.revision, sorted(changed, key=lambda w: w[0]))
        expected = Expectations(quiet_after=history.revision, lease_tampered=True)
        return {(f.promise, f.kind) for f in judge(made, (), expected).findings}

    writes: Writes = [(c.revision, c.key, c.after) for c in history.changes]
    assert kinds(writes) == set()
    claim, pool = partial(key_of, writes, "addressclaims"), partial(key_of, writes, "addresspools")
    end = history.revision

    assert kinds([*writes, (end, claim("c2"), None)]) == {
        ("I7", "address left behind"),
        ("I7", "ConfigMap left behind"),
    }
    assert kinds([*writes, (end, claim("c0"), history.end[claim("c2")] | anew("c0"))]) == {
        ("I5", "given twice"),
        ("I5", "given without record"),
        ("I5", "conflict not shown"),
    }
    assert ("I7", "claim not served") in kinds([*writes, (end, claim("new"), bare(history.end[claim("c2")], "new"))])
    # the end of c0 is seen after its entry was dropped
    late = [(end if w[1] == claim("c0") and w[2] is None else w[0], *w[1:]) for w in writes]
    assert ("I5", "freed while held") in kinds(late)
    active = next(c.revision for c in history.changes if c.key == pool("red") and state(c.after) == "Active")
    second_token = token(history.end[pool("red")])
    early = without(writes, lambda w: w[1] == claim("early") and token(w[2]) == second_token and w[0] < active)
    assert kinds(early) == {("I4", "claim not stamped before the activation")}
    stamps = [w[0] for w in writes if w[1] == pool("small") and token(w[2]) == second_token]
    skipped = without(writes, lambda w: w[0] == stamps[0])
    assert ("I4", "decided before the stamp") in kinds(skipped)


def key_of(writes: Writes, resource: str, name: str) -> Key:
    found = next(key for _, key, _ in writes if key.resource == resource)
    return Key(found.group, resource, found.namespace, name)


def state(pool: Object | None) -> str:
    return str(((pool or {}).get("status") or {}).get("state") or "")


def anew(uid: str) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "name": uid}}


def bare(claim: Object, uid: str) -> Object:
    assert address(claim)
    return {"spec": claim["spec"], **anew(uid)}


def without(writes: Writes, left_out: Callable[[tuple[int, Key, Object | None]], bool]) -> Writes:
    assert any(map(left_out, writes))
    return [w for w in writes if not left_out(w)]
