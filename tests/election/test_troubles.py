"""What an elector says of its troubles, without an API server."""

from __future__ import annotations

import logging

import pytest

from devcluster.waiting import until
from kopf_ha.election import Elector
from kopf_ha.election.troubles import Troubles
from kopf_ha.errors import ConfigurationError
from tests.election.world import settings


@pytest.fixture
def troubles(caplog: pytest.LogCaptureFixture) -> Troubles:
    caplog.set_level(logging.INFO, "kopf_ha.election")
    return Troubles("ns/op")


def test_a_cause_is_logged_once_until_it_changes(troubles: Troubles, caplog: pytest.LogCaptureFixture) -> None:
    for cause in ("away", "away", "refused", ""):
        troubles.tell("watch", cause)
    assert [r.getMessage() for r in caplog.records] == ["away", "refused", "Lease ns/op: works again, after: refused"]


def test_one_cause_of_two_sources_is_one_trouble(troubles: Troubles, caplog: pytest.LogCaptureFixture) -> None:
    troubles.tell("watch", "away")
    troubles.tell("write", "away")
    troubles.tell("watch", "")
    assert (troubles.first, troubles.of("watch"), troubles.of("read", "write")) == ("away", "", "away")
    troubles.tell("write", "")
    assert [r.getMessage() for r in caplog.records] == ["away", "Lease ns/op: works again, after: away"]
    assert troubles.first == ""


def test_an_elector_without_a_client_ends_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def no_client() -> None:
        raise ConfigurationError("no credentials")

    elector = Elector(settings("a"), no_client, on_started=pytest.fail, on_stopped=pytest.fail)  # type: ignore[arg-type]
    elector.start()
    until("its end", lambda: elector.state == "stopped")
    until("the thread's end", lambda: not elector.signs.alive)
    assert elector.last_error == "the election's thread ended by an error of its own: no credentials"
    assert "no credentials" in caplog.text
