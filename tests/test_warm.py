"""A replica that is a fork is told from one that was started the usual way by nothing but its start."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from devcluster.waiting import until
from testbed.replica import Replica

SCRIPT = """
import json, os, sys, threading
import kubernetes.config.kube_config
said = {
    "argv": sys.argv, "again": sys.orig_argv[1:], "name": __name__, "file": __file__, "folder": os.getcwd(),
    "path": sys.path[:3], "environment": dict(os.environ), "imported": "kopf_ha" in sys.modules,
    "config": kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION, "leads": os.getsid(0) == os.getpid(),
    "threads": threading.active_count(),
}
print(json.dumps(said))
if sys.argv[1:] == ["wait"]:
    threading.Event().wait()
sys.exit(3)
"""


def replica(folder: Path, *arguments: str, warm: bool) -> Replica:
    (folder / "op").mkdir(exist_ok=True)
    script = folder / "op" / "script.py"
    script.write_text(SCRIPT)
    log, env = folder / f"{warm}.log", {"KOPF_HA_X": "1"}
    return Replica("it", folder / "config", arguments, log, env=env, program=(script,), cwd=folder, warm=warm)


def said(folder: Path, warm: bool) -> dict[str, Any]:
    one = replica(folder, "a", "b", warm=warm)
    one.start()
    assert one.wait() == 3
    return dict(json.loads(one.log))


def test_it_finds_the_same_in_a_fork(tmp_path: Path) -> None:
    cold, warm = (said(tmp_path, warm) for warm in (False, True))
    assert warm == cold
    assert warm["config"] == str(tmp_path / "config")


def test_a_module_runs_as_well(tmp_path: Path) -> None:
    one = Replica("it", os.devnull, ["--version"], tmp_path / "log", warm=True)
    one.start()
    assert one.wait() == 0
    assert "kopf-ha, version" in one.log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_paused_and_ends_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    one = replica(tmp_path, "wait", warm=True)
    with one:
        until("it to be there", lambda: one.log.endswith("\n"))
        one.pause()
        assert one.running
        state = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "T"
        one.resume()
        one.signal(number)
        assert one.wait() == -number
        assert one.returncode == -number
    one.start()  # the same replica again
    assert one.running
    one.kill()
