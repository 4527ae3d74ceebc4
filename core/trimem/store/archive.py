"""A zip file whose every byte is accounted for: written whole, read with distrust.

Its entries are stored as they are, never compressed, so that none can be larger than the file. The last one,
``SHA256SUMS``, says what all others are, as the program ``sha256sum`` does.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from trimem.errors import CorruptExportError
from trimem.store.files import written_whole
from trimem.store.tensors import disk_errors

SUMS = "SHA256SUMS"

_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(/[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)*")
_SUM = re.compile(r"([0-9a-f]{64})  (.+)")


class ArchiveWriter:
    """Entries on their way into a file.

    Args:
        file: To write into.
    """

    def __init__(self, file: ZipFile) -> None:
        self._file = file
        self._sums: list[str] = []

    def add(self, name: str, data: bytes) -> None:
        """Write an entry. O(its bytes)."""
        self._sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        self._write(name, data)

    def finish(self) -> None:
        """Write what the entries are."""
        self._write(SUMS, "".join(self._sums).encode())

    def _write(self, name: str, data: bytes) -> None:
        entry = ZipInfo(name)  # of 1980, so that the same bank is the same file
        entry.compress_type = ZIP_STORED
        entry.external_attr = 0o600 << 16
        self._file.writestr(entry, data)


@contextmanager
def writing_archive(path: Path) -> Iterator[ArchiveWriter]:
    """Write an archive that has its name once it is whole and on the disk; a file of that name is replaced.

    Raises:
        DiskError: The disk is full, or the folder cannot be written to.
    """
    with disk_errors(path), written_whole(path) as file, ZipFile(file, "w", ZIP_STORED) as archive:
        writer = ArchiveWriter(archive)
        yield writer
        writer.finish()


class ArchiveReader:
    """Entries of a file that anybody may have made; use it in a ``with`` block.

    Args:
        path: The file.

    Raises:
        CorruptExportError: It is no archive, is cut off, or holds what trimem never writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._distrust():
            self._file = ZipFile(path)
        try:
            with self._distrust():
                self._check_entries()
                self._sums = self._read_sums()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def names(self) -> list[str]:
        """Return the names of all entries, in the order they were written in."""
        return list(self._sums)

    def read(self, name: str) -> bytes:
        """Return an entry, compared with its sum. O(its bytes).

        Raises:
            CorruptExportError: There is none, or it is not what was written.
        """
        if name not in self._sums:
            raise self.corrupt(f"{name} is missing")
        with self._distrust():
            data = self._file.read(name)
        if hashlib.sha256(data).hexdigest() != self._sums[name]:
            raise self.corrupt(f"{name} is not what was written")
        return data

    def corrupt(self, what: str) -> CorruptExportError:
        """Return the error that says what is wrong with the file."""
        return CorruptExportError(
            f"{self.path} is no whole export of trimem: {what}. Nothing of what is wrong was stored: copy the file "
            "again, or export the bank again"
        )

    @contextmanager
    def _distrust(self) -> Iterator[None]:
        """Turn all that reading a zip file may raise into one error."""
        try:
            yield
        except CorruptExportError:
            raise
        except OSError as error:
            raise self.corrupt(f"it cannot be read: {error.strerror or error}") from error
        except (BadZipFile, EOFError, ValueError, RuntimeError, IndexError, KeyError, struct.error) as error:
            raise self.corrupt(str(error)) from error
        except (OverflowError, MemoryError, NotImplementedError) as error:
            raise self.corrupt(str(error)) from error

    def _check_entries(self) -> None:
        entries = self._file.infolist()
        names = [entry.filename for entry in entries]
        for entry in entries:
            if not _NAME.fullmatch(entry.filename) or entry.compress_type != ZIP_STORED or entry.flag_bits & 1:
                raise self.corrupt(f"the entry {entry.filename!r} is compressed, encrypted or named as none of it is")
        if len(set(names)) < len(names):
            raise self.corrupt("it has two entries of one name")
        if sum(entry.file_size for entry in entries) > self.path.stat().st_size:
            raise self.corrupt("its entries are larger than itself")

    def _read_sums(self) -> dict[str, str]:
        lines = self._file.read(SUMS).decode("ascii").splitlines()
        told = [_SUM.fullmatch(line) for line in lines]
        sums = {match[2]: match[1] for match in told if match is not None}
        if len(sums) < len(lines) or {*sums, SUMS} != set(self._file.namelist()):
            raise self.corrupt(f"{SUMS} names other entries than it has")
        return sums
