"""The command `scripts/image`: it builds an image and prints the path of its archive.

Only the path goes to stdout, so that scripts can use it. Everything else goes to stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from devcluster.images import architecture
from devcluster.progress import Progress
from image import base, bom, build, cache, wheels
from image import busybox as busybox_image
from image.errors import ImageError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--base", "image", metavar="IMAGE", help="The base image.  [default: the Dockerfile's]")
@click.option(
    "--debian", is_flag=True, help="Use a base image made from Debian's packages. It needs root, but no registry."
)
@click.option("--only-base", is_flag=True, help="Build only that base image.")
@click.option("--busybox", is_flag=True, help=f"Build {busybox_image.TAG} instead, which examples/pod.yaml uses.")
@click.option("--wheelhouse", is_flag=True, help="Only fill build/wheelhouse, for running docker build yourself.")
@click.option("--platform", type=click.Choice(["linux/amd64", "linux/arm64"]),
              help="For which machines.  [default: those like this one]")  # fmt: skip
@click.option("--twice", is_flag=True, help="Build it once more, by buildah, and fail if the digest differs.")
@click.option("--mirror", default=base.MIRROR, show_default=True, help="Where Debian's packages come from.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.tar",
              help="Also write the archive here.  [default: only in the cache, or in build/]")  # fmt: skip
def main(
    image: str | None,
    debian: bool,
    only_base: bool,
    busybox: bool,
    wheelhouse: bool,
    platform: str | None,
    twice: bool,
    mirror: str,
    output: Path | None,
) -> None:
    """Build the operator's image as a docker-archive file, and print the file's path.

    `docker load -i`, `kind load image-archive` and `ctr -n k8s.io images import` can load it. If a docker engine
    answers, it builds the image and also keeps it. Otherwise buildah builds it.

    Beside the operator's image, unless it is only in the cache, two files tell what it holds: *.cdx.json
    (CycloneDX), and *.licenses.txt.
    """
    if sum([image is not None, debian, only_base, busybox, wheelhouse]) > 1:
        raise click.UsageError("--base, --debian, --only-base, --busybox and --wheelhouse exclude each other")
    if twice and (only_base or busybox or wheelhouse):
        raise click.UsageError("--twice is for the operator's image")
    machine = platform.partition("/")[2] if platform else None
    if machine not in (None, architecture()) and (debian or only_base or busybox):
        raise click.UsageError("what is made without a registry is for machines like this one: --platform needs --base")
    progress = Progress(sys.stderr)
    try:
        if wheelhouse:
            with cache.scratch(progress):
                click.echo(wheels.wheelhouse(progress, machine=machine))
            return
        if image is not None or not any([debian, only_base, busybox]):
            output = output or wheels.ROOT / "build" / "kopf-ha-ipam.tar"
            build.on(image, output, progress, machine)
        else:
            made = (
                busybox_image.busybox(progress) if busybox
                else base.debian(progress, mirror) if only_base
                else build.on_debian(progress, mirror)
            )  # fmt: skip
            if output is not None:
                build.put(made, output)
            output = output or made
        if not (only_base or busybox) and output.parent != cache.folder():
            bom.write(output, *build.tag().split(":"))
        if twice:
            build.again(output, image, mirror if debian else None, progress, machine)
    except ImageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(output)
