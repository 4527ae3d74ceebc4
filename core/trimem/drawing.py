"""Pictures of results; needs ``pip install "trimem[bench]"``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimem.errors import MissingDependencyError

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
