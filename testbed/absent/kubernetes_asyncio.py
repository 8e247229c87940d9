"""Stands before the package of this name, as if it was not installed.

Kopf imports each client that it finds. This one takes a second of CPU, and no image has it unless its operator uses it.
"""

raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
