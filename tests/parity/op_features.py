"""An operator with each feature of Kopf, as others write it: an object's label names the feature.

It knows nothing of kopf-ha, and runs under `kopf run` and `kopf-ha run`. What its handlers see goes to the file
`PARITY_SEEN`, a line for each run.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import json
import os
import time

import kopf
import kubernetes

from tests.parity.shapes import GROUP


def tell(what, kwargs, **more):
    plural = kwargs["resource"].plural if "resource" in kwargs else ""
    line = {"object": f"{plural}/{kwargs.get('name', '')}", "ran": what, **more}
    if "retry" in kwargs:
        line["retry"] = kwargs["retry"]
    file = os.open(os.environ["PARITY_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (json.dumps(line | {"pid": os.getpid(), "at": time.time()}) + "\n").encode())
    os.close(file)


def client():
    return kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())


def sizes(diff):
    return [[op, list(path), old, new] for op, path, old, new in diff if path and path[0] in ("spec", "data")]


@kopf.on.startup()
def configure(settings, memo, **kwargs):
    settings.persistence.finalizer = f"{GROUP}/features"
    settings.scanning.disabled = True
    settings.admission.server = kopf.WebhookServer(addr="127.0.0.1", port=int(os.environ["PARITY_PORT"]), insecure=True)
    memo.started = "yes"
    tell("startup", kwargs)


@kopf.on.cleanup()
async def end(**kwargs):
    tell("cleanup", kwargs)


def features(plural):
    kind = (GROUP, "v1", plural)

    def of(feature, **more):
        return {"labels": {"feature": feature}, **more}

    # --- changes

    @kopf.on.create(*kind, **of("create"))
    def create(**kwargs):
        tell("create", kwargs)

    @kopf.on.create(*kind, id="create-async", **of("create"))
    async def create_async(**kwargs):
        tell("create-async", kwargs)

    @kopf.on.update(*kind, **of("update"))
    def update(old, new, diff, **kwargs):
        tell("update", kwargs, old=old["spec"]["size"], new=new["spec"]["size"], diff=sizes(diff))

    @kopf.on.field(*kind, field="spec.size", **of("field"))
    def field(old, new, **kwargs):
        tell("field", kwargs, old=old, new=new)

    for name in ("resume", "resume-unedited"):

        @kopf.on.resume(*kind, id=name, **of(name))
        def resume(**kwargs):
            tell("resume", kwargs)

    @kopf.on.create(*kind, id="any", **of("all-causes"))
    @kopf.on.update(*kind, id="any", **of("all-causes"))
    @kopf.on.resume(*kind, id="any", **of("all-causes"))
    def any_cause(reason, spec, **kwargs):
        tell("any", kwargs, reason=str(reason), size=spec["size"])

    # --- deletion

    @kopf.on.delete(*kind, **of("delete"))
    def delete(spec, **kwargs):
        tell("delete", kwargs, size=spec["size"])

    @kopf.on.delete(*kind, id="delete-async", **of("delete"))
    async def delete_async(retry, **kwargs):
        tell("delete-async", kwargs)

    # Without another reason for Kopf's finalizer it is missed.
    @kopf.on.delete(*kind, optional=True, **of("delete-optional"))
    def optional(**kwargs):
        tell("optional", kwargs)

    @kopf.on.create(*kind, **of("delete-later"))
    def begin(**kwargs):
        tell("begin", kwargs)

    @kopf.on.delete(*kind, id="later", **of("delete-later"))
    def later(**kwargs):
        tell("delete", kwargs)

    # --- errors

    @kopf.on.create(*kind, **of("temporary"))
    def temporary(retry, **kwargs):
        tell("temporary", kwargs, attempt=retry)
        if retry < 2:
            raise kopf.TemporaryError("not yet", delay=0.1)

    @kopf.on.create(*kind, **of("permanent"))
    async def permanent(**kwargs):
        tell("permanent", kwargs)
        raise kopf.PermanentError("never")

    @kopf.on.create(*kind, retries=2, backoff=0.1, **of("retries"))
    def retries(**kwargs):
        tell("retries", kwargs)
        raise ValueError("something else")

    @kopf.on.create(*kind, errors=kopf.ErrorsMode.IGNORED, **of("ignored"))
    def ignored(**kwargs):
        tell("ignored", kwargs)
        raise ValueError("something else")

    # --- sub-handlers

    @kopf.on.create(*kind, **of("subhandlers"))
    @kopf.on.update(*kind, **of("subhandlers"))
    def parent(reason, **kwargs):
        tell("parent", kwargs)
        for n in range(2):

            @kopf.subhandler(id=str(n))
            def each(retry, n=n, **kwargs):
                tell(str(n), kwargs, attempt=retry)
                if n == 1 and retry == 0 and str(reason) == "create":
                    raise kopf.TemporaryError("not yet", delay=0.1)
                return {"n": n}

    # --- timers and daemons

    @kopf.timer(*kind, interval=3600, **of("timer"))
    def timer(**kwargs):
        tell("timer", kwargs)
        if kwargs["retry"] == 0:
            raise kopf.TemporaryError("not yet", delay=0.1)

    @kopf.timer(*kind, interval=0.2, when=lambda status, **_: status.get("times", 0) < 3, **of("timer-often"))
    async def often(memo, patch, **kwargs):
        memo.times = memo.get("times", 0) + 1
        if memo.times <= 3:  # it may fire once more before Kopf sees what it wrote
            tell("often", kwargs, times=memo.times)
            patch.status["times"] = memo.times

    @kopf.daemon(*kind, cancellation_backoff=5, **of("daemon"))
    def daemon(stopped, **kwargs):
        tell("begins", kwargs)
        stopped.wait(3600)
        tell("ends", kwargs)

    for name in ("daemon-async", "daemon-async-delete"):

        @kopf.daemon(*kind, id=name, cancellation_backoff=5, **of(name))
        async def daemon_async(stopped, **kwargs):
            tell("begins", kwargs)
            await stopped.wait(3600)
            tell("ends", kwargs)

    # --- indices, events, filters

    @kopf.index(*kind, id=f"sizes_of_{plural}", **of("index"))
    def by_size(spec, name, **_):
        return {spec["size"]: name}

    @kopf.on.create(*kind, id="indexed", **of("index"))
    @kopf.on.update(*kind, id="indexed", **of("index"))
    def indexed(**kwargs):
        tell("indexed", kwargs, index={size: list(names) for size, names in kwargs[f"sizes_of_{plural}"].items()})

    @kopf.on.event(*kind, **of("event"))
    def event(type, **kwargs):
        tell(type, kwargs)

    @kopf.on.create(*kind, id="created", **of("event"))
    def created(**kwargs):
        tell("created", kwargs)

    @kopf.on.create(*kind, **of("posts"))
    def posts(body, logger, **kwargs):
        tell("posts", kwargs)
        kopf.event(body, type="Special", reason="Posted", message="an event")
        kopf.warn(body, reason="Warned", message="a warning")
        logger.info("a line of the log")

    # Without it Kopf would not have recorded the object before the others begin to match.
    @kopf.on.create(*kind, **of("filters"))
    def filters(**kwargs):
        tell("filters", kwargs)

    @kopf.on.update(*kind, id="when", when=lambda spec, **_: spec["size"] == "2", **of("filters"))
    def when(**kwargs):
        tell("when", kwargs)

    @kopf.on.update(*kind, id="value", field="spec.size", value="2", **of("filters"))
    def value(**kwargs):
        tell("value", kwargs)

    @kopf.on.update(*kind, id="label", labels={"feature": "filters", "size": "3"}, annotations={"size": kopf.PRESENT})
    def label(**kwargs):
        tell("label", kwargs)

    # --- what handlers make and keep

    @kopf.on.create(*kind, **of("children"))
    def adopts(name, namespace, spec, **kwargs):
        tell("adopts", {**kwargs, "name": name})
        child = {"metadata": {"name": f"{plural}-child"}, "data": {"size": spec["size"]}}
        kopf.adopt(child)
        kopf.label(child, {"of": name})
        client().create_namespaced_config_map(namespace, child)

    @kopf.on.update(*kind, **of("children"))
    def changes(name, namespace, spec, **kwargs):
        tell("changes", {**kwargs, "name": name})
        body = {"data": {"size": spec["size"]}}
        client().patch_namespaced_config_map(f"{plural}-child", namespace, body)

    @kopf.on.create(*kind, id="memo", **of("memo"))
    @kopf.on.update(*kind, id="memo", **of("memo"))
    def memorise(memo, spec, **kwargs):
        tell("memo", kwargs, before=memo.get("size"), started=memo.get("started"))
        memo.size = spec["size"]

    @kopf.on.create(*kind, id="patch", **of("patch"))
    @kopf.on.update(*kind, id="patch", field="spec.size", **of("patch"))
    def patched(patch, spec, **kwargs):
        tell("patch", kwargs)
        patch.spec["copied"] = spec["size"]
        patch.status["copied"] = spec["size"]
        patch.metadata.labels["copied"] = spec["size"]
        patch.metadata.annotations["copied"] = spec["size"]

    @kopf.on.create(*kind, id="results", **of("results"))
    def results(spec, **kwargs):
        tell("results", kwargs)
        return {"size": spec["size"]}

    # --- webhooks

    @kopf.on.mutate(*kind, id=f"mutate-{plural}")
    def mutate(patch, spec, memo, **_):
        patch.spec["by"] = f"webhook, started: {memo.started}"

    @kopf.on.validate(*kind, id=f"validate-{plural}")
    def validate(spec, warnings, userinfo, **_):
        warnings.append(f"size {spec['size']}")
        if spec["size"] == "9":
            raise kopf.AdmissionError(f"too large for {userinfo['username']}", code=409)


features("cells")
features("looses")


@kopf.on.create("configmaps", labels={"feature": kopf.PRESENT})
def create(patch, **kwargs):
    tell("create", kwargs)
    patch.metadata.annotations["seen"] = "yes"


@kopf.on.update("configmaps", labels={"feature": "builtin"})
def update(diff, **kwargs):
    tell("update", kwargs, diff=sizes(diff))


@kopf.on.delete("configmaps", labels={"feature": "builtin-delete"})
def delete(**kwargs):
    tell("delete", kwargs)
