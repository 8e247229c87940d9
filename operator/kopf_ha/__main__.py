"""`python -m kopf_ha` is `kopf-ha`."""

from kopf_ha.cli import main

if __name__ == "__main__":
    main(prog_name="kopf-ha")
