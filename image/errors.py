"""What can go wrong, as a sentence for the person who started it."""


class ImageError(Exception):
    """The image cannot be made; the text names the cause and a way out."""


class NotHereError(ImageError):
    """This machine lacks what it takes: a program, or root."""
