"""High availability and fencing for Kubernetes operators written with Kopf."""
