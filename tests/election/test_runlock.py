"""The lock that proves an earlier process of the same pod dead, with processes that are killed."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster.waiting import until
from kopf_ha.election import RunLock
from kopf_ha.settings import Settings
from testbed.replica import SOURCE
from tests.election.world import settings

#: Holds the lock, and starts a program that outlives it, as handlers may.
PROCESS = """
import subprocess, sys, time
from kopf_ha.election import RunLock
from kopf_ha.settings import Settings
s = Settings(lease_name="op", lease_namespace="ns", identity=sys.argv[1], pod_uid="uid", run_dir=sys.argv[2])
RunLock(s, lambda dead: print("dead", dead, flush=True)).start()
print("started", flush=True)
if len(sys.argv) > 3:
    subprocess.Popen(["sleep", "60"])
time.sleep(60)
"""


class Process:
    def __init__(self, identity: str, folder: Path, *more: str) -> None:
        argv = [sys.executable, "-c", PROCESS, identity, str(folder), *more]
        self.popen = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(SOURCE)})
        assert self.popen.stdout is not None
        self.said = [self.popen.stdout.readline().strip()]
        while self.said[-1] != "started":
            self.said.append(self.popen.stdout.readline().strip())

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Process] = []

    def begin(identity: str, *more: str) -> Process:
        made.append(Process(identity, tmp_path, *more))
        return made[-1]

    yield begin
    for one in made:
        one.kill()


def mine(folder: Path, identity: str = "mine") -> Settings:
    return settings(identity).changed(run_dir=str(folder))


def lock(given: Settings) -> list[str]:
    """Start one in this process; what it tells goes into the list."""
    told: list[str] = []
    RunLock(given, told.append).start()
    return told


def test_a_process_that_was_killed_is_proven_dead(start: Start, tmp_path: Path) -> None:
    start("first").kill()
    second = start("second")
    assert second.said == ["dead first", "started"]
    second.kill()
    assert lock(mine(tmp_path)) == ["first", "second"]


def test_one_that_lives_is_not_until_it_dies(start: Start, tmp_path: Path) -> None:
    first = start("first")
    told = lock(mine(tmp_path))
    assert told == []
    first.kill()
    until("its end to be told", lambda: told == ["first"])


def test_one_that_is_stopped_lives(start: Start, tmp_path: Path) -> None:
    first = start("first")
    first.popen.send_signal(signal.SIGSTOP)
    never_held = start("second")
    never_held.kill()
    told = lock(mine(tmp_path))
    assert told == []
    first.kill()
    until("its end to be told", lambda: told)
    assert told == ["first"], "nothing is proven of one that never held the lock"


def test_programs_that_it_started_do_not_keep_the_lock(start: Start, tmp_path: Path) -> None:
    start("first", "sleep").kill()
    told = lock(mine(tmp_path))
    # Not at once: killed between fork and exec, the program has the open file for a moment.
    until("its end to be told", lambda: told == ["first"])


def test_another_pod_s_process_proves_nothing(start: Start, tmp_path: Path) -> None:
    start("first").kill()
    assert lock(mine(tmp_path).changed(pod_uid="other")) == []


def test_a_folder_that_cannot_be_used_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert lock(mine(tmp_path / "nowhere")) == []
    assert "so a restarted leader waits for its Lease: [Errno 2]" in caplog.text
    caplog.clear()
    assert lock(settings("mine")) == []
    assert not caplog.text


def test_a_file_that_was_cut_proves_nothing_of_others(tmp_path: Path) -> None:
    path = tmp_path / "kopf-ha-op-uid.lock"
    path.write_bytes(b"lead_u1_aa\n\xff\xfe\nlead_u")
    told = lock(mine(tmp_path, "lead_u1_bb"))
    assert told[0] == "lead_u1_aa"
    assert "lead_u1_bb" not in told
    assert path.read_text(errors="replace").endswith("lead_u\nlead_u1_bb\n")


def test_a_full_disk_costs_a_warning_and_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a link to /dev/full: its lock is one for the whole machine, and other runs of this test hold it."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kopf_ha.election.runlock.os.pwrite", full)
    assert lock(mine(tmp_path)) == []
    assert "so a restarted leader waits for its Lease: [Errno 28]" in caplog.text
