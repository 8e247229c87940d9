"""`python -m kopf_ha` is `kopf-ha`."""

from kopf_ha.cli import entry

if __name__ == "__main__":
    entry()
