"""What `kopf-ha manifests` writes, and that the reference operator's own files are that."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from devcluster import Cluster
from kopf_ha.core.refusal import RULE_MESSAGE, Refusal, refusal_of
from kopf_ha.core.target import Target
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests import Child, Description, Kind, render, schema_fragment, term_crd
from kopf_ha.manifests.cel import NOT_FENCED, UNBOUND
from kopf_ha.manifests.command import manifests
from testbed.deployment import ROOT
from tests.core.fake_api import denied

#: How the reference operator's manifests are written.
REFERENCE = [
    "--group=ipam.kopf-ha.dev",
    "--kind=addresspools:cluster:deciding:map=allocations",
    "--kind=addressclaims:value=address",
    "--child=configmaps:app.kubernetes.io/managed-by=kopf-ha-ipam:owner=AddressClaim",
    "--lease=kopf-ha-ipam/kopf-ha-ipam",
    "--service-account=kopf-ha-ipam/kopf-ha-ipam",
    "--prefix=kopf-ha-ipam",
]
NAMES: dict[str, Any] = {"lease": "n/l", "service_account": "n/s"}
TERM_CRD = ROOT / "crds" / "terms.yaml"
#: Policies of every operator, at each level.
ALWAYS = ("lease", "lease-kept", "term", "term-written", "term-kept", "lease-term")
COMPONENT = ROOT / "deploy" / "components" / "policies" / "policies.yaml"


def run(*args: str) -> Result:
    return CliRunner().invoke(manifests, args)


def documents(*args: str) -> list[dict[str, Any]]:
    result = run(*REFERENCE, *args)
    assert result.exit_code == 0, result.output
    return [d for d in yaml.safe_load_all(result.output) if d]


def of_kind(kind: str, many: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [d for d in many if d["kind"] == kind]


# --- the reference operator's files


def test_the_component_is_what_the_generator_writes() -> None:
    """``KOPF_HA_REWRITE=1`` writes it anew."""
    text = run(*REFERENCE, "--only=policies").output
    if os.environ.get("KOPF_HA_REWRITE"):
        COMPONENT.write_text(text)
    assert COMPONENT.read_text() == text


def test_the_crd_of_the_term_is_what_the_generator_writes() -> None:
    """It is the library's, and the same for all operators. ``KOPF_HA_REWRITE=1`` writes it anew."""
    text = render([term_crd.definition()], "Written by kopf-ha manifests --only term, for any operator.")
    if os.environ.get("KOPF_HA_REWRITE"):
        TERM_CRD.write_text(text)
    assert TERM_CRD.read_text() == text
    assert documents("--only=term") == [term_crd.definition()]


def test_the_crds_have_the_fragment() -> None:
    (fragment,) = documents("--only=schema")
    assert fragment == schema_fragment()
    for path in (ROOT / "crds").glob("address*.yaml"):
        for version in yaml.safe_load(path.read_text())["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            rules = {r["rule"]: r["message"] for r in schema["x-kubernetes-validations"]}
            (wanted,) = fragment["x-kubernetes-validations"]
            assert rules[wanted["rule"]] == wanted["message"]
            assert (
                schema["properties"]["status"]["properties"]["fencing"]
                == (fragment["properties"]["status"]["properties"]["fencing"])
            )
            assert version["subresources"] == {"status": {}}


def test_the_rule_has_one_sentence_wherever_it_stands() -> None:
    """The fence knows it by this."""
    (wanted,) = schema_fragment()["x-kubernetes-validations"]
    assert wanted["message"] == RULE_MESSAGE
    found = {}
    for path in [*ROOT.glob("crds/*.yaml"), *ROOT.glob("examples/*.yaml")]:
        for crd in of_kind("CustomResourceDefinition", [d for d in yaml.safe_load_all(path.read_text()) if d]):
            for version in crd["spec"]["versions"]:
                for rule in version["schema"]["openAPIV3Schema"].get("x-kubernetes-validations", ()):
                    if "status.fencing" in rule["rule"]:
                        found[path.name] = rule["message"]
    stamped = ("addresspools.yaml", "addressclaims.yaml", "backups.yaml", "webhook_operator.yaml")
    assert found == dict.fromkeys(stamped, RULE_MESSAGE)


def test_the_rbac_is_the_generator_s() -> None:
    ours = {(d["kind"], d["metadata"]["name"]): d for d in documents("--only=rbac")}
    base = [d for d in yaml.safe_load_all((ROOT / "deploy/base/rbac.yaml").read_text()) if d]
    assert {(d["kind"], d["metadata"]["name"]) for d in base} == set(ours)
    for document in base:
        same = ours[document["kind"], document["metadata"]["name"]]
        assert document.get("rules") == same.get("rules")
        assert document.get("roleRef") == same.get("roleRef")


@pytest.mark.parametrize(
    ("lock", "kind", "namespace", "rules"),
    [
        ("endpoints/old", "Role", "kopf-ha-ipam", [("", "endpoints", ["old"]), ("", "endpoints", None)]),
        (
            "leases/there/old",
            "Role",
            "there",
            [("coordination.k8s.io", "leases", ["old"]), ("coordination.k8s.io", "leases", None)],
        ),
        ("clusterkopfpeerings/old", "ClusterRole", None, [("kopf.dev", "clusterkopfpeerings", ["old"])]),
    ],
)
def test_the_roles_for_a_legacy_lock(lock: str, kind: str, namespace: str | None, rules: list[Any]) -> None:
    plain, with_lock = documents("--only=rbac"), documents("--only=rbac", f"--legacy-lock={lock}")
    role, binding = with_lock[len(plain) :]
    assert with_lock[: len(plain)] == plain
    assert (role["kind"], role["metadata"].get("namespace")) == (kind, namespace)
    assert [(r["apiGroups"][0], r["resources"][0], r.get("resourceNames")) for r in role["rules"]] == rules
    assert [r["verbs"] for r in role["rules"]] == [["get", "list", "watch", "update"], ["create"]][: len(rules)]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    ours, theirs = documents("--only=policies", f"--legacy-lock={lock}"), documents("--only=policies")
    (changed,) = (n for n, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
    assert ours[changed]["metadata"]["name"] == "kopf-ha-ipam-term"
    (condition,), (without,) = (of[changed]["spec"]["matchConditions"] for of in (ours, theirs))
    exempt = f".metadata.name != '{lock.rpartition('/')[2]}'"
    assert exempt in condition["expression"]
    assert exempt not in without["expression"]
    assert f"--legacy-lock {lock}\n" in run(*REFERENCE, f"--legacy-lock={lock}").output


def test_the_flow_schema_is_the_generator_s() -> None:
    (ours,) = documents("--only=flowschema")
    path = ROOT / "deploy/components/election-priority/flow-schema.yaml"
    assert yaml.safe_load(path.read_text()) == ours


def test_kustomize_takes_the_component(cluster: Cluster, tmp_path: Any) -> None:
    where = os.path.relpath(COMPONENT.parent, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"components": [where]}))
    done = cluster.kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", str(tmp_path))
    found = list(yaml.safe_load_all(done.stdout))
    wanted = {(d["kind"], d["metadata"]["name"]): d["spec"] for d in documents("--only=policies")}
    assert {(d["kind"], d["metadata"]["name"]): d["spec"] for d in found} == wanted
    assert {d["metadata"]["labels"]["app.kubernetes.io/part-of"] for d in found} == {"kopf-ha"}


# --- the generator


def test_every_policy_is_bound_and_refuses_with_403() -> None:
    many = documents("--only=policies")
    bound = {b["metadata"]["name"]: b["spec"] for b in of_kind("ValidatingAdmissionPolicyBinding", many)}
    found = of_kind("ValidatingAdmissionPolicy", many)
    assert [p["metadata"]["name"] for p in found] == list(bound)
    for policy in found:
        name = policy["metadata"]["name"]
        assert name.startswith("kopf-ha-ipam-")
        ref: dict[str, Any] = {"name": "kopf-ha-ipam", "namespace": "kopf-ha-ipam", "parameterNotFoundAction": "Allow"}
        by_term = name in ("kopf-ha-ipam-term", "kopf-ha-ipam-lease-term")
        more = {"paramRef": ref} if by_term else {}
        assert bound[name] == {"policyName": name, "validationActions": ["Deny"]} | more
        # Whoever fails to find a parameter fails before the conditions, for everybody's writes.
        assert policy["spec"]["failurePolicy"] == ("Ignore" if by_term else "Fail")
        assert ("paramKind" in policy["spec"]) == by_term
        assert len(policy["spec"]["matchConditions"]) == 1, "each one costs every request something"
        for rule in policy["spec"]["validations"]:
            assert rule["reason"] == "Forbidden"
            assert "fencing" in rule["message"]


def test_a_message_that_names_the_writers_pod_says_when_there_is_none() -> None:
    """A token that is not bound to a pod is the cause then, and `this is pod , not` would hide it."""
    named = []
    for policy in of_kind("ValidatingAdmissionPolicy", documents("--only=policies")):
        rules = policy["spec"]["validations"]
        bound = any(rule["message"] == UNBOUND for rule in rules)
        for rule in rules:
            said = rule.get("messageExpression", "")
            if "variables.writer" in said and not bound:
                assert "variables.writer == '' ?" in said, said
                named.append(rule["message"].partition(": ")[2][:30])
    assert "a replica names only its own p" in named
    assert "a replica gives back only its " in named


def test_where_no_stamp_is_found_the_likely_cause_is_named() -> None:
    """A plain `kopf run` with the fenced account meets these, and its user need not know what a stamp is."""
    named = [
        (policy["metadata"]["name"].removeprefix("kopf-ha-ipam-"), rule["message"].partition("fencing stamp")[0])
        for policy in of_kind("ValidatingAdmissionPolicy", documents("--only=policies"))
        for rule in policy["spec"]["validations"]
        if NOT_FENCED in rule.get("messageExpression", "")
    ]
    stale = "fencing token of Lease kopf-ha-ipam/kopf-ha-ipam: the object is not stamped by this writer; stamp it"
    assert named == [
        ("stamped", "fencing: a status write must carry its writer's "),
        ("stamped", f"{stale} through /status first"),
        ("child-configmaps", "fencing: an object of configmaps must carry its writer's "),
        ("child-configmaps", f"{stale} first"),
    ]


def test_only_the_rules_about_tokens_can_end_a_term() -> None:
    """I10. Of each sentence, the static one and the one with the tokens, the beginning tells."""
    lease, found = "kopf-ha-ipam/kopf-ha-ipam", []
    for policy in of_kind("ValidatingAdmissionPolicy", documents("--only=policies")):
        name = policy["metadata"]["name"]
        resources, *_ = policy["spec"]["matchConstraints"]["resourceRules"]
        target = Target(resources["apiGroups"][0], "v1", resources["resources"][0].partition("/")[0], "x", "y")
        for rule in policy["spec"]["validations"]:
            sentences = {rule["message"], rule.get("messageExpression", rule["message"]).lstrip("'\"")}
            (refusal,) = {refusal_of(denied(name, sentence), target, lease) for sentence in sentences}
            assert refusal in (Refusal.POLICY_TOKEN, Refusal.POLICY_OTHER)
            if refusal.about_tokens:
                found.append((name.removeprefix("kopf-ha-ipam-"), rule["message"].partition(": ")[2]))
            elif name.endswith(("-stamped", "-child-configmaps")):
                assert rule["message"].startswith("fencing: ")
    assert found == [
        ("stamped", "the stamp's token is stale"),
        ("stamped", "a status write must carry its writer's own fencing stamp"),
        ("stamped", "the object is not stamped by this writer; stamp it through /status first"),
        ("child-configmaps", "the stamp's token is stale"),
        ("child-configmaps", "an object of configmaps must carry its writer's own fencing stamp"),
        ("child-configmaps", "the object is not stamped by this writer; stamp it first"),
    ]


def test_names_and_parts() -> None:
    kinds = [d["kind"] for d in documents()]
    assert kinds[:4] == ["CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role"]
    assert kinds[4:6] == ["RoleBinding", "FlowSchema"]
    result = run("--group=a.b", "--kind=xs", "--lease=n/l", "--service-account=n/mine", "--only=policies")
    names = {d["metadata"]["name"] for d in yaml.safe_load_all(result.output)}
    assert names == {f"kopf-ha-n.mine-{n}" for n in ("stamped", "stamp", "schema", *ALWAYS)}
    assert result.output.startswith(
        "# Written by kopf-ha manifests, for kopf-ha run --lease-namespace n --lease-name l\n"
    )
    assert "--deciding addresspools.ipam.kopf-ha.dev" in run(*REFERENCE).output.splitlines()[0]
    both = run(*REFERENCE, "--only=policies", "--only=schema").output
    assert "# Merge this into spec.versions[*].schema.openAPIV3Schema" in both


def test_a_kind_without_status_fencing_has_the_policies_of_children() -> None:
    args = ["--group=a.b", "--lease=n/l", "--service-account=n/s", "--only=policies"]
    for kinds, stamped in (
        (["--kind=xs:annotations:deciding:map=m"], []),
        (["--kind=ys"], ["stamped", "stamp", "schema"]),
    ):
        many = of_kind("ValidatingAdmissionPolicy", list(yaml.safe_load_all(run(*args, *kinds).output)))
        names = [p["metadata"]["name"].removeprefix("kopf-ha-n.s-") for p in many]
        noted = [] if stamped else ["terminating-xs", "child-xs.a.b", "annotations-xs.a.b"]
        assert names == [*stamped, *noted, *ALWAYS]
    (terminating,) = (
        p
        for p in of_kind(
            "ValidatingAdmissionPolicy", list(yaml.safe_load_all(run(*args, "--kind=xs:annotations:map=m").output))
        )
        if "terminating" in p["metadata"]["name"]
    )
    (resources, _) = terminating["spec"]["matchConstraints"]["resourceRules"]
    assert resources["resources"] == ["xs/status", "xs"]


SERVED = ["--group=a.b", "--kind=xs:map=m", "--kind=ys:cluster", "--child=configmaps", "--service-account=ops/o"]


def written(*args: str) -> list[dict[str, Any]]:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.output))


def test_names_of_two_accounts_never_collide() -> None:
    """Otherwise applying the second one's takes the first one's permissions away."""
    accounts = ("prod/op", "staging/op", "prod-a/b", "prod/a-b", "prod/op-election", "prod/op-served")
    found: list[tuple[str, str, str]] = []
    for account in accounts:
        args = [*SERVED[:-1], f"--service-account={account}", "--lease=prod/l"]
        both = written(*args) + written(*args, "-n", "prod", "-n", "staging")
        both = [d for d in both if d["kind"] != "CustomResourceDefinition"]  # of the Term, which is the same for all
        found += {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]) for d in both}
    assert len(found) == len(set(found))


def test_roles_in_the_namespaces_that_are_served() -> None:
    many = written(*SERVED, "--lease=ops/l", "-n", "prod", "-n", "test", "--only=rbac")
    roles = {(d["kind"], d["metadata"].get("namespace")): d["rules"] for d in many if "rules" in d}
    assert set(roles) == {("ClusterRole", None), ("Role", "prod"), ("Role", "test"), ("Role", "ops")}
    inside = [r["resources"] for r in roles["Role", "prod"]]
    assert inside == [["xs"], ["xs/status"], ["configmaps"], ["events"]]
    assert roles["Role", "prod"] == roles["Role", "test"]
    assert [r["resources"] for r in roles["ClusterRole", None]] == [["ys"], ["ys/status"]]
    assert [r["resources"] for r in roles["Role", "ops"]] == [
        *([["leases"]] * 2),
        *([["terms"]] * 2),
        ["pods"],
        ["events"],
    ]
    bound = {(d["kind"], d["metadata"].get("namespace")) for d in many if "subjects" in d}
    assert bound == {(f"{kind}Binding", namespace) for kind, namespace in roles}
    only = written(*[a for a in SERVED if "cluster" not in a], "--lease=ops/l", "-n", "prod", "--only=rbac")
    assert {d["kind"] for d in only} == {"Role", "RoleBinding"}, "a Role is enough without a cluster-scoped kind"


@pytest.mark.parametrize("lease", ["prod", "ops"])
def test_rules_for_everybody_hold_in_the_namespaces_that_are_served(lease: str) -> None:
    """Those about the operator's own account hold everywhere, wherever else it has rights."""
    many = of_kind(
        "ValidatingAdmissionPolicy",
        written(*SERVED, f"--lease={lease}/l", "-n", "prod", "-n", "test", "--only=policies"),
    )
    found = {}
    for policy in many:
        match = policy["spec"]["matchConstraints"]
        expressions = match.get("namespaceSelector", {}).get("matchExpressions", [])
        found[policy["metadata"]["name"].removeprefix("kopf-ha-ops.o-")] = [v for e in expressions for v in e["values"]]
        (condition,) = policy["spec"]["matchConditions"]
        everybody = policy["metadata"]["name"].endswith(("-stamp", "-terminating-xs"))
        inside = "in ['', 'prod', 'test'] || (request.resource.resource == 'leases'"
        assert (inside in condition["expression"]) == (everybody and lease == "ops")
    namespaces = sorted({"prod", "test", lease})
    everywhere: dict[str, list[str]] = {
        n: [] for n in ("stamped", "schema", "child-configmaps", "annotations-configmaps", "term")
    }
    narrow = {"stamp": namespaces, "terminating-xs": namespaces} | {n: [lease] for n in ALWAYS if n != "term"}
    assert found == everywhere | narrow


def test_the_header_says_how_to_run_it() -> None:
    first = run(*SERVED, "--lease=ops/l", "-n", "prod", "-n", "test").output.splitlines()[0]
    assert first.endswith("kopf-ha run --lease-namespace ops --lease-name l -n prod -n test")


def test_the_description_of_an_operator_in_all_namespaces_is_as_before() -> None:
    """Replicas of an earlier release read it during a rolling update."""
    everywhere = Description(group="a.b", kinds=(Kind("xs"),), lease="n/l", service_account="n/s")
    assert "namespaces" not in everywhere.as_json()
    for one in (everywhere, replace(everywhere, namespaces=("prod", "test"))):
        assert Description.from_json(one.as_json()) == one


def test_exempt_subresources_are_left_out() -> None:
    args = ["--group=a.b", "--kind=xs", "--child=pods:owner=X", "--lease=n/l", "--service-account=n/s"]
    result = run(*args, "--exempt=pods/eviction", "--exempt=xs.a.b/scale", "--only=policies")
    conditions = {
        p["metadata"]["name"]: [c["expression"] for c in p["spec"]["matchConditions"]]
        for p in of_kind("ValidatingAdmissionPolicy", list(yaml.safe_load_all(result.output)))
    }
    assert any("['pods/eviction']" in e for e in conditions["kopf-ha-n.s-child-pods"])
    assert any("['xs/scale']" in e for e in conditions["kopf-ha-n.s-stamped"])
    assert "o.kind == 'X'" in result.output


def test_subresources_that_show_no_stamp_are_allowed_where_they_are_named() -> None:
    args = [
        "--group=a.b",
        "--kind=xs:scale",
        "--kind=ys",
        "--kind=zs:annotations:scale",
        "--child=pods:owner=X:eviction:status:exec:eviction",
    ]
    args += ["--child=apps.b", "--lease=n/l", "--service-account=n/s"]
    text = run(*args, "--only=policies", "--only=rbac").output
    assert "# No policy sees a stamp in writes to xs.a.b/scale, zs.a.b/scale, pods/eviction, pods/exec.\n" in text
    many = list(yaml.safe_load_all(text))
    ours = of_kind("ValidatingAdmissionPolicy", many)
    found = {p["metadata"]["name"].removeprefix("kopf-ha-n.s-"): p["spec"] for p in ours}
    conditions = {name: [c["expression"] for c in p.get("matchConditions", ())] for name, p in found.items()}
    assert any("['pods/eviction', 'pods/exec']" in e for e in conditions["child-pods"])
    assert any("['xs/scale']" in e for e in conditions["stamped"])
    assert any("['zs/scale']" in e for e in conditions["child-zs.a.b"])
    # A Binding that is sent to a collection of its own is one of the Pod, too.
    rules = found["child-pods"]["matchConstraints"]["resourceRules"]
    assert rules[0]["resources"] == ["pods", "pods/*", "bindings"]
    assert not any("scale" in e for e in conditions["child-apps.b"])
    assert found["revision-pods"]["matchConstraints"]["resourceRules"][0]["resources"] == ["pods/eviction"]
    assert len(found["revision-pods"]["validations"]) == 1
    rights = {(*r["resources"], *r["verbs"]) for o in of_kind("ClusterRole", many) for r in o["rules"]}
    assert rights >= {
        ("pods/eviction", "create"),
        ("pods/status", "get", "patch", "update"),
        ("pods/exec", "get", "create"),
        ("xs/scale", "zs/scale", "get", "patch", "update"),
    }
    refused = next(v for v in found["child-apps.b"]["validations"] if "variables.sub in" in v["expression"])
    assert "--child apps.b:SUBRESOURCE for kopf-ha manifests" in refused["message"]


def test_a_description_without_subresources_is_read() -> None:
    """As policies contain it that were written before these could be named, and as earlier releases read it."""
    made = Description(group="a.b", kinds=(Kind("xs"),), children=(Child("pods"),), **NAMES)
    assert "scale" not in made.as_json()
    assert "subresources" not in made.as_json()
    assert Description.from_json(made.as_json()) == made


def test_a_description_is_read_as_it_was_written() -> None:
    children = (Child("pods", labels=(("a", "b"),), subresources=("eviction", "status")),)
    made = Description(group="a.b", kinds=(Kind("xs", scale=True, maps=("m",)),), children=children, **NAMES)
    assert Description.from_json(made.as_json()) == made


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--group=pods"], "'pods' is not an API group of custom resources, as in ipam.example.com"),
        (["--lease=leader"], "Lease 'leader' must be written namespace/name"),
        (["--service-account=a/B"], "service account 'a/B' must be written namespace/name"),
        (["--kind=Pools"], "'Pools' is not a kind's plural, as in addresspools"),
        (["--kind=xs:decides"], "'decides' in kind 'xs:decides' must be cluster, namespaced, deciding, annotations,"),
        (["--kind=xs:map=a.b"], "'a.b' is not a field of the status of xs"),
        (["--kind=xs", "--kind=xs"], "xs is named twice"),
        (
            ["--child=configmaps:label"],
            "'label' in child configmaps is neither LABEL=VALUE nor owner=KIND nor a subresource of it that the fence"
            " knows: scale, status",
        ),
        (["--child=deployments.apps:eviction"], "'eviction' in child deployments.apps is neither"),
        (["--child=configmaps:a=b c"], "'b c' is not a value of the label a"),
        (["--child=configmaps:a="], "'a=' in child 'configmaps:a=' has no value; write LABEL=VALUE or owner=KIND"),
        (["--child=configmaps:owner="], "'owner=' in child 'configmaps:owner=' has no value; write"),
        (["--child=configmaps:=b"], "'=b' in child 'configmaps:=b' has no key; write LABEL=VALUE or owner=KIND"),
        (["--child=configmaps:owner=A:owner=B"], "child 'configmaps:owner=A:owner=B' has two owners; name one kind"),
        (["--kind=xs:map="], "'map=' in kind 'xs:map=' has no value; write the name of a field of the status"),
        (
            ["--child=configmaps:owner=claim"],
            "owner=claim in child 'configmaps:owner=claim' is not written as in its CRD, where spec.names.kind is such",
        ),
        (["--child=configmaps:owner=A.b"], "'A.b' is not the owner's kind of configmaps, as in AddressClaim"),
        (["--kind=xs", "--child=xs.a.b"], "xs.a.b is named both as a kind and as a child"),
        (["--prefix=mine"], "the prefix 'mine' must begin with kopf-ha: the fence looks for it"),
        (
            ["--namespace=team-*"],
            "'team-*' is not a namespace's name; policies and roles name each, so patterns cannot",
        ),
        (["--namespace=a", "--namespace=a"], "a is named twice"),
        (["--exempt=pods/eviction"], "exempt 'pods/eviction' must be written plural[.group]/subresource, of one of"),
    ],
)
def test_bad_input_is_named(args: list[str], said: str) -> None:
    given = {"--group": "a.b", "--lease": "n/l", "--service-account": "n/s"}
    given |= {a.partition("=")[0]: a.partition("=")[2] for a in args if a.partition("=")[0] in given}
    more = [a for a in args if a.partition("=")[0] not in given]
    kinds = [] if any(a.startswith("--kind") for a in more) else ["--kind=ys"]
    result = run(*(f"{k}={v}" for k, v in given.items()), *kinds, *more)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_no_description_takes_an_object_without_a_label_for_a_child() -> None:
    """An empty value would: a policy cannot tell it from a label that is not there."""
    with pytest.raises(ConfigurationError, match="'' is not a value of the label app"):
        Child("configmaps", labels=(("app", ""),))


def test_a_kind_of_its_own_or_a_child_is_needed() -> None:
    where = "--lease=n/l", "--service-account=n/s"
    assert "Missing option --group, --kind" in run(*where).output
    assert "Missing option --kind" in run(*where, "--group=a.b").output
    result = run(*where, "--child=secrets")
    names = {o["metadata"]["name"] for o in yaml.safe_load_all(result.output)}
    assert "kopf-ha-n.s-child-secrets" in names
    assert "kopf-ha-n.s-stamped" not in names


def test_a_legacy_lock_is_checked() -> None:
    result = run(*REFERENCE, "--legacy-lock=old")
    assert result.exit_code == 2
    assert "the legacy lock must be written RESOURCE/NAME" in " ".join(result.output.split())


# --- level term


def test_level_term_is_the_term_alone() -> None:
    """No stamp, no kind, no CRD of the operator's; a Role is enough."""
    many = written("--level=term", "--lease=n/l", "--service-account=n/s")
    assert [d["kind"] for d in many if not d["kind"].startswith("Validating")] == [
        *("CustomResourceDefinition", "Role", "RoleBinding", "FlowSchema")
    ]
    names = [p["metadata"]["name"] for p in of_kind("ValidatingAdmissionPolicy", many)]
    assert names == [f"kopf-ha-n.s-{n}" for n in ALWAYS]
    (role,) = of_kind("Role", many)
    assert [(r["resources"], r.get("resourceNames"), r["verbs"]) for r in role["rules"]] == [
        (["leases"], ["l"], ["get", "list", "watch", "update"]),
        (["leases"], None, ["create"]),
        (["terms"], ["l"], ["get", "patch"]),
        (["terms"], None, ["create"]),
        (["pods"], None, ["get", "list", "watch"]),
        (["events"], None, ["create"]),
    ]
    (leading,) = (p for p in of_kind("ValidatingAdmissionPolicy", many) if p["metadata"]["name"] == "kopf-ha-n.s-term")
    assert {"name": "carried", "expression": "0"} in leading["spec"]["variables"]
    first = run("--level=term", "--lease=n/l", "--service-account=n/s").output.splitlines()[0]
    assert first.endswith("kopf-ha run --lease-namespace n --lease-name l --level term")


def test_level_full_is_the_default_and_has_the_term_too() -> None:
    assert run(*REFERENCE).output == run(*REFERENCE, "--level=full").output
    assert of_kind("CustomResourceDefinition", documents()) == [term_crd.definition()]


@pytest.mark.parametrize("arg", ["--group=a.b", "--kind=xs", "--child=secrets"])
def test_what_is_about_stamps_has_no_meaning_at_level_term(arg: str) -> None:
    result = run("--level=term", "--lease=n/l", "--service-account=n/s", arg)
    assert result.exit_code == 2
    assert "at level term nothing has a stamp" in " ".join(result.output.split())


def test_a_description_of_level_term_is_read_as_it_was_written() -> None:
    """Of level full it is as before: replicas of an earlier release read it during a rolling update."""
    made = Description(group="", kinds=(), level="term", **NAMES)
    assert Description.from_json(made.as_json()) == made
    assert "level" not in Description(group="a.b", kinds=(Kind("xs"),), **NAMES).as_json()
