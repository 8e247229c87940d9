"""What a new leader has to know before it decides, and which claims it has nothing to do for."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import kopf
import pytest

from kopf_ha_ipam import allocator, claims, handlers, retries, shown
from kopf_ha_ipam.allocator import Allocator
from kopf_ha_ipam.model import ADDRESS_NOTE, Claim
from kopf_ha_ipam.writes import Rejected, Unavailable
from tests.ipam.test_ipam_memory import Server, body, claim, memory

READY = {"type": "Ready", "status": "True", "reason": "Bound"}


def bound(name: str, address: str, **more: Any) -> dict[str, Any]:
    """Give a claim of pool `p` that an earlier term bound."""
    status = {"address": address, "prefixLength": 29, "conditions": [READY], "fencing": {"token": 6, "holder": "was"}}
    return {**body(name, annotations={ADDRESS_NOTE: address}), "status": status, **more}


class Paged(Server):
    """Shows its claims in pages of two; the later pages come when the test lets them."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()
        self.asked: list[str] = []  #: addresses, and "table"
        self.asking: Callable[[], None] = lambda: None  #: what happens while an address is asked for
        self.question: Exception | None = None
        self.table: Exception | None = None
        self.failures: list[Exception] = []

    async def claim_pages(self) -> AsyncIterator[list[dict[str, Any]]]:
        for begin in range(0, len(self.found_claims), 2):
            if begin:
                await self.more.wait()
                if self.failures:
                    raise self.failures.pop()
            yield self.found_claims[begin : begin + 2]

    async def addresses(self) -> list[tuple[str, str]]:
        self.asked.append("table")
        if self.table is not None:
            raise self.table
        return [((one.get("status") or {}).get("address") or "", one["metadata"]["uid"]) for one in self.found_claims]

    async def showing(self, address: str) -> list[str]:
        self.asked.append(address)
        await asyncio.sleep(0)
        if self.question is not None:
            raise self.question
        self.asking()
        all_claims = [(one.get("status", {}).get("address"), one["metadata"]["uid"]) for one in self.found_claims]
        return [uid for shows, uid in all_claims if shows == address]


@pytest.fixture(autouse=True)
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "FIRST", 2)
    monkeypatch.setattr(allocator, "PAUSE", 0.0)
    monkeypatch.setattr(allocator, "LOOKS", 0)


def five() -> Paged:
    """Give a server with a pool of four addresses and five claims, of which the last shows one that nobody recorded."""
    server = Paged()
    server.put("p", "10.0.0.0/29", allocations={f"10.0.0.{n}": f"ns/c{n}/uid-c{n}" for n in (1, 2, 3)})
    server.found_claims = [bound(f"c{n}", f"10.0.0.{n}") for n in (1, 2, 3)]
    server.found_claims += [body("d"), bound("e", "10.0.0.4")]
    return server


async def address_of(term: Allocator, name: str) -> str | None:
    answer = await term.keepers["p"].ask(claim(name))
    return getattr(answer, "address", None)


async def begun(server: Paged) -> tuple[Allocator, asyncio.Task[None]]:
    """Give a term that knows the first page, and the task that lists the others."""
    term = memory(server)
    await term.load()
    assert not term.shown.ready
    rest = asyncio.create_task(term.load_rest())
    await term.shown.until_ready()
    return term, rest


def test_a_decision_asks_for_the_addresses_that_it_gives_and_waits_for_no_list() -> None:
    """I5: a claim may show an address that no pool records; it stands on the last page."""

    async def scenario() -> None:
        server = five()
        term, rest = await begun(server)
        assert await address_of(term, "new") == "10.0.0.5"
        assert server.asked == [shown.NO_ADDRESS, "10.0.0.4", "10.0.0.5"]
        assert not term.complete
        assert term.queue("p") is None, "claims that wait are not all known, so nothing goes to one of them by the way"
        server.more.set()
        await rest
        assert term.complete
        assert set(term.claims) == {"uid-c1", "uid-c2", "uid-c3", "uid-d", "uid-e"}
        assert await address_of(term, "z") is None, "claim d waits longer for 10.0.0.6"
        assert server.asked == [shown.NO_ADDRESS, "10.0.0.4", "10.0.0.5"], "from then on, nothing is asked"

    asyncio.run(scenario())


def test_claims_that_ask_together_are_asked_for_together() -> None:
    async def scenario() -> None:
        server = five()
        term, rest = await begun(server)
        assert set(await asyncio.gather(*(address_of(term, name) for name in "xyz"))) == {"10.0.0.5", "10.0.0.6", None}
        assert sorted(server.asked[1:]) == ["10.0.0.4", "10.0.0.5", "10.0.0.6"], "each one once"
        assert len(server.writes) == 1
        rest.cancel()

    asyncio.run(scenario())


def test_a_claim_gets_the_address_that_it_shows_itself() -> None:
    async def scenario() -> None:
        server = five()
        term, rest = await begun(server)
        answer = await term.keepers["p"].ask(Claim.parse(server.found_claims[4]))
        assert getattr(answer, "address", None) == "10.0.0.4"
        rest.cancel()

    asyncio.run(scenario())


def test_a_pool_that_is_deleted_while_an_address_is_asked_for_gives_none() -> None:
    """A decision is judged on the body whose resourceVersion is sent: removing the last finalizer compares nothing."""

    async def scenario() -> None:
        server = five()
        term, rest = await begun(server)

        def delete() -> None:
            server.objects["p"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            term.pool_seen(server.edit("p"))

        server.asking = delete
        assert await address_of(term, "new") is None
        assert server.asked == [shown.NO_ADDRESS, "10.0.0.4"]
        assert len(server.objects["p"]["status"]["allocations"]) == 3
        rest.cancel()

    asyncio.run(scenario())


def test_for_many_addresses_a_table_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "MANY", 1)

    async def scenario() -> None:
        server = five()
        term, rest = await begun(server)
        assert set(await asyncio.gather(*(address_of(term, name) for name in "xyz"))) == {"10.0.0.5", "10.0.0.6", None}
        assert server.asked == [shown.NO_ADDRESS, "table"]
        assert not term.complete
        rest.cancel()

    asyncio.run(scenario())


def test_a_failed_question_gives_nothing_and_is_asked_again() -> None:
    async def scenario() -> None:
        server = five()
        term, rest = await begun(server)
        server.question = Unavailable("500")
        with pytest.raises(Unavailable):
            await address_of(term, "new")
        assert server.writes == []
        server.question = None
        assert await address_of(term, "new") == "10.0.0.5"
        rest.cancel()

    asyncio.run(scenario())


def test_without_a_selectable_field_a_decision_waits_for_the_table(caplog: pytest.LogCaptureFixture) -> None:
    """As with a CRD from before it had one, or Kubernetes before 1.31."""
    caplog.set_level("INFO", logger="kopf_ha_ipam")

    async def scenario() -> None:
        server = five()
        server.question = Rejected('400 field label not supported: "status.address"')
        term, rest = await begun(server)
        assert not term.complete
        assert term.shown.found == {"10.0.0.4": "uid-e"}
        assert await address_of(term, "new") == "10.0.0.5"
        assert server.asked == [shown.NO_ADDRESS, "table"]
        rest.cancel()

    asyncio.run(scenario())
    assert [r.message for r in caplog.records if "field label" in r.message and "apply the CRDs" in r.message]


def test_without_the_table_a_decision_waits_for_all_claims() -> None:
    """As with a CRD from before it had the columns."""

    async def scenario() -> None:
        server = five()
        server.question = server.table = Rejected("406")
        server.failures = [Unavailable("410: the list is too old"), Unavailable("500")]
        term = memory(server)
        await term.load()
        ready = asyncio.create_task(term.shown.until_ready())
        rest = asyncio.create_task(term.load_rest())
        await asyncio.sleep(0.01)
        assert not ready.done()
        server.more.set()
        await rest
        await ready
        assert await address_of(term, "new") == "10.0.0.6", "claim d waits longer, and e shows 10.0.0.4"

    asyncio.run(scenario())


def test_a_claim_that_went_while_the_others_are_listed_does_not_come_back() -> None:
    async def scenario() -> None:
        server = five()
        term, rest = await begun(server)
        term.claim_gone(server.found_claims[2])
        server.more.set()
        await rest
        assert "uid-c3" not in term.claims
        assert "uid-c3" in term.agenda.leaving, "its address is freed"

    asyncio.run(scenario())


@pytest.mark.parametrize("missed", ["nothing", "a claim", "an address"])
def test_what_kopfs_own_list_has_shown_is_not_listed_again(monkeypatch: pytest.MonkeyPatch, missed: str) -> None:
    """I5: only if a consistent read says that it has shown all of them, as they are."""
    monkeypatch.setattr(allocator, "LULL", 0.0)
    monkeypatch.setattr(allocator, "LOOKS", 5)

    async def scenario() -> None:
        server = five()
        term, rest = await begun(server)
        *most, last = copy.deepcopy(server.found_claims)
        for one in most:
            term.claim_seen(one)
        if missed != "a claim":
            last["status"]["address"] = None if missed == "an address" else last["status"]["address"]
            term.claim_seen(last)
        server.found_claims[-1]["metadata"]["resourceVersion"] = "99"
        await asyncio.sleep(0.01)
        assert term.complete == (missed == "nothing")
        assert "table" in server.asked
        server.more.set()
        await rest
        assert term.complete
        assert term.shown.found == {"10.0.0.4": "uid-e"}

    asyncio.run(scenario())


def test_claims_that_went_while_nobody_led_are_found_when_all_are_known() -> None:
    async def scenario() -> None:
        server = five()
        del server.found_claims[1]
        term, rest = await begun(server)
        assert term.agenda.leaving == {}, "a claim that is not listed yet is not gone"
        server.more.set()
        await rest
        assert list(term.agenda.leaving) == ["uid-c2"]

    asyncio.run(scenario())


def test_a_retry_compares_no_claims_before_all_are_known() -> None:
    """It would remove the condition of claims whose partner is not listed yet, and set it again (I7)."""

    async def scenario() -> None:
        server = five()
        term = memory(server)
        await term.load()
        term.compare()
        term.context = contextvars.copy_context()
        await retries.Retries(term)._show()
        assert term.suspicious
        assert term.twice == {}

    asyncio.run(scenario())


def changed(**more: Any) -> Callable[[dict[str, Any]], None]:
    return lambda one: one.update(more)


def of_status(**more: Any) -> Callable[[dict[str, Any]], None]:
    return lambda one: one["status"].update(more)


def of_metadata(**more: Any) -> Callable[[dict[str, Any]], None]:
    return lambda one: one["metadata"].update(more)


@pytest.mark.parametrize(
    "damage",
    [
        of_status(address="10.0.0.2"),
        of_status(prefixLength=23),
        of_status(gateway="10.0.0.6"),
        of_status(conditions=[]),
        of_status(conditions=[READY | {"status": "False", "reason": "ConfigMapTaken"}]),
        of_metadata(annotations={}),
        of_metadata(annotations={ADDRESS_NOTE: "10.0.0.9"}),
        of_metadata(finalizers=[]),
        of_metadata(deletionTimestamp="2026-01-01T00:00:00Z"),
        of_metadata(uid="uid-other"),
        changed(spec={"poolName": "q"}),
        lambda one: one.pop("status"),
    ],
)
def test_a_claim_is_settled_only_if_it_has_all_that_it_should_have(damage: Callable[[dict[str, Any]], Any]) -> None:
    """Else a leader does not repair what was edited, restored from a backup, or left half done (I7)."""

    async def scenario() -> None:
        server = five()
        term = memory(server)
        await term.load()
        given: Any = {"memo": kopf.Memo(memory=term)}
        right: Any = server.found_claims[0]
        wrong = copy.deepcopy(right)
        assert not handlers.is_unsettled(body=right, **given)
        assert not handlers.is_news(type=None, body=right, **given)
        assert handlers.is_news(type="DELETED", body=right, **given)
        damage(wrong)
        assert handlers.is_unsettled(body=wrong, **given)
        assert handlers.is_news(type=None, body=wrong, **given)
        aside = memory(server, {"uid-p"})
        await aside.load()
        assert not claims.settled(aside, Claim.parse(right)), "its pool has no stamp of this term"

    asyncio.run(scenario())


def test_the_configmap_of_a_claim_that_needs_nothing_is_checked_once() -> None:
    async def scenario() -> None:
        server = five()
        server.found_claims[1]["status"]["fencing"] = {"token": 7, "holder": "me"}
        term = memory(server)
        await term.load()
        some: list[Any] = server.found_claims[:2]
        for one in some:
            assert not handlers.is_unsettled(body=one, memo=kopf.Memo(memory=term))
        assert list(term.agenda.unverified) == ["uid-c1"], "this term bound the other one itself"
        term.agenda.done("uid-c1")
        assert not handlers.is_unsettled(body=some[0], memo=kopf.Memo(memory=term))
        assert not term.agenda.unverified

    asyncio.run(scenario())
