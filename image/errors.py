"""The errors of `image`. Each message is a sentence for the person who started it."""


class ImageError(Exception):
    """The image cannot be built. The message says why, and what to do."""


class NotHereError(ImageError):
    """This machine lacks something that is needed: a program, or root."""
