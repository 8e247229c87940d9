"""How the reference operator's requests are sent."""

from __future__ import annotations

import contextvars
from functools import partial

import pytest
import requests

from kopf_ha_ipam.writes import _read_environment_once, event

SERVER = "https://10.96.0.1"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> requests.Session:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return requests.Session()


@pytest.mark.parametrize(("but", "used"), [("", {"https": "http://proxy:3128"}), ("10.96.0.1", {})])
def test_proxies_and_cas_of_the_environment_are_used(
    session: requests.Session, monkeypatch: pytest.MonkeyPatch, but: str, used: dict[str, str]
) -> None:
    """They are looked for once and not at each request, but they count all the same."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", but)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/ca.pem")
    _read_environment_once(session, SERVER)
    monkeypatch.setenv("HTTPS_PROXY", "http://another:3128")
    found = session.merge_environment_settings(f"{SERVER}/api", {}, None, None, None)
    assert {k: v for k, v in found["proxies"].items() if k == "https"} == used
    assert found["verify"] == "/ca.pem"


def test_without_an_environment_nothing_changes(session: requests.Session) -> None:
    _read_environment_once(session, SERVER)
    assert session.verify is True


def test_an_event_before_any_handler_ran_makes_nothing_fail() -> None:
    """A new leader may serve a claim before Kopf's first handler; Kopf knows no place for events there."""
    body = {"metadata": {"name": "c", "namespace": "n", "uid": "u"}}
    contextvars.Context().run(partial(event, body, type="Normal", reason="Bound", message="The claim has 10.0.0.1."))
