"""Keys are turned back and on exactly, for every rotary variant; other schemes are told apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTJConfig, GPTJForCausalLM, SmolLM3Config, SmolLM3ForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests import tiny
from tests.contracts.attach import tokens
from trimem import LanguageModel, UnsupportedModelError
from trimem.lm.attach import capture
from trimem.lm.positions import AbsolutePosition, NoPosition, Pairing, Rope, rotate

LENGTH = 12
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 128},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
    "longrope": {
        "factor": 4.0,
        "short_factor": [1.0 + i / 8 for i in range(8)],
        "long_factor": [2.0 + i for i in range(8)],
        "original_max_position_embeddings": 128,
    },
    "proportional": {"partial_rotary_factor": 0.5},
}


@settings(max_examples=50, deadline=None)
@given(
    position=st.integers(-5000, 5000),
    pairing=st.sampled_from(Pairing),
    rotary_dim=st.sampled_from([4, 8, 16]),
)
def test_rotation_undoes_itself_and_keeps_lengths(position: int, pairing: Pairing, rotary_dim: int) -> None:
    x = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(0))
    inv_freq = 1.0 / 10000 ** (torch.arange(0, rotary_dim, 2) / rotary_dim)
    positions = torch.arange(5) + position
    turned = rotate(x, positions, inv_freq, pairing)
    torch.testing.assert_close(rotate(turned, -positions, inv_freq, pairing), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[..., rotary_dim:], x[..., rotary_dim:])


def test_every_rotary_variant_of_transformers_is_covered() -> None:
    assert set(ROPE_INIT_FUNCTIONS) <= set(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_moved_keys_are_the_keys_the_model_makes_there(variant: str) -> None:
    rope = {"rope_type": variant, "rope_theta": 10000.0, **VARIANTS[variant]}
    lm = tiny.build("llama", model=tiny.llama(rope_parameters=rope))
    assert_moves(lm)


@pytest.mark.parametrize("name", sorted(set(tiny.MODELS) - tiny.ABSOLUTE))
def test_moved_keys_on_every_architecture(name: str) -> None:
    assert_moves(tiny.build(name))


def test_moved_keys_of_a_pretrained_model(pretrained: LanguageModel) -> None:
    assert_moves(pretrained)


def assert_moves(lm: LanguageModel) -> None:
    ids = tokens(lm, LENGTH, seed=0)
    here, there = torch.arange(3, 3 + LENGTH), torch.arange(70, 70 + LENGTH)
    first, second = capture(lm.model, ids, here[None]), capture(lm.model, ids, there[None])
    for layer in lm.layers:
        assert isinstance(layer.positions, Rope)
        bare = layer.positions.undo(first[layer.module].key, here)
        moved = layer.positions.apply(bare, there)
        wanted = second[layer.module].key
        torch.testing.assert_close(moved, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def test_schemes_are_told_apart() -> None:
    def pairings(name: str) -> set[Pairing]:
        return {layer.positions.pairing for layer in tiny.build(name).layers if isinstance(layer.positions, Rope)}

    assert pairings("llama") == pairings("gpt_neox") == pairings("phi3") == {Pairing.HALVES}
    assert pairings("cohere") == {Pairing.NEIGHBOURS}
    gemma3 = tiny.build("gemma3")
    buffers = {layer.sliding_window: layer.positions.buffer for layer in gemma3.layers}  # type: ignore[union-attr]
    assert len(set(buffers.values())) == 2, "local and global layers turn at different speeds"
    assert not tiny.build("gpt2").movable
    assert all(isinstance(layer.positions, AbsolutePosition) for layer in tiny.build("gpt2").layers)


def test_layers_without_positions_serve_anywhere() -> None:
    config = SmolLM3Config(**{**tiny.SHAPE, "num_hidden_layers": 4}, no_rope_layers=[1, 1, 1, 0])
    lm = tiny.build("llama", model=SmolLM3ForCausalLM(config))
    assert [type(layer.positions) for layer in lm.layers] == [Rope, Rope, Rope, NoPosition]
    assert lm.movable


def test_absolute_keys_refuse_to_move() -> None:
    layer = tiny.build("gpt2").layers[0]
    with pytest.raises(UnsupportedModelError, match="absolute positions"):
        layer.positions.undo(torch.zeros(1, 4, 3, 16), torch.arange(3))


def test_model_outside_the_attention_interface_is_refused() -> None:
    config = GPTJConfig(vocab_size=97, n_embd=32, n_layer=1, n_head=2, rotary_dim=8, n_positions=128)
    model = GPTJForCausalLM(config)
    if model._can_set_attn_implementation():
        pytest.skip("this version of transformers has brought GPT-J to the attention interface")
    with pytest.raises(UnsupportedModelError, match="AttentionInterface"):
        _ = LanguageModel(model, tiny.tokenizer()).layers


def test_half_precision_model_is_probed_too() -> None:
    assert tiny.build("llama", model=tiny.llama().bfloat16()).movable
