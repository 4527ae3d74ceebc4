"""A model with a configuration: all it takes to turn texts into records and records into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from trimem.explicit.budget import fitted, kept_heads, most_tokens
from trimem.explicit.calibration import head_bias_of
from trimem.explicit.config import ExplicitConfig
from trimem.explicit.density import by_rank
from trimem.explicit.read import Placement, place
from trimem.explicit.read_config import READ_CONFIGS, ReadConfig
from trimem.explicit.record import Record
from trimem.explicit.repair import repaired
from trimem.explicit.write import batches, encode_prefix, encode_references
from trimem.lm.marks import hidden, tokenize
from trimem.lm.model import LanguageModel
from trimem.lm.prompt import SEPARATOR, followed, prompt_format, told
from trimem.lm.spans import check_movable
from trimem.text.chunking import Chunk, Chunker
from trimem.types import Message

BATCH_TOKENS = 2048
"""Most tokens in one forward pass, padding included."""


class Compiler:
    """Compiles references for one model.

    Args:
        lm: The model.
        config: The bank's configuration.

    Raises:
        UnsupportedModelError: The model's keys cannot be moved, or its layers differ in shape.
    """

    def __init__(self, lm: LanguageModel, config: ExplicitConfig) -> None:
        check_movable(lm)
        self.lm = lm
        self.config = fitted(lm, config)
        self.format = prompt_format(lm, config.instruction)
        self._chunker = Chunker(lambda text: len(self.reference(text)), config.reference_tokens)

    @cached_property
    def prefix(self) -> Record:
        """The key-values of what stands before all references."""
        return encode_prefix(self.lm, self.prefix_ids)

    @cached_property
    def most(self) -> Tensor:
        """The most tokens each KV head keeps of a reference (layers, num_kv_heads)."""
        return most_tokens(self.lm, self.config)

    @property
    def _all(self) -> Tensor:
        return torch.full_like(self.most, self.config.reference_tokens)

    @cached_property
    def prefix_ids(self) -> list[int]:
        return self.lm.tokenize(self.format.prefix)

    def reference(self, text: str) -> list[int]:
        """Return the token ids of one reference, the line break after it included.

        It is data: no text ends the message it stands in, whatever marks of a chat template it holds.
        """
        return self.lm.tokenize(text + SEPARATOR, control=False)

    def question(self, question: str, history: Sequence[Message] = (), system: str = "") -> list[int]:
        """Return the token ids of what follows the references: what was said before the question, and it.

        ``system`` stands before the first thing the user says: references are written after the bank's instruction,
        so nothing else can take its place. Whatever marks of a chat template stand in it, none of it is more than text.
        """
        said: list[Message] = [{"role": one["role"], "content": hidden(self.lm, one["content"])} for one in history]
        before, asked = told(hidden(self.lm, system), said, hidden(self.lm, question))
        form = followed(self.lm, self.config.instruction, before) if before else self.format
        return tokenize(self.lm, form.question(asked))

    def chunks(self, text: str) -> list[Chunk]:
        """Cut a text into references."""
        return self._chunker(text)

    def compile(self, documents: Sequence[Sequence[str]]) -> Iterator[dict[int, Record]]:
        """Encode the references of documents, a batch at a time.

        Args:
            documents: The references of each, in order.

        Yields:
            The records of one batch by their index, counted through all documents.
        """
        ids = [self.reference(text) for document in documents for text in document]
        if self.config.context == "document":
            start = 0
            for document in documents:
                yield from self._compile_whole(ids, range(start, start + len(document)))
                start += len(document)
            return
        for batch in batches([len(reference) for reference in ids], BATCH_TOKENS):
            records = encode_references(
                self.lm, [self.prefix], [ids[i] for i in batch], rule=self.config.selection, most=self.most
            )
            yield dict(zip(batch, records, strict=True))

    def _compile_whole(self, ids: Sequence[Sequence[int]], pieces: Sequence[int]) -> Iterator[dict[int, Record]]:
        """Encode a document as one sequence and cut it into references (Memory³, remark 3).

        Each piece is run with all before it as memory, which is what a prefill in chunks computes. What
        no longer fits the model's context is left behind, oldest first.
        """
        left: list[Record] = []
        start = 0
        for i in pieces:
            while (
                left and self.prefix.tokens + sum(piece.tokens for piece in left) + len(ids[i]) > self.lm.context_length
            ):
                left.pop(0)
            (whole,) = encode_references(
                self.lm, [self.prefix, *left], [ids[i]], rule=self.config.selection, most=self._all, start=start
            )
            yield {i: whole.limited(self.most)}
            left.append(whole)
            start += whole.tokens

    def place(self, records: Sequence[Record], read: ReadConfig = READ_CONFIGS["dense"]) -> Placement:
        """Lay the prefix and records before the context, the first record nearest to it.

        In what is returned, the prefix has the index 0 and record i of n the index n - i.

        Args:
            records: Best first, each with as many tokens as are to be read.
            read: How; what it says of heads and repair is done by :meth:`prepare`.

        Raises:
            CalibrationNotFoundError: The heads' bias is wanted, and the model's was not fitted.
        """
        bias = by_rank(read.bias, len(records))[::-1]
        return place(
            self.lm,
            [self.prefix, *reversed(records)],
            layout=read.layout,
            bias=bias if any(bias) else None,
            temperature=read.temperature,
            mass=read.mass,
            head_bias=head_bias_of(self.lm) if read.head_bias else None,
        )

    def prepare(self, records: Sequence[Record], texts: Sequence[str], read: ReadConfig) -> list[Record]:
        """Leave out the heads that are not to read and mend the references' heads, as ``read`` says.

        Args:
            records: Best first.
            texts: The text of each.
            read: How.

        Raises:
            CalibrationNotFoundError: Heads are chosen by calibration, and the model has none.
        """
        kept = list(records)
        if read.heads == "calibrated":
            most = kept_heads(self.lm, read.heads, read.heads_kept).int() * self.config.reference_tokens
            kept = [record.limited(most) for record in kept]
        if read.repair:
            first = [self.reference(text)[: read.repair] for text in reversed(texts)]
            kept = repaired(self.lm, [self.prefix, *reversed(kept)], first)[:0:-1]
        return kept
