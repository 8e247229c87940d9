"""What happens to processes: paused, killed, starved, blocked; two where one should be."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from faults import cgroup
from faults.account import expiring
from faults.handlers import DO, POD, SECONDS
from faults.stutter import Stutter
from faults.table import EVERY, Fault, Scene, Where

#: The writes of one allocation, from the finalizer to the last note.
WRITES = 5
LET_GO = "the Lease is released or proved to be free, and a term begins"


def pause(s: Scene) -> None:
    """SIGSTOP."""
    s.leader.replica.pause()


def resume(s: Scene) -> None:
    """SIGCONT."""
    s.leader.replica.resume()


def kill(s: Scene) -> None:
    """SIGKILL; the container is started again."""
    s.leader.kill()


def kill_all(s: Scene) -> None:
    """SIGKILL to all; their containers are started again."""
    for seat in s.stand.seats:
        seat.kill()


def gone(s: Scene) -> None:
    """SIGKILL, and nobody starts it again."""
    s.leader.kill(again=False)


def revive(s: Scene) -> None:
    """Start it again."""
    s.leader.revive()


def terminate(s: Scene) -> None:
    """SIGTERM; the container is started again."""
    s.leader.replica.terminate()


def stutter(s: Scene) -> None:
    """Let it run for a twentieth of the time only, in turns of a fifth of its lease."""
    s.memory["stutter"] = Stutter(s.leader.replica.pid, still=s.lease / 5 * 0.95, runs=s.lease / 5 * 0.05)


def steady(s: Scene) -> None:
    """Let it run again."""
    s.memory["stutter"].end()


def harmful(what: str, leases: float = 2.0) -> Callable[[Scene], None]:
    """Have a handler do harm."""

    def put(s: Scene) -> None:
        notes = {DO: what, SECONDS: f"{leases * s.lease:g}", POD: s.leader.name}
        s.memory["claim"] = s.stand.users.claim(annotations=notes)
        s.stand.users.disown(s.memory["claim"])  # while its handler hangs, nobody can serve it

    return put


def harmless(s: Scene) -> None:
    """Delete the claim whose handler does harm. What runs already goes on."""
    s.stand.users.delete(s.memory["claim"])


def harm_and_end(what: str) -> Callable[[Scene], None]:
    """Have a handler do harm, and ask the leader to end while it does."""

    def put(s: Scene) -> None:
        harmful(what, 20)(s)
        time.sleep(s.lease / 2)
        s.leader.replica.terminate()

    return put


def twin(s: Scene) -> None:
    """Start a second process in the leader's pod, and pause the first."""
    made = s.leader.twin()
    made.see("leading: |new leader: |follow")
    s.leader.replica.pause()
    s.memory["twin"] = made


def same(s: Scene) -> None:
    """Start another process with the same identity in the leader's pod, and pause the first."""
    made = s.leader.twin(FAULTS_IDENTITY=s.stand.lease()[0])
    made.see("leading: |new leader: |follow")
    s.leader.replica.pause()
    s.memory["twin"] = made


def without_twin(s: Scene) -> None:
    """Continue the first, and end the second."""
    s.leader.replica.resume()
    time.sleep(s.lease / 2)
    s.memory["twin"].stop()


def expire(s: Scene) -> None:
    """Have the leader use a token that expires in a moment, in a new process."""
    s.leader.write_bearer(expiring(s.stand.plane, s.leader.bearer, s.lease))
    s.leader.kill()


def renewed(s: Scene) -> None:
    """Give it a token that lives, as a kubelet does in time."""
    s.leader.write_bearer(s.leader.bearer)
    s.leader.kill()


def squeeze(s: Scene) -> None:
    """Limit its memory to less than it has."""
    assert s.leader.group is not None  # noqa: S101  `no_memory_groups` was asked
    s.leader.group.squeeze()


def loosen(s: Scene) -> None:
    """Lift the limit."""
    assert s.leader.group is not None  # noqa: S101
    s.leader.group.loosen()


def no_memory_groups(_: object) -> str:
    """Say why memory cannot be limited."""
    return cgroup.missing()


_PAUSED = Fault("leader paused (SIGSTOP), others lead, it goes on", pause, resume, taken=True)

ROWS = [
    *(replace(_PAUSED, where=where) for where in EVERY),
    Fault(
        "leader paused for half of its lease",
        pause,
        resume,
        hold=0.5,
        heals=False,
        bound=1.0,
        raw=False,
        why="nothing is lost; what waited is done",
    ),
    Fault("leader asked to end (SIGTERM)", terminate, bound=1.0, why=LET_GO),
    *(
        Fault(f"leader killed after write {n} of an allocation", kill, where=Where.AFTER, nth=n, deliver=False)
        for n in range(1, WRITES + 1)
    ),
    Fault("leader killed before its write leaves", kill, where=Where.BEFORE, deliver=False),
    Fault("leader killed, its last write arrives after the takeover", gone, revive, where=Where.BEFORE, taken=True),
    Fault(
        "all replicas killed at once", kill_all, bound=3.0, why="a process starts, and perhaps the Lease expires first"
    ),
    Fault(
        "leader runs for a twentieth of the time",
        stutter,
        steady,
        hold=2.0,
        bound=3.0,
        why="it renews late or not at all, or serves slowly",
    ),
    Fault(
        "leader's memory is limited to less than it has",
        squeeze,
        loosen,
        cannot=no_memory_groups,
        bound=3.0,
        why="the kernel ends it, or it renews late",
    ),
    Fault(
        "event loop blocked for two leases",
        harmful("block", 2.0),
        harmless,
        bound=3.0,
        why="no sign of life for a renew deadline, the Lease expires or is released, a term begins",
    ),
    Fault("a handler never ends", harmful("wait"), harmless, bound=1.0, why="the others' handlers run", raw=False),
    Fault(
        "a handler never ends, and the leader is asked to end",
        harm_and_end("wait"),
        harmless,
        bound=1.0,
        seconds=10.0,
        why="drain timeout, then a release and a term",
    ),
    Fault(
        "a handler in a thread never ends, and the leader is asked to end",
        harm_and_end("sleep"),
        harmless,
        bound=2.0,
        seconds=10.0,
        why="drain timeout, the process ends without a release, the Lease expires, a term begins",
    ),
    Fault("two processes in one pod, the leader paused", twin, without_twin, bound=2.0, taken=True, raw=False),
    Fault("two processes with one identity, the leader paused", same, without_twin, bound=2.0, taken=True, raw=False),
    Fault(
        "leader's service-account token expires",
        expire,
        renewed,
        bound=2.0,
        seconds=0.0,
        hold=4.0,
        taken=True,
        raw=False,
        why="renewals get 401, the Lease expires, a term begins",
    ),
]
