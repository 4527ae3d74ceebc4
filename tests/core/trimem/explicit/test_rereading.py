"""Reranking by reading: each row reads its own slot, and what tells the answer makes the question likelier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import ExplicitBank, InvalidInputError, LanguageModel
from trimem.explicit import rereading
from trimem.explicit.rereading import question_attention, question_likelihood

QUESTION = "the pump and the boat"
KEPT = {"ladder": "barn", "silver spoon": "kitchen", "old map": "attic", "spare wheel": "garage"}


def likelihood_of_text(bank: ExplicitBank, text: str, question: str) -> float:
    """Return what a plain forward pass over prefix, reference and question says of the question's tokens."""
    compiler = bank.compiler
    asked = compiler.lm.tokenize(question)
    before = compiler.lm.tokenize(compiler.format.before_question)
    ids = torch.tensor([[*compiler.prefix_ids, *compiler.reference(text), *before, *asked]])
    with torch.no_grad():
        logits = compiler.lm.model(ids, attention_mask=torch.ones_like(ids)).logits
    chosen = logits[0, :-1].float().log_softmax(-1).gather(1, ids[0, 1:, None])[-len(asked) :]
    return float(chosen.mean())


def test_rows_read_what_a_pass_over_the_text_reads(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a")
    hits = bank.recall("pump", 3, namespace="a")
    records = bank._records.read(bank.compiler, [hit.id for hit in hits], [None] * 3)
    wanted = [likelihood_of_text(bank, hit.text, QUESTION) for hit in hits]
    assert len({round(each, 4) for each in wanted}) == 3, "texts of different lengths, each with its own likelihood"
    for batch in (16, 2):
        monkeypatch.setattr(rereading, "BATCH", batch)
        assert question_likelihood(bank.compiler, records, QUESTION) == pytest.approx(wanted, abs=2e-3)


def test_recall_reads_before_it_ranks(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.remember([PUMP, BOAT, CAKE], namespace="a", compile=False)
    plain = bank.recall("pump", 3, namespace="a")
    assert bank.stats().compiled == 0, "without reranking the model is not needed"
    asked: list[list[str]] = []

    def second_is_likeliest(compiler: object, records: list[object], question: str) -> list[float]:
        asked.append([question] * len(records))
        return [-9.0, -1.0][: len(records)]

    monkeypatch.setattr("trimem.explicit.bank.question_likelihood", second_is_likeliest)
    hits = bank.recall("pump", 3, namespace="a", rerank=2)
    assert asked == [["pump", "pump"]]
    assert bank.stats().compiled == 2
    assert {hit.id for hit in hits} == {hit.id for hit in plain}
    assert hits[0].id == plain[1].id
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert bank.recall("pump", 1, namespace="a", rerank=2)[0].id == plain[1].id, "more are read than returned"
    assert bank.recall("pump", 1, namespace="nobody", rerank=2) == []


def test_the_question_looks_at_what_it_repeats(smollm: LanguageModel, tmp_path: Path) -> None:
    """The model's queries against memory keys find the one note that speaks of what is asked."""
    notes = [f"The {thing} of the house is kept in the {place}." for thing, place in KEPT.items()]
    with ExplicitBank.open(tmp_path / "bank", model=smollm) as bank:
        bank.remember(notes, namespace="a", progress=False)
        for thing, place in KEPT.items():
            hits = bank.recall("where is it kept?", len(KEPT), namespace="a")
            records = bank._records.read(bank.compiler, [hit.id for hit in hits], [None] * len(hits))
            found = question_attention(bank.compiler, records, f"Where is the {thing} kept?")
            assert place in hits[found.index(max(found))].text
            (best,) = bank.recall(f"Where is the {thing} kept?", 1, namespace="a", rerank=4, rerank_by="attention")
            assert place in best.text


def test_a_wrong_way_to_rerank_is_refused(bank: ExplicitBank) -> None:
    with pytest.raises(InvalidInputError, match="rerank_by"):
        bank.recall("pump", namespace="a", rerank=2, rerank_by="magic")  # type: ignore[arg-type]


@pytest.mark.parametrize("rerank", [-1, 1.5, "2"])
def test_a_wrong_number_to_rerank_is_refused(bank: ExplicitBank, rerank: object) -> None:
    with pytest.raises(InvalidInputError, match="rerank"):
        bank.recall("pump", namespace="a", rerank=rerank)  # type: ignore[arg-type]
