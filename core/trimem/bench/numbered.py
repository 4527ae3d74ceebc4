"""Documents and items that follow from a number, so that it can be told whether a bank holds what was put into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from trimem.banks.folder import tend
from trimem.errors import TrimemError
from trimem.store.items import ItemRows, NewItem
from trimem.store.metadata import Document, MetadataStore, NewSlot
from trimem.store.schema import BankRow
from trimem.store.tensors import Tensors
from trimem.types import Namespace, SlotId

DIM = 8

ITEMS = 6
"""How many items there are, every other of which says something."""

NAMESPACE: Namespace = ("a",)
"""Where all is, unless another is given."""


class DurabilityError(TrimemError):
    """A bank holds something else than what was acknowledged."""


def text_of(key: str, number: int) -> str:
    """Return a text that no other document has, now or ever."""
    return f"{key} holds secret{number:08}x"


def tensors_of(number: int, model: int = 0) -> Tensors:
    """Return the tensors that belong to a number and a model."""
    generator = torch.Generator().manual_seed(number)
    return {"key": torch.randn(64, 16, generator=generator), "count": torch.tensor([number, model])}


def model_of(store: MetadataStore) -> int:
    """Return the number of the model that a bank is made by."""
    row = store.bank()
    return 0 if row is None else int(row.model_fingerprint)


def new_bank(store: MetadataStore, model: int = 0) -> BankRow:
    """Give a store the row of a bank that a model makes, unless it has one, and return the one it has."""
    made_by = {"mechanism": "explicit", "model_name": "m", "model_fingerprint": str(model), "encoder_fingerprint": "e"}
    return store.create_bank(**made_by, config={"version": 1})


def open_store(folder: Path) -> MetadataStore:
    """Open a store of these documents, as a bank is opened: with all that a crash left put into order."""
    folder.mkdir(parents=True, exist_ok=True)
    store = MetadataStore(folder / "bank.sqlite")
    tend(store)
    new_bank(store)
    store.erase_expired()
    return store


def put(store: MetadataStore, key: str, number: int, namespace: Namespace = NAMESPACE) -> None:
    """Store a document of one slot."""
    text, slot = text_of(key, number), _slot(key, number, namespace)
    staged = store.tensors.stage({slot.slot_id: tensors_of(number, model_of(store))}, {"model": "m"})
    try:
        store.put(namespace, [(Document(key, text, {"number": number}), [slot])], [staged])
    finally:
        staged.discard()


def put_item(store: MetadataStore, key: str, number: int) -> None:
    """Store an item, which says something or not, by its key, and delete the next one."""
    text = text_of(key, number)
    document = Document(key, text if _says(key) else "", {"number": number, "text": text})
    slots = [_slot(key, number, NAMESPACE)] if _says(key) else []
    ItemRows(store).write([NewItem(NAMESPACE, document, slots, None)], [(NAMESPACE, next_of(key))])


def _slot(key: str, number: int, namespace: Namespace) -> NewSlot:
    text = text_of(key, number)
    vector = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return NewSlot(slot_id(namespace, key, number), text, 0, len(text), 1, 3, vector)


def is_item(key: str) -> bool:
    """Return whether a key is that of an item."""
    return key.startswith("i")


def _says(item: str) -> bool:
    return int(item[1:]) % 2 == 1


def next_of(item: str) -> str:
    """Return which item is deleted where one is put."""
    return f"i{(int(item[1:]) + 1) % ITEMS}"


def slot_id(namespace: Namespace, key: str, number: int) -> SlotId:
    """Return the id of the slot of a document that was last written with a number."""
    return f"{'.'.join(namespace)}-{key}-{number}"


def compare(store: MetadataStore, slot: SlotId, *, there: bool = False) -> None:
    """Raise unless a slot's text and tensors are those of its number.

    Args:
        store: Holds it.
        slot: Which.
        there: Whether nobody can have forgotten it meanwhile.

    Raises:
        DurabilityError: They are not.
    """
    _, key, number = slot.split("-")
    held, tensors = store.slots([slot]), store.read(slot)
    if there and not (held and tensors):
        raise DurabilityError(f"{slot} is lost")
    if held and held[0].text != text_of(key, int(number)):
        raise DurabilityError(f"{slot} holds {held[0].text!r} instead of {text_of(key, int(number))!r}")
    expected = tensors_of(int(number), model_of(store))
    if tensors and not all(torch.equal(tensors[name], tensor) for name, tensor in expected.items()):
        raise DurabilityError(f"the tensors of {slot} are not those of its number")


def compare_item(store: MetadataStore, key: str, number: int) -> None:
    """Raise unless an item is that of its number.

    Raises:
        DurabilityError: It is not.
    """
    value = {"number": number, "text": text_of(key, number)}
    found = ItemRows(store).get([(NAMESPACE, key)]).get((NAMESPACE, key))
    if found is None or found.value != value:
        raise DurabilityError(f"the item {key} holds {found and found.value} instead of {value}")
    said = [slot.text for slot in store.slots([slot_id(NAMESPACE, key, number)])]
    if said != ([value["text"]] if _says(key) else []):
        raise DurabilityError(f"the item {key} of number {number} says {said}")
