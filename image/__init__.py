"""Makes the operator's container image, with docker or without any engine, and the small images that a node needs.

`scripts/image` is its command line. Parts: `wheels` (what the image installs, fetched outside of its build), `base`
(a stand-in for the base image, from Debian's packages), `build` (docker or buildah), `tiny` (pause, busybox),
`archive` (the docker-archive format), `cache` (what is made once).
"""
