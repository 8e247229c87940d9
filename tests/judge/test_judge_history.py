"""Reading etcd's answers, and keeping a history."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from judge import HistoryError, Key, dump, load
from judge.etcd import lines, writes
from judge.history import replay
from tests.judge.judge_stories import ONE, Story


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put(revision: int, key: str, value: str) -> dict[str, Any]:
    return {"kv": {"key": b64(key), "value": b64(value), "mod_revision": str(revision)}}


def delete(revision: int, key: str) -> dict[str, Any]:
    return {"type": "DELETE", "kv": {"key": b64(key), "mod_revision": str(revision)}}


def answer(*events: Any, **more: Any) -> dict[str, Any]:
    return {"result": {"header": {}, "events": list(events), **more}}


MAP = "/registry/configmaps/default/a"


@pytest.mark.parametrize(
    "path",
    [
        "/registry/ipam.kopf-ha.dev/addresspools/blue",
        "/registry/ipam.kopf-ha.dev/addressclaims/default/a",
        "/registry/configmaps/default/a",
        "/registry/namespaces/default",
    ],
)
def test_keys_are_read_and_written(path: str) -> None:
    assert Key.parse(path).path == path


def test_keys_of_both_scopes() -> None:
    assert Key.parse("/registry/ipam.kopf-ha.dev/addresspools/a.b") == Key(
        "ipam.kopf-ha.dev", "addresspools", "", "a.b"
    )
    assert Key.parse("/registry/leases/ns/a.b") == Key("", "leases", "ns", "a.b")
    assert Key.parse("/registry/namespaces/a").title == "a"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_are_put_together(size: int) -> None:
    stream = b'{"a": 1}\n\n{"b": 2}\n{"c": 3}'
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert list(lines(chunks)) == [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']


def test_events_of_one_revision_may_come_in_several_answers() -> None:
    messages = [
        answer(created=True),
        answer(put(2, MAP, '{"n": 1}'), put(3, MAP, '{"n": 2}'), fragment=True),
        answer(put(3, "/registry/configmaps/default/b", "{}")),
        answer(put(4, MAP, "{}")),
    ]
    got = [(r, k.name, v) for r, k, v in writes(messages, 3)]
    assert got == [(2, "a", {"n": 1}), (3, "a", {"n": 2}), (3, "b", {})]


def test_what_comes_after_the_last_revision_is_left_out() -> None:
    got = list(writes([answer(put(2, MAP, "{}"), delete(3, MAP), put(4, MAP, "{}"))], 3))
    assert [(r, v) for r, _, v in got] == [(2, {}), (3, None)]


def test_a_history_goes_on_where_an_earlier_one_ended() -> None:
    events = [put(2, MAP, '{"n": 1}'), put(3, MAP, '{"n": 2}'), delete(4, MAP), put(5, MAP, "{}")]
    whole = replay(5, writes([answer(*events)], 5))
    for first in range(1, 6):
        known = replay(first, writes([answer(*events)], first))
        later = [event for event in events if int(event["kv"]["mod_revision"]) > first]
        assert replay(5, writes([answer(*later)], 5, first), known) == whole


def test_other_keys_and_secrets_fill_revisions_only() -> None:
    events = [put(2, "compact_rev_key", "5"), put(3, "/registry/secrets/default/s", '{"data": {}}'), put(4, MAP, "{}")]
    assert [r for r, _, _ in writes([answer(*events)], 4)] == [4]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([answer(put(3, MAP, "{}"))], "revisions 2 to 2 are missing"),
        ([answer(put(2, MAP, "{}"))], "ended at revision 2 of 3"),
        ([answer(canceled=True, compact_revision="90")], "compacted up to revision 90"),
        ([{"error": {"message": "no leader"}}], "no leader"),
        ([answer(put(2, MAP, "k8s\0..."))], "application/json"),
    ],
)
def test_an_incomplete_history_is_an_error(messages: list[Any], why: str) -> None:
    with pytest.raises(HistoryError, match=why):
        list(writes(messages, 3))


def test_a_history_is_kept_and_read_back(tmp_path: Path) -> None:
    story = Story()
    story.claim("a", "10.20.0.1", (ONE, 2))
    story.gone(story.claim_key("a"))
    story.pool({"10.20.0.1": "a"})
    dump(story.history, tmp_path / "history")
    assert load(tmp_path / "history") == story.history


@pytest.mark.parametrize("text", ["", "no json", "[]", json.dumps({"format": "else", "revision": 1})])
def test_another_file_is_no_history(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(HistoryError):
        load(tmp_path / "file")
