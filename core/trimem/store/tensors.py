"""Tensors on the disk: records in shards, each a safetensors file that is there whole or not at all.

A shard is written once and never changed: what is to go from it is left out of a new one that takes its
place. Which shards count is said by the database (:mod:`trimem.store.shards`). A shard is staged under
another name first, at leisure, and published, which is a rename, in the transaction that names it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trimem.errors import CorruptTensorError, DiskError
from trimem.store.checksums import checksum, checksum_of_tensors
from trimem.store.files import write_whole

SUFFIX = ".safetensors"
_STAGED = ".staged"

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class RecordSum:
    """What the database keeps of a record.

    Attributes:
        bytes: Its tensors' and its share of the file's header; those of a shard add up to its file.
        checksum: Of its tensors.
    """

    bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies.

    Attributes:
        shard: Name of the shard.
        checksum: Of the record's tensors.
    """

    shard: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What a crash had left and was removed.

    Attributes:
        files: How many.
        bytes: Their bytes.
    """

    files: int = 0
    bytes: int = 0


class StagedShard:
    """A shard that is on the disk, whole and synced, but under a name that does not count yet.

    Attributes:
        name: What it will be called.
        bytes: Size of the file.
        checksum: Of the file.
        records: What the database is to keep of each record.
    """

    def __init__(self, path: Path, data: bytes, records: dict[str, RecordSum]) -> None:
        self.name = path.name.removesuffix(SUFFIX)
        self.bytes = len(data)
        self.checksum = checksum(data)
        self.records = records
        self.path = path
        self._named = False
        self._staged = path.with_name(f"{path.name}.{uuid4().hex}{_STAGED}")
        with disk_errors(self._staged):
            with _folder_locked(path.parent, sweeping=False):
                self._file: IO[bytes] = self._staged.open("wb")
                _lock(self._file)  # whoever sweeps can tell that its writer lives
            try:
                self._file.write(data)
                self._file.flush()
                os.fsync(self._file.fileno())
            except BaseException:
                self.discard()
                raise

    def publish(self) -> None:
        """Give it its name. Call it with the database locked for writing, before the transaction is committed."""
        with disk_errors(self.path):
            self._named = not self.path.exists()
            self._staged.replace(self.path)
            _sync_folder(self.path.parent)
        self._file.close()

    def withdraw(self) -> None:
        """Remove it, published or not. Call it in the transaction that was to name it, and that names nothing now."""
        self.discard()
        if self._named:
            with suppress(OSError):  # it is swept up when the bank is next opened
                self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove it if it is not published."""
        self._staged.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()  # which would write what a full disk had refused


@contextmanager
def staging() -> Iterator[list[StagedShard]]:
    """Give a list for shards; what of it was not published when the ``with`` block ends is removed."""
    staged: list[StagedShard] = []
    try:
        yield staged
    finally:
        for shard in staged:
            shard.discard()


class TensorStore:
    """Shards in a folder.

    Args:
        folder: Created at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, shard: str) -> Path:
        """Return where a shard lies, whether it exists or not."""
        return self.folder / f"{shard}{SUFFIX}"

    def stage(
        self, records: Mapping[str, Tensors], metadata: Mapping[str, str], name: str | None = None
    ) -> StagedShard:
        """Write records into a new shard, which counts when it is published.

        Args:
            records: Tensors by name, by record.
            metadata: Of the file.
            name: Of the shard; None makes one up.

        Raises:
            DiskError: The disk is full or cannot be written to.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        flat = {
            f"{record}/{each}": tensor.contiguous()
            for record, tensors in records.items()
            for each, tensor in tensors.items()
        }
        data = save(flat, dict(metadata))
        sizes = {record: sum(tensor.nbytes for tensor in tensors.values()) for record, tensors in records.items()}
        share, rest = divmod(len(data) - sum(sizes.values()), len(records))
        sums = {
            record: RecordSum(sizes[record] + share + (rest if i == 0 else 0), checksum_of_tensors(tensors))
            for i, (record, tensors) in enumerate(records.items())
        }
        return StagedShard(self.path(name or uuid4().hex), data, sums)

    def take(self, files: Sequence[Path]) -> None:
        """Let files of another folder be shards of this one, too. O(files), or O(bytes) where they cannot be linked.

        Call it with the database locked for writing, before the transaction that names them is committed.

        Raises:
            DiskError: They cannot be.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                here = self.folder / file.name
                here.unlink(missing_ok=True)
                try:
                    here.hardlink_to(file)
                except OSError:  # on some file systems
                    write_whole(here, file.read_bytes())
            _sync_folder(self.folder)

    def read(self, place: Place, record: str) -> dict[str, Tensor]:
        """Read a record and compare it with its checksum: O(its bytes). The file is memory-mapped.

        Raises:
            CorruptTensorError: The shard is missing or no safetensors file, or the record is not what was written.
        """
        path = self.path(place.shard)
        try:
            with safe_open(path, framework="pt") as file:
                start = f"{record}/"
                names = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118 - it is no dict
                tensors = {name.removeprefix(start): file.get_tensor(name) for name in names}
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise CorruptTensorError(_unreadable(record, path, str(error))) from error
        if checksum_of_tensors(tensors) != place.checksum:
            raise CorruptTensorError(_unreadable(record, path, "its checksum is another than when it was written"))
        return tensors

    def read_many(self, shard: str, checksums: Mapping[str, str | None]) -> dict[str, Tensors]:
        """Return those records of a shard that are what was written, in the order asked for; the file is opened once.

        Args:
            shard: Its name.
            checksums: By record.
        """
        found: dict[str, dict[str, Tensor]] = {record: {} for record in checksums}
        try:
            with safe_open(self.path(shard), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dict
                    record, _, each = name.partition("/")
                    if record in found:
                        found[record][each] = file.get_tensor(name)
        except (OSError, SafetensorError, ValueError, RuntimeError):
            return {}
        return {record: held for record, held in found.items() if checksum_of_tensors(held) == checksums[record]}

    def read_shared(self, shard: str, expected: str) -> dict[str, Tensor]:
        """Read a shard of one record that belongs to no slot.

        Args:
            shard: Its name, and that of the record.
            expected: Checksum of the file.

        Raises:
            CorruptTensorError: It is not what was written.
        """
        damage = self.damage(shard, expected)
        if damage is not None:
            raise CorruptTensorError(
                f"{self.path(shard)}, which all slots are read with, {damage}: put back a copy of it, or delete it and "
                "run trimem repair, which compiles all slots again"
            )
        with safe_open(self.path(shard), framework="pt") as file:
            return {name.removeprefix(f"{shard}/"): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def metadata(self, shard: str) -> dict[str, str]:
        """Return what was written with a shard; nothing if it cannot be read."""
        try:
            with safe_open(self.path(shard), framework="pt") as file:
                return dict(file.metadata() or {})
        except (OSError, SafetensorError, ValueError):
            return {}

    def damage(self, shard: str, expected: str) -> str | None:
        """Return what is wrong with a shard's file as a whole, None if it is as it was written. O(bytes)."""
        try:
            found = checksum(self.path(shard).read_bytes())
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return None if found == expected else "is not what was written"

    def delete(self, shards: Iterable[str]) -> None:
        """Remove shards; those that are gone already do not matter."""
        for shard in shards:
            with disk_errors(self.path(shard)):
                self.path(shard).unlink(missing_ok=True)

    def strays(self, known: Collection[str]) -> list[Path]:
        """Return the files that are neither a known shard nor being written by anyone alive."""
        there = {self.path(shard) for shard in known}
        return [
            path
            for path in self.folder.rglob("*")
            if (path.suffix == SUFFIX and path not in there) or (path.suffix == _STAGED and _abandoned(path))
        ]

    def sweep(self, known: Collection[str]) -> Swept:
        """Remove all strays. Call it with the database locked for writing, so that no shard is being published.

        Raises:
            DiskError: One cannot be removed.
        """
        files = freed = 0
        with disk_errors(self.folder), _folder_locked(self.folder, sweeping=True):
            for path in self.strays(known):
                freed += path.stat().st_size
                path.unlink()
                files += 1
            for folder in self.folder.glob("*/"):
                if not any(folder.iterdir()):
                    folder.rmdir()  # of a bank that had a file a record
        return Swept(files, freed)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says what to do.

    Raises:
        DiskError: It refused.
    """
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}. Nothing of this call was stored: make room, or let "
            "this user write there, and call it again"
        ) from error


def _unreadable(record: str, path: Path, why: str) -> str:
    return (
        f"the tensors of slot {record} cannot be read from {path}: {why}. Run trimem repair, and what is damaged is "
        "compiled again from its stored text"
    )


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and a rename is synced with the file
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _folder_locked(folder: Path, *, sweeping: bool) -> Iterator[None]:
    """Hold off sweeping while staged files are made and locked, and the other way round."""
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if sweeping else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _lock(file: IO[bytes]) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _abandoned(path: Path) -> bool:
    """Return whether nobody alive is writing a staged file; elsewhere than on POSIX, one in use cannot be removed."""
    if os.name != "posix":
        return True
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # locked, or gone by now
    return True
