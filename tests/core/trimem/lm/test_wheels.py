"""Models that come as wheels: what is in them is what their makers trained."""

from __future__ import annotations

import pytest
import torch

from tests.contracts.attach import memory_of
from tests.core.trimem.lm.test_vocabulary import HANDBOOK, TEXTS
from trimem import LanguageModel
from trimem.lm.attach import attach
from trimem.lm.memory import LayerMemory, Memory
from trimem.lm.positions import Rope

PROSE = (
    "The harbour was quiet that morning. Two fishing boats had come in before dawn, and their crews were already "
    "asleep in the small houses behind the church. Only the baker was awake, because bread must be made while the "
    "rest of the town is dreaming. He opened the shutters, looked at the grey water, and thought about his daughter, "
    "who had moved to the city three years ago and wrote to him every month. Her last letter said that she had found "
    "a new job at the university library, and that she was happy there."
)
MEMORY, CONTEXT = 700, 40


def with_start(lm: LanguageModel, text: str) -> torch.Tensor:
    """Return the token ids of a text (1, length) as the model was trained to see it begin."""
    start = lm.tokenizer.bos_token_id
    return torch.tensor([[*([] if start is None else [start]), *lm.tokenize(text)]])


@torch.no_grad()
def test_ordinary_english_is_as_likely_as_it_should_be(pretrained: LanguageModel) -> None:
    ids = with_start(pretrained, PROSE)
    said = pretrained.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
    assert 10 < float((-said.mean()).exp()) < 40


def test_text_survives_the_round_trip(pretrained: LanguageModel) -> None:
    for text in (*TEXTS, *(file.read_text() for file in HANDBOOK)):
        assert pretrained.tokenizer.decode(pretrained.tokenize(text)) == text


def test_gemma_cuts_text_as_sentencepiece_does(gemma: LanguageModel) -> None:
    tokenizer = gemma.tokenizer
    special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    assert special == (0, 1, 2, 3)
    assert tokenizer("Hello, world!")["input_ids"] == [2, 9259, 236764, 1902, 236888]
    turn = gemma.tokenize("<start_of_turn>user\nhi<end_of_turn>")
    assert turn == [105, 2364, 107, 2202, 106], "control tokens and line breaks stay whole"
    pieces = [*"1234", "  ", "caf", "\u00e9", "<0x07>", "<0xF3>", "<0xA0>", "<0x80>", "<0x81>"]
    assert tokenizer.convert_ids_to_tokens(gemma.tokenize("1234  caf\u00e9\u0007\U000e0001")) == pieces
    assert gemma.tokenize(" " * 71) == gemma.tokenize(" " * 31) * 2 + gemma.tokenize(" " * 9)


@torch.no_grad()
def test_gemma_knows_what_is_common_knowledge(gemma: LanguageModel) -> None:
    ids = with_start(gemma, "The opposite of hot is")
    assert gemma.tokenizer.decode(gemma.model(ids).logits[0, -1].argmax()) == " cold"


def test_gemma_has_five_local_layers_to_a_global_one(gemma: LanguageModel) -> None:
    windows = [layer.sliding_window for layer in gemma.layers]
    assert windows == [*[512] * 5, None] * 3
    assert {(layer.num_kv_heads, layer.head_dim, layer.value_dim) for layer in gemma.layers} == {(1, 256, 256)}
    speeds = {}
    for layer in gemma.layers:
        assert isinstance(layer.positions, Rope)
        slowest = getattr(layer.positions.owner, layer.positions.buffer)[-1]
        speeds[layer.sliding_window] = float(slowest) ** (-256 / 254)
    assert speeds == {512: pytest.approx(1e4, rel=1e-3), None: pytest.approx(1e6, rel=1e-3)}


@torch.no_grad()
def test_memory_longer_than_the_window_reads_as_its_text(gemma: LanguageModel) -> None:
    text = "\n\n".join(file.read_text() for file in HANDBOOK)
    chunk, context = with_start(gemma, text)[:, : MEMORY + CONTEXT].split([MEMORY, CONTEXT], 1)

    def read(ids: torch.Tensor, first: int) -> torch.Tensor:
        positions = torch.arange(first, first + ids.shape[1])[None]
        mask = torch.ones_like(ids)
        result: torch.Tensor = gemma.model(
            ids, attention_mask=mask, position_ids=positions, logits_to_keep=CONTEXT
        ).logits
        return result

    full = read(torch.cat([chunk, context], 1), 0)
    memory = memory_of(gemma, chunk)
    with attach(gemma, memory):
        torch.testing.assert_close(read(context, MEMORY), full, atol=1e-3, rtol=0)
    with attach(gemma, memory_of(gemma, chunk, first=5, to=-MEMORY)):
        torch.testing.assert_close(read(context, 0), full, atol=2e-3, rtol=0)
    near = {}
    for i, layer in memory.layers.items():
        assert layer.position is not None
        near[i] = LayerMemory(*(tensor[:, :, -400:] for tensor in (layer.key, layer.value, layer.position)))
    with attach(gemma, Memory(near)):
        difference = (read(context, MEMORY) - full).abs().max()
    assert difference > 0.1, "the global layers read what is out of the others' window"
