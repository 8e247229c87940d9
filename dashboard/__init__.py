"""Writes the Grafana dashboard in deploy/components/monitoring, and draws it for docs/observability.md.

`python -m dashboard` writes the JSON from `rows`, by what `panel` knows of Grafana. `python -m dashboard.picture` needs
no Grafana: it has replicas go through a story, has a Prometheus scrape them, asks it what the panels of the JSON ask,
and draws the answers.
"""
