"""How many tokens of a reference each KV head keeps, and what fits into a number of bytes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trimem.errors import InvalidInputError
from trimem.explicit.calibration import calibration_of
from trimem.explicit.codec import codec
from trimem.explicit.config import ExplicitConfig
from trimem.lm.model import LanguageModel

STEPS = (("float16", 1.0, 1.0), ("int8", 1.0, 1.0), ("int8", 2 / 3, 1.0), ("int4", 1.0, 1.0), ("int4", 2 / 3, 0.0))
"""What ``bytes_per_ref`` tries in turn: a codec, a share of the heads, and the least share of the tokens."""

_CONTAINER = 1024  # at most: safetensors' header with the names and shapes of all tensors


def most_tokens(lm: LanguageModel, config: ExplicitConfig) -> Tensor:
    """Return the most tokens each KV head keeps (layers, num_kv_heads).

    Raises:
        CalibrationNotFoundError: ``config.heads`` is "calibrated" and the model has no calibration.
    """
    tokens = config.reference_tokens if config.tokens is None else config.tokens
    return kept_heads(lm, config.heads, config.heads_kept).int() * tokens


def kept_heads(lm: LanguageModel, heads: str, share: float) -> Tensor:
    """Return which heads are kept (layers, num_kv_heads).

    Args:
        lm: The model.
        heads: One of :data:`trimem.explicit.config.HEADS`.
        share: Of all heads, where they are kept by calibration.

    Raises:
        CalibrationNotFoundError: ``heads`` is "calibrated" and the model has no calibration.
    """
    layers, per_layer = len(lm.layers), lm.layers[0].num_kv_heads
    depth = torch.arange(layers)[:, None].expand(layers, per_layer)
    if heads == "first_half":
        return depth < layers // 2
    if heads == "middle_half":
        return (depth >= layers // 4) & (depth < layers - layers // 4)
    if heads == "second_half":
        return depth >= layers // 2
    if heads == "calibrated":
        return calibration_of(lm).best(round(share * _heads(lm)))
    return torch.ones(layers, per_layer, dtype=torch.bool)


def record_bytes(lm: LanguageModel, config: ExplicitConfig) -> int:
    """Return the most bytes that the record of one reference takes on the disk."""
    per_head, per_row = _sizes(lm, config)
    return _CONTAINER + per_head * _heads(lm) + per_row * int(most_tokens(lm, config).sum())


def fitted(lm: LanguageModel, config: ExplicitConfig) -> ExplicitConfig:
    """Return a configuration whose records take at most ``config.bytes_per_ref``, if that is set.

    Of :data:`STEPS`, the first that fits is taken, with as many tokens a head as fit. Heads are kept by
    the model's calibration.

    Raises:
        InvalidInputError: Not even one token a head fits.
        CalibrationNotFoundError: Heads must be left out, and the model has no calibration.
    """
    if config.bytes_per_ref is None:
        return config
    for name, share, least in STEPS:
        heads = "all" if share == 1.0 else "calibrated"
        step = replace(config, codec=name, heads=heads, heads_kept=share, tokens=1)
        per_head, per_row = _sizes(lm, step)
        room = config.bytes_per_ref - _CONTAINER - per_head * _heads(lm)
        tokens = min(config.reference_tokens, room // (per_row * round(share * _heads(lm))))
        if tokens >= max(1, least * config.reference_tokens):
            return replace(step, tokens=tokens)
    smallest = record_bytes(lm, step)
    raise InvalidInputError(
        f"bytes_per_ref={config.bytes_per_ref} is less than the {smallest} bytes of one token a head of {lm.name}"
    )


def _sizes(lm: LanguageModel, config: ExplicitConfig) -> tuple[int, int]:
    """Return the bytes of a head and of a row, their counts and token numbers included."""
    layer, numbers = lm.layers[0], codec(config.codec)
    token = 1 if config.reference_tokens <= 256 else 4
    return numbers.head_bytes(layer.head_dim) + 2, numbers.row_bytes(layer.head_dim, layer.value_dim) + token


def _heads(lm: LanguageModel) -> int:
    return len(lm.layers) * lm.layers[0].num_kv_heads
