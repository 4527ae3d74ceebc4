"""Images as vectors: cut into square patches, and put together again. Needs ``pip install "trimem[images]"``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from trimem.errors import InvalidInputError, MissingDependencyError
from trimem.transit.pictures import CHANNELS
from trimem.transit.train import Draw

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def to_patches(image: Tensor, size: int) -> Tensor:
    """Cut an image into patches, row by row; what is missing at the edges repeats the last pixel.

    Args:
        image: (height, width, 3).
        size: Height and width of a patch.

    Returns:
        (patches, size * size * 3).

    Raises:
        InvalidInputError: It is no image with three channels.
    """
    if image.ndim != 3 or image.shape[2] != CHANNELS or 0 in image.shape:
        raise InvalidInputError(f"an image is (height, width, 3), got {tuple(image.shape)}")
    rows, columns = (-(-length // size) for length in image.shape[:2])
    down = torch.arange(rows * size).clamp_max(image.shape[0] - 1)
    right = torch.arange(columns * size).clamp_max(image.shape[1] - 1)
    whole = image[down][:, right].view(rows, size, columns, size, CHANNELS)
    return whole.transpose(1, 2).reshape(rows * columns, size * size * CHANNELS)


def from_patches(patches: Tensor, height: int, width: int) -> Tensor:
    """Put an image of that height and width together from what :func:`to_patches` made of it.

    Raises:
        InvalidInputError: There are not as many patches as the image takes.
    """
    size = patch_size(patches.shape[1])
    rows, columns = -(-height // size), -(-width // size)
    if len(patches) != rows * columns:
        raise InvalidInputError(f"{height} x {width} pixels are {rows * columns} patches, got {len(patches)}")
    whole = patches.view(rows, columns, size, size, CHANNELS).transpose(1, 2)
    return whole.reshape(rows * size, columns * size, CHANNELS)[:height, :width]


def mirrored(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Return patches each turned or mirrored at random, one of the eight ways to look at a square; (n, dim) both."""
    size = patch_size(patches.shape[1])
    seen = patches.view(-1, size, size, CHANNELS)
    for way in range(3):
        flipped = seen.transpose(1, 2) if way == 2 else seen.flip(1 + way)
        chosen = torch.rand(len(patches), 1, 1, 1, generator=generator) < 0.5
        seen = torch.where(chosen, flipped, seen)
    return seen.reshape(patches.shape)


def learned_and_held(files: Sequence[Path]) -> tuple[Sequence[Path], Sequence[Path]]:
    """Return which images are learned from, and which choose the best state: every tenth, and at least one.

    Of one image alone, both.
    """
    held = files[:: min(10, len(files))]
    return [file for file in files if file not in held] or files, held


def crops(images: Sequence[Tensor], size: int) -> Draw:
    """Return what draws patches out of images, each from anywhere: far more than :func:`to_patches` cuts.

    Args:
        images: (height, width, 3) each, from 0 to 1. Those with a side shorter than a patch are left out.
        size: Height and width of a patch.

    Raises:
        InvalidInputError: No image holds a patch.
    """
    kept = [(255 * image).round().to(torch.uint8) for image in images if min(image.shape[:2]) >= size]
    if not kept:
        raise InvalidInputError(
            f"none of {len(images)} images holds a patch of {size} x {size} pixels: choose smaller patches"
        )
    places = torch.tensor([(image.shape[0] - size + 1) * (image.shape[1] - size + 1) for image in kept])

    def draw(n: int, generator: torch.Generator) -> Tensor:
        patches = torch.empty(n, size, size, CHANNELS)
        chosen = torch.multinomial(places.double(), n, replacement=True, generator=generator)
        where = torch.rand(n, 2, generator=generator)
        for patch, image, (down, right) in zip(patches, (kept[i] for i in chosen), where.tolist(), strict=True):
            top, left = int(down * (image.shape[0] - size + 1)), int(right * (image.shape[1] - size + 1))
            patch.copy_(image[top : top + size, left : left + size])
        return patches.view(n, -1) / 255

    return draw


def patch_size(dim: int) -> int:
    """Return the height and width of patches with ``dim`` numbers.

    Raises:
        InvalidInputError: No square patch has as many.
    """
    size = math.isqrt(dim // CHANNELS)
    if size * size * CHANNELS != dim:
        raise InvalidInputError(
            f"vectors of {dim} numbers are no square patches of 3 channels: this codec is for others"
        )
    return size


def read_image(path: Path, square: int | None = None) -> Tensor:
    """Read an image, (height, width, 3) in float32 from 0 to 1.

    Args:
        path: The file.
        square: Cut the largest square out of the middle and shrink it to so many pixels.

    Raises:
        InvalidInputError: It cannot be read.
        MissingDependencyError: Pillow is not installed.
    """
    from_file = _pillow()
    try:
        with from_file.open(path) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read as an image: {error}") from error
    if square is not None:
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        image = image.crop((left, top, left + side, top + side)).resize((square, square), from_file.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)


def write_image(image: Tensor, path: Path) -> None:
    """Write an image, (height, width, 3) from 0 to 1, in the format of the path's suffix."""
    values = (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    _pillow().fromarray(values).save(path)


def image_files(folder: Path) -> list[Path]:
    """Return the images in a folder, in order of their names.

    Raises:
        InvalidInputError: There are none.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InvalidInputError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    return files


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError('images need Pillow: pip install "trimem[images]"') from error
    return Image
