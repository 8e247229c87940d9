"""The end of the process, while its threads are busy with an API server that is away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from devcluster.waiting import until

ROOT = Path(__file__).parents[2]
OPERATOR = "import kopf\n@kopf.on.event('example.dev', 'v1', 'things')\ndef seen(**_): pass\n"
#: Each of them ended by an abort with a chance of one to four in ten.
MANY = 8


def test_it_ends_with_the_status_that_it_means(tmp_path: Path) -> None:
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
        pod = {"POD_NAME": "p", "POD_UID": "u", "POD_NAMESPACE": "n"}
        env = os.environ | pod | {"KUBECONFIG": str(tmp_path / "config"), "PYTHONPATH": str(ROOT / "operator")}
        for number in range(MANY):
            log = tmp_path / f"log-{number}"
            argv = [sys.executable, "-m", "kopf_ha", "run", "-A", "op.py"]
            with (
                log.open("wb") as out,
                subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=out, stderr=out) as replica,
            ):
                try:
                    until("it to follow", lambda log=log: "follows Lease" in log.read_text(), 120, 0.005)  # type: ignore[misc]
                    replica.send_signal(signal.SIGTERM)
                    assert replica.wait(120) == 0, log.read_text()
                finally:
                    replica.kill()
