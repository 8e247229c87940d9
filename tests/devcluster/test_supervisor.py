"""The supervisor's end by signals, without a cluster."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.page import ROOT

PROGRAM = """
import os, signal, time
from devcluster.supervisor import StopRequested, catch_signals

def signalled():
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000):
        pass  # the handler is called between two of these

class Finalized:
    def __del__(self):
        signalled()

catch_signals()
try:
    {where}
    time.sleep(60)
except StopRequested:
    print("stopped")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("where", ["signalled()", "Finalized()"])
def test_a_signal_ends_it_wherever_the_main_thread_is(name: str, where: str) -> None:
    """Python drops an exception that is raised in a finalizer."""
    program = PROGRAM.format(name=name, where=where)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr, done.returncode) == ("stopped\n", "", 0)
