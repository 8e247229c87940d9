"""The file: what a killed process leaves, several processes in one, and what is no trace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kopf_ha.core.election import events as el
from kopf_ha.errors import ConfigurationError
from kopf_ha.trace import Trace
from replay import TraceError, read
from replay.__main__ import main
from tests.core.fake_api import WIDGET, FakeApi, Process, patch, stamp
from tests.election.world import FakeLease, settings
from tests.replay.traced import Elected, alter, differences, numbers

Begin = Callable[[], Trace]


def lead(trace: Trace) -> None:
    me = Elected(FakeLease(), trace)
    me.take(el.LeaseSeen(None, read=True))
    me.take(el.Tick(me.now), 2.0)
    assert me.grants


def test_a_broken_last_line_is_that_of_a_killed_process(begin: Begin, file: Path) -> None:
    lead(begin())
    text = file.read_bytes()
    for cut in range(1, len(text.splitlines()[-1]) + 1):
        file.write_bytes(text[:-cut])
        assert differences(file) == []


def test_the_next_process_begins_a_line_of_its_own(begin: Begin, file: Path) -> None:
    lead(begin())
    whole = len(numbers(file, "step"))
    file.write_bytes(file.read_bytes()[:-20])
    lead(begin())
    first, second = read(file)
    assert (len(first.lines), len(second.lines)) == (whole - 1, whole)
    assert differences(file) == []


def test_a_broken_line_in_the_middle_is_an_error(begin: Begin, file: Path) -> None:
    lead(begin())
    lines = file.read_text().splitlines()
    lines[2] = lines[2][:-20]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(TraceError, match=f"{file}:3: the line is broken, and it is not the last one of a process"):
        read(file)


@pytest.mark.parametrize(("text", "why"), [("", "is empty"), ('{"is": "step"}\n', "no trace"), ("{}\n", "no trace")])
def test_what_is_no_trace_is_an_error(file: Path, text: str, why: str) -> None:
    file.write_text(text)
    with pytest.raises(TraceError, match=why):
        read(file)


def test_another_format_is_an_error(begin: Begin, file: Path) -> None:
    lead(begin())
    alter(file, 1, lambda head: head.update(format="kopf-ha trace 0"))
    with pytest.raises(TraceError, match="of format 'kopf-ha trace 0'"):
        read(file)


def test_the_file_is_for_its_owner_alone(begin: Begin, file: Path) -> None:
    begin()
    assert file.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_not_there_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--trace: .* cannot be opened: No such file"):
        Trace(str(tmp_path / "nowhere" / "file"), settings("pod7"), "1.0")


def test_a_disk_that_is_full_ends_the_trace_and_not_the_term(
    begin: Begin, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace, write = begin(), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    lead(trace)  # it leads all the same
    (said,) = [record.message for record in caplog.records if record.name == "kopf_ha.trace"]
    assert said.startswith("the trace ends here, since it cannot be written: only 10 of ")
    assert differences(file) == []


def test_the_command_says_how_it_went(
    begin: Begin, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lead(begin())
    assert main([str(file)]) == 0
    said = capsys.readouterr().out
    assert said == "replay: 1 processes, 4 steps of elections, 0 writes, 0 requests: all as the core would have it\n"
    alter(file, 2, lambda data: data.update(actions=[]))
    assert main([str(file)]) == 1
    said = capsys.readouterr().out
    assert f"{file}:2: step 1 of the election, LeaseSeen while following: the trace has [], and the core gives" in said
    assert "1 are not as the core would have it" in said
    assert main([str(tmp_path / "none")]) == 2


def test_with_a_history_the_command_joins_them(
    me: Process, api: FakeApi, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(WIDGET, {}, stamp(6))
    me.send(patch(WIDGET + "/status", {"status": {"s": 1}}))
    history = tmp_path / "history"
    history.write_text(json.dumps({"format": "kopf-ha judge history 1", "revision": 1}) + "\n")
    assert main([str(file), "--from", str(history)]) == 1  # no election gave it the token
    assert "which the election did not give to that token" in capsys.readouterr().out
