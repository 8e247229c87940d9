"""Settings: every value is checked where it comes in, whatever it is."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopf_ha.core.election import JITTER_FACTOR
from kopf_ha.core.notes import notes_of, stamp_in
from kopf_ha.core.token import Stamp, stamp_of
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.schema import schema_fragment
from kopf_ha.settings import LONGEST_IDENTITY, POD_UID, Settings, new_identity, workload_of

DURATIONS = ("lease_duration", "renew_deadline", "retry_period", "drain_timeout")
anything = st.floats() | st.integers(-5, 100).map(float) | st.sampled_from([0.0, 0.5, 2.0, 2.4, 3.0])


def make(**given: Any) -> Settings | None:
    try:
        return Settings.from_env({}, **given)
    except ConfigurationError:
        return None


@given(st.fixed_dictionaries(dict.fromkeys(DURATIONS, anything)))
def test_what_is_taken_keeps_the_inequalities(values: dict[str, float]) -> None:
    settings = make(**values)
    lease, deadline, retry, drain = (values[name] for name in DURATIONS)
    right = (
        all(math.isfinite(v) for v in values.values())
        and 1 <= lease <= 86_400
        and lease == int(lease)
        and lease > deadline > retry * JITTER_FACTOR
        and retry > 0
        and drain >= 0
    )
    assert (settings is not None) == right


@given(st.dictionaries(st.sampled_from([n.upper() for n in Settings.__dataclass_fields__]), st.text()))
def test_no_environment_gives_anything_but_a_sentence(environ: dict[str, str]) -> None:
    try:
        settings = Settings.from_env({f"KOPF_HA_{k}": v for k, v in environ.items()})
    except ConfigurationError:
        return
    assert settings.lease_duration > settings.renew_deadline > settings.retry_period > 0
    assert settings.fence == "full" or settings.unsafe


@given(st.integers(2, 86_400))
def test_the_environment_says_the_same_as_the_names(seconds: int) -> None:
    values: dict[str, Any] = {
        "lease_duration": float(seconds),
        "renew_deadline": seconds * 0.6,
        "retry_period": seconds * 0.1,
    }
    texts = {f"KOPF_HA_{name.upper()}": f"{value!r}s" for name, value in values.items()}
    by_env, by_name = Settings.from_env(texts), Settings(**values)
    assert all(getattr(by_env, name) == getattr(by_name, name) for name in values)
    # What is given by name wins.
    assert Settings.from_env(texts, lease_duration=86_400.0).lease_duration == 86_400


def test_identities_are_of_the_process() -> None:
    """I2: neither a restarted container nor another replica has the same."""
    environ = {"POD_NAME": "pod-1", "POD_UID": "uid-1"}
    one, two = new_identity(environ), new_identity(environ)
    assert one[0].startswith("pod-1_uid-1_")
    assert one[1] == two[1] == "uid-1"
    assert one[0] != two[0]
    assert Settings().identity != Settings().identity
    assert "fixed" not in Settings.from_env({"KOPF_HA_IDENTITY": "fixed", "KOPF_HA_POD_UID": "fixed"}).identity


@given(
    st.integers(1, 86_400) | st.none(),
    st.floats(0.01, 90_000) | st.none(),
    st.floats(0.01, 90_000) | st.none(),
    st.booleans(),
)
def test_durations_that_are_not_given_follow_the_lease_duration(
    lease: int | None, deadline: float | None, retry: float | None, by_env: bool
) -> None:
    """In the proportion of client-go's defaults. What is given stays, and is right or refused in words."""
    values = {"lease_duration": lease, "renew_deadline": deadline, "retry_period": retry}
    environ = {f"KOPF_HA_{name.upper()}": repr(value) for name, value in values.items() if value is not None}
    whole = 15 if lease is None else lease
    expected = whole, deadline or whole * 10 / 15, retry or whole * 2 / 15
    right = expected[0] > expected[1] > expected[2] * JITTER_FACTOR
    with nullcontext() if right else pytest.raises(ConfigurationError, match="raise the one or lower the other"):
        s = Settings.from_env(environ) if by_env else Settings.from_env({}, **values)
        assert (s.lease_duration, s.renew_deadline, s.retry_period) == expected


@pytest.mark.parametrize("seconds", [1, 5, 15, 86_400])
def test_a_lease_duration_alone_is_enough(seconds: int) -> None:
    s = Settings(lease_duration=seconds)
    assert (s.renew_deadline, s.retry_period, s.recovery) == (seconds * 10 / 15, seconds * 2 / 15, seconds)


def test_only_a_fenced_term_recovers_and_none_that_old_replicas_wait_for() -> None:
    """Old peers of Kopf go on when nobody renews, and change nothing by which that could be seen."""
    assert Settings().timing.recovery == 15
    assert Settings(recovery=0).timing.recovery == 0
    assert Settings(fence="rv", unsafe=True).timing.recovery == 0
    assert Settings(legacy_lock="kopfpeerings/default").timing.recovery == 0
    with pytest.raises(ConfigurationError, match="--recovery"):
        Settings(recovery=-1)


def test_a_copy_is_checked_again_and_keeps_its_identity() -> None:
    settings = Settings()
    assert settings.changed(lease_name="other").identity == settings.identity
    assert settings.changed(lease_duration=3).renew_deadline == 2
    given = settings.changed(renew_deadline=10)
    assert given.changed(lease_duration=30).renew_deadline == 10
    assert given.changed(lease_duration=30).retry_period == 4
    with pytest.raises(ConfigurationError, match="--renew-deadline"):
        given.changed(lease_duration=1.0)


def test_ports() -> None:
    assert Settings.from_env({"KOPF_HA_HEALTH_PORT": "8081", "KOPF_HA_METRICS_PORT": "8080"}).health_port == 8081
    for ports, sentence in {
        ("8081", "8081"): "are both 8081; choose two ports",
        ("70000", "0"): "--metrics-port must be a port from 1 to 65535, or 0 for none, not 70000",
        ("0", "-1"): "--health-port must be a port from 1 to 65535, or 0 for none, not -1",
        ("0", "http"): "KOPF_HA_HEALTH_PORT must be a port from 1 to 65535, or 0 for none, not 'http'",
    }.items():
        with pytest.raises(ConfigurationError, match=sentence):
            Settings.from_env(dict(zip(("KOPF_HA_METRICS_PORT", "KOPF_HA_HEALTH_PORT"), ports, strict=True)))


def test_an_identity_that_is_given_gets_what_a_stamp_needs_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stamp without a pod's uid is refused by the schema, so a term would end at its first one."""
    monkeypatch.setenv("POD_NAME", "pod-1")
    monkeypatch.setenv("POD_UID", "uid-1")
    inside = Settings(identity="me")
    assert (inside.identity, inside.pod_uid, inside.pod_name) == ("me", "uid-1", "pod-1")
    assert Settings(identity="me", pod_uid="other").pod_uid == "other"
    monkeypatch.delenv("POD_UID")
    outside = Settings(identity="me")
    assert outside.pod_uid
    assert outside.changed(lease_name="other").pod_uid == outside.pod_uid
    assert (outside.pod_name, Settings().pod_name) == ("", "")


@given(
    st.text(max_size=3) | st.sampled_from(["x" * 320, "x" * 321]),
    st.text(max_size=3) | st.from_regex(POD_UID, fullmatch=True) | st.sampled_from(["x" * 36, "x" * 37]),
)
def test_every_identity_that_is_taken_makes_a_stamp_that_is_understood(identity: str, pod_uid: str) -> None:
    try:
        s = Settings(identity=identity, pod_uid=pod_uid)
    except ConfigurationError:
        taken = identity.isprintable() and len(identity) <= LONGEST_IDENTITY
        assert not taken or (pod_uid and not POD_UID.fullmatch(pod_uid))
        return
    mine = Stamp(7, s.identity, s.lease, s.pod_uid)
    assert stamp_of({"status": {"fencing": mine.as_status()}}) == mine
    for kind in ("configmaps", "deployments.apps"):
        notes = notes_of(mine, kind)
        recorded = stamp_in(tuple(notes), s.lease, kind)
        assert recorded is not None
        assert mine.is_read_as(recorded)
        assert all(len(n.text) <= 63 for n in notes if n.section == "labels")
    limits = schema_fragment()["properties"]["status"]["properties"]["fencing"]["properties"]
    for name, value in mine.as_status().items():
        assert name == "token" or limits[name]["minLength"] <= len(value) <= limits[name]["maxLength"], name


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("shop-operator-7d4b9c5f6d-x2v5q", "shop-operator"),
        ("shop-operator-5d59d67564-xk2zl", "shop-operator"),
        ("shop-bcd-6b474476c4-9xkqz", "shop-bcd"),
        ("op-4-bbbbb", "op"),
        ("shop.v2-0", "shop.v2"),
        ("shop-12", "shop"),
        ("shop-012", ""),
        ("shop", ""),
        ("shop-x2v5q", ""),  # a DaemonSet's or a Job's: the end of its name could be anything
        ("shop-web-x2v5q", ""),
        ("shop-7d4b9c5f6d-x2v5a", ""),
        ("", ""),
        # A name so long that Kubernetes cuts the hash off.
        (f"{'shop-operator-' * 4}7dx2v5q", ""),
    ],
)
def test_the_workload_of_a_pod(pod: str, workload: str) -> None:
    assert workload_of(pod) == workload


def test_the_lease_has_the_workload_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """One name for all operators made two of them elect one leader, and one of them never ran."""
    outside = Settings()
    assert (outside.lease_name, outside.operator, outside.earlier_lease) == ("kopf-ha", "", "")
    names = {}
    for pod in ("shop-7d4b9c5f6d-x2v5q", "shop-5d59d67564-xk2zl", "bill-0"):
        monkeypatch.setenv("POD_NAME", pod)
        made = Settings.from_env({})
        names[pod] = made.lease_name
        assert (made.operator, made.earlier_lease) == (made.lease_name, "kopf-ha")
        assert made.changed(fence="full").earlier_lease == "kopf-ha"
    assert list(names.values()) == ["shop", "shop", "bill"], "the same for all revisions"
    given = Settings(lease_name="mine")
    assert (given.lease_name, given.operator, given.earlier_lease) == ("mine", "bill", "")


def test_a_lease_that_cannot_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "debug")
    with pytest.raises(
        ConfigurationError, match="--lease-name is needed: pod debug is of no Deployment or StatefulSet"
    ):
        Settings()
    assert Settings(lease_name="op").lease_name == "op"
    monkeypatch.delenv("POD_NAME")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ConfigurationError, match=r"POD_NAME is not set; choose .* by the downward API"):
        Settings()
    assert Settings(lease_name="op").lease_name == "op"
