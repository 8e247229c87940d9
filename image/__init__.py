"""Makes the operator's container image, with docker or without any engine, and the one that an example runs.

`scripts/image` is its command line. Parts: `wheels` (what the image installs, fetched outside of its build), `base`
(a stand-in for the base image, from Debian's packages), `build` (by docker or buildah), `busybox`, `cache`
(what is made once).
"""
