"""Pictures of results; needs ``pip install "trimem[bench]"``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimem.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError('plots need matplotlib: pip install "trimem[bench]"') from error
    return Figure(figsize=(width, height), layout="constrained")


def check_picture(path: Path) -> None:
    """Raise if no picture can be drawn there.

    Raises:
        InvalidInputError: Its folder is not there, or its name ends in no format that can be drawn.
        MissingDependencyError: matplotlib is not installed.
    """
    formats = new_figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in formats:
        raise InvalidInputError(f"a plot is a PNG or SVG file, such as plot.png; got {path}")
    if not path.parent.is_dir():
        raise InvalidInputError(f"there is no folder {path.parent} to draw {path.name} in")
