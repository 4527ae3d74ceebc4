"""Whatever tenants do, nothing of one shows in another: rows, vectors, caches, attention."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from langchain_core.embeddings import DeterministicFakeEmbedding
from sqlalchemy import select

from tests import tiny
from trimem import ExplicitBank, InvalidInputError, LanguageModel
from trimem.store.schema import SlotRow

TENANTS = [("a",), ("a", "b"), ("ab",), ("a", "bc"), ("b",), ("A",)]
ENCODER = DeterministicFakeEmbedding(size=16)
tenants = st.sampled_from(TENANTS)
numbers = st.integers(0, 5)


def text_of(tenant: tuple[str, ...], number: int, version: int) -> str:
    return f"The secret{'x'.join(tenant)}{number} of the mill is the word w{version}."


def below(tenant: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return other[: len(tenant)] == tenant


class Tenancy(RuleBasedStateMachine):
    """Several tenants on one bank, beside a plain dictionary of what each has stored."""

    lm: LanguageModel

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trimem-tenants-"))
        self.bank = ExplicitBank.open(self.folder / "bank", model=self.lm, encoder=ENCODER)
        self.held: dict[tuple[tuple[str, ...], int], str] = {}
        self.gone: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "bank"):
            self.bank.close()
            shutil.rmtree(self.folder)

    def of(self, tenant: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        return {text: owner for (owner, _), text in self.held.items() if below(tenant, owner)}

    @rule(tenant=tenants, number=numbers, version=st.integers(0, 2), compile=st.booleans())
    def remember(self, tenant: tuple[str, ...], number: int, version: int, compile: bool) -> None:
        text = text_of(tenant, number, version)
        self.bank.remember(text, namespace=tenant, ids=f"d{number}", metadata={"n": number}, compile=compile)
        if (tenant, number) in self.held and self.held[tenant, number] != text:
            self.gone.add(self.held[tenant, number])
        self.held[tenant, number] = text
        self.gone.discard(text)

    @rule(tenant=tenants, number=numbers)
    def forget_a_document(self, tenant: tuple[str, ...], number: int) -> None:
        self.bank.forget(namespace=tenant, ids=f"d{number}")
        self._forgotten([key for key in self.held if below(tenant, key[0]) and key[1] == number])

    @rule(tenant=tenants, number=numbers, evict=st.booleans())
    def expire(self, tenant: tuple[str, ...], number: int, evict: bool) -> None:
        """What has expired is as good as forgotten, whether it is erased yet or not."""
        refreshed = self.bank.refresh(namespace=tenant, ids=f"d{number}", ttl=timedelta(microseconds=1))
        assert refreshed == ((tenant, number) in self.held), "of exactly this namespace"
        erased = len(self.bank.receipts(namespace=tenant))
        self._forgotten([key for key in self.held if key == (tenant, number)])
        if evict:
            report = self.bank.evict()
            assert {receipt.reason for receipt in report.receipts} <= {"expired"}
            assert len(self.bank.receipts(namespace=tenant)) >= erased + refreshed

    @rule(tenant=tenants)
    def forget_all(self, tenant: tuple[str, ...]) -> None:
        self.bank.forget(namespace=tenant)
        self._forgotten([key for key in self.held if below(tenant, key[0])])

    @rule(tenant=tenants, other=tenants)
    def forgetting_slots_of_others_does_nothing(self, tenant: tuple[str, ...], other: tuple[str, ...]) -> None:
        if not below(tenant, other):
            strange = self.bank._store.ids(other, None)
            receipt = self.bank.forget(namespace=tenant, ids=strange or ["none"])
            assert not [slot for slot in receipt.slots if slot in self.bank._store.ids(other, None)]
            assert set(strange) <= set(self.bank._store.ids(other, None))

    @rule(tenant=tenants, number=numbers)
    def recall(self, tenant: tuple[str, ...], number: int) -> None:
        own = self.of(tenant)
        hits = self.bank.recall(text_of(tenant, number, 0), 99, namespace=tenant)
        assert {hit.text: hit.slot.namespace for hit in hits} == own
        filtered = self.bank.recall("secret mill", 99, namespace=tenant, where={"n": number})
        assert {hit.text for hit in filtered} == {
            text for (owner, n), text in self.held.items() if below(tenant, owner) and n == number
        }

    @rule(tenant=tenants)
    def read(self, tenant: tuple[str, ...]) -> None:
        """What the model reads is what it would read in a bank that has no other tenant."""
        hits = sorted(self.bank.recall("secret mill", 4, namespace=tenant), key=lambda hit: hit.text)
        if not hits:
            return
        alone = Path(tempfile.mkdtemp(prefix="alone-", dir=self.folder))
        with ExplicitBank.open(alone, model=self.lm, encoder=ENCODER) as bank:
            for hit in hits:
                bank.remember(hit.text, namespace=hit.slot.namespace, ids=hit.slot.document)
            own = sorted(bank.recall("secret mill", 4, namespace=tenant), key=lambda hit: hit.text)
            logits = []
            for each, its_hits in ((self.bank, hits), (bank, own)):
                ids = torch.tensor([each.compiler.question("Which word?")])
                with torch.no_grad(), each.attach(hits=its_hits):
                    logits.append(self.lm.model(ids).logits)
        assert torch.equal(*logits)

    @rule()
    def compact(self) -> None:
        self.bank.compact()

    @rule()
    def open_again(self) -> None:
        self.bank.close()
        self.bank = ExplicitBank.open(self.folder / "bank", model=self.lm, encoder=ENCODER)
        assert self.bank.swept.files == 0

    @invariant()
    def everything_is_counted_where_it_belongs(self) -> None:
        if not hasattr(self, "bank"):
            return
        for tenant in TENANTS:
            assert self.bank.stats(namespace=tenant).slots == len(self.of(tenant))
        slots = set(self.bank._store.ids(("a",), None)) | {
            slot for tenant in TENANTS for slot in self.bank._store.ids(tenant, None)
        }
        with self.bank._store.session(expired=True) as session:
            stored = set(session.scalars(select(SlotRow.slot_id)))
        assert set(self.bank._records._memory._held) <= stored, "what is forgotten is held no longer"
        data = b"".join(file.read_bytes() for file in (self.folder / "bank" / "tensors").rglob("*.safetensors"))
        names = {slot for slot in slots if f"{slot}/".encode() in data}
        assert names == set(self.bank._store.places(slots))

    def _forgotten(self, keys: list[tuple[tuple[str, ...], int]]) -> None:
        for key in keys:
            self.gone.add(self.held.pop(key))


@pytest.fixture(autouse=True)
def _model(tiny_llama: LanguageModel) -> None:
    Tenancy.lm = tiny_llama


Tenancy.TestCase.settings = settings(max_examples=6, stateful_step_count=14, deadline=None)


TestTenancy = Tenancy.TestCase


def test_hits_of_one_bank_are_refused_by_another(tmp_path: Path, tiny_llama: LanguageModel) -> None:
    with (
        ExplicitBank.open(tmp_path / "a", model=tiny_llama, encoder=ENCODER) as one,
        ExplicitBank.open(tmp_path / "b", model=tiny.build("llama"), encoder=ENCODER) as other,
    ):
        one.remember("The mill is blue.", namespace="a")
        with (
            pytest.raises(InvalidInputError, match="does not hold"),
            other.attach(hits=one.recall("mill", namespace="a")),
        ):
            pass
