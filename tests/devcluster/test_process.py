"""A child does as it is told, and never outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from devcluster import DevclusterError, Process
from devcluster.waiting import until

ROOT = Path(__file__).parents[2]


def state_of(pid: int) -> str:
    """The kernel's letter for it, '' if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def gone(pid: int) -> bool:
    return state_of(pid) in ("", "Z")


def test_runs_with_its_environment_and_logs_every_run(tmp_path: Path) -> None:
    process = Process("echo", ["/bin/sh", "-c", 'echo "$WORD"; exit 3'], {"WORD": "hello"}, tmp_path / "logs" / "log")
    for _ in range(2):
        process.start()
        assert process.wait(30) == 3
    assert process.log_tail() == "hello\nhello"
    with pytest.raises(DevclusterError, match="echo ended with status 3; its log ends with:\nhello"):
        process.check_running()


def test_stop_ends_what_ignores_the_request_and_what_is_paused(tmp_path: Path) -> None:
    stubborn = Process(
        "stubborn", ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], None, tmp_path / "log"
    )
    with stubborn:
        until("the trap", lambda: stubborn.log_tail())
        assert stubborn.stop(timeout=0.1) == -signal.SIGKILL
    with Process("paused", ["sleep", "600"]) as paused:
        paused.pause()
        assert state_of(paused.pid or 0) == "T"
        assert paused.stop() == -signal.SIGTERM
    with Process("resumed", ["sleep", "600"]) as resumed:
        resumed.pause()
        resumed.resume()
        until("it to go on", lambda: state_of(resumed.pid or 0) == "S")


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(DevclusterError, match="cannot run no-such-program"):
        Process("x", ["no-such-program"]).start()


def test_outlives_the_thread_that_started_it() -> None:
    process = Process("sleep", ["sleep", "600"])
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()
    try:
        # a signal sent at that thread's end would be there by now: signals precede the join's return
        assert process.running
        assert process.pid is not None
        until("the program to be executed", lambda: b"600" in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:20])
        assert process.running
    finally:
        process.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ends_with_its_parent(number: signal.Signals) -> None:
    code = (
        "import time; from devcluster import Process; p = Process('x', ['sleep', '600']); p.start();"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    parent.send_signal(number)
    parent.wait()
    until("the child to be gone", lambda: gone(child))
