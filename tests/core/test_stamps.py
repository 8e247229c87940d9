"""Stamps as they are read from objects: what is damaged is never taken for an earlier term's, or for none (I1)."""

from __future__ import annotations

from typing import Any

import pytest

from kopf_ha.core.floor import recorded_of
from kopf_ha.core.notes import as_metadata, escaped, is_stamp, noted, notes_of
from kopf_ha.core.token import MalformedStamp, Stamp, checked
from tests.core.fake_api import LEASE, as_earlier, as_label, as_note, as_notes, digest, note, stamp

OTHER = "ns/other"
KINDS = {"configmaps": "annotations", "deployments.apps": "labels"}


def read(kind: str, texts: Any) -> Stamp | None:
    return recorded_of({"metadata": {KINDS[kind]: texts}}, kind, LEASE, stamped=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "7 ns/op",
        "7 ns/op uid-pod7",
        "7 ns/op uid-pod7 ",
        "7  uid-pod7 pod7",
        "7 ns/other uid-pod7 pod7",
        "7.uid-pod7.abc",
        None,
        7,
        ["7 ns/op uid-pod7 pod7"],
    ],
)
def test_an_annotation_that_does_not_say_all_is_damaged(text: Any) -> None:
    """Also one that names another Lease than its own name does: then nobody knows which term it is of."""
    with pytest.raises(MalformedStamp):
        read("configmaps", {note(LEASE, "configmaps"): text})


@pytest.mark.parametrize("text", ["", "7", "7.", "7.uid.", ".uid.abc", "x.uid.abc", "7 ns/op uid pod7", None, 7])
def test_a_label_that_does_not_say_all_is_damaged(text: Any) -> None:
    with pytest.raises(MalformedStamp):
        read("deployments.apps", {note(LEASE, "deployments.apps"): text})


@pytest.mark.parametrize(
    ("kind", "texts", "read_as"),
    [
        ("configmaps", {note(LEASE, "configmaps"): "7 ns/op u a holder with spaces"}, "a holder with spaces"),
        ("configmaps", as_note(stamp(7, "h")), "h"),
        ("deployments.apps", as_label(stamp(7, "h")), digest("h")),
    ],
)
def test_of_whom_a_note_is(kind: str, texts: Any, read_as: str) -> None:
    found = read(kind, texts)
    assert found is not None
    assert (found.token, found.lease, found.holder) == (7, LEASE, read_as)


@pytest.mark.parametrize("kind", ["replicasets.apps", "controllerrevisions.apps"])
def test_what_a_controller_copies_from_an_object_to_one_of_these_kinds_is_no_stamp(kind: str) -> None:
    """The annotations of earlier releases have the same names on all kinds. So these kinds get none."""
    body = {"metadata": {"annotations": as_earlier(stamp(99))}}
    assert recorded_of(body, kind, LEASE, stamped=False) is None
    assert as_metadata(notes_of(stamp(7), kind, noted(body, kind))) == {"annotations": as_note(stamp(7), kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_note_of_another_lease_is_none_of_ours(kind: str) -> None:
    assert read(kind, {note(OTHER, kind): "damaged"}) is None


@pytest.mark.parametrize(
    ("change", "whole"),
    [
        ({"token": 1}, True),
        ({"token": 0}, False),
        ({"token": 2_000_000_000}, True),
        ({"token": 2_000_000_001}, False),
        *(({name: "x" * 320}, True) for name in ("holder", "lease", "pod")),
        *(({name: "x" * 321}, False) for name in ("holder", "lease", "pod")),
        ({"holder": ""}, False),
        ({"lease": ""}, False),
        ({"pod": ""}, True),  # outside of a cluster there is no Pod
    ],
)
def test_the_bounds_of_a_stamp(change: dict[str, Any], whole: bool) -> None:
    """Those that the schema of `status.fencing` has. A stamp beyond them is damaged."""
    given = {"token": 7, "holder": "h", "lease": LEASE, "pod": "u", **change}
    if whole:
        assert checked(**given).token == given["token"]
    else:
        with pytest.raises(MalformedStamp):
            checked(**given)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in as_notes(stamp(7))),
        (note(OTHER, "secrets"), True),
        ("kopf-ha.dev/stamp", False),
        ("kopf-ha.dev/paused", False),
        ("x/kopf-ha.dev/token", False),
    ],
)
def test_which_names_belong_to_stamps(name: str, is_one: bool) -> None:
    """Of whichever Lease and kind."""
    assert is_stamp(name) is is_one


@pytest.mark.parametrize(("name", "part"), [("a", "a"), ("a/b", "a~1b"), ("a~b", "a~0b"), ("a~1b", "a~01b")])
def test_a_name_in_a_json_pointer_is_escaped_as_rfc_6901_says(name: str, part: str) -> None:
    assert escaped(name) == part
