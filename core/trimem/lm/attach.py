"""Lending memory to a model for the length of a ``with`` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from trimem.errors import InvalidInputError, UnsupportedModelError
from trimem.lm.attention import Attachment, AttentionShares, Captured, attached, implementation_over
from trimem.lm.memory import Memory

if TYPE_CHECKING:
    from trimem.lm.model import LanguageModel


@contextmanager
def attach(lm: LanguageModel, memory: Memory, *, shares: AttentionShares | None = None) -> Iterator[Attachment]:
    """Let a model read ``memory`` in every forward pass of this ``with`` block.

    Works with ``lm.model(...)``, with ``generate()`` and with whatever calls them, in this thread or
    task and those started from it with its context. Other threads and tasks use the same model
    meanwhile and read nothing of it, or what they attached themselves. Blocks may be nested: the
    model then reads both memories. On leaving, by any way, the model is as it was.

    The context's positions stay as they are; where memory stands relative to them was decided when
    its keys were rotated. Attention weights (``output_attentions``) are not returned meanwhile.

    Args:
        lm: The model.
        memory: What it reads.
        shares: Filled with the attention each memory token receives.

    Yields:
        The attachment, whose memory may be exchanged for another between two forward passes.

    Raises:
        UnsupportedModelError: The model's attention cannot be extended.
        InvalidInputError: The memory was made for other layers or heads.
    """
    layers = {layer.layer_idx: layer for layer in lm.layers}
    for layer_idx, layer_memory in memory.layers.items():
        layer = layers.get(layer_idx)
        shape = layer_memory.key.shape[1], layer_memory.key.shape[3]
        if layer is None or shape != (layer.num_kv_heads, layer.head_dim):
            expected = "no such attention layer" if layer is None else f"{layer.num_kv_heads} x {layer.head_dim}"
            raise InvalidInputError(
                f"the memory of layer {layer_idx} has {shape[0]} key-value heads of dimension {shape[1]}, "
                f"the model has {expected}: it was made for another model"
            )
    modules = {layer.module: layer.layer_idx for layer in lm.layers}
    attachment = Attachment(decoder_config(lm.model), modules, memory, shares)
    with installed(lm.model), attached(attachment):
        yield attachment


@torch.no_grad()
def capture(
    model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor | None = None
) -> dict[nn.Module, Captured]:
    """Run the model's decoder once and return what each attention layer computed, first layer first.

    Memory attached in this context is read as in any other forward pass.

    Args:
        model: The model.
        input_ids: (batch, length).
        position_ids: (batch, length) or (1, length).
        attention_mask: (batch, length), 0 on padding.

    Raises:
        UnsupportedModelError: The model's attention cannot be extended.
    """
    captured: dict[nn.Module, Captured] = {}
    modules = {
        module: layer_idx
        for module in model.modules()
        if isinstance(layer_idx := getattr(module, "layer_idx", None), int)
    }
    if attention_mask is None:
        # Without a mask, transformers takes position ids that jump for several packed sequences.
        attention_mask = torch.ones_like(input_ids)
    attachment = Attachment(decoder_config(model), modules, captured=captured)
    with installed(model), attached(attachment):
        model.base_model(input_ids=input_ids, position_ids=position_ids, attention_mask=attention_mask, use_cache=False)
    if not captured:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no attention layers that follow transformers' AttentionInterface"
        )
    return dict(sorted(captured.items(), key=lambda item: item[1].layer_idx))


def decoder_config(model: PreTrainedModel) -> PretrainedConfig:
    """Return the part of the model's configuration that its text decoder was built from."""
    config: PretrainedConfig = model.config.get_text_config(decoder=True)
    return config


_installing = Lock()
_installed: WeakKeyDictionary[PreTrainedModel, tuple[int, str]] = WeakKeyDictionary()


@contextmanager
def installed(model: PreTrainedModel) -> Iterator[None]:
    """Let the model call our attention; the first to enter switches it on, the last to leave off.

    Raises:
        UnsupportedModelError: The model does not follow transformers' AttentionInterface.
    """
    with _installing:
        users, stock = _installed.get(model, (0, ""))
        if users == 0:
            stock = str(decoder_config(model)._attn_implementation)
            _set_implementation(model, implementation_over(stock))
        _installed[model] = users + 1, stock
    try:
        yield
    finally:
        with _installing:
            users, stock = _installed.pop(model)
            if users == 1:
                _set_implementation(model, stock)
            else:
                _installed[model] = users - 1, stock


def _set_implementation(model: PreTrainedModel, name: str) -> None:
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(f"{type(model).__name__} is an encoder-decoder; memory needs a causal model")
    config = decoder_config(model)
    sub_configs = getattr(model.config, "sub_configs", {})
    keys = [key for key in sub_configs if getattr(model.config, key, None) is config]
    model.set_attn_implementation({keys[0]: name} if keys else name)
    if config._attn_implementation != name:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not follow transformers' AttentionInterface, through which memory is read"
        )
