"""Traces of several replicas, joined with the history of what the API server stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from judge import History, Key
from judge.history import replay
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import MERGE_PATCH, Request
from replay import join, read
from tests.core.fake_api import CHILD, WIDGET, Attempt, FakeApi, patch, stamp, write
from tests.election.world import FakeLease
from tests.replay.traced import Elected, TracedProcess, alter, differences, numbers


class Replicas:
    """Two terms, each of a process of its own, and what the API server stored of their writes."""

    def __init__(self, folder: Path) -> None:
        self.api = FakeApi()
        self.folder = folder
        self.files: list[Path] = []
        self.lease = FakeLease()
        self.started = self.api.version

    def lead(self, token: int) -> TracedProcess:
        """Let the next process lead; the grant that its election opens is that of its writes."""
        mine = stamp(token)
        file = self.folder / f"{mine.holder}.trace"
        self.files.append(file)
        process = TracedProcess(self.api, mine, file)
        self.lease.create({"spec": {"holderIdentity": "", "leaseTransitions": token - 1}})
        elected = Elected(self.lease, process.trace, mine.holder, mine.pod_uid)
        elected.take(elected.client.read(1.0))
        (process.grant,) = elected.grants
        self.api.elect(mine)
        return process

    @property
    def history(self) -> History:
        """The history, from what the server accepted; a kind's definition and the Lease are not in it."""
        made = []
        for one in self.api.accepted:
            place = self.api.place(one.request.path)
            body = one.after
            name = place.name or (body or {})["metadata"]["name"]
            at = int((body or {})["metadata"]["resourceVersion"])
            made.append((at, Key(place.group, place.resource, place.namespace, name), body))
        return replay(self.api.version, made)

    def differences(self, **how: bool) -> list[str]:
        runs = [run for file in self.files for run in read(file)]
        assert all(differences(file) == [] for file in self.files)
        return [found.sentence for found in join(runs, self.history, **how)]


STATUS: dict[str, Any] = {"status": {"s": 1}}


@pytest.fixture
def two(tmp_path: Path) -> Replicas:
    made = Replicas(tmp_path)
    made.api.put(WIDGET, {}, stamp(6))
    return made


def take_over(two: Replicas) -> tuple[TracedProcess, TracedProcess]:
    """Write in term 7 and in term 8."""
    old = two.lead(7)
    old.send(patch(WIDGET + "/status", STATUS))
    old.send(write("POST", CHILD.removesuffix("/x"), {"metadata": {"name": "x"}, "data": {"k": "v"}}))
    new = two.lead(8)
    new.send(patch(WIDGET + "/status", {"status": {"s": 2}}))
    new.send(patch(CHILD, {"data": {"k": "w"}}))
    return old, new


def test_a_takeover_fits(two: Replicas) -> None:
    take_over(two)
    assert len(two.history.changes) == 4
    assert two.differences() == []


def test_a_write_whose_answer_was_lost_fits(two: Replicas) -> None:
    me = two.lead(7)
    attempt = me.attempt(patch(WIDGET + "/status", STATUS))
    while "PATCH" not in [r.method for _, r in two.api.log]:
        attempt.step() if attempt.pending and attempt.pending.method != "PATCH" else two.api.handle(attempt.pending)  # type: ignore[arg-type]
    assert two.differences() == []


def test_a_stamp_that_nobody_sent_is_found(two: Replicas) -> None:
    take_over(two)
    forged = patch(WIDGET + "/status", {"status": {"fencing": stamp(9).as_status()}})
    two.api.handle(forged, "somebody")
    (found,) = two.differences()
    assert "widgets a/x was stamped with token 9 of pod9 at revision" in found
    assert "no trace says who sent that" in found
    assert two.differences(some=True) == []


def test_an_earlier_leader_that_writes_late_is_found(two: Replicas) -> None:
    """Straight past its fence, with the stamp that its successor put there: the object shows nothing wrong."""
    old, _ = take_over(two)
    late = old.attempt(patch(CHILD, {"data": {"k": "late"}}))
    # The server takes it although the object is its successor's, as if there were neither revision nor policy.
    two.api.edit(CHILD, lambda body: None)
    bare = Request("PATCH", CHILD, content_type=MERGE_PATCH, body=b'{"data":{"k":"late"}}')
    answer = two.api.handle(bare, "pod7")
    assert answer.ok
    finish(late, answer)
    found = two.differences(some=True)
    assert any("with token 7 of pod7 was accepted" in one and "records token 8 of pod8" in one for one in found)
    assert any("after a write of configmaps a/x with token 8 of pod8" in one for one in found)


def finish(attempt: Attempt, answer: Any) -> None:
    """Give the answer to what is under way, as the network would."""
    attempt._advance(lambda: attempt.flow.send(answer))


def test_a_revision_that_the_history_does_not_have_is_found(two: Replicas) -> None:
    take_over(two)
    file = two.files[0]
    answered = [n for n in numbers(file, "answered") if '"uid"' in file.read_text().splitlines()[n - 1]][-1]
    alter(file, answered, lambda data: data["answer"]["body"]["metadata"].update(resourceVersion="3"))
    runs = [run for one in two.files for run in read(one)]
    found = [one.sentence for one in join(runs, two.history)]
    assert any("was answered with revision 3, at which the history has nothing" in one for one in found)


def test_a_token_that_two_elections_gave_is_found(two: Replicas, tmp_path: Path) -> None:
    take_over(two)
    other = TracedProcess(two.api, Stamp(8, "other", "ns/op", "uid-other"), tmp_path / "other.trace")
    two.files.append(tmp_path / "other.trace")
    two.lease.create({"spec": {"holderIdentity": "", "leaseTransitions": 7}})
    elected = Elected(two.lease, other.trace, "other", "uid-other")
    elected.take(elected.client.read(1.0))
    assert two.differences() == ["token 8 was given to pod8 and to other"]
    assert two.differences(tampered=True) == []


def test_a_deadline_that_no_election_gave_is_found(two: Replicas) -> None:
    me = two.lead(7)
    me.grant.extend(me.grant.deadline + 1)
    me.send(patch(WIDGET + "/status", STATUS))
    found = two.differences()
    assert found
    assert all("which the election did not give to that token" in one for one in found)


def test_what_others_write_is_not_judged(two: Replicas) -> None:
    take_over(two)
    two.api.handle(patch(WIDGET, {"spec": {"theirs": 1}}), "user")
    two.api.handle(write("POST", CHILD.removesuffix("/x"), {"metadata": {"name": "y"}}), "user")
    assert two.differences() == []


def test_dry_runs_and_conflicts_are_no_writes(two: Replicas) -> None:
    me = two.lead(7)
    me.send(patch(WIDGET + "/status", STATUS))
    me.send(patch(WIDGET, {"spec": {"s": 1}}, query="dryRun=All"))
    me.send(patch(WIDGET, {"metadata": {"resourceVersion": "1"}, "spec": {"s": 1}}))
    assert two.differences() == []
