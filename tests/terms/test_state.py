"""What of an operator's memory lives on when one process leads again (`--after-loss=follow`), as docs/terms.md says."""

from __future__ import annotations

from collections.abc import Callable

from tests.run.support import Replica, World
from tests.terms.support import Trace

OPERATOR = """
SEEN = []                          # filled by handlers
STORAGE = kopf.AnnotationsProgressStorage(prefix="state.test")
CLIENT = object()                  # made at import
context = __import__("contextvars").ContextVar("context", default="fresh")

@kopf.on.startup()
async def begin(memo, settings, **_):
    # what an earlier term left
    trace("startup", memo=dict(memo), finalizer=settings.persistence.finalizer, level=settings.posting.level,
          same=settings.persistence.progress_storage is STORAGE, seen=list(SEEN), context=context.get(),
          client=id(CLIENT), pid=os.getpid(), thread=threading.get_ident(), loop=id(asyncio.get_running_loop()))
    memo.term = kopf_ha.current_term().token
    settings.posting.level = 40 + kopf_ha.current_term().token
    settings.persistence.progress_storage = STORAGE
    context.set("used")

@kopf.on.create(GROUP, "v1", "things")
@kopf.on.resume(GROUP, "v1", "things")
def handled(name, memo, **_):
    trace("handled", name=name, memo={k: v for k, v in memo.items()})
    memo.of_object = kopf_ha.current_term().token
    SEEN.append(kopf_ha.current_term().token)

@kopf.on.update(GROUP, "v1", "things")
def updated(name, memo, **_):
    trace("updated", memo={k: v for k, v in memo.items()})
"""


def test_memory_of_one_process_in_two_terms(traced: Callable[..., Replica], trace: Trace, world: World) -> None:
    world.create("Thing", "a")
    replica = traced("one", OPERATOR, "op.py", "--after-loss=follow")
    first = trace.wait("handled", token=1)["token"]
    world.take_lease()
    second = trace.wait("handled", 2)["token"]
    world.ask("PATCH", world.path("things", "a"), {"spec": {"size": 2}}, "application/merge-patch+json")
    updated = trace.wait("updated", token=second)
    begun = [trace.all("startup", token=token)[0] for token in (first, second)]

    assert begun[0]["pid"] == begun[1]["pid"], "it is one process"
    # New in each term: settings, the operator's memo and each object's, context variables.
    for name in ("memo", "finalizer", "level", "same", "context"):
        assert begun[0][name] == begun[1][name], name
    assert begun[0]["memo"] == {}
    assert not begun[1]["same"], "Kopf's own storage, until the startup handler sets another"
    handled = [trace.all("handled", token=token)[0] for token in (first, second)]
    assert [one["memo"] for one in handled] == [{"term": first}, {"term": second}]
    assert updated["memo"] == {"term": second, "of_object": second}, "in a term it is kept"
    # As old as the process: what modules hold, whoever filled it.
    assert begun[0]["client"] == begun[1]["client"]
    assert [one["seen"] for one in begun] == [[], [first]]
    replica.terminate()
    assert replica.wait() == 0
