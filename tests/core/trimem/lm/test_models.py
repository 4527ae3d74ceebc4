"""The table of models in docs/models.md is what a tiny model of every architecture shows.

``python -m tests.core.trimem.lm.test_models`` writes it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from tests import tiny
from tests.contracts.attach import CHUNK, CONTEXT, logits, memory_of, tokens
from trimem import LanguageModel, TrimemError
from trimem.explicit.compiler import Compiler
from trimem.explicit.config import ExplicitConfig
from trimem.lm.attach import attach
from trimem.lm.attention import AttentionShares, Look
from trimem.lm.memory import Memory
from trimem.lm.model import AttentionLayer
from trimem.lm.positions import AbsolutePosition, Pairing, Rope

PAGE = Path(__file__).parents[4] / "docs" / "models.md"
COMMAND = "python -m tests.core.trimem.lm.test_models"
BEGIN = f"<!-- written by `{COMMAND}` -->"
END = "<!-- end -->"
ATOL = 1e-4  # of the contract
YES, NO, NONE = "yes", "**no**", ""


@dataclass(frozen=True, slots=True)
class Row:
    """What one architecture shows, a column each."""

    model: str
    positions: str = NONE
    window: str = NONE
    kv_heads: str = NONE
    also: str = NONE
    attach: str = NONE
    bank: str = NONE
    exact: str = NONE


HEAD = Row(
    "model",
    "positions of the keys",
    "sliding window",
    "KV heads",
    "also",
    "`attach()`",
    "bank",
    "memory reads as its text",
)


def row(lm: LanguageModel) -> Row:
    """Return what a model shows, read off what trimem finds in it and does with it."""
    model = f"`{type(lm.model).__name__}`"
    attaches, bank = answer(lambda: attach_nothing(lm)), answer(lambda: Compiler(lm, ExplicitConfig()))
    if attaches != YES:
        return Row(model, attach=attaches, bank=bank)
    difference, looks = read(lm)
    return Row(
        model,
        positions(lm.layers),
        share([layer.sliding_window is not None for layer in lm.layers]),
        kv_heads(lm.layers, looks),
        also(lm.layers, looks),
        attaches,
        bank,
        YES if difference <= ATOL else NO,
    )


def answer(call: Callable[[], object]) -> str:
    """Return yes, or the error that ``call`` raises."""
    try:
        call()
    except TrimemError as error:
        return f"`{type(error).__name__}`"
    return YES


def attach_nothing(lm: LanguageModel) -> None:
    with attach(lm, Memory({})):
        pass


@torch.no_grad()
def read(lm: LanguageModel) -> tuple[float, list[Look]]:
    """Return the largest difference between reading memory and reading its text, and how each layer looked at it."""
    context, chunk = tokens(lm, CONTEXT, seed=1), tokens(lm, CHUNK, seed=2)
    full = logits(lm, torch.cat([chunk, context], 1))[:, CHUNK:]
    shares = AttentionShares()
    with attach(lm, memory_of(lm, chunk), shares=shares):
        difference = (logits(lm, context, CHUNK) - full).abs().max()
    return float(difference), [shares.looks[layer.layer_idx][0] for layer in lm.layers]


def positions(layers: Sequence[AttentionLayer]) -> str:
    if any(isinstance(layer.positions, AbsolutePosition) for layer in layers):
        return "fixed"
    turned = [(layer, scheme) for layer in layers if isinstance(scheme := layer.positions, Rope)]
    if not turned:
        return "none"
    frequencies = [getattr(scheme.owner, scheme.buffer) for _, scheme in turned]
    words = ["rotary"]
    if any(scheme.pairing is Pairing.NEIGHBOURS for _, scheme in turned):
        words.append("neighbouring channels")
    if any(2 * f.numel() < layer.head_dim for f, (layer, _) in zip(frequencies, turned, strict=True)):
        words.append("part of the channels")
    if len({tuple(f.tolist()) for f in frequencies}) > 1:
        words.append("local and global layers at different speeds")
    if len(turned) < len(layers):
        words.append("some layers none")
    return ", ".join(words)


def share(layers: Sequence[bool]) -> str:
    return "all layers" if all(layers) else "some layers" if any(layers) else NONE


def kv_heads(layers: Sequence[AttentionLayer], looks: Sequence[Look]) -> str:
    groups = {look.query.shape[1] // look.layer.key.shape[1] for look in looks}
    shapes = {(layer.num_kv_heads, layer.head_dim, layer.value_dim) for layer in layers}
    words = ["shared" if max(groups) > 1 else "one a head"]
    if len(shapes) > 1:
        words.append("layers differ")
    return ", ".join(words)


def also(layers: Sequence[AttentionLayer], looks: Sequence[Look]) -> str:
    words = []
    if any(look.softcap is not None for look in looks):
        words.append("softcap")
    if any(getattr(layer.module, "sinks", None) is not None for layer in layers):
        words.append("sinks")
    if any(look.scaling != layer.head_dim**-0.5 for layer, look in zip(layers, looks, strict=True)):
        words.append("scaling of its own")
    return ", ".join(words)


def table() -> str:
    """Return the table: what a bank takes, what is only attached to, what is refused, what is read wrongly."""
    rows = [row(tiny.build(name)) for name in (*tiny.MODELS, *tiny.NOPE, *tiny.OTHERS)]
    rows.sort(key=lambda row: (row.exact == NO, row.bank != YES, row.attach != YES, row.model.lower()))
    lines = [astuple(HEAD), ("---",) * len(astuple(HEAD)), *map(astuple, rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def page(text: str) -> str:
    """Return the page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{PAGE.name} must hold the lines {BEGIN} and {END}"
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def test_the_page_is_what_the_models_show() -> None:
    text = PAGE.read_text()
    assert page(text).splitlines() == text.splitlines(), f"docs/{PAGE.name} is out of date; `{COMMAND}` writes it anew"


def test_generate_with_layers_that_share_keys() -> None:
    lm = tiny.build("gemma4", model=tiny.gemma4(**tiny.SHARED_KV))
    context, chunk = tokens(lm, CONTEXT, seed=1), tokens(lm, CHUNK, seed=2)
    full = torch.cat([chunk, context], 1)
    wanted = lm.model.generate(full, attention_mask=torch.ones_like(full), max_new_tokens=6, do_sample=False)
    with attach(lm, memory_of(lm, chunk, to=-CHUNK)):
        spoken = lm.model.generate(context, attention_mask=torch.ones_like(context), max_new_tokens=6, do_sample=False)
    assert torch.equal(spoken[:, CONTEXT:], wanted[:, CHUNK + CONTEXT :])


if __name__ == "__main__":
    transformers_logging.set_verbosity_error()
    PAGE.write_text(page(PAGE.read_text()))
