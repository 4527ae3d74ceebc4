"""An image as a file of codes and corrections, and back."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trimem.errors import CorruptTensorError, FingerprintMismatch
from trimem.store.files import write_whole
from trimem.transit.bound import Corrections, Level
from trimem.transit.idrp import Compressed, Idrp
from trimem.transit.images import from_patches, patch_size, to_patches
from trimem.transit.pictures import CHANNELS

SUFFIX = ".transit"
_GAP = 8


def compress_image(codec: Idrp, image: Tensor, path: Path, max_error: float | None = None) -> int:
    """Write an image, (height, width, 3) from 0 to 1, and return the bytes of its codes and corrections.

    Args:
        codec: Fitted to square patches.
        image: The image.
        path: Where to; the file is there whole or not at all.
        max_error: How far off a pixel may be; None is the codec's.

    Raises:
        InvalidInputError: The codec is not for patches, or it is no image.
    """
    stored = codec.compress_within(to_patches(image, patch_size(codec.dim)), max_error)
    tensors = {"codes": stored.codes, "exact_rows": stored.corrections.exact_rows, "exact": stored.corrections.exact}
    for i, level in enumerate(stored.corrections.levels):
        tensors |= {f"rows.{i}": level.rows, f"steps.{i}": level.steps, f"counts.{i}": level.counts}
    metadata = {
        "codec": codec.fingerprint,
        "height": str(image.shape[0]),
        "width": str(image.shape[1]),
        "levels": str(len(stored.corrections.levels)),
    }
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    write_whole(path, data)
    return int(stored.nbytes().sum())


def expand_image(codec: Idrp, path: Path) -> Tensor:
    """Read an image that :func:`compress_image` wrote, (height, width, 3) from 0 to 1.

    Raises:
        CorruptTensorError: The file is missing or is no such image.
        FingerprintMismatch: It was compressed by another codec.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            made_by = metadata["codec"]
            height, width = int(metadata["height"]), int(metadata["width"])
            levels = tuple(
                Level(*(file.get_tensor(f"{part}.{i}") for part in ("rows", "steps", "counts")))
                for i in range(int(metadata["levels"]))
            )
            codes, rows, exact = (file.get_tensor(name) for name in ("codes", "exact_rows", "exact"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CorruptTensorError(f"{path} cannot be read as a compressed image: {error!r}") from error
    if made_by != codec.fingerprint:
        raise FingerprintMismatch(
            f"{path} was compressed by the codec {made_by}, this is {codec.fingerprint}: "
            "give the codec it was made with"
        )
    patches = codec.expand_within(Compressed(codes, Corrections(levels, rows, exact)))
    return from_patches(patches, height, width).clamp(0, 1)


def psnr(original: Tensor, image: Tensor) -> float:
    """Return the peak signal-to-noise ratio of an image in decibels, for pixels from 0 to 1."""
    return -10 * math.log10(max(float((original - image).square().mean()), 1e-12))


def beside(original: Tensor, image: Tensor) -> Tensor:
    """Return two images of one height side by side, (height, widths and a gap, 3)."""
    return torch.cat([original, torch.ones(len(image), _GAP, CHANNELS), image], dim=1)
