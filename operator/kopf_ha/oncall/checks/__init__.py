"""The checks of `kopf-ha check`: facts are gathered first, then pure functions turn them into findings.

`gather` and `ask` read; everything else is told what they read. `table.CHECKS` lists all checks.
"""
