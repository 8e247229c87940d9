"""What Kopf keeps in an object, read cheaply, since thousands of objects are looked at when a term begins.

Kopf's own way copies the object several times, and walks a path of views for each field. These answers are the same. A
storage that the operator brings itself is asked in Kopf's way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

from kopf._cogs.configs import configuration, diffbase, progress
from kopf._cogs.structs import bodies, diffs, ids

_Progress = progress.ProgressStorage


class QuickBody(bodies.Body):
    """A body that finds its fields at once."""

    def __getitem__(self, item: str) -> Any:
        return self._src[item]

    def __iter__(self) -> Iterator[str]:
        return iter(self._src)

    def __len__(self) -> int:
        return len(self._src)


class Stored:
    """What Kopf's storages say of one kind's objects.

    Args:
        persistence: Kopf's settings.
        ids: of the kind's handlers whose progress is kept.
        extra_fields: fields that handlers are for, besides those that always count.
    """

    def __init__(
        self, persistence: configuration.PersistenceSettings, ids: Collection[ids.HandlerId], extra_fields: set[Any]
    ) -> None:
        self._diffbase, self._progress = persistence.diffbase_storage, persistence.progress_storage
        self._extra_fields = extra_fields
        self._looks = list(_looks(self._progress, ids))
        # Without extra fields, Kopf's own storage takes no status and few metadata. The rest need not be copied.
        build: Any = inspect.unwrap(self._diffbase.build)
        own = (diffbase.AnnotationsDiffBaseStorage, diffbase.AnnotationsDiffBaseStorage.build)
        is_kopfs = (type(self._diffbase), getattr(build, "__func__", None)) == own
        self._takes_little = is_kopfs and not extra_fields

    def has_progress(self, body: bodies.Body) -> bool:
        """Return whether one of the handlers has to be tried again."""
        return any(look(body) for look in self._looks)

    def essences(self, raw: Any, body: bodies.Body) -> tuple[bodies.BodyEssence, bodies.BodyEssence] | None:
        """Return what was handled last and what there is now, if there is no difference; else None."""
        old = self._diffbase.fetch(body=body)
        if old is None:
            return None
        new = self._diffbase.build(body=self._less(raw), extra_fields=self._extra_fields)
        clear = self._progress.clear
        if old == new:
            same = clear(essence=new)
            return same, same
        old, new = clear(essence=old), clear(essence=new)
        return None if diffs.diff(old, new) else (old, new)

    def _less(self, raw: Any) -> bodies.Body:
        if not self._takes_little:
            return bodies.Body(raw)
        taken = {k: raw["metadata"][k] for k in ("labels", "annotations", "ownerReferences") if k in raw["metadata"]}
        less: Any = {k: v for k, v in raw.items() if k != "status"} | {"metadata": taken}
        return QuickBody(less)


def _looks(storage: _Progress, ids: Collection[ids.HandlerId]) -> Iterator[Callable[[bodies.Body], bool]]:
    """Yield functions of a body, of which one returns True if the storage has the progress of one of the handlers."""
    if type(storage) in (progress.MultiProgressStorage, progress.SmartProgressStorage):
        for one in storage.storages:  # type: ignore[attr-defined]
            yield from _looks(one, ids)
        return

    def has_progress(body: bodies.Body) -> bool:
        return any(storage.fetch(key=key, body=body) is not None for key in ids)

    if type(storage) is not progress.AnnotationsProgressStorage:
        yield has_progress
        return
    names = {name for key in ids for name in storage.make_keys(key)}

    def has_annotations(body: bodies.Body) -> bool:
        # A ReplicaSet's have other names, since it inherits its Deployment's.
        is_other = body.get("kind") == "ReplicaSet"
        if not is_other and names.isdisjoint(body["metadata"].get("annotations") or ()):
            return False
        return has_progress(body)

    yield has_annotations
