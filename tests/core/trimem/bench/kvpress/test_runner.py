"""What the program computes, without a press: it needs no kvpress, so it runs here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimem import LanguageModel
from trimem.bench.kvpress.runner import answer

REQUEST: dict[str, Any] = {
    "presses": (),
    "kept": 40,
    "context": [5 + i % 80 for i in range(40)],
    "question": [7 + i % 60 for i in range(13)],
    "wanted": [11, 12, 13],
    "max_new_tokens": 6,
}
EXACT = ("ids", "numbers", "read_tokens")


def test_it_is_what_the_model_says(tiny_llama: LanguageModel) -> None:
    said = answer(tiny_llama.model, **REQUEST)
    prompt = torch.tensor([[*REQUEST["context"], *REQUEST["question"]]])
    with torch.no_grad():
        spoken = tiny_llama.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False
        )
        logits = tiny_llama.model(torch.tensor([[*prompt[0], *REQUEST["wanted"]]])).logits[0, -4:-1]
    chosen = logits.log_softmax(-1)[torch.arange(3), torch.tensor(REQUEST["wanted"])]
    assert said["ids"] == spoken[0, prompt.shape[1] :].tolist()
    assert said["nll"] == pytest.approx(-float(chosen.mean()), abs=1e-4)
    assert said["read_tokens"] == prompt.shape[1]
    assert 0 < said["first_token"] < said["finished"]


def test_it_ends_where_the_model_ends(tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = answer(tiny_llama.model, **REQUEST)["ids"]
    for end in (ids[2], [0, ids[2]]):
        monkeypatch.setattr(tiny_llama.model.generation_config, "eos_token_id", end)
        assert answer(tiny_llama.model, **REQUEST)["ids"] == ids[: ids.index(ids[2]) + 1]


@pytest.mark.parametrize("at_once", [1, 4])
def test_too_many_queries_for_a_key_that_none_sees_go_through_in_pieces(
    at_once: int, tiny_llama: LanguageModel
) -> None:
    expected = answer(tiny_llama.model, **REQUEST)
    handle = tiny_llama.model.model.layers[1].self_attn.register_forward_pre_hook(_refuse(at_once), with_kwargs=True)
    try:
        said = answer(tiny_llama.model, **REQUEST)
    finally:
        handle.remove()
    assert said["nll"] == pytest.approx(expected["nll"], abs=1e-5)
    assert [said[name] for name in EXACT] == [expected[name] for name in EXACT]


@pytest.mark.parametrize(("text", "at_once"), [("fake keys", 0), ("something else", 4)])
def test_what_is_wrong_otherwise_is_not_tried_again(text: str, at_once: int, tiny_llama: LanguageModel) -> None:
    layer = tiny_llama.model.model.layers[1].self_attn
    handle = layer.register_forward_pre_hook(_refuse(at_once, text), with_kwargs=True)
    try:
        with pytest.raises(ValueError, match=text):
            answer(tiny_llama.model, **REQUEST)
    finally:
        handle.remove()


def _refuse(at_once: int, text: str = "fake keys") -> Callable[..., None]:
    """Return a hook that refuses what kvpress refuses: more queries than it finds a key for."""

    def refuse(_: Any, __: Any, options: dict[str, Any]) -> None:
        queries, before = options["hidden_states"].shape[1], options["past_key_values"].get_seq_length(0)
        if before > queries > at_once:  # not the context
            raise ValueError(f"could not find {text}")

    return refuse
