"""What `kopf-ha manifests -f` says to somebody who has not used it before: what is left to do, and what it guessed."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from kopf_ha.manifests import Child, Kind
from kopf_ha.manifests.command import manifests
from tests.manifests.operator_files import (
    Files,
    changed,
    container,
    crd,
    deployment,
    described,
    one,
    policy_names,
    roles,
    rule,
)

SCALE = rule("apps", "deployments", "*"), rule("apps", "deployments/scale", "patch")


def said(text: str) -> list[str]:
    """The comments at the top, one by one, without their line breaks."""
    top = text.partition("\napiVersion")[0].partition("\n---")[0]
    return top.removeprefix("# ").replace("\n#   ", " ").split("\n# ")


def on_terminal(*args: str) -> str:
    """What a person sees of a command of kopf-ha."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "kopf_ha", *args], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while chunk := os.read(ours, 65536):
                shown += chunk
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


# --- what is left to do


def test_a_command_that_is_not_fenced_is_a_task_and_not_a_guess(files: Files) -> None:
    files.write(workload=deployment("python", "main.py"))
    sentence = (
        "TO DO: the command of container operator is not fenced, since no `kopf run` is seen in it. Before you apply"
        " this, write `kopf-ha run`, or `kopf-ha exec -- …` in front of the program, here or in the image. Plain Kopf"
        " would be refused every write, and its probes would fail."
    )
    text = files.made()
    assert said(text)[1] == sentence
    result = files.run("--diff")
    assert result.stdout.splitlines()[0] == sentence
    assert result.stderr.splitlines()[0] == sentence
    # It goes when somebody has done it.
    assert sentence not in said(files.made(stdin=text.replace("- main.py", "- -m\n        - kopf_ha\n        - run")))


def test_what_a_person_has_to_do_is_named_once(files: Files) -> None:
    image = "TO DO: the image toys:1 must have kopf-ha in it"
    stop = "stop the old version first: kubectl -n play scale deployment/toys --replicas=0"
    recreate = (
        "when the new version runs, change spec.strategy of the Deployment back: Recreate is for this update only"
    )
    tasks = [image, f"TO DO: {stop}", f"TO DO: {recreate}"]
    text = files.made()
    assert said(text)[1:4] == tasks
    assert files.run("--diff").stdout.splitlines()[:3] == tasks
    assert files.run().stderr.splitlines()[:3] == tasks
    # They stay in the file until somebody takes them out, but nobody is told again.
    assert f"# TO DO: {stop}\n" in text  # in one line, to be copied
    again = files.run(stdin=text)
    assert "TO DO" not in again.stderr
    assert said(again.stdout)[1:4] == tasks
    without = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("# TO DO"))
    assert "TO DO" not in files.made(stdin=without)


@pytest.mark.parametrize("options", [[], ["--diff"], ["--only=rbac"]])
def test_on_a_terminal_each_line_is_shown_once(files: Files, options: list[str]) -> None:
    """There stderr and stdout are on one screen."""
    text = on_terminal("manifests", "-f", str(files.folder), *options)
    assert text.count("TO DO: stop the old version first") == (options != ["--only=rbac"])
    assert text.count("guessed: no kind is deciding") == 1


def test_an_adopted_operator_has_no_tasks(files: Files) -> None:
    files.write(workload=deployment("kopf-ha", "run", "--lease-name=toys", "toys.py"))
    assert "TO DO" not in files.run().output
    own = changed(deployment(), "spec.strategy", {"type": "Recreate"})
    files.write(workload=own)
    assert "Recreate is for this update" not in files.made()


def test_comments_of_somebody_else_stay(files: Files) -> None:
    theirs = "# TO DO: buy milk\n# noted: and bread\n"
    files.write(crds=theirs + (files.folder / "rbac.yaml").read_text().partition("---")[0], rbac=crd())
    files.write(more=roles().partition("---")[2])
    assert theirs in files.made()


def test_guesses_are_seen_when_the_bundle_goes_into_a_file(files: Files) -> None:
    assert "guessed: no kind is deciding. If a handler reads all objects" in files.run().stderr
    assert "TO DO" not in files.run("--only=rbac").stderr


def test_the_first_comments_keep_their_lines(files: Files) -> None:
    files.write(rbac=roles(*SCALE))
    lines = files.made().splitlines()
    assert lines[0] == "# Written by kopf-ha manifests, for kopf-ha run --lease-namespace play --lease-name toys"
    assert lines[1] == "#   No policy sees a stamp in writes to deployments.apps/scale."
    assert "stopped in its own process, but not by the API server: `kubectl scale`" in lines[2]


# --- children


def test_the_advice_keeps_the_subresources(files: Files) -> None:
    files.write(rbac=roles(*SCALE, rule("", "secrets", "*")))
    text = files.made()
    (line,) = (s for s in said(text) if "may write any object" in s)
    assert "any object of deployments.apps, secrets; if" in line
    assert "--child deployments.apps:owner=Toys:scale --child secrets:owner=Toys, or LABEL=VALUE in" in line
    assert "if it never scales them, say --child deployments.apps, and the policies refuse it" in " ".join(said(text))
    files.write(more=crd("boxes"), rbac=roles(*SCALE, rule("toys.example.com", "boxes", "get")))
    assert "--child deployments.apps:owner=KIND:scale, or" in " ".join(said(files.made()))


def test_a_subresource_that_an_option_leaves_out_is_named(files: Files) -> None:
    files.write(rbac=roles(*SCALE))
    text = " ".join(said(files.made("--child=deployments.apps:owner=Toys")))
    assert "the operator does not write deployments.apps/scale, which ClusterRole toys allows it" in text
    assert "the policies refuse that now; if it does, say --child deployments.apps:owner=Toys:scale" in text
    text = files.made("--child=deployments.apps:owner=Toys:scale")
    assert "refuse that now" not in text
    assert "the operator writes deployments.apps/scale" not in text  # it was said, and not guessed
    assert "refuse that now" not in files.made("--child=deployments.apps", "--exempt=deployments.apps/scale")


def test_a_child_is_named_once(files: Files) -> None:
    files.write(rbac=roles(*SCALE))
    twice = "--child=deployments.apps:owner=Toys", "--child=deployments.apps:scale"
    sentence = "deployments.apps is named twice; write one --child with all of its parts"
    assert sentence in files.refused(*twice)
    assert "toys is named twice; write one --kind" in files.refused("--kind=toys:map=a", "--kind=toys:value=b")
    options = "--group=a.b", "--kind=toys", "--lease=a/b", "--service-account=a/b"
    assert sentence in " ".join(CliRunner().invoke(manifests, [*options, *twice]).output.split())


@pytest.mark.parametrize(
    ("child", "hint"),
    [
        ("deployment.apps", "; did you mean deployments.apps?"),
        ("deployments", "; did you mean deployments.apps?"),
        ("xyz", ""),
    ],
)
def test_a_kind_that_no_role_allows_is_refused(files: Files, child: str, hint: str) -> None:
    files.write(rbac=roles(*SCALE))
    assert files.refused(f"--child={child}").endswith(f"--child {child}: no role lets the operator write them{hint}")
    files.write(rbac=roles(rule("*", "*", "*")))
    assert described(files.made(f"--child={child}")).children


def test_an_owner_of_no_known_kind_is_named(files: Files) -> None:
    files.write(rbac=roles(*SCALE))
    text = " ".join(said(files.made("--child=deployments.apps:owner=Toy:scale")))
    assert "Toy is a kind of the group toys.example.com, of which there is no CustomResourceDefinition here" in text
    assert "did you mean Toys?" in text
    assert "Toys is a kind of" not in files.made("--child=deployments.apps:owner=Toys:scale")


@pytest.mark.parametrize("owner", ["toys", "TOYS", "toy"])
def test_an_owner_in_other_letters_than_its_kind_is_refused(files: Files, owner: str) -> None:
    """With it the policies would refuse every write of the child."""
    files.write(rbac=roles(*SCALE))
    refused = files.refused(f"--child=deployments.apps:owner={owner}")
    assert refused.startswith(f"owner={owner} in child 'deployments.apps:owner={owner}' is not written as in its CRD")
    assert refused.endswith("did you mean Toys?")


def test_an_owners_kind_may_have_small_letters_if_the_crd_has(files: Files) -> None:
    files.write(rbac=roles(*SCALE), crds=changed(crd(), "spec.names.kind", "toy"))
    (child,) = described(files.made("--child=deployments.apps:owner=toy:scale")).children
    assert child.owner == "toy"


def test_a_rule_of_several_groups_makes_no_kinds_up(files: Files) -> None:
    both = {"apiGroups": ["", "toys.example.com"], "resources": ["toys", "toys/status", "configmaps"], "verbs": ["*"]}
    foreign = {"apiGroups": ["apps", "vendor.example.com"], "resources": ["deployments"], "verbs": ["*"]}
    files.write(rbac=roles(both, foreign, rule("", "toys", "get")))
    kinds = [c.kind for c in described(files.made()).children]
    assert kinds == ["configmaps", "deployments.apps", "deployments.vendor.example.com"]


def test_what_becomes_of_a_forgotten_kind_is_said(files: Files) -> None:
    files.write(rbac=roles(rule("*", "*", "*")))
    assert "A kind that you forget is fenced in the operator's process only" in files.refused()


# --- fed in again


def test_nothing_is_new_the_second_time(files: Files) -> None:
    files.write(rbac=roles(*SCALE))
    text = files.made()
    diff = files.run("--diff", stdin=text).stdout
    assert diff.startswith("nothing changes\n"), "what is to do was said the first time, and is in the bundle"
    assert "new: " not in diff
    other = files.run("--diff", "--child=none", stdin=text).stdout
    assert "nothing changes" not in other
    gone = next(name for name in policy_names(text) if name.endswith("-child-deployments.apps"))
    assert f"gone: validatingadmissionpolicy/{gone}\n" in other


def test_options_can_be_taken_back(files: Files) -> None:
    files.write(rbac=roles(rule("", "pods", "*"), rule("", "secrets", "*")))
    first = files.made("--child=pods:owner=Toys", "--deciding=toys.toys.example.com", "--exempt=pods/resize")
    text = files.made("--child=none", "--exempt=none", stdin=first)
    assert described(text).children == ()
    assert described(text).kinds == (Kind("toys", deciding=True),)
    assert not {e["name"] for e in container(text)["env"]} & {"KOPF_HA_EXEMPT"}
    (task,) = (s for s in said(text) if "kubectl apply does not" in s)
    assert "kubectl delete " in task
    for name in policy_names(first) - policy_names(text):
        assert f" validatingadmissionpolicy/{name}" in task
        assert f" validatingadmissionpolicybinding/{name}" in task
    # What is written again is not to be deleted any more.
    again = files.made("--child=none", "--child=pods", stdin=text)
    (task,) = (s for s in said(again) if "kubectl apply does not" in s)
    assert {w.rpartition("-")[2] for w in task.split() if w.startswith("validating")} == {"secrets"}
    assert "kubectl apply does not" not in files.made("--child=pods", "--child=secrets", stdin=text)
    only = files.made("--child=none", "--child=pods:app=toys", stdin=first)
    assert described(only).children == (Child("pods", labels=(("app", "toys"),)),)
    text = files.made("--child=pods:app=toys", "--deciding=none", stdin=first)
    assert described(text).children == (Child("pods", labels=(("app", "toys"),)), Child("secrets"))
    assert described(text).kinds == (Kind("toys"),)
    assert "KOPF_HA_DECIDING" not in str(container(text)["env"])
    files.write(workload=deployment("kopf", "run", "--deciding=toys.toys.example.com", "x.py"))
    assert "command says --deciding toys.toys.example.com; change it there" in files.refused("--deciding=none")


# --- namespaces


def narrow(*namespaces: str) -> str:
    made = []
    for name in namespaces:
        text = roles().replace("ClusterRole", "Role").replace("{name: toys}", f"{{name: toys, namespace: {name}}}")
        made.append(text)
    return "---\n".join(made)


def test_roles_of_one_namespace_only_are_named(files: Files) -> None:
    files.write(rbac=narrow("web", "shop"), workload=deployment("kopf", "run", "toys.py"))
    text = files.made()
    assert described(text).namespaces == ()
    assert "Its own roles hold only in shop, web: if it serves no other, say --namespace shop --namespace web" in (
        " ".join(said(text))
    )
    assert "Its own roles hold" not in files.made("--namespace=web")
    for command in (["kopf", "run", "-A", "toys.py"], ["kopf", "run", "-n", "web", "toys.py"]):
        files.write(workload=deployment(*command))
        assert "Its own roles hold" not in files.made()
    files.write(more=roles(), workload=deployment("kopf", "run", "toys.py"))
    assert "Its own roles hold" not in files.made()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("kopf", "run", "-A", "toys.py"), "says -A"),
        (("sh", "-c", "exec kopf run --all-namespaces toys.py"), "says --all-namespaces"),
        (("kopf", "run", "toys.py"), "names no namespace"),
        (("run", "-A", "toys.py"), "says -A"),
        (("kopf", "run", "-n", "$(NS)", "toys.py"), ""),
        (("kopf-ha", "exec", "--", "python", "main.py", "-A"), ""),
    ],
)
def test_an_operator_that_serves_more_than_its_policies_is_a_task(
    files: Files, command: tuple[str, ...], says: str
) -> None:
    """The API server would fence nothing in the other namespaces."""
    files.write(workload=deployment(*command))
    text = files.made("--namespace=web", "--namespace=shop")
    sentence = (
        f"TO DO: the command of container operator {says}, and the policies hold in web, shop only. The API server"
        " would fence nothing elsewhere. Write -n web -n shop there, or write the policies without --namespace."
    )
    assert (sentence in said(text)) == bool(says)
    assert "policies hold in" not in files.made()
    if "- -A" in text and says:  # it goes when somebody has done it
        done = text.replace("- -A", "- --namespace=web\n        - --namespace=shop")
        assert sentence not in said(files.made(stdin=done))


@pytest.mark.parametrize("command", [["kopf", "run", "-n", "$(NS)", "x"], ["sh", "-c", 'exec kopf run -n "${NS}" x']])
@pytest.mark.parametrize(
    ("env", "namespaces"),
    [
        ({"value": "web"}, ("web",)),
        ({"value": "$(OTHER)"}, ("play",)),
        ({"valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}, ("play",)),
    ],
)
def test_variables_of_the_command_are_filled_in(
    files: Files, command: list[str], env: dict[str, Any], namespaces: tuple[str, ...]
) -> None:
    other = {"name": "OTHER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    files.write(workload=deployment(*command, container={"env": [other, {"name": "NS"} | env]}))
    assert described(files.made()).namespaces == namespaces


def test_the_variable_that_is_added_has_a_value_at_once(files: Files) -> None:
    files.write(workload=deployment("sh", "-c", "exec kopf run -n $POD_NAMESPACE x.py"))
    assert described(files.made()).namespaces == ("play",)


def test_a_variable_without_a_known_value_is_as_a_pattern(files: Files) -> None:
    env = [{"name": "NS", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]
    files.write(workload=deployment("kopf", "run", "-n", "$(NS)", "x.py", container={"env": env}))
    text = files.made()
    assert described(text).namespaces == ()
    assert "since $(NS) is a pattern or has no value here; --namespace names those" in " ".join(said(text))
    assert described(files.made("--namespace=web")).namespaces == ("web",)
    env[0]["name"] = "KOPF_RUN_NAMESPACE"
    files.write(workload=deployment("kopf", "run", "x.py", container={"env": env}))
    assert "since $(KOPF_RUN_NAMESPACE) is a pattern or" in " ".join(said(files.made()))


# --- the Deployment


def test_another_workload_with_the_same_account_is_named(files: Files) -> None:
    other = deployment("python", "web.py") | {"metadata": {"name": "web", "namespace": "play"}}
    files.write(other=other)
    line = "guessed: Deployment play/web writes nothing, although it has the operator's service account."
    assert line in files.run("--deployment=toys").stderr
    other["spec"]["template"]["spec"]["serviceAccountName"] = "web"
    files.write(other=other)
    assert line not in files.run("--deployment=toys").stderr


@pytest.mark.parametrize(
    ("script", "made"),
    [
        ("pip list && kopf run x.py", "pip list && exec kopf-ha run x.py"),
        ("A=b kopf run x.py 2>&1", "A=b exec kopf-ha run x.py 2>&1"),
        ("set -e\nkopf run \\\n  x.py\n# end\n", "set -e\nexec kopf-ha run \\\n  x.py\n# end\n"),
        ("exec kopf run x.py", "exec kopf-ha run x.py"),
    ],
)
def test_a_shell_gives_its_place_to_the_operator(files: Files, script: str, made: str) -> None:
    files.write(workload=deployment("sh", "-c", script))
    text = files.made()
    assert container(text)["command"][2] == made
    assert "SIGTERM" not in text


@pytest.mark.parametrize(
    ("script", "made"),
    [
        ("kopf run x.py; echo end", "kopf-ha run x.py; echo end"),
        ("kopf run x.py | tee log", "kopf-ha run x.py | tee log"),
        ("if a; then kopf run x.py; fi", "if a; then kopf-ha run x.py; fi"),
        ("while :; do\n  kopf run x.py\ndone", "while :; do\n  kopf-ha run x.py\ndone"),
        ("trap 'rm a' EXIT; kopf run x.py", "trap 'rm a' EXIT; kopf-ha run x.py"),
        ("kopf run 'x.py", "kopf-ha run 'x.py"),
    ],
)
def test_a_script_that_goes_on_after_the_operator_is_named(files: Files, script: str, made: str) -> None:
    files.write(workload=deployment("sh", "-c", script))
    text = files.made()
    assert container(text)["command"][2] == made
    assert "noted: a script runs kopf-ha in container operator, and a shell does not pass SIGTERM on" in (
        "\n".join(said(text))
    )


# --- files


def test_files_that_cannot_be_used_are_named_in_one_sentence(files: Files) -> None:
    assert files.refused("-f", "/nowhere.yaml") == "there is no file /nowhere.yaml"
    quoted = 'apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: "{{ .Release.Name }}"}\n'
    files.write(account=quoted)
    assert "it is a template, so render it first: helm template" in files.refused()
    files.write(account=quoted.replace("}}", "}}-x").replace("{name", '{labels: {a: "{{ .Values.a }}"}, name'))
    assert "it is a template" in files.refused()
    texts = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: toys}\ndata: {a: "{{ .Values.a }}"}\n'
    files.write(account=texts)
    assert one(files.made(), "ConfigMap")["data"] == {"a": "{{ .Values.a }}"}


def test_a_diff_is_of_all(files: Files) -> None:
    assert "--diff shows what changes in all of the files; say it without --only" in files.refused(
        "--diff", "--only=rbac"
    )
