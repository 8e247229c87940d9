"""The end of the process, while its threads are busy with an API server that is away.

The interpreter's last steps end such threads in the middle of C code, which aborts the process with a chance of one to
four in ten. So what is tested is that these steps are never begun.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from devcluster.waiting import until
from testbed.replica import PATIENCE, Replica

OPERATOR = """
import atexit
import kopf

atexit.register(print, "a callback of the operator's own", end="")

@kopf.on.event('example.dev', 'v1', 'things')
def seen(**_): pass
"""
#: What is registered first is called last, by an interpreter that goes on to its last steps then.
BEFORE = "import atexit, os, runpy; atexit.register(os.write, 2, b'the last steps begin'); "
WAYS = {
    "python -m kopf_ha": "runpy.run_module('kopf_ha', run_name='__main__', alter_sys=True)",
    "kopf-ha": "from kopf_ha.cli import entry; entry()",
}


@pytest.mark.parametrize("way", WAYS)
def test_it_ends_with_the_status_that_it_means(tmp_path: Path, way: str) -> None:
    (tmp_path / "op.py").write_text(OPERATOR)
    with socket.socket() as closed:  # a port that refuses everybody, so that its threads come and go
        closed.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{closed.getsockname()[1]}"
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        (tmp_path / "config").write_text(json.dumps(config))
        env = {"POD_NAME": "p-0", "POD_UID": "u", "POD_NAMESPACE": "n"}
        program, arguments = ("-c", BEFORE + WAYS[way]), ["run", "-A", "op.py"]
        log = tmp_path / "log"
        with Replica(
            "op", tmp_path / "config", arguments, log, times={}, env=env, program=program, cwd=tmp_path
        ) as replica:
            until("it to follow", lambda: "follows Lease" in log.read_text(), PATIENCE, 0.005)
            replica.terminate()
            assert replica.wait() == 0, log.read_text()
        said = log.read_text()
        assert "the last steps begin" not in said, said
        assert said.endswith("a callback of the operator's own"), "callbacks run, and what they print is not lost"
