"""A leader whose container is restarted in its pod leads at once: the kernel proves that the one before is dead."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.run.support import Replica, World

LONG = ("op.py", "--lease-duration=600", "--renew-deadline=400")


def test_a_restarted_container_does_not_wait_for_its_own_lease(
    replica: Callable[..., Replica], world: World, tmp_path: Path
) -> None:
    env = {"POD_NAME": "mine", "POD_UID": "u1", "POD_NAMESPACE": world.namespace}
    run_dir = (f"--run-dir={tmp_path}", "--no-fast-failover")
    one = replica("", *LONG, *run_dir, env=env)
    one.see("leading: token 1")
    one.signal(signal.SIGKILL)
    one.wait()
    two = replica("", *LONG, *run_dir, env=env)
    two.see("leading: token 2")
    assert "not in a pod" not in two.log
    # Another pod has no part in that.
    three = replica("", *LONG, *run_dir, env=env | {"POD_NAME": "other", "POD_UID": "u2"})
    three.see("new leader: mine_u1_")
    two.signal(signal.SIGKILL)
    two.wait()
    assert world.lease()["holderIdentity"].startswith("mine_u1_")
    assert three.running
    assert "leading:" not in three.log
