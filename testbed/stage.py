"""A cluster with nodes, the operator on them, and what a user sees of it with kubectl.

It is one of `python -m devcluster up --nodes`, known by its record; a user would know it by its kubeconfig.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import judge
from devcluster.waiting import until
from judge import audit
from testbed.deployment import ACCOUNT, NAME, ROOT, SELECTOR

#: Seconds; generous, since a test waits for what has to happen, however slow the machine is.
LIMIT = 120.0


class Stage:
    """What a user does and sees, and the processes behind it.

    Args:
        record: of the cluster.
        env: further variables for shells.
    """

    def __init__(self, record: dict[str, Any], **env: str) -> None:
        self.record = record
        kubectl = Path(record["kubectl"])
        self.env = os.environ | {
            "KUBECONFIG": record["kubeconfig"],
            "KUBECACHEDIR": str(Path(record["kubeconfig"]).with_name("kubectl-cache")),
            "KUBERC": "off",
            "PATH": f"{kubectl.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.env |= env

    # --- as a user

    def shell(self, commands: str, timeout: float = 3 * LIMIT) -> str:
        """Run commands in the project's folder, all of which must succeed."""
        argv = ["bash", "-euo", "pipefail", "-c", commands]
        done = subprocess.run(argv, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:
        """Run kubectl, which must succeed, and give what it says."""
        argv = [self.record["kubectl"], *args]
        done = subprocess.run(argv, cwd=ROOT, env=self.env, input=input, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0 or not check, f"{args}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def background(self, *args: str, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
        """Run a kubectl meanwhile, as a user in another window."""
        argv = [self.record["kubectl"], *args]
        with subprocess.Popen(argv, env=self.env, stdout=stdout, stderr=subprocess.DEVNULL, text=True) as child:
            try:
                yield child
            finally:
                child.kill()

    def get(self, *args: str) -> Any:
        """Give an object, or a list's items."""
        body = json.loads(self.kubectl("get", *args, "-o", "json"))
        return body.get("items", body)

    def rolled_out(self, namespace: str = NAME) -> None:
        """Wait until the Deployments are as they should be."""
        self.kubectl("-n", namespace, "rollout", "status", "deployment", f"--timeout={LIMIT - 5:g}s")

    # --- who leads

    def lease(self, namespace: str = NAME, name: str = NAME) -> tuple[str, int]:
        """Give the Lease's holder identity, empty for none, and its token."""
        found = self.kubectl("-n", namespace, "get", "lease", name, "-o", "json", "--ignore-not-found", check=False)
        spec = json.loads(found or '{"spec": {}}')["spec"]
        return spec.get("holderIdentity") or "", spec.get("leaseTransitions") or 0

    def leader(self) -> str:
        """Give the leader's pod, once there is one."""
        return until("a leader", lambda: self.lease()[0].split("_")[0], LIMIT, 0.2)

    def next_leader(self, token: int) -> str:
        """Wait for a leader with a higher token; give its pod."""

        def look() -> str:
            holder, now = self.lease()
            return holder.split("_")[0] if now > token else ""

        return until(f"a leader with a token above {token}", look, LIMIT, 0.1)

    def pods(self) -> list[dict[str, Any]]:
        """Give the replicas' pods."""
        return list(self.get("pods", "-n", NAME, "-l", SELECTOR))

    def pod(self, name: str, namespace: str = NAME) -> dict[str, Any]:
        """Give a pod."""
        return dict(self.get("pod", name, "-n", namespace))

    # --- behind it

    def process_of(self, uid: str) -> int:
        """Give the process id, on this machine, of the operator in the pod with that uid."""
        wanted = f"POD_UID={uid}".encode()
        return _find(lambda entry: wanted in (entry / "environ").read_bytes().split(b"\0"), f"of pod {uid}")

    def program(self, name: str, *arguments: str) -> int:
        """Give the process id of one of the cluster's programs, of several by arguments that it was given."""
        state = str(Path(self.record["kubeconfig"]).parent)

        def matches(entry: Path) -> bool:
            line = (entry / "cmdline").read_text().split("\0")
            return line[0].endswith(f"/{name}") and {*arguments} <= {*line} and state in " ".join(line)

        return _find(matches, f"of {name} {' '.join(arguments)}")

    @contextmanager
    def stopped_kubelet(self, node: str) -> Iterator[None]:
        """Have the kubelet of a node stand still."""
        pid = self.program("kubelet", f"--hostname-override={node}")
        parent = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in (parent, pid):  # what waits for it outside has stopped with it
                os.kill(each, signal.SIGCONT)

    def audited(self, since: float = 0.0) -> Iterator[dict[str, Any]]:
        """Give the audit log's events that ended after `since` (seconds since the epoch)."""
        for path in self.record["audit_logs"]:
            for line in Path(path).read_text().splitlines():
                event = json.loads(line)
                event["at"] = seconds(event["stageTimestamp"])
                if event["at"] > since:
                    yield event

    def history(self) -> judge.History:
        """Read all that ever happened."""
        r = self.record
        return judge.read_history(r["etcd"][0], r["etcd_ca"], r["etcd_cert"], r["etcd_key"])

    def verdict(self, history: judge.History | None = None, **expectations: Any) -> judge.Verdict:
        """Have the judge look at all that ever happened."""
        expected = judge.Expectations(operator_user=ACCOUNT, lease_names=(f"{NAME}/{NAME}",), **expectations)
        return judge.judge(history or self.history(), judge.read_audit(self.record["audit_logs"]), expected)


def _find(matches: Any, what: str) -> int:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and matches(entry):
                return int(entry.name)
        except (OSError, UnicodeDecodeError):
            pass  # it ended
    raise LookupError(f"there is no process {what}")


def seconds(timestamp: str) -> float:
    """Give an audit log's time as seconds since the epoch."""
    return datetime.datetime.fromisoformat(re.sub(r"Z$", "+00:00", timestamp)).timestamp()


def writer(event: dict[str, Any]) -> str:
    """Give the uid of the pod that sent a request; empty for others."""
    uids = (event["user"].get("extra") or {}).get("authentication.kubernetes.io/pod-uid") or [""]
    return str(uids[0])


def is_fenced_write(event: dict[str, Any]) -> bool:
    """Whether it is a write that was accepted, of what the fence is for."""
    entry = audit.parse(event)
    return entry.write and entry.accepted and entry.resource in ("addresspools", "addressclaims", "configmaps")
