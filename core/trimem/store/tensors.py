"""Tensors on the disk: one safetensors file a record, written so that it is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trimem.errors import CorruptTensorError

_SUFFIX = ".safetensors"


class TensorStore:
    """Records of named tensors by id, in a folder.

    Args:
        folder: Created at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, record: str) -> Path:
        """Return where the record ``record`` lies, whether it exists or not."""
        return self.folder / record[:2] / f"{record}{_SUFFIX}"

    def exists(self, record: str) -> bool:
        return self.path(record).exists()

    def size(self, record: str) -> int:
        """Return the bytes of a record, 0 if there is none."""
        return self.path(record).stat().st_size if self.exists(record) else 0

    def write(self, record: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
        """Write a record, replacing one of the same id, and return its size in bytes.

        The bytes are on the disk before the name is: a crash leaves the old record or the new one.
        """
        path = self.path(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata))
        temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return len(data)

    def read(self, record: str) -> dict[str, Tensor]:
        """Read a record; the file is memory-mapped, so tensors cost memory as they are used.

        Raises:
            CorruptTensorError: The file is missing or is no safetensors file.
        """
        path = self.path(record)
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        except (OSError, SafetensorError) as error:
            raise CorruptTensorError(
                f"the tensors of slot {record} cannot be read from {path}: {error}. Delete the file, and the "
                "slot is compiled again from its stored text when it is next read"
            ) from error

    def delete(self, records: Iterable[str]) -> tuple[int, int]:
        """Remove records and return how many there were and their bytes; missing ones do not count."""
        files = freed = 0
        for record in records:
            path = self.path(record)
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            files, freed = files + 1, freed + size
        return files, freed
