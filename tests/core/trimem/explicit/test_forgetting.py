"""What is forgotten is in no file of the bank any more, whichever way it is said what to forget."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from tests.contracts.bank import PUMP
from trimem import BankBusyError, ExplicitBank, ExplicitConfig, LanguageModel, NewItem
from trimem.store.metadata import MetadataStore

ENCODER = DeterministicFakeEmbedding(size=16)


def secret(number: int) -> str:
    return f"xq{number:03}zz{number * 7919 % 100_000:05}"


def in_files(folder: Path, needles: list[bytes]) -> int:
    data = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    return sum(needle in data for needle in needles)


def cached(bank: ExplicitBank) -> int:
    """Return how many records are held in memory."""
    cache = bank.stats().cache
    assert cache is not None
    return cache.records


def test_500_secrets_are_in_no_file_once_they_are_forgotten(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=ENCODER) as bank:
        for group in range(5):
            numbers = range(100 * group, 100 * group + 100)
            bank.remember(
                [f"The secret word is {secret(number)}, {number} of them." for number in numbers],
                namespace=("a", f"n{group}"),
                metadata=[{"source": f"source-{secret(number)}", "odd": number % 2} for number in numbers],
                ids=[f"key-{secret(number)}" for number in numbers],
                progress=False,
            )
        kept = bank.remember([f"{PUMP} It is number {i}." for i in range(20)], namespace=("a", "n0"), progress=False)
        ids = bank._store.ids(("a",), None)
        tensors = {slot: bank._store.read(slot) or {} for slot in ids}
        needles = list({tensors[slot]["key"].numpy().tobytes() for slot in ids if slot not in kept})
        texts = [secret(number).encode() for number in range(500)]
        assert len(needles) > 300, "some texts are the same to so small a vocabulary"
        assert in_files(tmp_path, needles) == len(needles)
        assert in_files(tmp_path, texts) == 500

        by_id = [slot for slot in bank._store.ids(("a", "n0"), None) if slot not in kept]
        receipts = [
            bank.forget(namespace="a", ids=by_id),
            bank.forget(namespace=("a", "n1"), ids=[f"key-{secret(number)}" for number in range(100, 200)]),
            bank.forget(namespace=("a", "n2"), where={"odd": 0}),
            bank.forget(namespace=("a", "n2"), where={"source": [f"source-{secret(n)}" for n in range(201, 300, 2)]}),
            bank.forget(namespace=("a", "n3")),
            *(bank.forget(namespace=("a", "n4"), ids=f"key-{secret(number)}") for number in range(400, 403)),
            bank.forget(namespace=("a", "n4")),
        ]
        assert sum(len(receipt.slots) for receipt in receipts) == sum(receipt.records for receipt in receipts) == 500
        assert in_files(tmp_path, needles) == in_files(tmp_path, texts) == 0
        assert bank.receipts(namespace="a") == receipts
        assert bank._store.ids(("a",), None) == kept
        for slot in kept:
            for name, tensor in (bank._store.read(slot) or {}).items():
                assert tensor.equal(tensors[slot][name])
        assert bank.verify().ok
    assert in_files(tmp_path, needles) == in_files(tmp_path, texts) == 0


def test_a_part_of_a_document_is_gone_from_its_text_too(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    text = " ".join(f"The code of boat {i} on this day is {secret(i)}." for i in range(6))
    config = ExplicitConfig(reference_tokens=32)
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=ENCODER, config=config) as bank:
        ids = bank.remember(text, namespace="a", ids="long")
        said = {slot.id: slot.text for slot in bank._store.slots(ids)}
        first = next(slot for slot, stretch in said.items() if secret(0) in stretch)
        others = [slot for slot in ids if slot != first]
        assert others
        bank.forget(namespace="a", ids=first)
        forgotten = [secret(i).encode() for i in range(6) if secret(i) in said[first]]
        assert in_files(tmp_path, forgotten) == 0
        assert {slot.id: slot.text for slot in bank._store.slots(others)} == {slot: said[slot] for slot in others}
        assert bank.verify().ok
        assert set(bank.remember(text, namespace="a", ids="long")) == {first, *others}, "it may be told again"
        assert bank.verify().ok


def test_pieces_that_knew_what_is_forgotten_are_compiled_anew(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    text = " ".join(f"{PUMP} It is number {i} of the mill." for i in range(6))
    config = ExplicitConfig(context="document", reference_tokens=64)
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=ENCODER, config=config) as bank:
        first, *others = bank.remember(text, namespace="a", ids="long")
        before = bank._store.read(others[0])
        bank.forget(namespace="a", ids=first)
        assert bank.stats().compiled == 0
        hits = [hit for hit in bank.recall("number", 9, namespace="a") if hit.id == others[0]]
        with bank.attach(hits=hits):
            pass
        after = bank._store.read(others[0])
        assert before is not None
        assert after is not None
        assert not after["key"].equal(before["key"])


def test_nothing_of_what_is_gone_is_held_in_memory(
    tmp_path: Path, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(f"The code of boat {i} on this day is {secret(i)}." for i in range(6))
    config = ExplicitConfig(reference_tokens=32, context="document")
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=ENCODER, config=config) as bank:

        def held_of(namespace: str, *texts: str) -> int:
            """Remember texts, have the model read them, and count what is held in memory."""
            bank.remember(texts, namespace=namespace, ids=[f"{namespace}{i}" for i in range(len(texts))])
            bank.ask("Which boat?", namespace=namespace, k=9, max_new_tokens=1)
            return cached(bank)

        parts = held_of("long", text)
        assert parts > 1
        bank.forget(namespace="long", ids=bank._store.ids(("long",), None)[0])
        assert cached(bank) == 0, "the other parts knew of what is forgotten"
        bank.forget(namespace="long")

        items = bank.items(namespace="store")
        items.write([NewItem((), "pump", {}, [PUMP])])
        assert held_of("store") > 0
        items.forget()
        assert cached(bank) == 0

        assert held_of("a", PUMP) > 0
        monkeypatch.setattr(MetadataStore.finish_erasures, "__defaults__", (0.05,))
        with bank._store.session() as reading:
            reading.connection().exec_driver_sql("SELECT * FROM document").fetchone()
            with pytest.raises(BankBusyError):
                bank.forget(namespace="a")
        assert cached(bank) == 0, "what failed was to overwrite the disk"


@pytest.mark.parametrize("interrupted", ["files", "log"])
def test_an_erasure_that_was_interrupted_is_finished_when_the_bank_is_opened(
    tmp_path: Path, tiny_llama: LanguageModel, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    bank = ExplicitBank.open(tmp_path, model=tiny_llama, encoder=ENCODER)
    (slot,) = bank.remember(f"The word is {secret(1)}.", namespace="a")
    key = (bank._store.read(slot) or {})["key"][:2].numpy().tobytes()
    if interrupted == "files":
        monkeypatch.setattr(bank._store.tensors, "delete", crash)
    else:
        monkeypatch.setattr(bank._store, "finish_erasures", crash)
    with pytest.raises(KeyboardInterrupt):
        bank.forget(namespace="a")
    assert in_files(tmp_path, [secret(1).encode(), key]) > 0
    with ExplicitBank.open(tmp_path, model=tiny_llama, encoder=ENCODER) as again:
        assert again.swept.files == (interrupted == "files")
        assert in_files(tmp_path, [secret(1).encode(), key]) == 0
        assert [receipt.slots for receipt in again.receipts(namespace="a")] == [(slot,)]
    bank.close()
