"""`kopf-ha exec`: which command is run, and that what it runs sees itself as it would without."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from devcluster.waiting import until
from kopf_ha.cli import main
from kopf_ha.errors import ConfigurationError
from kopf_ha.run.program import command
from testbed import replica as testbed
from testbed.replica import SOURCE
from tests.run.support import GROUP, LONG, World

IN_FRONT = ["-m", "kopf_ha.run.program"]


@pytest.mark.parametrize(
    ("words", "flags", "rest"),
    [
        ("-m their.main --x", "", "-m their.main --x"),
        ("main.py -m y", "", "main.py -m y"),
        ("-u main.py", "-u", "main.py"),
        ("-um their.main -v", "-u", "-m their.main -v"),
        ("-mtheir.main", "", "-m their.main"),
        ("-W ignore -Xdev -OO main.py", "-W ignore -X dev -OO", "main.py"),
        ("-c code -m x", "", "-c code -m x"),
        ("--check-hash-based-pycs always main.py", "--check-hash-based-pycs always", "main.py"),
    ],
)
def test_the_fence_is_put_in_front_of_the_program(words: str, flags: str, rest: str) -> None:
    for name in (sys.executable, "python3"):
        program, *made = command([name, *words.split()])
        assert os.path.basename(program).startswith("python")
        assert made == [*flags.split(), *IN_FRONT, *rest.split()]


def script(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
    return str(file)


@pytest.mark.parametrize(
    ("first", "interpreter"),
    [
        ("#!/usr/bin/env python3", ["python3"]),
        ("#!/usr/bin/env -S python3.12 -u", ["python3.12", "-u"]),
        ("#!/venv/bin/python -E", ["/venv/bin/python", "-E"]),
    ],
)
def test_a_script_is_run_by_the_interpreter_that_it_names(tmp_path: Path, first: str, interpreter: list[str]) -> None:
    one = script(tmp_path, "operator", f"{first}\n")
    assert command([one, "run", "-A"]) == [*interpreter, *IN_FRONT, one, "run", "-A"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["no-such-program"], "no-such-program: no such program"),
        (["python3"], "name the program after python"),
        (["python3", "-u"], "name the program after python"),
        (["python3", "-m"], "name the program after python"),
        (["python3", "-"], "name the program after python"),
        (["sh", "-c", "exec python main.py"], "is no Python program, so the fence cannot be put into it; if it starts"),
    ],
)
def test_what_cannot_be_fenced_is_refused(words: list[str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        command(words)


def test_options_reach_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[object] = []
    monkeypatch.setattr("os.execvpe", lambda *args: got.extend(args))
    words = ["exec", "--lease-name=x", "--deciding=a.b", "--deciding=c.d", "--unsafe-fence", "--", "python3", "-m", "y"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    _, argv, env = got
    assert isinstance(argv, list)
    assert isinstance(env, dict)
    assert argv[-4:] == [*IN_FRONT, "-m", "y"]
    mine = {name: value for name, value in env.items() if name.startswith("KOPF_HA_") and name not in os.environ}
    assert mine == {"KOPF_HA_LEASE_NAME": "x", "KOPF_HA_DECIDING": "a.b,c.d", "KOPF_HA_UNSAFE": "True"}


def test_a_wrong_option_is_known_before_the_program_runs() -> None:
    done = CliRunner().invoke(main, ["exec", "--lease-duration=0", "--", "python3", "-m", "y"])
    assert done.exit_code == 2
    assert "--lease-duration" in done.output
    assert CliRunner().invoke(main, ["exec"]).exit_code == 2


# --- how a program sees itself

LOOK = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "name": __name__, "path": sys.path[0], "file": globals().get("__file__"), "pid": os.getpid(),
    "main": sys.modules["__main__"].__dict__ is globals(), "spec": __spec__ and __spec__.name,
    "flags": [sys.flags.optimize, sys.flags.utf8_mode],
}))
raise SystemExit(5)
"""


@pytest.mark.parametrize("words", ["-m their.look -x 1", "their/look.py y", "-O -X utf8 their/look.py", "-c CODE z"])
def test_a_program_sees_itself_as_without(tmp_path: Path, words: str) -> None:
    package = tmp_path / "their"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "look.py").write_text(LOOK)
    argv = [LOOK.replace("__spec__ and __spec__.name", "None") if word == "CODE" else word for word in words.split()]
    seen = []
    for front in ([], ["-m", "kopf_ha", "exec", "--", sys.executable]):
        env = os.environ | {"PYTHONPATH": str(SOURCE)}
        with subprocess.Popen(
            [sys.executable, *front, *argv], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
        ) as one:
            out, _ = one.communicate(timeout=60)
        assert one.returncode == 5
        found = json.loads(out)
        assert found.pop("pid") == one.pid, "so that signals reach it"
        seen.append(found)
    assert seen[0] == seen[1]


# --- an operator with a main of its own

PREAMBLE = f"""
import asyncio, sys, threading
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.finalizer = "{GROUP}/finalizer"

@kopf.on.create("{GROUP}", "v1", "things")
def made(name, patch, **_):
    patch.spec["done"] = True

@kopf.on.cleanup()
def end(**_):
    print("cleaned up", flush=True)

"""
#: How programs start their operator, from Kopf's documentation and the field.
WAYS = {
    "run": "kopf.run(clusterwide=True)",
    "operator": "asyncio.run(kopf.operator(clusterwide=True))",
    "thread": """
stop = threading.Event()
thread = threading.Thread(target=lambda: asyncio.run(kopf.operator(clusterwide=True, stop_flag=stop)))
thread.start()
import signal
signal.signal(signal.SIGTERM, lambda *_: stop.set())
thread.join()
""",
    "tasks": """
async def app():
    existing = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(clusterwide=True)
    await kopf.run_tasks(tasks, ignored=existing)
asyncio.run(app())
""",
    "command": """
from kopf.cli import main
sys.argv = ["kopf", "run", "-A"]
main(standalone_mode=False)
""",
}


@pytest.fixture
def program(world: World, tmp_path: Path) -> Callable[..., testbed.Replica]:
    def make(code: str, *front: str) -> testbed.Replica:
        (tmp_path / "main.py").write_text(PREAMBLE + code + '\nprint("the end of main", flush=True)\nsys.exit(7)\n')
        env = {"KOPF_HA_LEASE_NAMESPACE": world.namespace}
        return testbed.Replica(
            "main",
            world.cluster.kubeconfig,
            [*front, "--lease-name=op", "--", sys.executable, "main.py"],
            tmp_path / "log",
            env=env,
            cwd=tmp_path,
        )

    return make


@pytest.mark.parametrize("way", WAYS)
def test_an_operator_with_a_main_of_its_own(world: World, program: Callable[..., testbed.Replica], way: str) -> None:
    """It handles in a term, and ends with its own status when it is asked to stop, as with Kopf."""
    world.create("Thing", "a")
    one = program(WAYS[way], "exec")
    one.start()
    try:
        until("the handler", lambda: world.get("things", "a")["spec"] == {"done": True}, LONG)
        assert world.lease()["holderIdentity"]
        one.signal(signal.SIGTERM)
        assert one.wait() == 7, one.log
    finally:
        one.kill()
    assert one.said("cleaned up")
    assert one.said("the end of main")
    assert world.lease().get("holderIdentity", "") == ""


def test_a_lost_lease_ends_it_with_the_status_of_kopf_ha_run(
    world: World, program: Callable[..., testbed.Replica]
) -> None:
    world.create("Thing", "a")
    one = program(WAYS["run"], "exec")
    one.start()
    try:
        until("the handler", lambda: world.get("things", "a")["spec"] == {"done": True}, LONG)
        world.take_lease()
        assert one.wait() == 3, one.log
    finally:
        one.kill()
    assert not one.said("the end of main")
