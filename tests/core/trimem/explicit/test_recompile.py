"""A bank is brought to another model or encoder: all of it or nothing, whatever happens meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from sqlalchemy import select
from typer.testing import CliRunner

from tests import tiny
from tests.contracts.bank import BOAT, CAKE, PUMP
from trimem import (
    BankNotFoundError,
    ExplicitBank,
    FingerprintMismatch,
    InvalidInputError,
    LanguageModel,
)
from trimem.cli import app
from trimem.store import building
from trimem.store.building import CARRIED, COUNTED, folder_beside
from trimem.store.capacity import newest_slot
from trimem.store.metadata import MetadataStore
from trimem.store.schema import SlotRow
from trimem.store.tensors import TensorStore
from trimem.text.chunking import Chunker
from trimem.text.encoders import EmbeddingsEncoder

ENCODER = DeterministicFakeEmbedding(size=16)
OTHER = DeterministicFakeEmbedding(size=24)
TEXTS = [PUMP, BOAT, CAKE, *(f"Fact {i} is about the number {i * 37}." for i in range(5))]
LONG = " ".join(f"The {i}th sentence of a long text says that {i * 31} is its number." for i in range(12))
MOMENT = datetime(2026, 5, 6, tzinfo=UTC)
LATER = datetime(2027, 5, 6, tzinfo=UTC)

Opened = Callable[..., ExplicitBank]


@pytest.fixture(scope="module")
def other_model() -> LanguageModel:
    """A model of other shapes and weights that cuts texts alike."""
    return tiny.build("qwen3", seed=5)


@pytest.fixture
def open_bank(tmp_path: Path, tiny_llama: LanguageModel) -> Opened:
    def opened(name: str = "bank", **options: Any) -> ExplicitBank:
        settings = {"model": tiny_llama, "encoder": ENCODER, "clock": lambda: MOMENT, **options}
        return ExplicitBank.open(tmp_path / name, **settings)

    return opened


def filled(bank: ExplicitBank) -> ExplicitBank:
    bank.remember(TEXTS, namespace=("a", "x"), metadata={"source": "x.md"}, ids=[f"t{i}" for i in range(len(TEXTS))])
    bank.remember(LONG, namespace="b", ids="long")
    bank.forget(namespace="a", ids="t7")
    return bank


def tensors(bank: ExplicitBank) -> dict[str, Any]:
    ids = [slot for name in (("a",), ("b",)) for slot in bank._store.ids(name, None)]
    held = {slot: bank._store.read(slot) or {} for slot in ids}
    return {slot: {name: each.tolist() for name, each in found.items()} for slot, found in held.items()}


def vectors(bank: ExplicitBank) -> dict[str, tuple[bytes, bytes | None]]:
    with bank._store.session() as session:
        return {slot.slot_id: (slot.vector, slot.sentences) for slot in session.scalars(select(SlotRow))}


def texts(bank: ExplicitBank) -> set[str]:
    return {slot.text for name in (("a",), ("b",)) for slot in bank._store.slots(bank._store.ids(name, None))}


def is_whole(bank: ExplicitBank) -> None:
    assert bank.verify().ok, bank.verify()
    assert not folder_beside(bank.folder).exists()


def test_another_model_makes_what_it_would_have_made_afresh(open_bank: Opened, other_model: LanguageModel) -> None:
    with filled(open_bank()) as bank, filled(open_bank("fresh", model=other_model)) as fresh:
        with bank._store.changing() as (session, _):
            for i, slot in enumerate(session.scalars(select(SlotRow).order_by(SlotRow.id))):
                slot.provenance, slot.trust, slot.expires_at, slot.reads = f"p{i}", i / 30, LATER, i
                slot.checksum = slot.digest()
        receipts, said = bank.receipts(namespace="a"), texts(bank)
        bank.ask("pump?", namespace="a", max_new_tokens=2)
        report = bank.recompile(model=other_model, progress=False)
        assert (report.documents, report.slots, report.model_name) == (8, bank.stats().slots, "qwen3")
        is_whole(bank)
        assert texts(bank) == said
        assert tensors(bank) == tensors(fresh)
        assert bank.model is other_model
        answers = [each.ask("pump?", namespace="a", max_new_tokens=5).text for each in (bank, fresh)]
        assert answers[0] == answers[1]
        assert [hit.id for hit in bank.recall(BOAT, 9, namespace="a")] == [
            hit.id for hit in fresh.recall(BOAT, 9, namespace="a")
        ]
        assert bank.receipts(namespace="a") == receipts
        with bank._store.session() as session:
            slots = session.scalars(select(SlotRow).order_by(SlotRow.id)).all()
            assert [slot.provenance for slot in slots] == [f"p{i}" for i in range(len(slots))]
            assert [slot.reads for slot in slots] == list(range(len(slots)))
            assert {slot.expires_at for slot in slots} == {LATER}
        bank.remember("Another text.", namespace="a")
        bank.forget(namespace="b")
        is_whole(bank)
    with open_bank(model=None) as again:
        assert again._store.bank().model_name == "qwen3"  # type: ignore[union-attr]
    with pytest.raises(FingerprintMismatch, match=r"run: trimem recompile --bank \S+ --model llama"):
        open_bank()


def test_another_encoder_leaves_tensors_alone(open_bank: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(open_bank()) as bank, filled(open_bank("fresh", encoder=OTHER)) as fresh:
        before = tensors(bank)
        monkeypatch.setattr(type(bank.compiler), "compile", lambda *_: pytest.fail("nothing is to be compiled"))
        bank.recall("pump", namespace="a")
        report = bank.recompile(encoder=OTHER)
        assert report.slots == report.slots_before
        is_whole(bank)
        assert tensors(bank) == before
        assert vectors(bank) == vectors(fresh)
        assert bank.recall(BOAT, 3, namespace="a") == fresh.recall(BOAT, 3, namespace="a")
    with open_bank() as late, pytest.raises(FingerprintMismatch, match=r"trimem recompile --bank \S+ --encoder NAME"):
        late.recall("pump", namespace="a")


def test_a_bank_opened_without_an_encoder_takes_its_own(open_bank: Opened, tiny_llama: LanguageModel) -> None:
    class OfAHub(EmbeddingsEncoder):
        fingerprint = "sentence-transformers:somebody/e5-small"

    with filled(open_bank()) as bank:
        bank.recompile(encoder=OfAHub(OTHER))
        with ExplicitBank.open(bank.folder, model=tiny_llama) as again:
            assert again._encoder.fingerprint == OfAHub.fingerprint
            assert again.stats().slots == bank.stats().slots
            with pytest.raises(InvalidInputError, match="no encoder could be loaded from 'somebody/e5-small'"):
                again.recall("pump", namespace="a")


def test_slots_cut_otherwise_take_over_what_they_begin_in(
    open_bank: Opened, other_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(open_bank()) as bank:
        with bank._store.changing() as (session, _):
            for slot in session.scalars(select(SlotRow)):
                slot.provenance, slot.reads = f"from {slot.start}", slot.start
                slot.checksum = slot.digest()
        before = {slot.start for slot in bank._store.slots(bank._store.ids(("b",), None))}
        beside = ExplicitBank._beside

        def cut_smaller(self: ExplicitBank, *args: Any) -> ExplicitBank:
            made = beside(self, *args)
            made.compiler._chunker = Chunker(lambda text: len(made.compiler.reference(text)), 64)
            return made

        monkeypatch.setattr(ExplicitBank, "_beside", cut_smaller)
        report = bank.recompile(model=other_model)
        assert report.slots > report.slots_before
        is_whole(bank)
        with bank._store.session() as session:
            for slot in session.scalars(select(SlotRow).where(SlotRow.namespace == "b/")):
                held = max(start for start in before if start <= slot.start)
                assert (slot.provenance, slot.reads) == (f"from {held}", held)


def test_uses_stay_as_long_ago_as_they_were(open_bank: Opened) -> None:
    def ages(bank: ExplicitBank) -> dict[str, tuple[float | None, int | None]]:
        with bank._store.session() as session:
            newest = newest_slot(session)
            slots = session.scalars(select(SlotRow).where(SlotRow.warmth_at.is_not(None)))
            return {slot.slot_id: (slot.warmth, newest - (slot.warmth_at or 0)) for slot in slots}

    with filled(open_bank()) as bank:
        bank.forget(namespace="a", ids=["t0", "t1"])  # so that rows are not numbered without a gap
        bank.recall(CAKE, 2, namespace="a")
        bank._uses.write()
        bank.remember(["two more", "to be older than"], namespace="a")
        before = ages(bank)
        assert {age for _, age in before.values()} == {2}
        bank.recompile(encoder=OTHER)
        assert ages(bank) == before


def test_others_write_and_forget_meanwhile(
    open_bank: Opened, other_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = building.follow
    rounds: list[int] = []

    with filled(open_bank()) as bank, open_bank() as colleague:
        colleague.remember("The secret word is xqzzy.", namespace="a", ids="secret")

        def disturbed(old: MetadataStore, new: MetadataStore, *rest: Any) -> None:
            follow(old, new, *rest)
            rounds.append(len(rounds))
            if len(rounds) == 1:
                assert any(b"xqzzy" in file.read_bytes() for file in folder_beside(bank.folder).rglob("*.sqlite*"))
                colleague.forget(namespace="a", ids="secret")
                files = [file for file in (tmp_path / "bank").rglob("*") if file.is_file()]
                assert not any(b"xqzzy" in file.read_bytes() for file in files)
                colleague.remember("The pump is gone.", namespace=("a", "x"), ids="t0")
            if len(rounds) <= building.ATTEMPTS + 1:
                colleague.remember(f"New text {len(rounds)}.", namespace="a")

        monkeypatch.setattr(building, "follow", disturbed)
        bank.recompile(model=other_model)
        assert len(rounds) == building.ATTEMPTS + 2
        is_whole(bank)
        assert texts(bank) >= {"The pump is gone.", *(f"New text {i}." for i in range(1, building.ATTEMPTS + 2))}
        assert PUMP not in texts(bank)
        assert bank.stats().compiled == bank.stats().slots
        with pytest.raises(FingerprintMismatch, match="open it again"):
            colleague.ask("pump?", namespace="a", max_new_tokens=1)
        with pytest.raises(FingerprintMismatch):
            colleague.remember("Late.", namespace="a")
        assert colleague.forget(namespace="a", ids="t1").slots, "to forget, no model is needed"
        is_whole(bank)


def test_who_was_writing_when_it_was_switched_stores_nothing(
    open_bank: Opened, other_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(open_bank()) as bank, open_bank() as colleague:
        stage = TensorStore.stage
        cold = colleague.remember("Cold.", namespace="a", compile=False)
        colleague.compiler  # noqa: B018 - it is loaded

        def switch_first(*args: Any) -> Any:
            monkeypatch.setattr(TensorStore, "stage", stage)
            bank.recompile(model=other_model)
            return stage(*args)

        monkeypatch.setattr(TensorStore, "stage", switch_first)
        before = texts(bank)
        with pytest.raises(FingerprintMismatch, match="open it again"):
            colleague.remember("Late.", namespace="a")
        assert texts(bank) == before
        with pytest.raises(FingerprintMismatch, match="open it again"):
            colleague._compile(cold, False)
        is_whole(bank)


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.parametrize("where", ["write", "switch", "remove"])
def test_what_an_interruption_leaves_is_gone_on_with(
    where: str, open_bank: Opened, other_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    written: list[int] = []
    write = ExplicitBank._write

    def counted(self: ExplicitBank, namespace: Any, documents: Sequence[Any], **options: Any) -> Any:
        written.append(len(documents))
        if where == "write" and len(written) == 2:
            raise Killed
        return write(self, namespace, documents, **options)

    with filled(open_bank()) as bank:
        before = tensors(bank)
        with monkeypatch.context() as patched:
            patched.setattr(ExplicitBank, "_write", counted)
            if where != "write":
                patched.setattr(building, where, killed)
            with pytest.raises(Killed):
                bank.recompile(model=other_model)
    done = where == "remove"
    with open_bank(model=other_model if done else None) as bank:
        assert bank.verify().ok
        assert (tensors(bank) == before) is not done
        assert folder_beside(bank.folder).exists() is not done, "what can be gone on with stays"
        if not done:
            written.clear()
            monkeypatch.setattr(ExplicitBank, "_write", counted if where == "switch" else write)
            bank.recompile(model=other_model)
            assert written == [], "what is there is not made again"
        is_whole(bank)


def test_what_was_begun_for_another_model_is_begun_anew(
    open_bank: Opened, other_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with filled(open_bank()) as bank:
        with monkeypatch.context() as patched:
            patched.setattr(building, "switch", killed)
            with pytest.raises(Killed):
                bank.recompile(model=tiny.build("llama", seed=9))
        bank.recompile(model=other_model)
        is_whole(bank)
        assert bank.model is other_model


def test_the_same_again_changes_nothing(open_bank: Opened, tiny_llama: LanguageModel) -> None:
    with filled(open_bank()) as bank:
        before = bank._store.revision()
        report = bank.recompile(model=tiny_llama)
        assert report.slots == report.slots_before
        assert bank._store.revision() == before
        is_whole(bank)
        with pytest.raises(InvalidInputError, match="give model, encoder or both"):
            bank.recompile()
        with pytest.raises(FingerprintMismatch), open_bank(encoder=OTHER) as wrong:
            wrong.recompile(model=tiny_llama)
    with open_bank("empty") as empty, pytest.raises(BankNotFoundError):
        empty.recompile(model=tiny_llama)
    with filled(open_bank("refused")) as bank:
        with pytest.raises(Exception, match="absolute"):
            bank.recompile(model=tiny.build("gpt2"))
        assert bank.ask("pump?", namespace="a", max_new_tokens=1).hits


def test_every_column_is_carried_or_made_anew() -> None:
    made = {"id", "document_id", "slot_id", "namespace", "text", "start", "stop", "line", "tokens", "vector"}
    made |= {"sentences", "scope", "checksum", "shard_id", "tensor_bytes", "tensor_checksum"}
    assert {column.name for column in SlotRow.__table__.columns} == made | {*CARRIED, *COUNTED}


def test_the_command(tmp_path: Path, tiny_llama: LanguageModel, other_model: LanguageModel) -> None:
    for name, lm in (("one", tiny_llama), ("two", other_model)):
        lm.model.save_pretrained(tmp_path / name)
        lm.tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "pump.md").write_text(PUMP)
    bank = str(tmp_path / "bank")

    def run(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--bank", bank], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    assert "BankNotFoundError" in run("recompile", "--model", "x", code=1).stderr
    run("remember", str(tmp_path / "pump.md"), "--namespace", "a", "--model", str(tmp_path / "one"))
    said = run("ask", "pump?", "--namespace", "a", "--model", str(tmp_path / "two"), code=1).stderr
    command = said[said.index("trimem recompile") :].split()
    assert run(*command[1:2], *command[4:]).stdout.startswith("1 documents, 1 slots are 1 by ")
    assert run("ask", "pump?", "--namespace", "a", "--max-new-tokens", "2").exit_code == 0
    assert json.loads(run("recompile", "--model", str(tmp_path / "one"), "--json").stdout)["slots"] == 1
    assert "give model, encoder or both" in run("recompile", code=1).stderr
