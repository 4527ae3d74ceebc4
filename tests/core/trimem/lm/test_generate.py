"""Speaking whole and piece by piece."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from trimem import ContextLengthError, InvalidInputError, LanguageModel
from trimem.lm.generate import generate, pieces, stream


def test_same_text_as_transformers(smollm: LanguageModel) -> None:
    prompt = smollm.tokenize("The capital of France is")
    generation = generate(smollm, prompt, max_new_tokens=8)
    ids = torch.tensor([prompt])
    stock = smollm.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    assert generation.text == smollm.tokenizer.decode(stock[0, len(prompt) :], skip_special_tokens=True)
    assert generation.new_tokens == stock.shape[1] - len(prompt)


def test_pieces_join_to_the_whole(tiny_llama: LanguageModel) -> None:
    prompt = tiny_llama.tokenize("abc")
    whole = generate(tiny_llama, prompt, max_new_tokens=12).text

    def run(on_text: Callable[[str], None], stop: Callable[[], bool]) -> None:
        generate(tiny_llama, prompt, max_new_tokens=12, on_text=on_text, stop=stop)

    assert "".join(stream(run)) == whole


def test_text_ends_where_a_stop_string_begins(smollm: LanguageModel) -> None:
    prompt = smollm.tokenize("Count: one, two, three, four,")
    whole = generate(smollm, prompt, max_new_tokens=12).text
    stop = whole[7:10]
    spoken: list[str] = []
    cut = generate(smollm, prompt, max_new_tokens=12, stop_strings=[stop, "never said"], on_text=spoken.append)
    assert cut.text == "".join(spoken) == whole[: whole.index(stop)]
    assert cut.new_tokens < 12
    spoken.clear()
    generate(smollm, prompt, max_new_tokens=12, stop_strings="never said", on_text=spoken.append)
    assert "".join(spoken) == whole, "what was held back is said in the end"


def test_beams_say_what_transformers_says(smollm: LanguageModel) -> None:
    prompt = smollm.tokenize("The capital of France is")
    spoken: list[str] = []
    generation = generate(smollm, prompt, max_new_tokens=6, num_beams=3, on_text=spoken.append)
    ids = torch.tensor([prompt])
    stock = smollm.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, num_beams=3
    )
    assert generation.text == smollm.tokenizer.decode(stock[0, len(prompt) :], skip_special_tokens=True)
    assert spoken == [generation.text]
    assert 0 < generation.first_token < generation.finished


def test_pieces_of_tokens_join_to_the_text(smollm: LanguageModel) -> None:
    text = "The café in 東京 is 🙂 open."
    ids = smollm.tokenize(text)
    assert "".join(pieces(smollm, ids)) == text
    assert len(pieces(smollm, ids)) == len(ids)


def test_closing_the_stream_ends_the_generation(smollm: LanguageModel) -> None:
    made = []

    def run(on_text: Callable[[str], None], stop: Callable[[], bool]) -> None:
        prompt = smollm.tokenize("Count: one, two, three,")
        made.append(generate(smollm, prompt, max_new_tokens=400, on_text=on_text, stop=stop).new_tokens)

    pieces = stream(run)
    next(pieces)
    pieces.close()
    assert made[0] < 100


def test_errors_reach_the_reader(tiny_llama: LanguageModel) -> None:
    def run(on_text: Callable[[str], None], stop: Callable[[], bool]) -> None:
        on_text("a")
        raise RuntimeError("on purpose")

    pieces = stream(run)
    assert next(pieces) == "a"
    with pytest.raises(RuntimeError, match="on purpose"):
        next(pieces)


def test_times_are_the_clocks(tiny_llama: LanguageModel) -> None:
    ticks = itertools.count(100.0)
    generation = generate(tiny_llama, [5, 6], max_new_tokens=4, clock=lambda: next(ticks))
    assert generation.new_tokens == 4
    assert (generation.first_token, generation.finished) == (100.0, 103.0)


def test_sampling_follows_the_seed(tiny_llama: LanguageModel) -> None:
    def speak(seed: int) -> str:
        torch.manual_seed(seed)
        return generate(tiny_llama, [5, 6], max_new_tokens=12, do_sample=True, temperature=2.0).text

    assert speak(1) == speak(1)
    assert speak(1) != speak(2)


def test_a_seed_given_is_not_left_behind(tiny_llama: LanguageModel) -> None:
    state = torch.random.get_rng_state()
    said = [
        generate(tiny_llama, [5, 6], max_new_tokens=12, do_sample=True, temperature=2.0, seed=seed).text
        for seed in (1, 1, 2)
    ]
    assert said[0] == said[1] != said[2]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_does_not_fit_is_refused(tiny_llama: LanguageModel) -> None:
    with pytest.raises(ContextLengthError, match="500 tokens of memory, 2 of prompt and 20 to come are 522"):
        generate(tiny_llama, [5, 6], max_new_tokens=20, memory_tokens=500)
    with pytest.raises(InvalidInputError, match="max_new_tokens"):
        generate(tiny_llama, [5, 6], max_new_tokens=0)
    with pytest.raises(InvalidInputError, match="at least one token"):
        generate(tiny_llama, [], max_new_tokens=1)
