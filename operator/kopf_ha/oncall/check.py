"""The command `kopf-ha check`: what is wrong before installation and after, and what mends it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic, sleep

import click

from kopf_ha.errors import Unreached
from kopf_ha.oncall.checks import gather, result, rights, roles
from kopf_ha.oncall.checks.ask import ask
from kopf_ha.oncall.checks.facts import Asked, Facts, NotRead, Operator
from kopf_ha.oncall.checks.finding import When
from kopf_ha.oncall.checks.operators import operators
from kopf_ha.oncall.checks.result import Result
from kopf_ha.oncall.cluster import WELL, Cluster, answered, cluster_flags, connect
from kopf_ha.oncall.find import split_lease
from kopf_ha.oncall.output import output_option, show

#: Seconds between two rounds of ``--wait``.
AGAIN = 2.0


@click.command()
@click.argument("lease", default="", metavar="[LEASE]")
@click.option("--pre", is_flag=True, help="Check the API server and your rights, before anything is installed.")
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE",
              help="Manifests of the operator: a file, a directory, or - for standard input. May be repeated. Only they"
              " are checked then, without an API server; with --pre, the API server, too.")  # fmt: skip
@click.option("--installed", is_flag=True,
              help="With -f: check what is installed, and take from the files what it should be.")  # fmt: skip
@click.option("-A", "--all-namespaces", is_flag=True, help="Check the operators in all namespaces.")
@click.option("--dry-runs/--no-dry-runs", default=True, show_default=True,
              help="Try what must be refused, by dry runs with a token of the operator's account.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Check again until all is well.")
@click.option("--timeout", default=300.0, show_default=True, metavar="SECONDS", help="How long --wait waits.")
@output_option("table", "json", "yaml")
@cluster_flags
def check(
    lease: str,
    pre: bool,
    files: tuple[str, ...],
    installed: bool,
    all_namespaces: bool,
    dry_runs: bool,
    wait: bool,
    timeout: float,
    output: str,
    namespace: str,
    context: str,
    kubeconfig: str,
) -> None:
    """Find what is wrong with an operator's installation, and say what mends it.

    LEASE is [NAMESPACE/]NAME; without it, all operators of the namespace are checked. Nothing is changed.

    The exit status is 0 if no error was found (there may be warnings), 1 if one was, and 2 if something could not be
    found out.

    It needs to list CRDs, policies, bindings, webhook configurations, FlowSchemas, PriorityClasses, Namespaces and
    cluster roles, and in the namespace Deployments, StatefulSets, Pods, ServiceAccounts, PodDisruptionBudgets, Leases,
    Events, NetworkPolicies and roles; to read the Term and the operator's own kinds; to create subjectaccessreviews;
    and, for dry runs, tokens of the operator's account (serviceaccounts/token). What it may not read, it names.
    """
    if installed and not files:
        raise click.UsageError("--installed needs -f")
    if pre and (installed or lease):
        raise click.UsageError("--pre is about the time before installation: leave out --installed and LEASE")

    def command() -> int:
        stdin = sys.stdin.read() if "-" in files else ""
        wanted = _wanted(files, stdin, namespace or (lease.rpartition("/")[0] if lease else "")) if files else None
        if wanted is not None and not pre and not installed:
            return _told(_of_files(wanted), output)
        cluster = connect(namespace, context, kubeconfig)
        one = ""
        if lease:
            where, name = split_lease(lease, cluster.namespace)
            cluster, one = Cluster(cluster.api, where, cluster.flags), f"{where}/{name}"

        def look() -> list[Result]:
            if pre:
                found = result.run(gather.before(cluster), [], When.PRE)
                return found + (_of_files(wanted) if wanted is not None else [])
            facts = gather.of_cluster(
                cluster, everywhere=all_namespaces, lease=one, files=wanted.files if wanted else ""
            )
            return _of_cluster(cluster, facts, wanted, dry_runs=dry_runs)

        return _told(_until_well(look, timeout) if wait else look(), output)

    raise SystemExit(answered(command))


def _wanted(files: Sequence[str], stdin: str, namespace: str) -> Facts:
    # Here, because the commands for a cluster need none of it.
    from kopf_ha.manifests.documents import in_form, read

    words = " ".join(f"-f {shlex.quote(name)}" for name in files)
    with in_form():
        return gather.of_files(read(list(files), stdin), words, namespace or "default")


def _of_files(wanted: Facts) -> list[Result]:
    found = operators(wanted)
    allowed = {o.lease: roles.may(wanted, o.account, rights.asked(o)) for o in found}
    return result.run(wanted, [replace(o, asked=Asked(may=allowed[o.lease])) for o in found], When.FILES)


def _of_cluster(cluster: Cluster, facts: Facts, wanted: Facts | None, *, dry_runs: bool) -> list[Result]:
    """Check what is installed.

    Args:
        cluster: it.
        facts: what was read there.
        wanted: what it should be; None if no files say so.
        dry_runs: whether to try what must be refused.
    """
    try:
        found = operators(facts)
    except NotRead:
        found = []  # which `server.operators` says
    if wanted is not None:
        found = [_as_wanted(operator, wanted) for operator in found]
    found = [replace(o, asked=ask(cluster, facts, o, rights.asked(o), dry_runs=dry_runs)) for o in found]
    return result.run(facts, found, When.INSTALLED)


def _as_wanted(operator: Operator, wanted: Facts) -> Operator:
    """Return the operator with what the files say that its policies should be written from."""
    for one in operators(wanted):
        if one.lease == operator.lease:
            return replace(operator, expected=one.expected)
    return operator


def _until_well(look: Callable[[], list[Result]], timeout: float) -> list[Result]:
    """Look again and again; return the last results."""
    until = monotonic() + timeout
    while True:
        try:
            found = look()
        except Unreached:
            if monotonic() >= until:
                raise
        else:
            if result.status_of(found) == WELL or monotonic() >= until:
                return found
        sleep(AGAIN)


def _told(results: list[Result], output: str) -> int:
    show(result.as_data(results), output, lambda: result.as_text(results))
    return result.status_of(results)
