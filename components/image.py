"""The images of the steps, by name; a run binds the names to digests."""

from kubeyolo import __version__


def image(name: str) -> str:
    """Return the reference of a step's image as it stands in a compiled pipeline."""
    return f"kubeyolo-{name}:{__version__}"
