"""Builds the operator's container image, with docker or buildah, and the image that an example uses.

`scripts/image` is the command. The modules: `wheels` (downloads what the image installs, before the build), `base`
(makes a replacement for the base image from Debian's packages), `build` (runs docker or buildah), `busybox` (the
example's image), `contents` and `bom` (what an image holds), `cache` (keeps results).
"""
