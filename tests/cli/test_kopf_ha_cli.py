"""The command line: what is refused, with which sentence, and what wins over what. No cluster is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import kopf.cli
import pytest
from click.testing import CliRunner, Result

import kopf_ha
import kopf_ha.run
from kopf_ha.cli import main
from kopf_ha.options import options_of
from kopf_ha.settings import Settings

SOURCE = Path(kopf_ha.__file__).parents[1]
ROOT = SOURCE.parent
DURATION = "must be a whole number of seconds from 1 to 86400, not"


class Call:
    """What the command handed to the runner."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.options: dict[str, Any] = {}

    def __call__(self, settings: Settings, **options: Any) -> int:
        self.settings, self.options = settings, options
        options["prepare"]()
        return 0


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    made = Call()
    for name in [n for n in os.environ if n.startswith(("KOPF_", "POD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("kopf_ha.run.run_program", made)
    # Neither the log's set-up, nor the watchdog for its end, nor signals are for the tests' process.
    monkeypatch.setattr("kopf_ha.cli.signal.signal", lambda number, handler: None)
    monkeypatch.setattr("kopf.configure", lambda **_: None)
    monkeypatch.setattr("logging.captureWarnings", lambda _: None)
    monkeypatch.setattr("kopf_ha.run.ending.end_by", lambda seconds, status: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "op.py").write_text("")
    return made


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, ["run", *args])


def sentence(result: Result) -> str:
    """The output in one line, as it may be wrapped."""
    return " ".join(result.output.split())


def test_defaults(call: Call) -> None:
    assert invoke("op.py", "-A").exit_code == 0
    assert call.settings is not None
    assert (call.settings.lease_name, call.settings.lease_duration, call.settings.fence) == ("kopf-ha", 15, "full")
    assert call.settings.after_loss == "exit"
    assert call.options["clusterwide"] is True
    assert call.options["namespaces"] == ()


def test_the_command_line_wins_over_the_environment(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LEASE_NAME": "env",
        "LEASE_DURATION": "30s",
        "RETRY_PERIOD": "3",
        "DECIDING": "a.example.dev, b.example.dev",
        "FENCE": "rv",
        "UNSAFE": "true",
        "IDENTITY": "the same for all replicas",
    }.items():
        monkeypatch.setenv(f"KOPF_HA_{name}", value)
    result = invoke("op.py", "--lease-name=given", "--retry-period=1", "--fence=none", "-n", "one", "-n", "two")
    assert result.exit_code == 0, result.output
    assert call.settings is not None
    assert call.settings.lease_name == "given"
    assert call.settings.lease_duration == 30
    assert call.settings.retry_period == 1
    assert call.settings.deciding == ("a.example.dev", "b.example.dev")
    assert (call.settings.fence, call.settings.unsafe) == ("none", True)
    assert call.settings.identity != "the same for all replicas"
    assert call.options["namespaces"] == ("one", "two")
    assert invoke("op.py", "--deciding=c.example.dev").exit_code == 0
    assert call.settings.deciding == ("c.example.dev",)


def test_each_option_means_the_same_on_the_command_line_and_in_the_environment(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "SECONDS": "5s",
        "PORT": "8080",
        "NAME": "some",
        "DIR": "/run/x",
        "FILE": "/run/t",
        "[follow|exit]": "follow",
    }
    texts |= {
        "[full|rv|none]": "none",
        "[report|exit]": "exit",
        "[auto|start]": "start",
        "[all|each]": "each",
        "[full|term]": "term",
        "PLURAL.GROUP": "a.example.dev",
        "RESOURCE/NAME": "endpoints/shop/op",
        "PLURAL[.GROUP][/SUB]": "pods/eviction",
    }
    for one in options_of(Settings):
        # What a value demands of others: durations of 5 s, and an unsafe fence.
        monkeypatch.setenv("KOPF_HA_RETRY_PERIOD", "1")
        monkeypatch.setenv("KOPF_HA_UNSAFE", "false" if one.name == "unsafe" else "true")
        flag, text = one.flags[-1], texts.get(one.values.metavar, "")
        assert invoke("op.py", flag, *([text] if text else [])).exit_code == 0, one
        by_flag = call.settings
        monkeypatch.setenv(one.variable, text or str(not flag.startswith("--no-")))
        assert invoke("op.py").exit_code == 0, one
        assert call.settings is not None
        assert by_flag is not None
        given = getattr(call.settings, one.name)
        assert given == getattr(by_flag, one.name)
        assert given != getattr(Settings(), one.name)
        monkeypatch.delenv(one.variable)


def test_the_documentation_shows_the_options_as_they_are_declared() -> None:
    """After a change: replace the table there by what `kopf-ha options` prints."""
    table = CliRunner().invoke(main, ["options"]).output
    assert table in (ROOT / "docs" / "options.md").read_text()
    assert table.count("\n") == 2 + len(options_of(Settings))


def test_kopf_s_own_variable_for_a_namespace(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOPF_RUN_NAMESPACE", "one")
    assert invoke("op.py").exit_code == 0
    assert call.options["namespaces"] == ("one",)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["op.py", "-A", "-n", "x"], "Either --namespace or --all-namespaces can be used, not both."),
        ([], "name the operator's file, or its module with -m"),
        (["nothing.py"], "'nothing.py' does not exist"),
        (["."], "is a directory"),
        (["op.txt"], "op.txt is not a Python file; use -m to name a module"),
        (["-m", "no.such.module"], "module no is neither in"),
        (
            ["op.py", "--lease-duration=5", "--renew-deadline=10"],
            "--lease-duration (5 s) must be greater than --renew-deadline (10 s)",
        ),
        (["op.py", "--renew-deadline=20"], "--lease-duration (15 s) must be greater than --renew-deadline (20 s)"),
        (["op.py", "--retry-period=9"], "--renew-deadline (10 s) must be greater than --retry-period (9 s) × 1.2"),
        (["op.py", "--retry-period=0"], "--retry-period must be a number of seconds above 0, not 0"),
        (["op.py", "--lease-duration=15.5"], f"--lease-duration {DURATION} 15.5"),
        (["op.py", "--lease-duration=nan"], f"--lease-duration {DURATION} nan"),
        (["op.py", "--lease-duration=inf"], f"--lease-duration {DURATION} inf"),
        (["op.py", "--lease-duration=9999999999"], f"--lease-duration {DURATION}"),
        (["op.py", "--drain-timeout=-1"], "--drain-timeout must be a number of seconds, 0 or more, not -1"),
        (["op.py", "--lease-duration=soon"], f"--lease-duration {DURATION} 'soon'"),
        (["op.py", "--lease-name=No_Name"], "--lease-name must be a Kubernetes name: at most 253 lower-case letters"),
        (["op.py", "--legacy-lock=op"], "--legacy-lock must be written RESOURCE/NAME or RESOURCE/NAMESPACE/NAME, with"),
        (["op.py", "--legacy-lock=leases/a/kopf-ha", "--lease-namespace=a"], "--legacy-lock names the Lease itself"),
        (["op.py", "--deciding=pools"], "--deciding must be written plural.group, as in pools.example.dev, not"),
        (["op.py", "--exempt=Pools"], "--exempt must be written plural[.group][/subresource], not 'Pools'"),
        (["op.py", "--fence=none"], "--fence=none lets a stale leader write"),
        (["op.py", "--fence=rv"], "--fence=rv lets a stale leader write"),
        (["op.py", "--after-loss=restart"], "--after-loss must be follow or exit, not 'restart'"),
    ],
)
def test_refused_with_a_sentence(call: Call, tmp_path: Path, args: list[str], why: str) -> None:
    (tmp_path / "op.txt").write_text("")
    result = invoke(*args)
    assert result.exit_code == 2, result.output
    assert why in sentence(result)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("LEASE_DURATION", "soon", f"KOPF_HA_LEASE_DURATION {DURATION} 'soon'"),
        ("UNSAFE", "perhaps", "KOPF_HA_UNSAFE must be true or false, not 'perhaps'"),
        ("FENCE", "half", "--fence must be full, rv or none, not 'half'"),
        ("AFTER_LOSS", "wait", "--after-loss must be follow or exit, not 'wait'"),
    ],
)
def test_wrong_environment(call: Call, monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str) -> None:
    monkeypatch.setenv(f"KOPF_HA_{name}", value)
    result = invoke("op.py")
    assert result.exit_code == 2
    assert why in sentence(result)


def test_errors_of_the_operator_s_own_code_keep_their_traceback(call: Call, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    result = invoke("broken.py")
    assert isinstance(result.exception, ModuleNotFoundError)
    (tmp_path / "wrong.py").write_text("from os import no_such_name\n")
    assert isinstance(invoke("wrong.py").exception, ImportError)
    # Neither does a module that exists hide what it fails to import.
    assert isinstance(invoke("-m", "broken").exception, ModuleNotFoundError)


# --- the options of `kopf run`


def ours() -> dict[str, click.Parameter]:
    return {str(one.name): one for one in main.commands["run"].params}


@pytest.mark.parametrize("theirs", kopf.cli.run.params, ids=lambda one: one.name)
def test_each_option_of_kopf_run_is_taken_as_kopf_takes_it(theirs: click.Parameter) -> None:
    """A new release of Kopf may bring one that nobody has decided about: take it, with a warning if without effect."""
    mine = ours().get(str(theirs.name))
    assert mine is not None, f"decide what {theirs.opts} means here"
    assert set(theirs.opts) <= set(mine.opts)
    assert set(theirs.secondary_opts) <= set(mine.secondary_opts)
    for what in ("is_flag", "multiple", "nargs"):
        assert getattr(theirs, what, None) == getattr(mine, what, None), what


def test_each_variable_of_kopf_run_means_what_kopf_takes_it_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kopf reads one for each option of `kopf run`, and two by names of their own."""
    texts = {"namespaces": "one two", "modules": "op", "priority": "5", "log_format": "json"}
    for theirs in kopf.cli.run.params:
        if not isinstance(theirs, click.Option):
            continue
        name = str(theirs.name)
        text = texts.get(name, "true" if theirs.is_flag else "http://localhost:8080/x")
        for variable in {f"KOPF_RUN_{name.upper()}", *([str(theirs.envvar)] if theirs.envvar else [])}:
            with monkeypatch.context() as only:
                only.setenv(variable, text)
                group = kopf.cli.main.make_context("kopf", [], resilient_parsing=True)
                expected = kopf.cli.run.make_context("run", [], parent=group, resilient_parsing=True).params[name]
                mine = main.commands["run"].make_context("run", [], resilient_parsing=True)
                given = ours()[name].consume_value(mine, {})[0]
                assert given is not None, variable
                assert ours()[name].type_cast_value(mine, given) in (expected, getattr(expected, "name", "").lower())


def test_what_asks_for_peering_is_taken_with_a_warning(call: Call, caplog: pytest.LogCaptureFixture) -> None:
    assert invoke("op.py", "--peering=x", "--priority=5", "--dev").exit_code == 0
    assert "peering 'x' has no effect: the Lease elects the leader" in caplog.text
    assert "priority 5 has no effect" in caplog.text
    assert "--dev has no effect" in caplog.text
    caplog.clear()
    assert invoke("op.py", "--standalone").exit_code == 0
    assert not caplog.records, "it asks for what is done anyway"


def test_liveness_is_handed_on(call: Call) -> None:
    assert invoke("op.py", "-L", "http://0.0.0.0:8080/healthz").exit_code == 0
    assert call.options["liveness_endpoint"] == "http://0.0.0.0:8080/healthz"


def test_options_of_kopf_s_log(call: Call) -> None:
    result = invoke("op.py", "-v", "--log-format=JSON", "--no-log-prefix", "--log-refkey=x", "-q", "-d")
    assert result.exit_code == 0, result.output


def command(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("KOPF_", "KUBE"))}
    return subprocess.run(
        [sys.executable, "-m", "kopf_ha", *args],
        env=keep | {"PYTHONPATH": str(SOURCE)} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_no_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "op.py").write_text("")
    done = command("run", str(tmp_path / "op.py"), "-A", KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))
    assert done.returncode == 1
    assert "Error: no credentials for a cluster: run inside of a pod" in done.stderr
    assert str(tmp_path / "none") in done.stderr
    assert "Traceback" not in done.stderr


def test_python_m_and_the_version() -> None:
    done = command("--version")
    assert done.stdout.strip() == f"kopf-ha, version {kopf_ha.__version__}"
    assert "Usage: kopf-ha run" in command("run", "-h").stdout


def test_asked_to_stop_while_it_loads(tmp_path: Path) -> None:
    """It ends by itself: as process 1 of a container it would not be ended by a signal that it does not handle."""
    (tmp_path / "slow.py").write_text("import time; print('loading', flush=True); time.sleep(60)")
    argv = [sys.executable, "-m", "kopf_ha", "run", "slow.py"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(argv, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "loading\n"
        one.terminate()
        assert one.wait(30) == 128 + signal.SIGTERM
