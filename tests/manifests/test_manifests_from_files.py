"""`kopf-ha manifests -f`: what is made of the manifests that an operator has, and which ones are refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kopf_ha.manifests import Child, Description, Kind, policies, schema_fragment
from kopf_ha.manifests.bundle import WRITTEN_FOR
from kopf_ha.manifests.command import manifests
from testbed.deployment import ROOT
from tests.manifests.operator_files import (
    PREFIX,
    Files,
    changed,
    container,
    crd,
    deployment,
    described,
    load,
    one,
    policy_names,
    roles,
    rule,
)

EXAMPLE = ROOT / "examples" / "clustersecret"
SHOP = ROOT / "tests" / "adoption" / "shop"


# --- the documents


def test_the_example_keeps_its_comments_order_and_quotes() -> None:
    text = Files(EXAMPLE).run("-f", str(EXAMPLE / "crds.yaml")).output  # twice, see below
    assert "is there twice" in text
    args = [a for name in ("crds", "rbac", "deployment") for a in ("-f", str(EXAMPLE / f"{name}.yaml"))]
    result = CliRunner().invoke(manifests, args)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for name in ("crds", "rbac", "deployment"):
        given = (EXAMPLE / f"{name}.yaml").read_text().splitlines()
        changed = [line for line in given if line not in lines]
        assert len(changed) <= 2, changed  # replicas and command
    assert (
        '["kopf-ha", "run", "-A", "--liveness=http://0.0.0.0:8080/healthz", "/src/clustersecret.py"]' in result.stdout
    )
    again = CliRunner().invoke(manifests, ["-f", "-"], input=result.stdout)
    assert again.stdout == result.stdout


def test_comments_around_documents_stay(files: Files) -> None:
    head = "# Copyright: theirs\n---\n# The operator\n"
    text = head + (EXAMPLE / "deployment.yaml").read_text() + "# The end\n---\n# Nothing\n"
    args = [a for name in ("crds", "rbac") for a in ("-f", str(EXAMPLE / f"{name}.yaml"))]
    output = CliRunner().invoke(manifests, [*args, "-f", "-"], input=text).stdout
    assert "# Copyright: theirs\n# The operator\napiVersion: apps/v1\n" in output
    assert output.endswith("# The end\n")
    again = CliRunner().invoke(manifests, ["-f", "-"], input=output)
    assert again.stdout == output


def test_what_is_not_changed_keeps_its_text(files: Files) -> None:
    text = "# ours\napiVersion: v1\nkind:   ConfigMap\nmetadata:\n    name: 'x'   # odd\n    namespace: play\n"
    files.write(other=text)
    assert text in files.made()


def test_lists_json_streams_and_templates_of_helm_are_read(files: Files) -> None:
    expected = files.made()
    items = [crd(), *load(roles()), deployment()]
    as_list = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    assert (load(files.made(stdin=as_list))) == (load(expected))
    helm = (
        "---\n# Source: toys/a.yaml\n---\n" + "\n---\n# Source: toys/b.yaml\n".join(map(json.dumps, items)) + "\n---\n"
    )
    assert (load(files.made(stdin=helm))) == (load(expected))


def test_helm_names_no_namespace_and_an_option_does(files: Files) -> None:
    bare = deployment()
    del bare["metadata"]["namespace"]
    account = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: toys\n"
    files.write(workload=bare, account=account)
    assert "say where it runs with --service-account NAMESPACE/toys" in files.refused()
    text = files.made("--service-account=play/toys")
    assert one(text, "Deployment")["metadata"]["namespace"] == "play"
    assert one(text, "ServiceAccount")["metadata"]["namespace"] == "play"
    assert "namespace" not in one(text, "ClusterRole")["metadata"]


def test_a_diff_shows_what_changes_and_nothing_else(files: Files) -> None:
    text = files.run("--diff").stdout
    assert "-      - kopf\n+      - kopf-ha\n" in text.replace("        ", "      ")
    assert f"new: ValidatingAdmissionPolicy {PREFIX}-stamped\n" in text
    assert "guessed: no kind is deciding." in text
    fenced = files.made()
    again = files.run("--diff", stdin=fenced).stdout
    assert again.startswith("nothing changes\n")
    assert "new: " not in again
    assert "\n+" not in again


def test_parts_can_be_printed_alone(files: Files) -> None:
    text = files.run("--only=policies").stdout
    assert policy_names(text) == policy_names(files.made())
    assert {d["kind"] for d in load(text)} == {
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }


def test_it_is_what_the_options_write(files: Files) -> None:
    """Both forms share the code: the same description, the same policies."""
    files.write(rbac=roles(rule("", "configmaps", "get", "create", "patch")))
    text = files.made("--deciding=toys.toys.example.com")
    made = [d for d in load(text) if d["kind"].startswith("ValidatingAdmission")]
    for document in made:
        assert document["metadata"].pop("annotations") == {WRITTEN_FOR: "play/toys"}
    description = Description(
        group="toys.example.com",
        kinds=(Kind("toys", deciding=True),),
        children=(Child("configmaps"),),
        lease="play/toys",
        service_account="play/toys",
    )
    assert described(text) == description
    assert made == policies(description)


def test_what_was_said_once_is_read_back(files: Files) -> None:
    """`made` feeds the output in without the options."""
    files.write(rbac=roles(rule("", "configmaps", "*"), rule("", "pods", "create")))
    said = ("--kind=toys:map=parts", "--child=configmaps:owner=Toys", "--child=pods:app=toys")
    text = files.made(*said, "--lease=play/other", "--prefix=kopf-ha-x", "--exempt=pods/resize")
    made = described(text)
    assert made.kinds == (Kind("toys", maps=("parts",)),)
    assert made.children == (Child("configmaps", owner="Toys"), Child("pods", labels=(("app", "toys"),)))
    assert (made.lease, made.prefix, made.exempt) == ("play/other", "kopf-ha-x", ("pods/resize",))
    assert {"name": "KOPF_HA_EXEMPT", "value": "pods/resize"} in container(text)["env"]


def test_two_operators_may_have_one_file(files: Files, tmp_path: Path) -> None:
    """What is written for one of them stays as it is when the other's is written anew."""
    other = json.loads(json.dumps([crd("boxes", "boxes.example.com"), deployment()]).replace("play", "ship"))
    other[1]["metadata"]["name"] = "boxes"
    other[1]["spec"]["template"]["spec"]["serviceAccountName"] = "boxes"
    (tmp_path / "two").mkdir()
    boxes = Files(tmp_path / "two")
    boxes.write(crds=other[0], workload=other[1])
    text = boxes.made("--child=pods")
    both = files.made() + "---\n" + text
    made = files.run("--deployment=play/toys", stdin=both)
    assert made.exit_code == 0, made.output
    assert sorted(map(str, load(made.stdout))) == sorted({*map(str, load(both))})  # one definition of the Term
    again = files.run("--deployment=boxes", "--child=pods", "--child=secrets", stdin=both).stdout
    new = policy_names(again) - policy_names(both)
    assert {name.rpartition("boxes-")[2] for name in new} == {"child-secrets", "annotations-secrets"}
    assert policy_names(both) <= policy_names(again)


# --- CRDs


def schema(text: str, n: int = 0) -> dict[str, Any]:
    versions = one(text, "CustomResourceDefinition", "toys.toys.example.com")["spec"]["versions"]
    return dict(versions[n]["schema"]["openAPIV3Schema"])


def test_every_version_gets_the_stamp_once(files: Files) -> None:
    two = crd()
    (v1,) = two["spec"]["versions"]
    two["spec"]["versions"] = [v1, json.loads(json.dumps(v1)) | {"name": "v2", "storage": False}]
    files.write(crds=two)
    text = files.made()
    fragment = schema_fragment()
    for n in range(2):
        assert schema(text, n)["x-kubernetes-validations"] == fragment["x-kubernetes-validations"]
        assert schema(text, n)["properties"]["status"]["properties"] == fragment["properties"]["status"]["properties"]


def test_rules_of_the_operators_own_stay_and_an_older_one_of_ours_is_replaced(files: Files) -> None:
    own = {"rule": "self.spec.size > 0", "message": "too small"}
    older = {"rule": "self.status.fencing.token >= oldSelf.status.fencing.token", "message": "older"}
    with_rules = crd()
    with_rules["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = [own, older]
    files.write(crds=with_rules)
    assert schema(files.made())["x-kubernetes-validations"] == [own, *schema_fragment()["x-kubernetes-validations"]]


def test_the_reference_operators_crds_have_all_of_it_already(files: Files) -> None:
    rules = rule("ipam.kopf-ha.dev", "addressclaims", "get", "patch"), rule("ipam.kopf-ha.dev", "addresspools", "get")
    files.write(rbac=roles(*rules), crds=(ROOT / "crds" / "addressclaims.yaml").read_text())
    files.write(pools=(ROOT / "crds" / "addresspools.yaml").read_text())
    changed = [line for line in files.run("--diff").stdout.splitlines() if "CustomResourceDefinition" in line]
    assert changed == ["new: CustomResourceDefinition terms.kopf-ha.dev"]


def test_a_status_of_unknown_fields_is_not_pruned_by_the_stamp(files: Files) -> None:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    files.write(crds=crd(schema={"openAPIV3Schema": free}))
    assert schema(files.made())["properties"]["status"]["x-kubernetes-preserve-unknown-fields"] is True
    # Where the status was pruned, it stays so.
    files.write(crds=crd(schema={"openAPIV3Schema": {"type": "object", "properties": {"spec": free}}}))
    assert "x-kubernetes-preserve-unknown-fields" not in schema(files.made())["properties"]["status"]


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ({"subresources": {}}, "no status subresource"),
        ({"schema": {"openAPIV3Schema": {"type": "object", "properties": {"status": {"type": "string"}}}}}, "string"),
        (
            {
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"status": {"type": "object", "additionalProperties": {"type": "string"}}},
                    }
                }
            },
            "is a map",
        ),
    ],
)
def test_a_kind_without_room_for_the_stamp_is_fenced_by_annotations(
    files: Files, version: dict[str, Any], why: str
) -> None:
    files.write(crds=crd(**version))
    text = files.made()
    assert "fencing" not in json.dumps(one(text, "CustomResourceDefinition", "toys.toys.example.com"))
    assert described(text).kinds == (Kind("toys", annotations=True),)
    assert "# noted: toys.toys.example.com is fenced by an annotation, since" in text
    assert why in text.partition("---")[0]


def test_scope_and_deciding_kinds(files: Files) -> None:
    cluster = crd()
    cluster["spec"]["scope"] = "Cluster"
    files.write(crds=cluster)
    text = files.made("--deciding=toys.toys.example.com")
    assert described(text).kinds == (Kind("toys", cluster=True, deciding=True),)
    assert {"name": "KOPF_HA_DECIDING", "value": "toys.toys.example.com"} in container(text)["env"]
    assert "no kind is deciding" not in text


def test_kinds_of_another_group_are_children(files: Files) -> None:
    files.write(crds=crd(), more=crd("boxes", "boxes.example.com"), third=crd("others", "vendor.example.com"))
    files.write(rbac=roles(rule("boxes.example.com", "boxes", "get", "patch")))
    text = files.made()
    assert described(text).children == (Child("boxes", "boxes.example.com"),)
    boxes = one(text, "CustomResourceDefinition", "boxes.boxes.example.com")
    assert boxes == crd("boxes", "boxes.example.com")
    assert one(text, "CustomResourceDefinition", "others.vendor.example.com") == crd("others", "vendor.example.com")
    assert described(files.made("--group=boxes.example.com")).group == "boxes.example.com"


def test_an_operator_may_have_no_kinds_of_its_own(files: Files) -> None:
    (files.folder / "crds.yaml").unlink()
    files.write(rbac=roles(rule("", "secrets", "get", "update"), rule("", "pods", "list", "watch")))
    assert "say --kind none if it has no kinds of its own" in files.refused()
    text = files.made("--kind=none", "--child=secrets")
    made = described(text)
    assert (made.group, made.kinds) == ("", ())
    assert made.children == (Child("secrets"), Child("toys", "toys.example.com"))
    assert policy_names(text) >= {f"{PREFIX}-child-secrets", f"{PREFIX}-lease"}
    assert f"{PREFIX}-stamped" not in policy_names(text)
    (generated,) = (d for d in load(text) if d["kind"] == "ClusterRole" and "annotations" in d["metadata"])
    assert all(r["resources"] and r["apiGroups"] != ["toys.example.com"] for r in generated["rules"])
    assert "secrets" not in json.dumps(generated)
    assert "an owner of secrets must be of the operator's own kinds" in files.refused(
        "--kind=none", "--child=secrets:owner=Toys"
    )
    files.write(rbac=roles().replace("toys.example.com", "").replace("toys, toys/status", "pods").replace('"*"', "get"))
    assert "there is nothing to fence" in files.refused("--kind=none")


# --- roles


def test_children_are_what_the_roles_allow_to_be_written(files: Files) -> None:
    files.write(
        rbac=roles(
            rule("", "secrets", "create"),
            rule("apps", "deployments", "update", "get"),
            rule("", "services", "get", "list", "watch"),
            rule("", "events", "create", "patch"),
            rule("coordination.k8s.io", "leases", "get", "update"),
            rule("kopf.dev", "kopfpeerings", "get", "patch"),
            rule("authorization.k8s.io", "subjectaccessreviews", "create"),
            rule("admissionregistration.k8s.io", "validatingwebhookconfigurations", "patch"),
            rule("", "pods/exec", "create"),
            rule("batch", "jobs", "deletecollection"),
            rule("batch", "jobs/status", "patch"),
            rule("toys.example.com", "toys", "update"),  # the generated role has the rest
        )
    )
    text = files.made()
    assert [c.kind for c in described(text).children] == ["secrets", "deployments.apps", "jobs.batch"]
    assert "# noted: leases.coordination.k8s.io are fenced in the operator's process only" in text
    assert "# noted: validatingwebhookconfigurations.admissionregistration.k8s.io are fenced in" in text
    rules = one(text, "ClusterRole")["rules"]
    added = [(r["resources"], r["verbs"]) for r in rules[13:]]
    assert added == [
        (["deployments"], ["patch"]),
        (["leases"], ["patch"]),
        (["validatingwebhookconfigurations"], ["get"]),
        (["jobs"], ["delete", "get", "list", "patch"]),
    ]


def test_the_fences_rights_are_as_narrow_as_the_operators(files: Files) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "toys", "namespace": "shelf"},
        "rules": [rule("", "secrets", "update", resourceNames=["one"])],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "toys", "namespace": "shelf"},
        "roleRef": {"kind": "Role", "name": "toys"},
        "subjects": [{"kind": "ServiceAccount", "name": "toys", "namespace": "play"}],
    }
    elsewhere = binding | {"metadata": {"name": "toys", "namespace": "play"}}
    files.write(role=role, binding=binding)
    text = files.made()
    (_, added) = one(text, "Role")["rules"]
    assert added == rule("", "secrets", "get", "patch", resourceNames=["one"])
    generated = [d for d in load(text) if d["kind"] == "ClusterRole" and "annotations" in d["metadata"]]
    assert "secrets" not in json.dumps(generated)
    files.write(binding=elsewhere)
    assert "cannot be read from Role toys" in files.refused()


def test_a_subresource_that_no_policy_judges_is_named(files: Files) -> None:
    files.write(rbac=roles(rule("apps", "deployments/scale", "patch")))
    text = files.made()
    assert "# guessed: the operator writes deployments.apps/scale, since ClusterRole toys allows it" in text
    assert described(text).children == (Child("deployments", "apps", subresources=("scale",)),)
    assert one(text, "ClusterRole")["rules"][-1] == rule("apps", "deployments", "get", "patch")


def test_a_role_that_allows_everything_needs_an_option(files: Files) -> None:
    files.write(rbac=roles(rule("*", "*", "*")))
    assert "cannot be read from ClusterRole toys, which allows every kind" in files.refused()
    assert described(files.made("--child=secrets")).children == (Child("secrets"),)
    assert described(files.made("--child=none")).children == ()
    files.write(rbac=roles().replace("name: toys}\nsubjects", "name: cluster-admin}\nsubjects"))
    assert "ClusterRole cluster-admin" in files.refused()
    files.write(rbac=roles(rule("toys.example.com", "*", "*")))
    assert described(files.made()).children == ()


def test_without_roles_an_option_says_what_is_written(files: Files) -> None:
    (files.folder / "rbac.yaml").unlink()
    refused = files.refused()
    assert refused.startswith("no role in the documents is bound to the operator's service account, play/toys. If a")
    assert described(files.made("--child=none")).kinds == (Kind("toys"),)


@pytest.mark.parametrize(
    ("path", "name", "looked_for"),
    [
        ("metadata.namespace", "paly", "paly/toys"),
        ("spec.template.spec.serviceAccountName", "tosy", "play/tosy"),
    ],
)
def test_a_misspelt_account_is_shown_beside_those_that_have_roles(
    files: Files, path: str, name: str, looked_for: str
) -> None:
    """Whatever else is said about children: the policies would judge the writes of nobody."""
    web = roles().split("---\n")[1].replace("toys", "web")
    user = web.replace("web", "user").replace("ServiceAccount", "User").replace("name: user, ", "name: USER, ")
    user = user.replace("USER", '"system:serviceaccount:far:away"').replace(", namespace: play", "")
    files.write(web=web, user=user, workload=changed(deployment(), path, name))
    sentence = f"service account, {looked_for}. Roles are bound to play/toys, play/web, far/away. If a name is wrong"
    assert sentence in files.refused()
    for options in (["--child=none"], ["--level=term"]):
        assert sentence in " ".join(files.run(*options).stderr.split())
    files.write(workload=deployment())
    assert "Roles are bound to" not in files.made("--child=none")


# --- the Deployment


def test_a_plain_deployment(files: Files) -> None:
    text = files.made()
    made = one(text, "Deployment")["spec"]
    assert made["replicas"] == 2
    assert made["strategy"] == {"type": "Recreate"}
    assert made["template"]["spec"]["terminationGracePeriodSeconds"] == 45
    held = container(text)
    assert held["command"] == ["kopf-ha", "run", "-A", "toys.py"]
    fields = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in held["env"] if "valueFrom" in e}
    assert fields == {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "POD_NAMESPACE": "metadata.namespace"}
    values = {e["name"]: e["value"] for e in held["env"] if "value" in e}
    assert values == {"KOPF_HA_LEASE_NAME": "toys", "KOPF_HA_HEALTH_PORT": "8081"}
    assert held["livenessProbe"]["httpGet"] == {"path": "/livez", "port": 8081}
    assert held["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8081}
    # It is the last, when its roles are there.
    assert load(text)[-1]["kind"] == "Deployment"


def test_what_a_deployment_has_stays(files: Files) -> None:
    env = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "A", "value": "b"}]
    given = deployment(container={"env": env, "ports": [{"containerPort": 8081}]}, terminationGracePeriodSeconds=90)
    given["spec"] |= {"replicas": 3, "paused": False}
    files.write(workload=given)
    text = files.made()
    made = one(text, "Deployment")["spec"]
    assert (made["replicas"], made["paused"]) == (3, False)
    assert made["template"]["spec"]["terminationGracePeriodSeconds"] == 90
    assert container(text)["env"][:2] == env
    assert container(text)["readinessProbe"]["httpGet"]["port"] == 8082


@pytest.mark.parametrize(("given", "made"), [(0, 2), (1, 2), (2, 2), (5, 5)])
def test_there_are_at_least_two_replicas(files: Files, given: int, made: int) -> None:
    files.write(workload=changed(deployment(), "spec.replicas", given))
    assert one(files.run().stdout, "Deployment")["spec"]["replicas"] == made


def test_a_rolling_update_stays_one_after_adoption(files: Files) -> None:
    """`Recreate` is for the one update in which plain Kopf ends."""
    text = files.made().replace("    type: Recreate\n", "    type: RollingUpdate\n")
    assert "type: RollingUpdate" in files.made(stdin=text)


def test_options_in_the_command_are_read_and_not_contradicted(files: Files) -> None:
    command = "kopf-ha", "run", "--lease-name=box", "--deciding", "toys.toys.example.com", "toys.py"
    files.write(workload=deployment(*command))
    text = files.made()
    assert described(text).lease == "play/box"
    assert described(text).kinds == (Kind("toys", deciding=True),)
    assert not {"KOPF_HA_LEASE_NAME", "KOPF_HA_DECIDING"} & {e["name"] for e in container(text)["env"]}
    assert one(text, "Deployment")["spec"].get("strategy") is None
    said = files.refused("--lease=play/other")
    assert "the command of container operator says --lease-name box, and the policies are for other" in said


def grace(text: str) -> int:
    return int(one(text, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])


def test_longer_times_need_a_longer_grace_period(files: Files) -> None:
    files.write(workload=deployment(container={"env": [{"name": "KOPF_HA_DRAIN_TIMEOUT", "value": "60s"}]}))
    assert grace(files.made()) == 145


@pytest.mark.parametrize(("flags", "seconds"), [(["--drain-timeout=90"], 205), (["--renew-deadline", "30s"], 165)])
def test_flags_win_over_variables_as_in_the_process(files: Files, flags: list[str], seconds: int) -> None:
    env = {f"KOPF_HA_{n}": v for n, v in (("DRAIN_TIMEOUT", "60s"), ("RENEW_DEADLINE", "10"), ("HEALTH_PORT", "8085"))}
    listed = [{"name": name, "value": value} for name, value in env.items()]
    command = "kopf-ha", "run", *flags, "--health-port=1", "--health-port=9000", "x.py"
    files.write(workload=deployment(*command, container={"env": listed}))
    text = files.made()
    assert grace(text) == seconds
    assert container(text)["readinessProbe"]["httpGet"]["port"] == 9000


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["kopf", "run", "toys.py"], ["kopf-ha", "run", "toys.py"]),
        (["/venv/bin/kopf", "run", "-m", "kopf"], ["/venv/bin/kopf-ha", "run", "-m", "kopf"]),
        (["python", "-m", "kopf", "run", "toys.py"], ["python", "-m", "kopf_ha", "run", "toys.py"]),
        (["sh", "-c", "exec kopf run toys.py"], ["sh", "-c", "exec kopf-ha run toys.py"]),
        (["sh", "-c", "a; python3 -m kopf  run x"], ["sh", "-c", "a; exec python3 -m kopf_ha  run x"]),
        (["sh", "-c", "set -e\n/v/kopf run x # kopf\n"], ["sh", "-c", "set -e\nexec /v/kopf-ha run x # kopf\n"]),
        (["tini", "--", "kopf", "run", "kopf.py"], ["tini", "--", "kopf-ha", "run", "kopf.py"]),
        (["kopf-ha", "run", "toys.py"], ["kopf-ha", "run", "toys.py"]),
    ],
)
def test_the_command(files: Files, given: list[str], made: list[str]) -> None:
    files.write(workload=deployment(*given))
    text = files.made()
    assert container(text)["command"] == made
    assert "no `kopf run` is seen" not in text


def test_command_and_arguments_may_be_apart(files: Files) -> None:
    files.write(workload=deployment("kopf", container={"args": ["run", "--namespace=kopf", "toys.py"]}))
    held = container(files.made())
    assert (held["command"], held["args"]) == (["kopf-ha"], ["run", "--namespace=kopf", "toys.py"])


@pytest.mark.parametrize("command", [["python", "main.py"], ["sh", "-c", "./kopf-run.sh"], ["run-kopf", "run"]])
def test_a_command_that_shows_no_kopf_is_left_and_named(files: Files, command: list[str]) -> None:
    files.write(workload=deployment(*command))
    text = files.made()
    assert container(text)["command"] == command
    assert "# TO DO: the command of container operator is not fenced, since no `kopf run` is seen in it." in text


def test_probes_of_liveness_stay_and_others_are_replaced(files: Files) -> None:
    def probed(port: Any, *flags: str, **more: Any) -> dict[str, Any]:
        probe = {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 7}
        files.write(workload=deployment("kopf", "run", *flags, "x.py", container={"livenessProbe": probe} | more))
        return container(files.made())

    url = "http://0.0.0.0:8080/healthz"
    assert probed(8080, f"--liveness={url}")["livenessProbe"]["periodSeconds"] == 7
    assert "startupProbe" not in probed(8080, "-L", url)
    named = {"ports": [{"name": "web", "containerPort": 8080}]}
    assert probed("web", f"--liveness={url}", **named)["livenessProbe"]["periodSeconds"] == 7
    # Nobody listens there on a follower.
    held = probed(9000, f"--liveness={url}")
    assert held["livenessProbe"]["httpGet"] == {"path": "/livez", "port": 8081}
    assert held["startupProbe"]["httpGet"]["path"] == "/livez"
    files.write(workload=deployment(container={"livenessProbe": {"exec": {"command": ["true"]}}}))
    text = files.made()
    assert container(text)["livenessProbe"] == {"exec": {"command": ["true"]}}
    assert "# guessed: the livenessProbe runs a program and stays" in text


@pytest.mark.parametrize(
    "command",
    [
        ["kopf", "run", "-n", "shelf", "--namespace=floor", "toys.py"],
        ["sh", "-c", "echo -n nothing && kopf run -n shelf --namespace=floor toys.py"],
    ],
)
def test_the_namespaces_that_are_served_are_read(files: Files, command: list[str]) -> None:
    files.write(workload=deployment(*command))
    assert described(files.made()).namespaces == ("shelf", "floor")
    assert "--namespace attic: the operator's command names shelf, floor" in files.refused("--namespace=attic")
    files.write(workload=deployment("sh", "-c", "echo -n nothing; kopf run -A toys.py"))
    assert described(files.made()).namespaces == ()
    files.write(workload=deployment("kopf", "run", "-n", "shelf-*", "toys.py"))
    text = files.made()
    assert described(text).namespaces == ()
    assert "since shelf-* is a pattern" in " ".join(text.replace("#  ", "").split())
    assert described(files.made("--namespace=shelf-1")).namespaces == ("shelf-1",)


def test_several_containers(files: Files) -> None:
    runs = {"name": "operator", "image": "o", "args": ["kopf", "run", "x.py"]}
    both: list[dict[str, Any]] = [{"name": "proxy", "image": "p"}, runs]
    files.write(workload=deployment(containers=both))
    template = one(files.made(), "Deployment")["spec"]["template"]
    assert template["metadata"]["annotations"] == {"kubectl.kubernetes.io/default-container": "operator"}
    assert template["spec"]["containers"][0] == both[0]
    assert template["spec"]["containers"][1]["args"] == ["kopf-ha", "run", "x.py"]
    both[1]["args"] = ["toys"]
    files.write(workload=deployment(containers=both))
    assert "name it with --container" in files.refused()
    assert "no container x, but proxy, operator" in files.refused("--container=x")
    assert "KOPF_HA_LEASE_NAME" in files.run("--container=operator").stdout


def test_what_stands_in_the_way_of_two_replicas_is_said(files: Files) -> None:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    files.write(workload=deployment(hostNetwork=True, volumes=volumes))
    text = files.made().partition("---")[0]
    assert "uses the node's network" in text
    assert "mount the volume data" in text


def test_one_of_two_deployments_has_to_be_named(files: Files) -> None:
    other = deployment()
    other["metadata"] = {"name": "web", "namespace": "play"}
    files.write(other=other)
    assert "there are several Deployments: play/web, play/toys" in files.refused()
    assert "--deployment x is none of: play/web, play/toys" in files.refused("--deployment=x")
    for name in ("toys", "play/toys"):
        text = files.run("--deployment", name).stdout
        assert one(text, "Deployment", "web") == other
        assert one(text, "Deployment")["spec"]["replicas"] == 2


# --- what is refused


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({"workload": "apiVersion: v1\nkind: Pod\nmetadata: {name: toys}\n"}, "Pod toys cannot be changed by this"),
        ({"crds": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"}, "there is no CustomResourceDefinition"),
        ({"twice": crd()}, "CustomResourceDefinition toys.toys.example.com is there twice, in"),
        ({"crds": changed(crd(), "spec.versions.0.schema", {})}, "version v1 of CustomResourceDefinition toys"),
        ({"crds": changed(crd(), "apiVersion", "apiextensions.k8s.io/v1beta1")}, "which Kubernetes no longer serves"),
        ({"crds": changed(crd(), "spec.versions.0.served", False)}, "serves no version"),
        ({"crds": changed(crd(), "spec.names", {"kind": "Toys"})}, "has no spec.names.plural"),
        ({"workload": deployment(serviceAccountName="default")}, "runs as the service account default"),
        ({"workload": deployment(containers=[])}, "has no spec.template.spec.containers"),
        (
            {"workload": deployment(container={"env": [{"name": "POD_NAME", "value": "x"}]})},
            "the variable POD_NAME of container operator is not the Pod's metadata.name",
        ),
        (
            {"workload": changed(deployment(), "spec.replicas", "two")},
            "does not have the form that Kubernetes asks for",
        ),
        ({"rbac": roles().replace("rules:\n", "rules:\n- everything\n")}, "kubectl apply --dry-run=server says what"),
        ({"bad": "a: [b\n"}, "bad.yaml is no YAML: "),
        ({"bad": "[" * 600}, "bad.yaml cannot be read: it is nested too deeply"),
        ({"bad": "kind: {{ .Values.kind }}\nname: {{ x }}\n"}, "render it first: helm template"),
        ({"bad": "a: b\n"}, "bad.yaml has a document that is no Kubernetes object, with kind"),
        ({"bad": "apiVersion: v1\nkind: Secret\n"}, "an object of kind Secret without metadata.name"),
        ({"kustomization": "apiVersion: k/v1\nkind: Kustomization\n"}, "is for kustomize; render it first"),
        (
            {"rbac": roles().replace("toys.example.com", "else.example.com")},
            "the operator's roles name none of the kinds toys.toys.example.com",
        ),
        (
            {"own": changed(crd(), "kind", "ClusterRole") | {"metadata": {"name": PREFIX}}},
            f"ClusterRole {PREFIX} in",
        ),
    ],
)
def test_bad_files_are_refused_in_words(files: Files, contents: dict[str, Any], sentence: str) -> None:
    files.write(**contents)
    assert sentence in files.refused()


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--deciding=boxes.toys.example.com"], "there is no"),
        (["--deciding=x.toys.example.com"], "--deciding x.toys.example.com: the operator's kinds are toys.toys"),
        (["--kind=boxes"], "--kind boxes: the operator's kinds are toys.toys.example.com"),
        (["--group=x.example.com"], "there is no CustomResourceDefinition of group x.example.com"),
        (["--service-account=play/x"], "--service-account play/x is not the account play/toys that Deployment"),
        (["--service-account=x"], "--service-account x is not the account"),
        (["--child=x:y"], "is neither LABEL=VALUE nor owner=KIND"),
        (["--lease=x"], "Lease 'x' must be written namespace/name"),
        (["-f", "/nowhere"], "there is no file /nowhere"),
    ],
)
def test_bad_options_are_refused_in_words(files: Files, args: list[str], sentence: str) -> None:
    if args[0].startswith("--deciding=boxes"):
        args, sentence = ["--deciding=boxes.none.example.com"], "there is no CustomResourceDefinition of group none."
    assert sentence in files.refused(*args)


def test_an_empty_directory_and_the_options_of_one_form_only(files: Files, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no file that ends in" in files.refused("-f", str(tmp_path / "empty"))
    alone = CliRunner().invoke(manifests, ["--diff"])
    assert alone.exit_code == 2
    assert "need -f" in alone.output
    alone = CliRunner().invoke(manifests, ["--group=toys.example.com"])
    assert alone.exit_code == 2
    assert "--kind, --lease, --service-account; or name the operator's manifests with -f" in " ".join(
        alone.output.split()
    )


def test_the_shop_of_the_page_by_hand() -> None:
    names = ("crds", "base", "deployment-kopf")
    args = [a for name in names for a in ("-f", str(SHOP / f"{name}.yaml"))]
    said = ["--deciding=racks.shop.example.com", "--kind=racks:map=slots", "--kind=boxes:value=slot"]
    result = CliRunner().invoke(manifests, [*args, *said, "--child=configmaps:owner=Box"])
    assert result.exit_code == 0, result.output
    assert described(result.stdout) == Description(
        group="shop.example.com",
        kinds=(Kind("racks", deciding=True, maps=("slots",)), Kind("boxes", values=("slot",))),
        children=(Child("configmaps", owner="Box"),),
        lease="shop/shop-operator",
        service_account="shop/shop-operator",
    )


# --- level term


def test_level_term_changes_the_deployment_alone(files: Files) -> None:
    """Neither CRDs nor roles nor, in the Deployment, more than at level full."""
    full, text = files.made(), files.made("--level=term")
    given = [crd(), *load(roles())]
    assert [d for d in load(text) if d in given] == given
    assert [d for d in load(full) if d in given] != given
    env = {e["name"]: e.get("value") for e in container(text)["env"]}
    assert env.pop("KOPF_HA_LEVEL") == "term"
    assert env == {e["name"]: e.get("value") for e in container(full)["env"]}
    made = described(text)
    assert (made.level, made.lease, made.service_account) == ("term", "play/toys", "play/toys")
    assert (made.group, made.kinds, made.children) == ("", (), ())
    assert policy_names(text) < policy_names(full)
    assert "noted: level term: objects have no stamp" in " ".join(text.replace("#", "").split())


def test_a_level_is_remembered_and_changed(files: Files) -> None:
    full, text = files.made(), files.made("--level=term")
    assert files.run(stdin=text).stdout == text
    assert files.run("--diff", stdin=text).stdout.startswith("nothing changes\n")
    up = files.run("--level=full", stdin=text)
    assert described(up.stdout) == described(full)
    assert "KOPF_HA_LEVEL" not in up.stdout
    down = files.run("--level=term", stdin=full)
    assert described(down.stdout) == described(text)
    gone = policy_names(full) - policy_names(text)
    (task,) = (line for line in down.stderr.splitlines() if "delete what is not written any more" in line)
    assert all(f"validatingadmissionpolicy/{name}" in task for name in gone)
    assert "terms.kopf-ha.dev" not in task


@pytest.mark.parametrize("option", ["--group=a.b", "--kind=toys", "--child=pods", "--deciding=toys.a.b"])
def test_options_about_stamps_are_refused_at_level_term(files: Files, option: str) -> None:
    assert f"so leave out {option.partition('=')[0]}" in files.refused("--level=term", option)
