"""Memory that threads of former terms used goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

#: As terms do: each in a thread of its own, beside other threads, with many buffers at once.
TERMS = """
import threading
from kopf_ha.run.giveback import give_back

def memory():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) // 1024

kept = []

def term():
    buffers, small = [bytearray(256 * 1024) for _ in range(80)], [bytes(3000) for _ in range(320)]
    kept.append(small[::16])

def one(others):
    done = threading.Event()
    beside = [threading.Thread(target=lambda: (bytearray(1000), done.wait())) for _ in range(others)]
    for thread in beside:
        thread.start()
    leads = threading.Thread(target=term)
    leads.start()
    leads.join()
    done.set()
    for thread in beside:
        thread.join()

one(0)
give_back()
before = memory()
for n in range(6):
    one(2 * n)
grown = memory()
give_back()
print(before, grown, memory())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_terms_used_goes_back() -> None:
    said = subprocess.run([sys.executable, "-c", TERMS], capture_output=True, text=True, check=True).stdout
    before, grown, after = map(int, said.split())
    assert grown > before + 40, "the test shows nothing: threads share their memory here"
    assert after < before + (grown - before) / 3
