"""Handlers run for no stamp in metadata: Kopf's picture of an object has none, whichever operator made it."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
import pytest

from kopf_ha.core.notes import as_metadata, notes_of
from kopf_ha.core.token import Stamp
from kopf_ha.run.observe import ignore_stamps

MINE, THEIRS = Stamp(7, "me", "ns/op", "u"), Stamp(3, "them", "ns/other", "v")
PLAIN: dict[str, Any] = {"metadata": {"annotations": {"a": "1"}, "labels": {"b": "2"}}, "data": {"c": "3"}}


def as_body(raw: Any) -> kopf.Body:
    return kopf.Body(raw)


class Own(kopf.AnnotationsDiffBaseStorage):
    """An operator's own storage, as some have it."""

    def build(self, **given: Any) -> Any:
        return {**super().build(**given), "own": True}


def stamped(kind: str, *stamps: Stamp) -> kopf.Body:
    metadata = {section: dict(entries) for section, entries in PLAIN["metadata"].items()}
    for stamp in stamps:
        for section, texts in as_metadata(notes_of(stamp, kind)).items():
            metadata[section].update(texts)
    return as_body({**PLAIN, "metadata": metadata})


@pytest.mark.parametrize("kind", ["configmaps", "deployments.apps"])
@pytest.mark.parametrize(
    "storage", [kopf.AnnotationsDiffBaseStorage, kopf.StatusDiffBaseStorage, Own], ids=lambda made: made.__name__
)
def test_a_stamp_is_no_change(storage: Any, kind: str) -> None:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = storage()
    before = settings.persistence.diffbase_storage.build(body=as_body(PLAIN))
    for _ in "two terms":
        asyncio.run(ignore_stamps(settings=settings))
    build = settings.persistence.diffbase_storage.build
    assert build(body=stamped(kind, MINE, THEIRS)) == build(body=stamped(kind)) == before
    assert build(body=as_body({"metadata": as_metadata(notes_of(MINE, kind))})) == build(body=as_body({}))
    assert getattr(build, "__wrapped__", None) == storage.build.__get__(settings.persistence.diffbase_storage)
