"""The attention a model runs while memory is attached to it.

It is registered with transformers over the implementation the model already had, and steps aside
for that one whenever the running context has attached nothing to the very module that calls: so
another thread, another task or another model sharing the configuration stays bit-equal to stock.

What is attached lives in a :class:`~contextvars.ContextVar`, never on the model. One context sees
its own attachments and those it was entered from, and no other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig

from trimem.errors import InvalidInputError, UnsupportedModelError
from trimem.lm import kernels
from trimem.lm.kernels import masks, reference
from trimem.lm.memory import LayerMemory, Memory


@dataclass(frozen=True, slots=True)
class Captured:
    """What one attention layer computed in one forward pass.

    Attributes:
        layer_idx: Of the layer.
        query: (batch, num_heads, length, head_dim), with the positions the model gave them.
        key: (batch, num_kv_heads, length, head_dim), likewise.
        value: (batch, num_kv_heads, length, head_dim).
        scaling: Factor on the dot products.
        sliding_window: The layer's window in tokens, or None.
    """

    layer_idx: int
    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    sliding_window: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """How the last query of one forward pass looked at one layer's memory.

    Attributes:
        query: (batch, num_heads, 1, head_dim).
        lse: (batch, num_heads, 1), over memory and context.
        layer: The memory, with the batch's rows.
        mask: Broadcasts to (batch, num_heads, 1, tokens), or None.
        scaling: Factor on the dot products.
        softcap: Of the layer, or None.

    The looks of one layer at one memory differ in query, lse and mask alone.
    """

    query: Tensor
    lse: Tensor
    layer: LayerMemory
    mask: Tensor | None
    scaling: float
    softcap: float | None


@dataclass(frozen=True, slots=True)
class AttentionShares:
    """How much attention each memory token received.

    Of every forward pass the last query counts: the one that speaks the next token. What it takes to
    tell is noted as the model runs, and worked out when it is asked for, so that answers do not wait. They
    belong to one memory: whoever exchanges it begins new ones.

    Attributes:
        looks: By layer_idx, one a forward pass.
    """

    looks: dict[int, list[Look]] = field(default_factory=dict)

    def by_pass(self, rows: int = 1) -> dict[int, Tensor]:
        """Return the attention each token received in each forward pass, by layer_idx.

        Args:
            rows: Rows of the memory; those that generate() made of one are added up.

        Returns:
            (passes, rows, num_kv_heads, tokens) in float32: softmax weights, summed over the query heads of
            a group.
        """
        received: dict[int, Tensor] = {}
        for layer_idx, looks in self.looks.items():
            first = looks[0]
            _, num_kv_heads, tokens, _ = first.layer.key.shape
            query, lse = (torch.cat([getattr(look, name) for look in looks], 2) for name in ("query", "lse"))
            mask = None
            if first.mask is not None:
                shape = *query.shape[:2], 1, tokens
                mask = torch.cat([look.mask.expand(shape) for look in looks if look.mask is not None], 2)
            scores = reference.logits(query, first.layer.key, scaling=first.scaling, softcap=first.softcap, mask=mask)
            weights = (scores - lse[..., None]).exp().transpose(1, 2)  # (batch, passes, num_heads, tokens)
            split = weights.unflatten(2, (num_kv_heads, -1)).sum(3).unflatten(0, (rows, -1)).sum(1)
            received[layer_idx] = split.transpose(0, 1)
        return received

    def mass(self, rows: int = 1) -> dict[int, Tensor]:
        """Return the attention each token received in all forward passes, by layer_idx.

        Args:
            rows: As of :meth:`by_pass`.

        Returns:
            (rows, num_kv_heads, tokens) in float32.
        """
        return {layer_idx: received.sum(0) for layer_idx, received in self.by_pass(rows).items()}


@dataclass(slots=True, eq=False)
class Attachment:
    """One memory lent to the attention modules of one model.

    Attributes:
        config: The configuration the model's decoder was built from.
        modules: The attention modules it is lent to, with their layer_idx.
        memory: What they read; may be exchanged between two forward passes.
        shares: Filled with the attention the memory receives, if given.
        captured: Filled with what each module computes, if given.
        piece: The queries of a pass are cut into pieces of so many, from the last one back, and each piece
            reads a row of its own: first in the memory come the rows of the batch's first row, first those
            of its first piece. None reads all by the same row.
    """

    config: PretrainedConfig
    modules: Mapping[nn.Module, int]
    memory: Memory = field(default_factory=lambda: Memory({}))
    shares: AttentionShares | None = None
    captured: MutableMapping[nn.Module, Captured] | None = None
    piece: int | None = None


_attached: ContextVar[tuple[Attachment, ...]] = ContextVar("trimem_attached", default=())


@contextmanager
def attached(attachment: Attachment) -> Iterator[None]:
    """Lend ``attachment`` to whatever runs in this context, beside what is already attached."""
    token = _attached.set((*_attached.get(), attachment))
    try:
        yield
    finally:
        _attached.reset(token)


@contextmanager
def detached() -> Iterator[None]:
    """Run as if nothing were attached in this context."""
    token = _attached.set(())
    try:
        yield
    finally:
        _attached.reset(token)


def implementation_over(stock: str) -> str:
    """Return the name of the implementation that adds memory to ``stock``, registered if need be."""
    # "flash" in a name makes transformers look for a flash-attention package.
    name = f"trimem_over_{stock}".replace("flash", "fa")
    if name not in AttentionInterface().valid_keys():
        AttentionMaskInterface.register(name, _mask_over(stock))
        AttentionInterface.register(name, _attention_over(stock))
    return name


def _reads_memory(config: PretrainedConfig | None) -> bool:
    """Tell whether this context has attached memory to a model built from ``config``."""
    return any(a.config is config and a.memory.layers for a in _attached.get())


def _mask_over(stock: str) -> Callable[..., Any]:
    by_name = AttentionMaskInterface()

    def mask(*args: Any, config: PretrainedConfig, **kwargs: Any) -> Any:
        if _reads_memory(config):
            if stock == "eager":  # see _attention_over
                kwargs["allow_is_causal_skip"] = False
            return by_name["sdpa"](*args, config=config, **kwargs)
        return by_name[stock](*args, config=config, **kwargs) if stock in by_name else None

    return mask


def _attention_over(stock: str) -> Callable[..., Any]:
    by_name = AttentionInterface()

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        mine = [a for a in _attached.get() if module in a.modules]
        for a in mine:
            if a.captured is not None:
                a.captured[module] = Captured(
                    a.modules[module],
                    query.detach(),
                    key.detach(),
                    value.detach(),
                    _scaling(kwargs.get("scaling"), query),
                    kwargs.get("sliding_window"),
                )
        reads = any(a.memory.layers for a in mine)
        # If another model that shares this one's configuration object reads memory here, the mask has
        # the form that memory needs, not the stock one.
        foreign_mask = not reads and stock != "sdpa" and _reads_memory(getattr(module, "config", None))
        if reads or (foreign_mask and stock != "eager"):
            return _attend(module, query, key, value, attention_mask, mine, **kwargs), None
        if stock == "eager":  # not registered: every model brings its own
            forward = sys.modules[type(module).__module__].__dict__["eager_attention_forward"]
            if foreign_mask and attention_mask is not None:
                attention_mask = masks.additive(attention_mask, query.dtype, torch.finfo(query.dtype).min)
        else:
            forward = by_name[stock]
        result: tuple[Tensor, Tensor | None] = forward(module, query, key, value, attention_mask, **kwargs)
        return result

    return attention


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    attachments: list[Attachment],
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    position_ids: Tensor | None = None,
    position_bias: Tensor | None = None,
    **unrelated: Any,  # noqa: ARG001 - what only other implementations take
) -> Tensor:
    """Attend to the context and to every attached memory, each apart, and merge.

    Returns:
        (batch, query_length, num_heads, head_dim), as transformers wants it.
    """
    if dropout:
        raise UnsupportedModelError(
            f"attention to memory has no dropout, got {dropout}: call model.eval(), or set the model's "
            "attention dropout to 0 to train"
        )
    if position_bias is not None:
        raise UnsupportedModelError(f"{type(module).__name__} biases attention by position; memory has no such bias")
    batch, _, query_length, _ = query.shape
    scaling = _scaling(scaling, query)

    causal = attention_mask is None and query_length > 1
    if causal:
        # What transformers means by no mask: the prefill of an empty cache; the later keys of a
        # static cache are not written yet.
        key, value = key[:, :, :query_length], value[:, :, :query_length]
    elif attention_mask is not None:
        attention_mask = attention_mask[..., : key.shape[2]]
    kernel = kernels.choose(query, value, softcap)
    parts = [kernel(query, key, value, scaling=scaling, mask=attention_mask, causal=causal, softcap=softcap)]
    if s_aux is not None:  # a sink: it takes attention and gives nothing
        parts.append((torch.zeros_like(query), s_aux.float().view(1, -1, 1).expand(query.shape[:3])))

    looks: list[tuple[Attachment, _Pieces, Tensor, LayerMemory, Tensor | None]] = []
    for a in attachments:
        layer = a.memory.layers.get(a.modules[module])
        if layer is None:
            continue
        pieces = _Pieces(a.piece or query_length, layer.key.shape[0], batch, query_length)
        asking = pieces.cut(query)
        layer = _for_batch(layer, len(asking))
        mask = _memory_mask(layer, asking, position_ids, sliding_window, pieces)
        kernel = kernels.choose(asking, layer.value, softcap, mask)
        said, weight = kernel(asking, layer.key, layer.value, scaling=scaling, mask=mask, softcap=softcap)
        parts.append((pieces.joined(said), pieces.joined(weight[..., None])[..., 0]))
        looks.append((a, pieces, asking, layer, mask))
    output, lse = kernels.merge(parts)

    for a, pieces, asking, layer, mask in looks:
        if a.shares is not None:
            last = None if mask is None else mask[:, :, -1:]
            weight = pieces.cut(lse[..., None])[:, :, -1:, 0]
            look = Look(asking[:, :, -1:].detach(), weight.detach(), layer, last, scaling, softcap)
            a.shares.looks.setdefault(a.modules[module], []).append(look)
    return output.to(query.dtype).transpose(1, 2).contiguous()


def _scaling(scaling: float | None, query: Tensor) -> float:
    return float(query.shape[-1] ** -0.5 if scaling is None else scaling)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The queries of a pass in pieces, each a row of a larger batch.

    Attributes:
        size: Queries of each piece; the first is filled up.
        rows: Of the memory: the batch's, before generate() repeats them, times the pieces; or 1 for all.
        batch: Rows of the queries.
        length: Of the queries.
    """

    size: int
    rows: int
    batch: int
    length: int

    @property
    def count(self) -> int:
        """How many pieces."""
        return -(-self.length // self.size)

    def cut(self, queries: Tensor) -> Tensor:
        """Turn (batch, num_heads, length, dim) into (batch * count, num_heads, size, dim)."""
        if self.count == 1:
            return queries
        missing = -self.length % self.size
        pieces: Tensor = nn.functional.pad(queries, (0, 0, missing, 0)).unflatten(2, (self.count, -1))
        rows: Tensor = pieces.unflatten(0, (self.rows // self.count, -1)).permute(0, 3, 1, 2, 4, 5)
        return rows.flatten(0, 2)

    def joined(self, pieces: Tensor) -> Tensor:
        """Undo :meth:`cut`."""
        if self.count == 1:
            return pieces
        rows: Tensor = pieces.unflatten(0, (self.rows // self.count, self.count, -1)).permute(0, 2, 3, 1, 4, 5)
        return rows.flatten(3, 4).flatten(0, 1)[:, :, -self.length :]


def _for_batch(layer: LayerMemory, batch: int) -> LayerMemory:
    """Repeat the rows of a memory as generate() repeats those of the batch, for beams and samples."""
    rows = layer.key.shape[0]
    if batch % rows:
        raise InvalidInputError(f"the attached memory has {rows} rows, which a batch of {batch} does not share evenly")
    if rows in (1, batch):
        return layer
    repeated = [
        tensor.repeat_interleave(batch // rows, 0) if tensor is not None and tensor.shape[0] == rows else tensor
        for tensor in (layer.key, layer.value, layer.position, layer.bias)
    ]
    return LayerMemory(*repeated)  # type: ignore[arg-type]


def _memory_mask(
    layer: LayerMemory, query: Tensor, position_ids: Tensor | None, sliding_window: int | None, pieces: _Pieces
) -> Tensor | None:
    """Return what is added to the logits of a memory, or None if nothing is.

    Shape: broadcasts to (batch, num_heads, query_length, tokens).
    """
    mask = None
    if layer.bias is not None:
        shared_by_all = layer.bias.shape[1] == 1
        group = query.shape[1] // layer.key.shape[1]
        mask = (layer.bias if shared_by_all else layer.bias.repeat_interleave(group, 1))[:, :, None]
    if sliding_window is not None:
        if layer.position is None:
            raise InvalidInputError("this model has sliding-window layers: tell the position of every memory token")
        if position_ids is None or position_ids.ndim != 2:
            raise UnsupportedModelError(
                "this model has sliding-window layers but does not pass their position ids to its attention"
            )
        # Layers that share the keys of earlier ones may be run on the last tokens alone.
        position_ids = position_ids[:, -pieces.length :].expand(pieces.batch, -1)
        distance = pieces.cut(position_ids[:, None, :, None]) - layer.position[:, :, None]
        out_of_sight = distance >= sliding_window
        if out_of_sight.shape[1] > 1:
            out_of_sight = out_of_sight.repeat_interleave(query.shape[1] // layer.key.shape[1], 1)
        if mask is None:
            return ~out_of_sight
        mask = mask.masked_fill(out_of_sight, float("-inf"))
    return mask
