"""The identity of a model: memories made by one serve no other (Memory³, Remark 9)."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimem.lm.attach import decoder_config

_BLOCK = 1 << 22  # words weighed at once
_CONFIG_KEYS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_parameters",
    "rope_theta",
    "rope_scaling",
    "sliding_window",
    "layer_types",
)


@torch.no_grad()
def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return 16 hex digits that name architecture, weights, vocabulary and chat template.

    Weights count as rounded to bfloat16, so that a model has one fingerprint in whatever precision
    and on whatever device it is loaded, while any change that training makes shows. Reads every
    weight once: 0.2 s for 135M parameters on two cores.
    """
    digest = hashlib.sha256()
    config = decoder_config(model).to_dict()
    digest.update(json.dumps({key: config.get(key) for key in _CONFIG_KEYS}, sort_keys=True, default=str).encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}{_checksum(parameter)}".encode())
    vocabulary = sorted(tokenizer.get_vocab().items())
    digest.update(json.dumps([vocabulary, tokenizer.chat_template], default=str).encode())
    return digest.hexdigest()[:16]


def _checksum(tensor: Tensor) -> int:
    """Return a sum modulo 2^64 in which every word weighs by its place, so any one change shows.

    Integer arithmetic wraps the same way on every device.
    """
    flat = tensor.detach().reshape(-1)
    if flat.is_floating_point():
        flat = flat.to(torch.bfloat16)
    raw = flat.contiguous().view(torch.uint8)
    words = pad(raw, (0, -raw.numel() % 8)).view(torch.int64)
    total = 0
    for start in range(0, words.numel(), _BLOCK):
        block = words[start : start + _BLOCK]
        places = torch.arange(start, start + block.numel(), device=block.device)
        total += int((block * (2 * places + 1)).sum().item())
    return total % (1 << 64)
