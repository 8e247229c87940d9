"""`kopf-ha manifests` on files and options of any form: it prints manifests, or says in a sentence what is wrong."""

from __future__ import annotations

from typing import Any

import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.command import manifests
from kopf_ha.manifests.description import Child, Kind
from kopf_ha.manifests.documents import parse
from kopf_ha.settings import Settings
from tests.fuzz.fuzzing import fuzzed, nearly
from tests.manifests.operator_files import crd, deployment, load, roles, rule

OPERATOR = [crd(), deployment(), *load(roles(rule("", "configmaps", "create")))]
parts = st.sampled_from(
    ["toys", "cluster", "map=a", "value=", "owner=Toy", "scale", "a=b", ".", "configmaps", "toys.example.com"]
)
words = st.lists(parts | st.text(max_size=6), min_size=1, max_size=4).map(":".join)
streams = st.one_of(
    st.text(max_size=40),
    st.text("-:{}[]&*!|>'\"%@`#? \n\ta0\x00\x85", max_size=60),
    nearly(st.just(OPERATOR[1]), 2).map(yaml.safe_dump),
    st.sampled_from(["[" * 600, "a: " + "{b: " * 600, "kind: ValidatingAdmissionPolicy\n" + "[" * 600, "{" * 600]),
    st.just("a: &a [x]\nb: &b [*a, *a]\nkind: *b"),
)


@fuzzed(60)
@given(words)
def test_options_of_any_text(text: str) -> None:
    for read in (Kind.parse, Child.parse):
        try:
            read(text)
        except ConfigurationError:
            continue


@fuzzed(20)
@given(streams)
def test_files_of_any_text(text: str) -> None:
    try:
        for document in parse("a file", text):
            assert document.title
            document.rendered()
    except ConfigurationError:
        pass


@fuzzed(6)
@given(nearly(st.just(OPERATOR), 2))
def test_manifests_that_are_nearly_right(documents: Any) -> None:
    text = yaml.safe_dump_all(documents if isinstance(documents, list) else [documents])
    result = CliRunner().invoke(manifests, ["-f", "-"], input=text)
    assert result.exit_code in (0, 2), (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)


@fuzzed(40)
@given(st.dictionaries(
    st.sampled_from(["LEASE_DURATION", "RENEW_DEADLINE", "RETRY_PERIOD", "LEASE_NAME", "HEALTH_PORT", "LEVEL"]),
    st.text(max_size=6) | st.sampled_from(["15", "nan", "inf", "-1", "1e400", "٣", "9" * 5000]),
))  # fmt: skip
def test_settings_of_any_text(values: dict[str, str]) -> None:
    try:
        made = Settings.from_env({f"KOPF_HA_{name}": text for name, text in values.items()}, lease_namespace="ns")
    except ConfigurationError:
        return
    assert made.lease_duration > made.renew_deadline > made.retry_period > 0
