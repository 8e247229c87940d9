"""The cluster that a command looks at: kubectl's flags, its kubeconfig, and reads that may be refused.

Exit statuses of all commands: 0 if all is well, 1 if the answer is bad news, 2 if it could not be found out.
"""

from __future__ import annotations

import datetime
import email.utils
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kopf_ha.errors import ApiError, ApiRefused, ConfigurationError, MalformedLease

if TYPE_CHECKING:
    from kopf_ha.api import Api

#: Exit statuses.
WELL, BAD, UNKNOWN = 0, 1, 2
#: Seconds to wait for an answer. Somebody is waiting.
TIMEOUT = 10.0

_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Unknown(str):
    """Why something could not be found out, in a sentence. It takes the place of what was asked for."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """One object as the API server gave it.

    Args:
        body: the object.
        at: when it was given, by the API server's clock, in whole seconds rounded down; None if it did not say.
    """

    body: Mapping[str, Any]
    at: datetime.datetime | None = None


class Cluster:
    """A cluster, by the rights of the person who asks.

    Args:
        api: of a client that no fence reaches: here is no term.
        namespace: where names without a namespace are.
        flags: kubectl's flags that lead to the same cluster, for commands that are shown to people.
    """

    def __init__(self, api: Api, namespace: str, flags: tuple[str, ...] = ()) -> None:
        self.api = api
        self.namespace = namespace
        self.flags = flags

    def read(self, path: str) -> Answered | Unknown | None:
        """GET one object from the quorum; None if there is none.

        Returns:
            `Unknown` if the person may not read it.

        Raises:
            ApiError: the API server does not answer, does not know the person, or fails.
        """
        answer = self.api.request("GET", path, timeout=TIMEOUT)
        if answer.status == 404:
            return None
        if not answer.ok:
            return _unknown(self.api.refused(answer, f"GET {path}"))
        body = answer.json
        return Answered(body if isinstance(body, dict) else {}, _date(answer.raw))

    def items(self, path: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]] | Unknown:
        """List the objects of a collection.

        Returns:
            `Unknown` if the person may not list them, or if their kind is not installed.

        Raises:
            ApiError: as with `read`.
        """
        found: list[dict[str, Any]] = []
        try:
            for page in self.api.pages(path, query, timeout=TIMEOUT):
                found += page.get("items") or ()
        except ApiRefused as error:
            if error.status == 404:
                return Unknown(f"the API server does not serve {path}")
            return _unknown(error)
        return found


def on_cluster(command: Callable[..., int]) -> Callable[..., None]:
    """Add kubectl's flags to a command, and give it the cluster that they lead to.

    The command gets a `Cluster` as its first argument, and returns its exit status. An error of the cluster becomes a
    sentence and exit status 2.
    """

    @click.option("-n", "--namespace", default="", metavar="NAMESPACE",
                  help="Where the Lease is.  [default: the context's]")  # fmt: skip
    @click.option(
        "--context", default="", metavar="NAME", help="The context of the kubeconfig.  [default: the current]"
    )
    @click.option("--kubeconfig", default="", metavar="FILE", type=click.Path(),
                  help="The kubeconfig.  [default: KUBECONFIG, or ~/.kube/config; in a pod without one, its service"
                  " account]")  # fmt: skip
    @functools.wraps(command)
    def with_cluster(namespace: str, context: str, kubeconfig: str, **given: Any) -> None:
        try:
            status = command(connect(namespace, context, kubeconfig), **given)
        except (ApiError, ConfigurationError, MalformedLease) as error:
            click.echo(f"error: {error}", err=True)
            status = UNKNOWN
        raise SystemExit(status)

    return with_cluster


def connect(namespace: str = "", context: str = "", kubeconfig: str = "") -> Cluster:
    """Find the cluster, as kubectl does.

    Args:
        namespace: as given; empty for the context's.
        context: as given; empty for the current one.
        kubeconfig: as given; empty for `KUBECONFIG`, ``~/.kube/config`` or the pod's service account.

    Raises:
        ConfigurationError: there is no cluster; the message says what to do.
    """
    # Here, because it takes a second, which `--help` need not wait for.
    import kubernetes
    import yaml

    from kopf_ha.api import Api, single_attempts

    files = kubeconfig or os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    configuration = kubernetes.client.Configuration()
    flags = [f"--{name}={value}" for name, value in (("kubeconfig", kubeconfig), ("context", context)) if value]
    if not _any_exists(files) and not kubeconfig and not context and _in_pod():
        kubernetes.config.load_incluster_config(client_configuration=configuration)
        own = (_IN_POD / "namespace").read_text().strip()
    else:
        try:
            kubernetes.config.load_kube_config(
                config_file=files, context=context or None, client_configuration=configuration, persist_config=False
            )
            contexts, current = kubernetes.config.list_kube_config_contexts(files)
        # The last three: a file with something else in it.
        except (
            kubernetes.config.ConfigException,
            OSError,
            yaml.YAMLError,
            TypeError,
            AttributeError,
            KeyError,
        ) as error:
            raise ConfigurationError(_no_cluster(files, context, error)) from error
        used = next((c for c in contexts if c.get("name") == context), current) if context else current
        own = str((used.get("context") or {}).get("namespace") or "default")
    client = kubernetes.client.ApiClient(configuration)
    client.user_agent = "kopf-ha-oncall"
    return Cluster(Api(single_attempts(client)), namespace or own, tuple(flags))


def _no_cluster(files: str, context: str, error: Exception) -> str:
    if not _any_exists(files):
        return f"no cluster: {files} does not exist; name a kubeconfig with --kubeconfig or in KUBECONFIG"
    if context:
        return f"no cluster by context {context} of {files} ({error}); `kubectl config get-contexts` shows all contexts"
    return (
        f"no cluster by {files} ({error}); choose a context with --context, or another file with --kubeconfig or in"
        " KUBECONFIG"
    )


def _any_exists(files: str) -> bool:
    return any(Path(one).expanduser().exists() for one in files.split(os.pathsep) if one)


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _IN_POD.exists()


def _unknown(error: ApiRefused) -> Unknown:
    """Return why something is not known.

    Raises:
        ApiRefused: it is no matter of this one permission.
    """
    if error.status != 403:
        raise error
    return Unknown(str(error).removesuffix(" (403)"))


def _date(raw: Any) -> datetime.datetime | None:
    """Read the header ``Date`` of an answer."""
    text = raw.headers.get("Date") if raw is not None else None
    try:
        return email.utils.parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
