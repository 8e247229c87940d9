"""Where a barrier looks with `-n`, and what becomes of a namespace that may not be listed. No cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

import kopf_ha
from kopf_ha._context import entered
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Response
from kopf_ha.errors import ApiRefused, FloorLost
from kopf_ha.run.aside import try_again
from kopf_ha.run.barrier import raise_barrier
from kopf_ha.run.kinds import ServedKind
from kopf_ha.run.namespaces import Namespaces
from kopf_ha.run.sweep import Sweep
from tests.run.support import GROUP

KIND = ServedKind(GROUP, "v1", "roots", namespaced=True, stamped=True)
CLUSTER = ServedKind(GROUP, "v1", "trunks", namespaced=False, stamped=True)
NAMESPACES = "/api/v1/namespaces"


class Api:
    """Holds the objects of collections by path; a path that it does not have may not be listed."""

    def __init__(self, **objects: tuple[str, ...] | None) -> None:
        self.objects = {KIND.collection_in(namespace): names for namespace, names in objects.items()}
        self.tokens: dict[str, int] = {}
        self.listed: list[str] = []
        self.stamped: list[str] = []

    def items(self, path: str) -> list[Any]:
        self.listed.append(path)
        names = self.objects.get(path)
        if names is None:
            raise ApiRefused(f"no permission to list {path}", 403)
        return [self.body(path, name) for name in names]

    def body(self, path: str, name: str) -> dict[str, Any]:
        namespace = path.split("/")[5] if path.count("/") > 4 else ""
        metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
        body: dict[str, Any] = {"metadata": metadata | ({"namespace": namespace} if namespace else {})}
        if token := self.tokens.get(name):
            body["status"] = {"fencing": Stamp(token, "them", "ns/op", "u").as_status()}
        return body

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Response:
        self.stamped.append(path.split("/")[-2])
        return Response(200, b"{}")


@pytest.fixture
def fence() -> Fence:
    return Fence("ns/op", deciding=[KIND.name, CLUSTER.name])


@pytest.fixture
def grant() -> Grant:
    return Grant(Stamp(7, "me", "ns/op", "uid"), 1000.0)


def sweep(api: Any, fence: Fence, grant: Grant, *patterns: str, kinds: tuple[ServedKind, ...] = (KIND,)) -> Sweep:
    return Sweep(api, fence, grant, kinds, Namespaces(patterns))


def test_only_the_namespaces_that_are_served(fence: Fence, grant: Grant) -> None:
    """Neither a list of the cluster nor of the namespaces: a Role allows neither."""
    api = Api(prod=("a",), staging=("b",), test=("c",))
    assert raise_barrier(sweep(api, fence, grant, "prod", "staging")).stamped == 2
    assert sorted(api.listed) == [KIND.collection_in("prod"), KIND.collection_in("staging")]
    assert sorted(api.stamped) == ["a", "b"]
    assert grant.swept is None


def test_a_token_in_a_served_namespace_is_a_floor(fence: Fence, grant: Grant) -> None:
    """I2. What another namespace records is not looked at, so nobody there can end a term (I10)."""
    api = Api(prod=("a",), staging=("b",))
    api.tokens["b"] = 9
    assert raise_barrier(sweep(api, fence, grant, "prod")).stamped == 1
    with pytest.raises(FloorLost):
        raise_barrier(sweep(api, fence, grant, "prod", "staging"))


def test_patterns_are_those_of_kopf(fence: Fence, grant: Grant) -> None:
    api = Api(one=("a",), other=("b",))
    api.objects[NAMESPACES] = ("one", "other", "third")
    assert raise_barrier(sweep(api, fence, grant, "o*, !other")).stamped == 1
    assert api.listed == [NAMESPACES, KIND.collection_in("one")]
    assert grant.swept is None


def test_without_the_permission_for_patterns_names_are_served_alone(fence: Fence, grant: Grant) -> None:
    api = Api(prod=("a",), staging=("b",))
    made = sweep(api, fence, grant, "prod", "stag*")
    assert raise_barrier(made).stamped == 1
    assert made.trouble == f"the patterns of -n are not served: no permission to list {NAMESPACES}"
    assert grant.swept == {"prod"}, "and so nothing in another namespace is decided from"
    # The permission came.
    api.objects[NAMESPACES] = ("prod", "staging")
    try_again(made, [], lambda left: None, wait=lambda _: None)
    assert sorted(api.stamped) == ["a", "b"]
    assert grant.swept is None


def test_a_namespace_that_may_not_be_listed_costs_no_term(fence: Fence, grant: Grant) -> None:
    """It does not exist yet, or a Role is missing: the API server answers both the same way."""
    api = Api(prod=("a",))
    made = sweep(api, fence, grant, "prod", "later")
    assert raise_barrier(made).stamped == 1
    assert list(made.left) == ["later"]
    assert not grant.sets_aside("uid-a", "prod")
    assert grant.sets_aside("uid-c", "later"), "an earlier leader might still write it (I4)"
    with entered(grant):
        assert kopf_ha.current_term().sets_aside("uid-c", "later"), "handlers can ask"
        assert not kopf_ha.current_term().sets_aside("uid-a", "prod")
    assert not grant.sets_aside("uid-t", ""), "cluster-scoped objects are listed in any case"

    told: list[Mapping[str, str]] = []
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            api.objects[KIND.collection_in("later")] = ("c",)

    try_again(made, [], lambda left: None, told.append, wait)
    assert len(waits) == 3
    assert told == [{}]
    assert api.stamped == ["a", "c"]
    assert not grant.sets_aside("uid-c", "later")


def test_a_namespace_is_not_decided_from_before_its_objects_are_stamped(fence: Fence, grant: Grant) -> None:
    api = Api(prod=(), later=("c",))
    during: list[bool] = []
    stamp = api.request

    def request(method: str, path: str, *rest: Any, **more: Any) -> Response:
        during.append(grant.sets_aside("uid-c", "later"))
        return stamp(method, path, *rest, **more)

    api.request = request  # type: ignore[method-assign]
    hidden = api.objects.pop(KIND.collection_in("later"))
    made = sweep(api, fence, grant, "prod", "later")
    raise_barrier(made)
    api.objects[KIND.collection_in("later")] = hidden
    try_again(made, [], lambda left: None, wait=lambda _: None)
    assert during == [True]
    assert not grant.sets_aside("uid-c", "later")


def test_a_cluster_scoped_kind_needs_a_cluster_role(fence: Fence, grant: Grant) -> None:
    with pytest.raises(ApiRefused, match=r"trunks.* is cluster-scoped, so -n does not limit it, .*bind a ClusterRole"):
        raise_barrier(sweep(Api(prod=()), fence, grant, "prod", kinds=(KIND, CLUSTER)))
    api = Api(prod=("a",))
    api.objects[CLUSTER.collection] = ("t",)
    assert raise_barrier(sweep(api, fence, grant, "prod", kinds=(KIND, CLUSTER))).stamped == 2


def test_in_the_whole_cluster_a_kind_that_cannot_be_listed_is_no_term(fence: Fence, grant: Grant) -> None:
    with pytest.raises(ApiRefused, match="no permission"):
        raise_barrier(sweep(Api(prod=("a",)), fence, grant))


@pytest.mark.parametrize(
    ("patterns", "covered", "left"),
    [
        (("prod",), (), ()),
        ((), (), ()),
        (("prod",), ("prod", "staging"), ()),
        (("prod", "test"), ("prod",), ("test",)),
        (("pro*",), ("prod",), ("pro*",)),
        ((), ("prod",), ("*",)),
    ],
)
def test_policies_for_fewer_namespaces_than_are_served(
    patterns: tuple[str, ...], covered: tuple[str, ...], left: tuple[str, ...]
) -> None:
    assert Namespaces(patterns).uncovered(covered) == left
