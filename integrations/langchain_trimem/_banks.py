"""What all adapters share: how they hold a bank, and what they make of its hits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

from langchain_core.documents import Document
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, field_validator

import trimem
from trimem.bank import Bank
from trimem.errors import InvalidInputError
from trimem.types import Hit


class HoldsBank(BaseModel):
    """A component with a bank, which is neither shown nor serialised: no trace holds what it remembers."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    bank_type: ClassVar[str] = "Bank"
    """Which of trimem's banks it takes."""

    bank: SkipValidation[Bank] = Field(repr=False, exclude=True)
    """The bank."""
    namespace: str | tuple[str, ...]
    """Whose memory it is, and all below."""

    @field_validator("bank")
    @classmethod
    def _of_its_type(cls, bank: Bank) -> Bank:
        expected: type[Bank] = getattr(trimem, cls.bank_type)
        if not isinstance(bank, expected):
            raise InvalidInputError(f"{cls.__name__} takes a trimem.{cls.bank_type}, got {type(bank).__name__}")
        return bank


def documents(hits: Sequence[Hit]) -> list[Document]:
    """Return hits as documents with the slot's id, and source and score in their metadata."""
    return [
        Document(
            id=hit.id,
            page_content=hit.text,
            metadata={**copy.deepcopy(dict(hit.metadata)), "source": hit.source, "score": hit.score},
        )
        for hit in hits
    ]
