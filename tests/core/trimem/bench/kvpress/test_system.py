"""kvpress reads what text RAG reads, keeps what it may keep, and is a row like all others.

What keeps everything needs no kvpress, so it runs here; the presses run where their environment is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, ExplicitConfig, InvalidInputError, LanguageModel
from trimem.bench import explicit
from trimem.bench.kvpress.process import KvpressProcess, running
from trimem.bench.kvpress.system import METHODS, PRESSES, Kvpress, numbers_per_token, share_of
from trimem.bench.systems import TextRag
from trimem.bench.trials import LEAD, Trial, ask
from trimem.bench.variants import VARIANTS
from trimem.explicit.calibrate import calibrate
from trimem.explicit.calibration import own_calibration, save


@pytest.fixture(scope="module")
def here(tiny_llama: LanguageModel) -> Iterator[KvpressProcess]:
    """The program in this environment, where there is no kvpress."""
    with running(tiny_llama, Path(sys.executable)) as process:
        yield process


@pytest.fixture(scope="module")
def there(tiny_llama: LanguageModel, kvpress_python: Path) -> Iterator[KvpressProcess]:
    """The program in kvpress' environment."""
    with running(tiny_llama, kvpress_python) as process:
        yield process


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    asked = (
        (PUMP, "What runs?", "The pump"),
        (BOAT, "When does the boat leave?", "Tuesday"),
        (CAKE, "Eggs?", "eleven"),
    )
    paragraphs = [
        {"context": text, "qas": [{"question": question, "answers": [{"text": answer}]}]}
        for text, question, answer in asked
    ]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return path


def same_as_text(system: Kvpress, trial: Trial) -> None:
    text, whole = ask(TextRag(system.bank), trial, 8), ask(system, trial, 8)
    assert whole.nll == pytest.approx(text.nll, abs=1e-3)
    assert whole.said.text == text.said.text
    assert whole.said.prefill_tokens == text.said.prefill_tokens
    assert 0 < whole.said.first_token < whole.first_token
    assert whole.said.tokens_per_second > 0


def test_what_keeps_everything_is_text_rag(bank: ExplicitBank, trial: Trial, here: KvpressProcess) -> None:
    same_as_text(Kvpress(bank, "kvpress_none", here), trial)


def test_bytes_are_those_of_the_references_in_float16(bank: ExplicitBank, trial: Trial, here: KvpressProcess) -> None:
    system = Kvpress(bank, "kvpress_none", here)
    said = ask(system, trial, 1).said
    tokens = sum(len(bank.compiler.reference(hit.text)) for hit in trial.hits)
    config = bank.model.model.config
    assert numbers_per_token(bank) == 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert said.kept_bytes == 2 * tokens * numbers_per_token(bank)
    assert system.bytes_per_ref([said]) == said.kept_bytes / 3 + TextRag(bank).bytes_per_ref([])
    assert said.tokens_per_second == 0, "after one token there is no speed"


@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_a_share_takes_the_bytes_of_a_bank(codec: str, bank: ExplicitBank, trial: Trial, tmp_path: Path) -> None:
    with ExplicitBank.open(tmp_path / codec, model=bank.model, config=ExplicitConfig(codec=codec)) as small:
        small.remember([hit.text for hit in trial.hits], namespace="bench", progress=False)
        tokens = sum(len(bank.compiler.reference(hit.text)) for hit in trial.hits)
        share = share_of(small, [*trial.hits, *trial.hits])
        assert share * tokens * 2 * numbers_per_token(bank) == pytest.approx(small.stats().tensor_bytes)
        assert 0 < share < 1


def test_every_press_is_as_small_as_a_variant() -> None:
    assert len(PRESSES) == 1 + 2 * len(METHODS)
    assert {press.as_small_as for press in PRESSES.values()} - {None} == {"explicit_quarter", "explicit_eighth"}
    assert {"explicit_quarter", "explicit_eighth"} <= VARIANTS.keys()
    assert PRESSES.keys() <= set(explicit.SYSTEMS)


def test_a_row_of_the_benchmark(squad: Path, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explicit, "kvpress_python", lambda: Path(sys.executable))
    result = explicit.run(squad, lm=tiny_llama, refs=2, n=3, names=["kvpress_none"], new_tokens=2, progress=False)
    rows = {row["system"]: row for row in result["rows"]}
    text = rows.get("text_rag_best_last", rows["text_rag"])
    assert rows["kvpress_none"].keys() == text.keys()
    assert rows["kvpress_none"]["answer_nll"] == pytest.approx(text["answer_nll"], abs=1e-3)
    assert rows["kvpress_none"]["gap_closed"] == pytest.approx(text["gap_closed"], abs=1e-2)
    assert rows["kvpress_none"]["bytes_per_ref"] > text["bytes_per_ref"]
    assert result["environment"]["kvpress"]["torch"] == result["environment"]["torch"]


def test_no_environment_is_made_unasked(
    squad: Path, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explicit, "kvpress_python", lambda: pytest.fail("nobody asked for kvpress"))
    result = explicit.run(squad, lm=tiny_llama, refs=1, n=1, names=["kv_concat"], new_tokens=1, progress=False)
    assert "kvpress" not in result["environment"]
    with pytest.raises(InvalidInputError, match=r"kvpress_knorm_quarter.*; got kvpress_knorm_third"):
        explicit.run(squad, lm=tiny_llama, names=["kvpress_none", "kvpress_knorm_third"])


@pytest.mark.parametrize("classes", [(), *METHODS.values()], ids=["none", *METHODS])
def test_nothing_compressed_is_text_rag_in_kvpress_environment(
    classes: tuple[str, ...], bank: ExplicitBank, trial: Trial, there: KvpressProcess
) -> None:
    assert there.versions["transformers"].startswith("5.2.")
    same_as_text(Kvpress(bank, "whole", there, classes), trial)


@pytest.mark.parametrize("name", METHODS)
def test_a_press_keeps_what_it_may(name: str, bank: ExplicitBank, trial: Trial, there: KvpressProcess) -> None:
    outcome = ask(Kvpress(bank, name, there, METHODS[name], share=0.25), trial, 2)
    tokens = sum(len(bank.compiler.reference(hit.text)) for hit in trial.hits)
    pair = 2 * 2 * bank.model.layers[0].head_dim
    allowed = 2 * (tokens // 4) * numbers_per_token(bank)
    assert outcome.said.kept_bytes == pytest.approx(allowed, abs=pair)
    whole = ask(Kvpress(bank, name, there, METHODS[name]), trial, 2)
    assert abs(outcome.nll - whole.nll) > 1e-3
    reads_twice = whole.said.prefill_tokens + tokens < outcome.said.prefill_tokens
    assert reads_twice == (name == "kvzip")
    assert ask(Kvpress(bank, name, there), trial, 2).nll == pytest.approx(whole.nll, abs=1e-4), (
        "no press is left behind"
    )


@torch.no_grad()
def test_what_is_dropped_is_not_seen_and_leaves_its_positions(tiny_llama: LanguageModel, there: KvpressProcess) -> None:
    context, question, kept = [5 + i % 80 for i in range(60)], [7 + i % 60 for i in range(9)], 20
    said = there(
        presses=["KnormPress"], kept=kept, context=context, question=question, wanted=[11, 12], max_new_tokens=1
    )
    cache: Any = DynamicCache()
    tiny_llama.model.model(input_ids=torch.tensor([context]), past_key_values=cache)
    for layer in cache.layers:
        smallest = (
            layer.keys.norm(dim=-1).topk(kept, largest=False).indices[..., None].expand_as(layer.keys[:, :, :kept])
        )
        layer.keys, layer.values = layer.keys.gather(2, smallest), layer.values.gather(2, smallest)
    read = torch.tensor([[*question, 11, 12]])
    causal = torch.ones(11, 11, dtype=torch.bool).tril()
    mask = torch.cat([torch.ones(11, kept, dtype=torch.bool), causal], dim=1)[None, None]
    positions = torch.arange(len(context), len(context) + 11)[None]
    output = tiny_llama.model(read, past_key_values=cache, position_ids=positions, attention_mask=mask)
    chosen = output.logits[0, -3:-1].log_softmax(-1)[torch.arange(2), torch.tensor([11, 12])]
    assert said["nll"] == pytest.approx(-float(chosen.mean()), abs=1e-4)


def test_equal_bytes_in_the_benchmark(
    squad: Path, tiny_llama: LanguageModel, kvpress_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMEM_CACHE", str(tmp_path / "cache"))
    save(calibrate(tiny_llama, samples=1, distractors=1), own_calibration(tiny_llama))
    monkeypatch.setattr(explicit, "kvpress_python", lambda: kvpress_python)
    names = ["kvpress_knorm_quarter", "explicit_quarter", "kvpress_knorm_eighth"]
    result = explicit.run(squad, lm=tiny_llama, refs=3, n=3, names=names, new_tokens=1, progress=False)
    peer, ours, smaller = result["rows"][3:]
    assert [row["system"] for row in (peer, ours, smaller)] == names
    assert peer["bytes_per_ref"] == pytest.approx(ours["bytes_per_ref"], rel=0.02)
    assert smaller["bytes_per_ref"] < peer["bytes_per_ref"]


def test_the_lead_is_read_before_the_answer(bank: ExplicitBank, trial: Trial, here: KvpressProcess) -> None:
    system, text = Kvpress(bank, "kvpress_none", here), TextRag(bank)
    arguments = (trial.question.text, trial.hits, "Tuesday")
    said = [one.ask(*arguments, max_new_tokens=3, lead=LEAD)[1] for one in (system, text)]
    other = system.ask(*arguments, max_new_tokens=3, lead="")[1]
    assert said[0] == pytest.approx(said[1], abs=1e-3)
    assert other != pytest.approx(said[0], abs=1e-3)
