"""Every way to write, tried by a stale leader and by the current one; what they are told.

Each attempt meets a fresh object that the old pod stamped with token 7 and the new one with token 8, and what
was refused must have changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kopf_ha.core.notes import as_metadata, notes_of, pointer
from kopf_ha.core.token import Stamp
from tests.kit.client import APPLY, JSON_PATCH, MERGE, STRATEGIC, Answer, Client
from tests.policies.fenced import GROUP, Fenced, changed

Attempt = Callable[[Client, str, dict[str, Any]], Answer]
TOKENS = {"old": 7, "new": 8}
OTHER = {"old": "new", "new": "old"}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    target: str
    verb: str
    stale: Answer
    current: Answer


class Attempts:
    """All rows, one by one."""

    def __init__(self, fenced: Fenced) -> None:
        self.f = fenced
        self.clients = {"old": fenced.old, "new": fenced.new}

    def rows(self) -> Iterator[Row]:
        pool, claim = {"free": 1}, {"address": "10.0.0.9"}
        yield from self._kind("FencedPool", self.f.pool, pool, "/metadata/labels", {"a": "b"})
        yield from self._kind("FencedClaim", self.f.claim, claim, "/metadata/labels", {"a": "b"})
        yield from self._child()
        yield from self._lease()

    def own(self, by: Client, token: int | None = None) -> Stamp:
        return by.stamp(token or TOKENS[by.pod], self.f.lease)

    # --- stamped kinds

    def _kind(
        self, kind: str, make: Callable[..., str], status: dict[str, Any], pointer: str, value: Any
    ) -> Iterator[Row]:
        def fresh() -> str:
            path = make(finalizers=["kopf-ha.dev/test"])
            self.f.stamp(self.f.old, path, 7)
            self.f.stamp(self.f.new, path, 8)
            return path

        def merge(sub: str, body: Callable[[Client], dict[str, Any]], kind_of: str = MERGE) -> Attempt:
            return lambda by, path, _: by("PATCH", path + sub, body(by), kind_of)

        def fencing(stamp: Callable[[Client], Any]) -> Callable[[Client], dict[str, Any]]:
            return lambda by: {"status": {**status, "fencing": stamp(by)}}

        def other(by: Client) -> dict[str, Any]:
            return self.own(self.clients[OTHER[by.pod]]).as_status()

        def apply(status: Callable[[Client], dict[str, Any]] | None) -> Callable[[Client, str], dict[str, Any]]:
            def body(by: Client, path: str) -> dict[str, Any]:
                name = path.rpartition("/")[2]
                made: dict[str, Any] = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name}}
                return made | (status(by) if status else {})

            return body

        def applied(sub: str, body: Callable[[Client, str], dict[str, Any]]) -> Attempt:
            query = "?fieldManager=raw&force=true"
            return lambda by, path, _: by("PATCH", path + sub + query, body(by, path), APPLY)

        def put_status(by: Client, path: str, now: dict[str, Any]) -> Answer:
            fenced = {"status": {**now["status"], **status, "fencing": self.own(by).as_status()}}
            return by("PUT", path + "/status", now | fenced)

        def put(by: Client, path: str, now: dict[str, Any]) -> Answer:
            return by("PUT", path, now | {"metadata": {**now["metadata"], "labels": {"a": "b"}}})

        def own_json(by: Client) -> list[dict[str, Any]]:
            stamp = {"op": "replace", "path": "/status/fencing", "value": self.own(by).as_status()}
            return [stamp, *plain_json]

        def delete_this(by: Client, path: str, now: dict[str, Any]) -> Answer:
            return by("DELETE", path, preconditions(now))

        def delete_all(by: Client, path: str, now: dict[str, Any]) -> Answer:
            return by("DELETE", f"{path.rpartition('/')[0]}?fieldSelector=metadata.name={path.rpartition('/')[2]}")

        def scale(by: Client, path: str, _: dict[str, Any]) -> Answer:
            return by("PATCH", path + "/scale", {"spec": {"replicas": 2}}, MERGE)

        def pointers(_: Client) -> Any:
            return [{"op": "add", "path": pointer, "value": value}]

        def no_finalizer(_: Client) -> Any:
            return [{"op": "remove", "path": "/metadata/finalizers"}]

        key = next(iter(status))
        plain_json = [{"op": "add", "path": f"/status/{key}", "value": status[key]}]

        def label_of(by: Client, path: str) -> dict[str, Any]:
            return {**apply(None)(by, path), "metadata": {"name": path.rpartition("/")[2], "labels": {"a": "b"}}}

        many: dict[str, Attempt] = {
            "status, merge patch, no stamp": merge("/status", lambda _: {"status": status}),
            "status, merge patch, its own stamp": merge("/status", fencing(lambda by: self.own(by).as_status())),
            "status, merge patch, its own stamp, token 8": merge(
                "/status", fencing(lambda by: self.own(by, 8).as_status())
            ),
            "status, merge patch, the other’s stamp": merge("/status", fencing(other)),
            "status, merge patch, the stamp removed": merge("/status", fencing(lambda _: None)),
            "status, merge patch, the whole status removed": merge("/status", lambda _: {"status": None}),
            "status, merge patch, its own stamp, another Lease": merge(
                "/status", fencing(lambda by: by.stamp(9, "else/where").as_status())
            ),
            "status, merge patch, an invented token 99": merge(
                "/status", fencing(lambda by: self.own(by, 99).as_status())
            ),
            "status, JSON patch, no stamp": merge("/status", lambda _: plain_json, JSON_PATCH),  # type: ignore[arg-type, return-value]
            "status, JSON patch, its own stamp": merge("/status", own_json, JSON_PATCH),  # type: ignore[arg-type]
            "status, apply, no stamp": applied("/status", apply(lambda _: {"status": status})),
            "status, apply, its own stamp": applied("/status", apply(fencing(lambda by: self.own(by).as_status()))),
            "status, PUT, its own stamp": put_status,
            "status, strategic merge patch": merge("/status", lambda _: {"status": status}, STRATEGIC),
            "spec or labels, JSON patch": merge("", pointers, JSON_PATCH),
            "annotation, merge patch": merge("", lambda _: {"metadata": {"annotations": {"a": "b"}}}),
            "label, apply": applied("", label_of),
            "label, PUT": put,
            "finalizer removed, JSON patch": merge("", no_finalizer, JSON_PATCH),
            "delete": lambda by, path, _: by("DELETE", path),
            "delete, preconditions": delete_this,
            "delete, as a collection": delete_all,
            "scale": scale,
        }
        for verb, attempt in many.items():
            yield self._row(kind, verb, fresh, attempt)
        yield self._row(kind, "create", fresh, lambda by, path, now: by("POST", path.rpartition("/")[0], renamed(now)))

    # --- children

    def _child(self) -> Iterator[Row]:
        def fresh() -> str:
            path = self.f.child(self.f.old, 7)
            self.f.restamp(self.f.new, path, 8)
            return path

        def notes(by: Client, token: int | None = None) -> dict[str, Any]:
            return {"data": {"a": "2"}, "metadata": as_metadata(notes_of(self.own(by, token), "configmaps"))}

        def patch(body: Callable[[Client], Any], content_type: str = MERGE) -> Attempt:
            return lambda by, path, _: by("PATCH", path, body(by), content_type)

        def apply(with_stamp: bool) -> Attempt:
            def attempt(by: Client, path: str, _: dict[str, Any]) -> Answer:
                body = self.f.child_body(path.rpartition("/")[2], self.own(by) if with_stamp else None)
                return by("PATCH", path + "?fieldManager=raw&force=true", body | {"data": {"a": "2"}}, APPLY)

            return attempt

        def put(stamped: bool) -> Attempt:
            def attempt(by: Client, path: str, now: dict[str, Any]) -> Answer:
                meta = {**now["metadata"], **(notes(by)["metadata"] if stamped else {})}
                return by("PUT", path, {**now, "metadata": meta, "data": {"a": "2"}})

            return attempt

        def unlabelled(by: Client, path: str, now: dict[str, Any]) -> Answer:
            body = self.f.child_body(f"new-{self.f.number()}", self.own(by))
            del body["metadata"]["labels"]
            return by("POST", self.f.children, body)

        def create(stamped: bool) -> Attempt:
            return lambda by, path, now: by(
                "POST", self.f.children, self.f.child_body(f"new-{self.f.number()}", self.own(by) if stamped else None)
            )

        def collection(by: Client, path: str, now: dict[str, Any]) -> Answer:
            return by("DELETE", f"{self.f.children}?fieldSelector=metadata.name={path.rpartition('/')[2]}")

        own_json = [{"op": "replace", "path": "/data/a", "value": "2"}]

        def stamped_json(by: Client) -> Any:
            notes = notes_of(self.own(by), "configmaps")
            return own_json + [{"op": "replace", "path": pointer(note), "value": note.text} for note in notes]

        own = as_metadata(notes_of(self.own(self.f.old), "configmaps"))
        gone = {"metadata": {section: dict.fromkeys(texts) for section, texts in own.items()}}
        theirs: Callable[[Client], Any] = lambda by: notes(self.clients[OTHER[by.pod]])  # noqa: E731
        many: dict[str, Attempt] = {
            "merge patch, no stamp": patch(lambda _: {"data": {"a": "2"}}),
            "merge patch, its own stamp": patch(notes),
            "merge patch, its own stamp, token 8": patch(lambda by: notes(by, 8)),
            "merge patch, the other’s stamp": patch(theirs),
            "merge patch, the stamp removed": patch(lambda _: gone),
            "merge patch, an invented token 99": patch(lambda by: notes(by, 99)),
            "strategic merge patch, its own stamp": patch(notes, STRATEGIC),
            "JSON patch, no stamp": patch(lambda _: own_json, JSON_PATCH),
            "JSON patch, its own stamp": patch(stamped_json, JSON_PATCH),
            "apply, no stamp": apply(False),
            "apply, its own stamp": apply(True),
            "PUT, as read": put(False),
            "PUT, its own stamp": put(True),
            "delete": lambda by, path, _: by("DELETE", path),
            "delete, preconditions": lambda by, path, now: by("DELETE", path, preconditions(now)),
            "delete, as a collection": collection,
            "create, no stamp": create(False),
            "create, no label of a child": unlabelled,
            "create, its own stamp": create(True),
        }
        for verb, attempt in many.items():
            yield self._row("ConfigMap", verb, fresh, attempt)

    # --- the Lease

    def _lease(self) -> Iterator[Row]:
        """Held by the new pod. Each attempt begins with a new term of it, since the count never goes back."""

        def fresh() -> str:
            self.f.acquire(self.f.new)
            return f"{self.f.leases}/leader"

        def put(**spec: Callable[[Client, int], Any]) -> Attempt:
            def attempt(by: Client, path: str, now: dict[str, Any]) -> Answer:
                token = now["spec"]["leaseTransitions"]
                return by("PUT", path, changed(now, **{k: v(by, token) for k, v in spec.items()}))

            return attempt

        def patch(spec: dict[str, Any]) -> Attempt:
            return lambda by, path, _: by("PATCH", path, {"spec": spec}, MERGE)

        def holder(by: Client, _: int) -> str:
            return self.own(by).holder

        def other(by: Client, _: int) -> str:
            return self.own(self.clients[OTHER[by.pod]]).holder

        def restarted(by: Client, _: int) -> str:
            return self.own(by).holder + "x"

        def json_patch(by: Client, path: str, now: dict[str, Any]) -> Answer:
            return by("PATCH", path, [{"op": "replace", "path": "/spec/leaseTransitions", "value": 0}], JSON_PATCH)

        def apply(by: Client, path: str, now: dict[str, Any]) -> Answer:
            body: dict[str, Any] = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": "leader"},
            }
            body |= {"spec": {"leaseTransitions": 0}}
            return by("PATCH", path + "?fieldManager=raw&force=true", body, APPLY)

        many: dict[str, Attempt] = {
            "renew as the holder, PUT": put(renewTime=lambda *_: "2026-01-01T00:00:00.000000Z"),
            "lower the count, PUT": put(leaseTransitions=lambda _, t: t - 1),
            "lower the count, merge patch": patch({"leaseTransitions": 0}),
            "lower the count, JSON patch": json_patch,
            "lower the count, apply": apply,
            "remove the count, merge patch": patch({"leaseTransitions": None}),
            "raise the count past 2,000,000,000, PUT": put(
                holderIdentity=holder, leaseTransitions=lambda *_: 2_000_000_001
            ),
            "name another process of its pod, not raised, PUT": put(holderIdentity=restarted),
            "name the other pod, raised, PUT": put(holderIdentity=other, leaseTransitions=lambda _, t: t + 1),
            "raise the count without a holder, PUT": put(
                holderIdentity=lambda *_: "", leaseTransitions=lambda _, t: t + 1
            ),
            "empty the holder, PUT": put(holderIdentity=lambda *_: ""),
            "delete": lambda by, path, _: by("DELETE", path),
            "delete, preconditions": lambda by, path, now: by("DELETE", path, preconditions(now)),
            "delete, as a collection": lambda by, path, _: by("DELETE", self.f.leases),
            "create, again": lambda by, path, now: by("POST", self.f.leases, renamed(now, "leader")),
            "acquire with a raised count, PUT": put(holderIdentity=holder, leaseTransitions=lambda _, t: t + 1),
        }
        for verb, attempt in many.items():
            yield self._row("Lease", verb, fresh, attempt)

    # --- one attempt

    def _row(self, target: str, verb: str, fresh: Callable[[], str], attempt: Attempt) -> Row:
        stale, current = (self._try(by, fresh(), attempt) for by in (self.f.old, self.f.new))
        return Row(target, verb, stale, current)

    def _try(self, by: Client, path: str, attempt: Attempt) -> Answer:
        before = self.f.read(path)
        answer = attempt(by, path, before)
        if not answer.ok:
            assert self.f.read(path) == before, f"a refused {path} changed"
        return answer


def preconditions(now: dict[str, Any]) -> dict[str, Any]:
    meta = now["metadata"]
    wanted = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": wanted}


def renamed(now: dict[str, Any], name: str = "") -> dict[str, Any]:
    """Give a new object like this one."""
    return {**now, "metadata": {"name": name or now["metadata"]["name"] + "-b"}}
