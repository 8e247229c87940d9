"""A small operator: each Greeting gets a ConfigMap with its text. It knows nothing of kopf-ha."""

import kopf
import kubernetes


@kopf.on.create("example.dev", "v1", "greetings")
@kopf.on.update("example.dev", "v1", "greetings", field="spec")
@kopf.on.resume("example.dev", "v1", "greetings")
def greet(name, namespace, spec, body, patch, **_):
    text = f"Hello, {spec['who']}!"
    child = {"metadata": {"name": f"greeting-{name}"}, "data": {"text": text}}
    kopf.adopt(child, body)
    kubernetes.config.load_config()
    api = kubernetes.client.CoreV1Api()
    try:
        api.create_namespaced_config_map(namespace, child)
    except kubernetes.client.ApiException as error:
        if error.status != 409:
            raise
        api.patch_namespaced_config_map(child["metadata"]["name"], namespace, {"data": child["data"]})
    patch.status["text"] = text
