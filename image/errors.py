"""What can go wrong, as a sentence for the person who started it."""


class ImageError(Exception):
    """The image cannot be made; the text names the cause and a way out."""
