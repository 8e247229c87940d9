"""Writes the Helm chart in deploy/chart from what deploy/ and `kopf-ha manifests` have: `python -m chart`.

Policies and FlowSchema contain the names of namespace, service account and Lease inside of expressions, where kustomize
does not change them. Here they are generated with placeholders for these names, which become Helm's expressions.
`documents` makes the objects, `template` writes them as templates.
"""
