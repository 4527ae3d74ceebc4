"""A fingerprint changes with anything that changes memories, and with nothing else."""

from __future__ import annotations

import copy

import pytest
import torch

from tests import tiny
from trimem import LanguageModel
from trimem.lm.fingerprint import fingerprint


def test_same_weights_same_fingerprint() -> None:
    assert tiny.build("llama").fingerprint == tiny.build("llama").fingerprint


def test_precision_does_not_matter_where_no_weight_is_lost() -> None:
    model = tiny.llama().bfloat16()
    wider = copy.deepcopy(model).float()
    assert fingerprint(model, tiny.tokenizer()) == fingerprint(wider, tiny.tokenizer())


@pytest.mark.parametrize("where", [0, 7, -1])
def test_any_one_weight_matters(where: int) -> None:
    lm, changed = tiny.build("llama"), tiny.build("llama")
    with torch.no_grad():
        for parameter in changed.model.parameters():
            before = parameter.view(-1)[where].item()
            parameter.view(-1)[where] = before + 0.5
            assert fingerprint(changed.model, changed.tokenizer) != lm.fingerprint
            parameter.view(-1)[where] = before
    assert fingerprint(changed.model, changed.tokenizer) == lm.fingerprint


def test_swapped_weights_matter() -> None:
    lm, changed = tiny.build("llama"), tiny.build("llama")
    with torch.no_grad():
        weight = changed.model.get_submodule("model.layers.0.self_attn.q_proj").weight.view(-1)
        weight[:2] = weight[:2].flip(0)
    assert changed.fingerprint != lm.fingerprint


def test_rotary_frequencies_vocabulary_and_chat_template_matter() -> None:
    names = [tiny.build("llama").fingerprint]
    torch.manual_seed(0)
    other_rope = tiny.llama(rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    names.append(tiny.build("llama", model=other_rope).fingerprint)
    other_words = tiny.build("llama")
    other_words.tokenizer.add_tokens(["<memory>"])
    names.append(other_words.fingerprint)
    other_template = tiny.build("llama")
    other_template.tokenizer.chat_template = "{{ messages }}"
    names.append(other_template.fingerprint)
    assert len(set(names)) == len(names)


def test_it_is_short_and_printable(smollm: LanguageModel) -> None:
    assert len(smollm.fingerprint) == 16
    assert int(smollm.fingerprint, 16) >= 0
