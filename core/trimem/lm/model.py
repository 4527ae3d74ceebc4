"""A language model as trimem sees it: weights, tokenizer, identity, and the layers that can read memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trimem.errors import InvalidInputError, UnsupportedModelError
from trimem.lm.attach import capture, decoder_config, installed
from trimem.lm.attention import Attachment, Captured, attached, detached
from trimem.lm.fingerprint import fingerprint
from trimem.lm.memory import LayerMemory, Memory
from trimem.lm.positions import AbsolutePosition, PositionScheme, identify

_PROBE_TOKENS = 12
_PROBE_OFFSET = 37
_WORST_ERROR = {torch.bfloat16: 0.2, torch.float16: 0.2}  # relative; rounding alone, with a wide margin


@dataclass(frozen=True, slots=True, eq=False)
class AttentionLayer:
    """One attention layer of a model.

    Attributes:
        module: The attention module.
        layer_idx: Its number in the model.
        num_kv_heads: Heads that have keys and values of their own.
        head_dim: Channels of a key.
        value_dim: Channels of a value.
        sliding_window: How many tokens back it sees, or None for all.
        positions: How its keys carry positions.
    """

    module: nn.Module
    layer_idx: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    sliding_window: int | None
    positions: PositionScheme


class LanguageModel:
    """A causal language model of transformers with its tokenizer.

    Args:
        model: Any causal model whose attention follows transformers' AttentionInterface. Left as it
            is but for switching to eval mode, which generation wants.
        tokenizer: Its tokenizer.
        name: What messages call it; by default where it was loaded from.

    Raises:
        InvalidInputError: One of them is missing or of another kind.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str | None = None) -> None:
        if not isinstance(model, PreTrainedModel) or not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise InvalidInputError(
                "LanguageModel takes a transformers model and its tokenizer, got "
                f"{type(model).__name__} and {type(tokenizer).__name__}; load_model(name) loads both"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name or model.config.name_or_path or type(model).__name__

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, {self.device}, {self.dtype})"

    @cached_property
    def fingerprint(self) -> str:
        """Identifies architecture, weights and vocabulary; memories serve the model that made them.

        Computed at the first use by reading every weight once.
        """
        return fingerprint(self.model, self.tokenizer)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @cached_property
    def context_length(self) -> int:
        """Positions the model was made for."""
        config = decoder_config(self.model)
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            if isinstance(length := getattr(config, name, None), int):
                return length
        raise UnsupportedModelError(f"{type(config).__name__} does not say how long its context may be")

    @cached_property
    def layers(self) -> tuple[AttentionLayer, ...]:
        """The layers that can read memory, first layer first.

        Found at the first use by running twelve tokens at two offsets, and tried out: the first half
        of them is read as memory, which must give what reading them gives.

        Raises:
            UnsupportedModelError: The model's attention cannot be extended, or something else in it
                carries what it read (recurrent layers, say).
        """
        config = decoder_config(self.model)
        if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
            raise UnsupportedModelError(f"{type(self.model).__name__} has chunked attention, which memory cannot join")
        input_ids = (torch.arange(_PROBE_TOKENS, device=self.device)[None] * 7 + 3) % config.vocab_size
        offset = min(_PROBE_OFFSET, self.context_length - _PROBE_TOKENS)
        here = torch.arange(_PROBE_TOKENS, device=self.device)[None]
        first = capture(self.model, input_ids, here)
        if not all(getattr(module, "is_causal", True) for module in first):
            raise UnsupportedModelError(f"{type(self.model).__name__} is not causal; memory needs a model that speaks")
        second = capture(self.model, input_ids, here + offset)
        self._try_out(input_ids, first)
        return tuple(
            AttentionLayer(
                module,
                one.layer_idx,
                num_kv_heads=one.key.shape[1],
                head_dim=one.key.shape[3],
                value_dim=one.value.shape[3],
                sliding_window=one.sliding_window,
                positions=identify(self.model, one.key, second[module].key, offset),
            )
            for module, one in first.items()
        )

    def _try_out(self, input_ids: Tensor, captured: Mapping[nn.Module, Captured]) -> None:
        """Raise if reading the first half of some tokens as memory is not the same as reading them."""
        half = input_ids.shape[1] // 2
        position = torch.arange(half, device=self.device)[None, None]
        memory = Memory(
            {
                one.layer_idx: LayerMemory(one.key[:, :, :half], one.value[:, :, :half], position)
                for one in captured.values()
            }
        )
        modules = {module: one.layer_idx for module, one in captured.items()}
        with torch.no_grad(), detached():
            read = self._hidden(input_ids, 0)[:, half:]
            with installed(self.model), attached(Attachment(decoder_config(self.model), modules, memory)):
                remembered = self._hidden(input_ids[:, half:], half)
        error = float((remembered - read).norm() / read.norm())
        if not error <= _WORST_ERROR.get(self.dtype, 0.02):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} does not read memory as it reads text (they differ by {error:.0%}): it "
                "carries what it read by more than attention, or attends in a way of its own"
            )

    def _hidden(self, input_ids: Tensor, start: int) -> Tensor:
        positions = torch.arange(start, start + input_ids.shape[1], device=self.device)[None]
        output = self.model.base_model(
            input_ids=input_ids, position_ids=positions, attention_mask=torch.ones_like(input_ids), use_cache=False
        )
        hidden: Tensor = output[0].float()
        return hidden

    @property
    def movable(self) -> bool:
        """Whether keys can be moved to other positions; False for models with absolute positions."""
        return not any(isinstance(layer.positions, AbsolutePosition) for layer in self.layers)

    def tokenize(self, text: str, *, control: bool = True) -> list[int]:
        """Return the token ids of ``text`` alone, without any special tokens added around it.

        Args:
            text: The text.
            control: Whether what reads like a special token is one; False takes it for the characters it is made
                of, as befits a text that may be from anybody.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not control)["input_ids"]
        return ids
