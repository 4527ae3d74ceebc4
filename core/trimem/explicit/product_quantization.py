"""Key-values as codes of a trained codebook: the paper's vector quantiser, about a bit and a half a number.

A vector is rotated so that its channels share their variance (OPQ), the nearest entry of a coarse codebook
is taken away from each half of it, and what remains is cut into short pieces that are each replaced by the
nearest of theirs (product quantisation). Memory³ (appendix B) stores 80 channels in 14 bytes so. The work
is done by faiss, an option: ``pip install "trimem[faiss]"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimem.errors import CorruptTensorError, InvalidInputError, MissingDependencyError
from trimem.explicit.codec import check_rows, first_rows

if TYPE_CHECKING:
    import faiss

_SAMPLES_A_CENTRE = 39
"""So many faiss wants of each cluster, and warns of fewer."""
_LEAST_BITS = 4
_ROTATION_BITS, _COARSE_BITS, _FINE_BITS = 8, 14, 10
LEAST_SAMPLES = _SAMPLES_A_CENTRE << _LEAST_BITS


@dataclass(frozen=True, slots=True)
class ProductQuantization:
    """A codec with two codebooks, one for the keys and one for the values of all heads.

    See :class:`trimem.explicit.codec.Codec`. A record is worth nothing without the codebooks it was
    encoded with, so they are stored once beside the records. A vector decodes to the same up to float32's
    rounding, however many are decoded with it.

    Attributes:
        key_index: Trained index of faiss.
        value_index: As ``key_index``.
    """

    key_index: faiss.Index
    value_index: faiss.Index
    name: ClassVar[str] = "pq"

    @classmethod
    def train(cls, key: Tensor, value: Tensor) -> ProductQuantization:
        """Train codebooks on rows of records drawn from the whole bank.

        The more samples, up to 640 000, the larger the codebooks (see :func:`factory`) and the longer
        it takes.

        Args:
            key: (samples, head_dim) in any floating point, before RoPE.
            value: (samples, value_dim).

        Raises:
            InvalidInputError: There are too few samples, or the dimensions cannot be divided.
            UnsupportedModelError: A number is not finite.
            MissingDependencyError: faiss is not installed.
        """
        check_rows(key, value, torch.zeros(len(key), dtype=torch.long), 1)
        return cls(_train(_array(key)), _train(_array(value)))

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the codebooks as they are stored."""
        library = _faiss()
        return {
            "key_codebook": torch.from_numpy(library.serialize_index(self.key_index)),
            "value_codebook": torch.from_numpy(library.serialize_index(self.value_index)),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ProductQuantization:
        """Read what :meth:`to_tensors` made.

        Raises:
            KeyError: A tensor is missing.
            CorruptTensorError: One is no codebook.
            MissingDependencyError: faiss is not installed.
        """
        return cls(_load(tensors["key_codebook"]), _load(tensors["value_codebook"]))

    def encode(self, key: Tensor, value: Tensor, head: Tensor, heads: int) -> dict[str, Tensor]:
        check_rows(key, value, head, heads)
        self._check_dims(key.shape[1], value.shape[1])
        return {"key": _encode(self.key_index, key), "value": _encode(self.value_index, value)}

    def decode(self, tensors: Mapping[str, Tensor], head: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        key, value = first_rows(tensors["key"], len(head)), first_rows(tensors["value"], len(head))
        return _decode(self.key_index, key).to(dtype), _decode(self.value_index, value).to(dtype)

    def row_bytes(self, head_dim: int, value_dim: int) -> int:
        self._check_dims(head_dim, value_dim)
        return int(self.key_index.sa_code_size() + self.value_index.sa_code_size())

    def head_bytes(self, head_dim: int) -> int:
        return 0

    def _check_dims(self, head_dim: int, value_dim: int) -> None:
        if (head_dim, value_dim) != (self.key_index.d, self.value_index.d):
            raise InvalidInputError(
                f"the codebooks were trained for keys of {self.key_index.d} channels and values of "
                f"{self.value_index.d}, got {head_dim} and {value_dim}: train them for this model"
            )


def factory(dim: int, samples: int) -> str:
    """Return faiss's description of the quantiser for vectors of that dimension.

    With enough samples and 80 channels, it is the paper's ``OPQ20_80,Residual2x14,PQ8x10``. Other
    dimensions keep its pieces of 4 channels in the rotation and of about 8 in the product quantiser, in
    whole bytes where that can be; fewer samples shrink the codebooks to what they can fill.

    Args:
        dim: Channels of a vector.
        samples: Vectors to train on.

    Raises:
        InvalidInputError: There are too few samples, or the dimension is odd.
    """
    if dim < 2 or dim % 2:
        raise InvalidInputError(
            f"product quantisation halves vectors, so their dimension must be even, got {dim}: use the codec "
            '"int8" instead'
        )
    if samples < LEAST_SAMPLES:
        raise InvalidInputError(
            f"product quantisation must be trained on at least {LEAST_SAMPLES} rows, got {samples}: remember more "
            'first, or use the codec "int4" instead'
        )
    pieces = _divisor(dim, dim // 8, multiple=4) or _divisor(dim, dim // 8) or 1  # 4 codes of 10 bits are whole bytes
    rotated = _divisor(dim, dim // 4) or 1
    coarse, fine = _bits(samples, _COARSE_BITS), _bits(samples, _FINE_BITS)
    return f"OPQ{rotated}_{dim},Residual2x{coarse},PQ{pieces}x{fine}"


def _bits(samples: int, most: int) -> int:
    """Return the bits of the largest codebook that the samples fill."""
    return min(most, (samples // _SAMPLES_A_CENTRE).bit_length() - 1)


def _divisor(dim: int, most: int, multiple: int = 1) -> int:
    """Return the largest divisor up to ``most`` that is a multiple of ``multiple``, or 0."""
    return max((n for n in range(multiple, most + 1, multiple) if dim % n == 0), default=0)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError('the codec "pq" needs faiss: pip install "trimem[faiss]"') from error
    return faiss


def _train(samples: NDArray[np.float32]) -> faiss.Index:
    library = _faiss()
    count, dim = samples.shape
    index = library.index_factory(dim, factory(dim, count))
    # The rotation is found with a product quantiser of its own, which by default is too large for few samples.
    rotation = library.downcast_VectorTransform(index.chain.at(0))
    rotation.pq = helper = library.ProductQuantizer(dim, rotation.M, _bits(count, _ROTATION_BITS))
    index.train(samples)
    rotation.pq = None
    del helper  # kept until here: the rotation does not own it
    trained: faiss.Index = index
    return trained


def _load(stored: Tensor) -> faiss.Index:
    library = _faiss()
    try:
        index: faiss.Index = library.deserialize_index(stored.cpu().numpy())
    except RuntimeError as error:
        raise CorruptTensorError(f"a codebook cannot be read: {error}. Train it again") from error
    return index


def _array(x: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(x.detach().float().cpu().numpy())


def _encode(index: faiss.Index, x: Tensor) -> Tensor:
    return torch.from_numpy(index.sa_encode(_array(x)))


def _decode(index: faiss.Index, codes: Tensor) -> Tensor:
    if codes.ndim != 2 or codes.shape[1] != index.sa_code_size() or codes.dtype != torch.uint8:
        raise CorruptTensorError(
            f"codes are (rows, {index.sa_code_size()}) bytes, got {tuple(codes.shape)} in {codes.dtype}: they were "
            "made with other codebooks"
        )
    return torch.from_numpy(index.sa_decode(np.ascontiguousarray(codes.cpu().numpy()))).to(codes.device)
