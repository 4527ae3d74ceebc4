"""Attaching memory, on tiny models of every kind of attention and on a real one."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers import AutoModel, BertConfig, T5Config, T5ForConditionalGeneration

from tests import tiny
from tests.contracts.attach import AttachContract, logits, memory_of, tokens
from trimem import LanguageModel, UnsupportedModelError
from trimem.lm.attach import attach, capture
from trimem.lm.attention import detached


@functools.cache
def built(name: str, implementation: str) -> LanguageModel:
    lm = tiny.build(name)
    lm.model.set_attn_implementation(implementation)
    return lm


class TestTinyModels(AttachContract):
    atol = 1e-4

    @pytest.fixture(params=sorted(tiny.MODELS | tiny.NOPE))
    def lm(self, request: pytest.FixtureRequest) -> LanguageModel:
        return built(request.param, "sdpa" if request.param not in tiny.EAGER_ONLY else "eager")

    @pytest.fixture(autouse=True)
    def _positions(self, lm: LanguageModel) -> None:
        self.movable = lm.name not in tiny.ABSOLUTE


class TestEagerModels(AttachContract):
    """The stock implementation is the model's own, with additive masks."""

    @pytest.fixture(params=["llama", "gemma3"])
    def lm(self, request: pytest.FixtureRequest) -> LanguageModel:
        return built(request.param, "eager")


class TestSmolLM2(AttachContract):
    atol = 1e-4

    @pytest.fixture
    def lm(self, smollm: LanguageModel) -> LanguageModel:
        return smollm


class TestGemma3(AttachContract):
    """Local and global layers, one KV head; its logits reach 100, so float32 rounds at 1e-5."""

    atol = 3e-4

    @pytest.fixture
    def lm(self, gemma: LanguageModel) -> LanguageModel:
        return gemma


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_another_model_stays_bit_equal(implementation: str) -> None:
    lent, other = tiny.build("llama"), tiny.build("llama", seed=1)
    twin = tiny.build("llama", model=type(lent.model)(lent.model.config))  # shares the configuration object
    for lm in (lent, other):
        lm.model.set_attn_implementation(implementation)
    context = tokens(lent, 9, seed=1)
    stock = [logits(lm, context) for lm in (other, twin)]
    with attach(lent, memory_of(lent, tokens(lent, 6, seed=2))):
        assert all(torch.equal(logits(lm, context), s) for lm, s in zip((other, twin), stock, strict=True))
        with attach(other, memory_of(other, tokens(other, 6, seed=3))):
            assert torch.equal(logits(twin, context), stock[1])
        assert torch.equal(logits(other, context), stock[0])


def test_memory_of_one_model_is_not_read_by_another_that_is_lent_its_own() -> None:
    one, two = tiny.build("llama"), tiny.build("llama", seed=1)
    context = tokens(one, 9, seed=1)
    own = memory_of(two, tokens(two, 6, seed=3))
    with attach(two, own):
        wanted = logits(two, context)
    with attach(one, memory_of(one, tokens(one, 6, seed=2))), attach(two, own):
        assert torch.equal(logits(two, context), wanted)


def test_bias_of_minus_infinity_hides_a_token() -> None:
    lm = tiny.build("llama")
    context, memory = tokens(lm, 9, seed=1), memory_of(lm, tokens(lm, 6, seed=2))
    shown = {}
    hidden = {}
    for i, layer in memory.layers.items():
        bias = torch.zeros(1, 2, 6)
        bias[:, :, 4:] = float("-inf")
        hidden[i] = type(layer)(layer.key, layer.value, layer.position, bias)
        shown[i] = type(layer)(layer.key[:, :, :4], layer.value[:, :, :4])
    with attach(lm, type(memory)(hidden)):
        with_bias = logits(lm, context, 6)
    with attach(lm, type(memory)(shown)):
        without = logits(lm, context, 6)
    torch.testing.assert_close(with_bias, without, atol=1e-5, rtol=0)


def test_attention_dropout_is_refused() -> None:
    lm = tiny.build("llama", model=tiny.llama(attention_dropout=0.1))
    memory = memory_of(lm, tokens(lm, 6, seed=2))
    lm.model.train()
    with pytest.raises(UnsupportedModelError, match="dropout"), attach(lm, memory):
        logits(lm, tokens(lm, 4, seed=1))


def test_gradients_flow_through_memory() -> None:
    lm = tiny.build("llama")
    memory = memory_of(lm, tokens(lm, 6, seed=2))
    key = memory.layers[0].key.requires_grad_()
    with attach(lm, memory):
        logits(lm, tokens(lm, 4, seed=1), 6).sum().backward()
    assert key.grad is not None
    assert key.grad.abs().max() > 0


def test_models_that_cannot_be_lent_memory_are_refused() -> None:
    seq2seq = T5ForConditionalGeneration(
        T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        capture(seq2seq, torch.ones(1, 3, dtype=torch.long), torch.arange(3)[None])
    bert = AutoModel.from_config(
        BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    with pytest.raises(UnsupportedModelError):
        _ = LanguageModel(bert, tiny.tokenizer()).layers


def test_detached_runs_as_if_nothing_were_attached(tiny_llama: LanguageModel) -> None:
    lm, ids = tiny_llama, torch.tensor([[5, 6, 7, 8]])
    memory = memory_of(lm, torch.tensor([[9, 10, 11]]), to=-3)
    alone = lm.model(ids).logits
    with attach(lm, memory):
        read = lm.model(ids).logits
        with detached():
            torch.testing.assert_close(lm.model(ids).logits, alone)
        assert torch.equal(lm.model(ids).logits, read)
    assert not torch.allclose(read, alone, atol=1e-2)
