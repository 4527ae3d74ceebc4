"""ExplicitBank: the contract of all banks, and what only explicit memory promises."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from langchain_core.embeddings import DeterministicFakeEmbedding
from safetensors.torch import load_file

from tests import tiny
from tests.contracts.bank import BOAT, PUMP, BankContract
from trimem import (
    BankNotFoundError,
    CorruptTensorError,
    ExplicitBank,
    ExplicitConfig,
    FingerprintMismatch,
    InvalidInputError,
    LanguageModel,
    UnsupportedModelError,
)
from trimem.text.encoders import Encoder


class TestContract(BankContract):
    @pytest.fixture
    def folder(self, bank: ExplicitBank) -> Path:
        return bank.folder


def shard_of(bank: ExplicitBank, slot: str) -> Path:
    """Return the file that holds the tensors of a slot."""
    return bank._store.tensors.path(bank._store.places([slot])[slot].shard)


def write_record(bank: ExplicitBank, slot: str, tensors: dict[str, torch.Tensor]) -> None:
    """Give a slot other tensors, with the right checksums."""
    with bank._store.changing() as (_, change):
        change.leave([slot])
        change.enter(bank._store.tensors.stage({slot: tensors}, {}))


def test_a_long_text_becomes_several_slots(bank: ExplicitBank) -> None:
    text = "\n".join(f"Sentence number {i} says something about pumps." for i in range(12))
    ids = bank.remember(text, namespace="a", metadata={"source": "long.txt"})
    assert len(ids) > 3
    hits = bank.recall("pumps", 99, namespace="a")
    assert {hit.id for hit in hits} == set(ids)
    for hit in hits:
        assert text[hit.slot.start : hit.slot.stop] == hit.text
        assert hit.slot.tokens <= bank.config.reference_tokens
        assert text.splitlines()[hit.slot.line - 1].startswith(hit.text[:8])


def test_slots_can_be_compiled_when_they_are_first_read(bank: ExplicitBank, tiny_llama: LanguageModel) -> None:
    bank.remember([PUMP, BOAT], namespace="a", compile=False)
    assert bank.stats().compiled == 0
    assert bank.stats().tensor_bytes == 0
    hits = bank.recall("pump", 1, namespace="a")
    with bank.attach(tiny_llama, hits=hits):
        pass
    assert bank.stats().compiled == 1
    assert bank.stats().tensor_bytes > 0
    assert bank.compile(bank.recall("pump", 2, namespace="a")) == 1
    assert bank.stats().compiled == 2


def test_a_bank_opens_again_as_it_was(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    folder = tmp_path / "bank"
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    config = ExplicitConfig(reference_tokens=64)
    with ExplicitBank.open(folder, model=tiny_llama, encoder=encoder, config=config, clock=lambda: moment) as bank:
        ids = bank.remember(PUMP, namespace="a", metadata={"source": "x"})
        said = bank.ask("pump?", namespace="a", max_new_tokens=6).text
    with ExplicitBank.open(folder, model=tiny_llama, encoder=encoder) as bank:
        assert bank.config == config
        (hit,) = bank.recall("pump", namespace="a")
        assert (hit.id, hit.slot.created_at) == (ids[0], moment)
        assert bank.ask("pump?", namespace="a", max_new_tokens=6).text == said
        assert bank.remember(PUMP, namespace="a") == ids


def test_two_open_banks_see_each_others_writes(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with (
        ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as one,
        ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as two,
    ):
        one.remember(PUMP, namespace="a")
        assert [hit.text for hit in two.recall("pump", namespace="a")] == [PUMP]
        two.remember(BOAT, namespace="a")
        assert len(one.recall("pump", namespace="a")) == 2
        one.forget(namespace="a")
        assert two.recall("pump", namespace="a") == []


def test_another_model_is_refused_with_both_names(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
        other = tiny.build("qwen3")
        with pytest.raises(FingerprintMismatch, match=r"llama .* qwen3"):
            ExplicitBank.open(tmp_path, model=other, encoder=encoder)
        with (
            pytest.raises(FingerprintMismatch, match="qwen3"),
            bank.attach(other, hits=bank.recall("pump", namespace="a")),
        ):
            pass
        assert bank.stats().slots == 1


def test_a_model_named_by_a_folder_is_checked_when_it_is_loaded(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    folders = {}
    for name, lm in (("right", tiny_llama), ("wrong", tiny.build("llama", seed=1))):
        folders[name] = tmp_path / name
        lm.model.save_pretrained(folders[name])
        lm.tokenizer.save_pretrained(folders[name])
    with ExplicitBank.open(tmp_path / "bank", model=folders["right"], encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
    with ExplicitBank.open(tmp_path / "bank", encoder=encoder) as bank:  # finds its model by itself
        assert bank.model.name == str(folders["right"])
    with ExplicitBank.open(tmp_path / "bank", model=folders["wrong"], encoder=encoder) as bank:
        assert len(bank.recall("pump", namespace="a")) == 1, "searching needs no model"
        for _ in range(2):
            with pytest.raises(FingerprintMismatch):
                bank.ask("pump?", namespace="a")


def test_another_encoder_is_refused(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=DeterministicFakeEmbedding(size=16)) as bank:
        with pytest.raises(FingerprintMismatch, match="all-MiniLM-L6-v2"):
            bank.recall("pump", namespace="a")
        with pytest.raises(FingerprintMismatch, match="encoder"):
            bank.remember(BOAT, namespace="a")


def test_langchain_embeddings_find_slots(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=DeterministicFakeEmbedding(size=16)) as bank:
        bank.remember([PUMP, BOAT], namespace="a")
        assert bank.recall(PUMP, 1, namespace="a")[0].text == PUMP


def test_absolute_positions_are_refused_before_anything_is_stored(tmp_path: Path, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path, model=tiny.build("gpt2"), encoder=encoder) as bank:
        with pytest.raises(UnsupportedModelError, match="absolute positions"):
            bank.remember(PUMP, namespace="a")
        assert bank.stats().slots == 0


def test_what_is_no_bank_is_refused(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    with pytest.raises(BankNotFoundError, match="no bank in"):
        ExplicitBank.open(tmp_path / "absent", model=tiny_llama, create=False)
    assert not (tmp_path / "absent").exists()
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InvalidInputError, match="a bank is a folder"):
        ExplicitBank.open(file, model=tiny_llama)
    with pytest.raises(InvalidInputError, match="a bank is a folder"):
        ExplicitBank.open("postgresql://localhost/bank", model=tiny_llama)


def test_another_configuration_is_refused(tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank:
        bank.remember(PUMP, namespace="a")
    with pytest.raises(InvalidInputError, match="leave config out"):
        ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder, config=ExplicitConfig(reference_tokens=64))


def test_a_corrupt_record_is_named_and_can_be_made_again(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    with ExplicitBank.open(tmp_path / "bank", model=tiny_llama, encoder=encoder, cache_bytes=0) as bank:
        (pump,) = bank.remember(PUMP, namespace="a")
        (boat,) = bank.remember(BOAT, namespace="a")
        said = bank.ask("pump?", namespace="a", k=2, max_new_tokens=6).text
        path = shard_of(bank, pump)
        for damage in (b"", path.read_bytes()[:200], b"\xff" * 3000):
            path.write_bytes(damage)
            with pytest.raises(CorruptTensorError, match=f"slot {pump} .*trimem repair"):
                bank.ask("pump?", namespace="a", k=2)
        other = bank.recall("boat", 1, namespace="a")
        assert other[0].id == boat
        with bank.attach(bank.model, hits=other):
            pass  # the other slot is not touched by it
        path.unlink()
        assert bank.ask("pump?", namespace="a", k=2, max_new_tokens=6).text == said, "compiled again as it is read"


def test_what_is_held_outlives_damage_to_its_file(bank: ExplicitBank) -> None:
    (pump,) = bank.remember(PUMP, namespace="a")
    said = bank.ask("pump?", namespace="a", max_new_tokens=6).text
    path = shard_of(bank, pump)
    path.write_bytes(b"")  # truncated in place, under whoever has it mapped
    assert bank.ask("pump?", namespace="a", max_new_tokens=6).text == said


def test_a_record_of_other_tensors_is_corrupt(bank: ExplicitBank) -> None:
    (pump,) = bank.remember(PUMP, namespace="a")
    write_record(bank, pump, {"key": torch.zeros(2)})
    with pytest.raises(CorruptTensorError, match="not what a record of this bank holds: 'counts'"):
        bank.ask("pump?", namespace="a")


def test_pieces_of_a_document_know_what_stands_before_also_when_compiled_later(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    text = " ".join(f"{PUMP} It is number {i} of the mill." for i in range(6))
    config = ExplicitConfig(context="document", reference_tokens=64)
    with (
        ExplicitBank.open(tmp_path / "a", model=tiny_llama, encoder=encoder, config=config) as warm,
        ExplicitBank.open(tmp_path / "b", model=tiny_llama, encoder=encoder, config=config) as cold,
    ):
        assert len(warm.remember(text, namespace="a")) > 2
        cold.remember(text, namespace="a", compile=False)
        last = max(cold.recall("number 5", 9, namespace="a"), key=lambda hit: hit.slot.start)
        with warm.attach(hits=[last]), cold.attach(hits=[last]):
            pass
    one, other = (
        {name: tensor for file in (tmp_path / bank).rglob("*.safetensors") for name, tensor in load_file(file).items()}
        for bank in "ab"
    )
    assert set(one) == set(other)
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor)


def test_product_quantisation_is_trained_once_and_kept(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    pytest.importorskip("faiss", reason="the codec pq is an option")
    texts = [f"{PUMP} Number {i}." for i in range(6)]
    sizes = []
    for name in ("int4", "pq"):
        config = ExplicitConfig(codec=name)
        with ExplicitBank.open(tmp_path / name, model=tiny_llama, encoder=encoder, config=config) as bank:
            bank.remember(texts, namespace="a")
            sizes.append(bank.stats(namespace="a").tensor_bytes)
            files = sum(file.stat().st_size for file in (tmp_path / name).rglob("*.safetensors"))
            assert bank.stats().tensor_bytes == files, "the codebooks count, too"
    (codebook,) = (tmp_path / "pq").rglob("codebook-*.safetensors")
    trained = codebook.read_bytes()
    with ExplicitBank.open(tmp_path / "pq", model=tiny_llama, encoder=encoder) as bank:
        said = bank.ask("pump?", namespace="a", k=2, max_new_tokens=6)
        bank.remember(BOAT, namespace="a")
        assert bank.ask("pump?", namespace="a", k=2, max_new_tokens=6).text == said.text
    assert codebook.read_bytes() == trained
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("broken", ["counts", "span", "key"])
def test_a_record_of_other_sizes_is_corrupt(bank: ExplicitBank, broken: str) -> None:
    (pump,) = bank.remember(PUMP, namespace="a")
    tensors = bank._store.tensors.read(bank._store.places([pump])[pump], pump)
    tensors[broken] = tensors[broken].flatten()[:1].clone()
    write_record(bank, pump, tensors)
    with pytest.raises(CorruptTensorError, match="trimem repair"):
        bank.ask("pump?", namespace="a")


def test_an_older_configuration_says_what_to_do() -> None:
    for version, advice in ((1, "new bank"), (99, "upgrade trimem"), (None, "upgrade trimem")):
        with pytest.raises(InvalidInputError, match=advice):
            ExplicitConfig.from_json({"version": version, "dtype": "float16"})


def test_hits_that_were_forgotten_are_refused_and_stay_forgotten(bank: ExplicitBank) -> None:
    bank.remember(PUMP, namespace="a")
    hits = bank.recall("pump", namespace="a")
    bank.forget(namespace="a")
    with pytest.raises(InvalidInputError, match="does not hold"), bank.attach(bank.model, hits=hits):
        pass
    assert not list(bank.folder.rglob("*.safetensors"))


def test_an_interrupted_call_is_finished_by_the_next(bank: ExplicitBank, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Fact {i} is about the number {i * 37}." for i in range(70)]
    put, calls = bank._store.put, []

    def fails_at_the_second_group(*args: object) -> list[str]:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return put(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(bank._store, "put", fails_at_the_second_group)
    with pytest.raises(KeyboardInterrupt):
        bank.remember(texts, namespace="a")
    monkeypatch.undo()
    stored = bank.stats().slots
    assert 0 < stored < 70
    there = [name.split("/")[0] for file in bank.folder.rglob("*.safetensors") for name in load_file(file)]
    assert len(set(there)) == stored, "tensors of the failed group do not stay"
    assert not list(bank.folder.rglob("*.staged"))
    assert len(bank.remember(texts, namespace="a")) == 70
    assert bank.stats().slots == 70


def test_numbers_too_large_for_the_dtype_are_refused(tmp_path: Path, encoder: Encoder) -> None:
    lm = tiny.build("llama")
    with torch.no_grad():
        for layer in lm.model.model.layers:
            layer.self_attn.v_proj.weight *= 1e6
    with ExplicitBank.open(tmp_path / "half", model=lm, encoder=encoder) as bank:
        with pytest.raises(UnsupportedModelError, match="bfloat16"):
            bank.remember(PUMP, namespace="a")
        assert bank.stats().slots == 0
    config = ExplicitConfig(codec="bfloat16")
    with ExplicitBank.open(tmp_path / "brain", model=lm, encoder=encoder, config=config) as bank:
        assert bank.remember(PUMP, namespace="a")


def test_a_bank_made_meanwhile_by_another_is_not_written_to(
    tmp_path: Path, tiny_llama: LanguageModel, encoder: Encoder
) -> None:
    late = ExplicitBank.open(tmp_path, model=tiny.build("qwen3"), encoder=encoder)
    later = ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder, config=ExplicitConfig(codec="float32"))
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=encoder) as bank, late, later:
        bank.remember(PUMP, namespace="a")
        with pytest.raises(FingerprintMismatch, match="qwen3"):
            late.remember(BOAT, namespace="a")
        with pytest.raises(InvalidInputError, match="leave config out"):
            later.remember(BOAT, namespace="a")
        assert bank.stats().slots == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reference_tokens": 3}, "at least 8"),
        ({"codec": "int3"}, "float16, bfloat16, float32"),
        ({"selection": "best"}, "paper, paper_exp"),
        ({"heads": "some"}, "all, first_half"),
        ({"context": "book"}, "independent, document"),
        ({"tokens": 0}, "at least 1"),
        ({"heads_kept": "most"}, "above 0"),
        ({"bytes_per_ref": "1 MB"}, "whole number"),
        ({"instruction": " "}, "that is not empty"),
    ],
)
def test_wrong_configurations_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ExplicitConfig(**values)  # type: ignore[arg-type]


def test_a_configuration_survives_json_and_unknown_keys_do_not() -> None:
    config = ExplicitConfig(reference_tokens=64, codec="float32")
    stored = json.loads(json.dumps(config.to_json()))
    assert ExplicitConfig.from_json(stored) == config
    for change in ({"version": 99}, {"new": 1}):
        with pytest.raises(InvalidInputError, match="upgrade trimem"):
            ExplicitConfig.from_json({**stored, **change})
