# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed files of a snapshot, written and read as streams on the controller."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ansible_collections.papermerge.backup.plugins.module_utils.durable import PIECE, open_private, pieces, sync_file
from ansible_collections.papermerge.backup.plugins.module_utils.errors import (
    DamageError,
    RepositoryError,
    SpaceError,
    ToolError,
    describe_os_error,
)
from ansible_collections.papermerge.backup.plugins.module_utils.media.archive import ArchivedFile, in_tar
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.manifest import StoredFile, StoredPart
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import (
    MAX_RECORD_BYTES,
    PartMember,
    PartRecord,
    decode_record,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.frame_watch import FrameWatch
from ansible_collections.papermerge.backup.plugins.plugin_utils.repository import PART_SUFFIX, RECORD_SUFFIX

try:
    import zstandard
except ImportError:  # said by require_zstandard, where it is needed
    zstandard = None  # type: ignore[assignment]

LEVEL = 1
#: Memory that a frame may ask for when it is read. Level 1 needs 0.5 MiB; this is what the zstd program allows, too.
MAX_WINDOW = 128 << 20
#: Stored bytes that are unpacked at once.
MOUTHFUL = 4096


def require_zstandard() -> None:
    """Raise ToolError when the controller lacks the zstandard library."""
    if zstandard is None:
        raise ToolError("the controller's Python has no zstandard library; install it: pip install zstandard")


class StoredWriter:
    """Writes one file of a snapshot, counting and hashing what is stored.

    ``packed``: what is written is compressed already. Otherwise it is compressed here, one frame until
    :meth:`end_frame`. A full disk raises SpaceError.
    """

    def __init__(self, path: Path, packed: bool) -> None:
        self.path = path
        self.size = 0
        self.plain_size = 0
        self._digest = hashlib.sha256()
        self._packed = packed
        self._frame: zstandard.ZstdCompressionObj | None = None
        self._watch = FrameWatch(path.name)
        with storage_errors(path):
            self._stream: BinaryIO = open_private(path)

    def write(self, data: bytes) -> None:
        if not self._packed:
            self.plain_size += len(data)
            if self._frame is None:
                self._frame = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
            data = self._frame.compress(data)
        else:
            self._watch.feed(data)
        self._store(data)

    def end_frame(self) -> None:
        """End the zstd frame, so that the next write begins another. Raises ToolError for a packed one cut short."""
        if self._packed and not self._watch.ended:
            self._watch.end()
        if self._frame is not None:
            self._store(self._frame.flush())
            self._frame = None

    def _store(self, data: bytes) -> None:
        if data:
            with storage_errors(self.path):
                self._stream.write(data)
            self._digest.update(data)
            self.size += len(data)

    def finish(self) -> str:
        """Bring the file to disk and return its SHA-256 in hex."""
        self.end_frame()
        with storage_errors(self.path):
            sync_file(self._stream)
            self._stream.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        # After a failed write the rest of the buffer fails as well: the first failure is the one to tell.
        with contextlib.suppress(OSError):
            self._stream.close()


class storage_errors:
    """Turns an OSError of the controller's storage into SpaceError or RepositoryError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError):
            text = f"cannot write {self._path}: {describe_os_error(error)}"
            if error.errno in (28, 122):  # ENOSPC, EDQUOT
                raise SpaceError(f"{text}; free some room for the repository") from None
            raise RepositoryError(text) from None


def store(path: Path, plain: Iterable[bytes]) -> StoredFile:
    """Compress pieces into a new file of a snapshot."""
    writer = StoredWriter(path, packed=False)
    try:
        for piece in plain:
            writer.write(piece)
        if writer.plain_size == 0:
            writer.write(b"")
        sha256 = writer.finish()
    finally:
        writer.close()
    return StoredFile(path.name, writer.size, sha256, writer.plain_size)


def part_members(files: Iterable[ArchivedFile], offsets: list[int]) -> list[PartMember]:
    """Return the members of a part's record. ``offsets``: where each frame begins in the stored part."""
    return [PartMember(file.path, file.size, file.sha256, offsets[file.frame]) for file in files if in_tar(file)]


class PartWriter:
    """Writes a part and, after its last byte, its commit record, both in ``directory``."""

    host_path = ""

    def __init__(self, directory: Path, packed: bool) -> None:
        self.id = secrets.token_hex(16)
        self._directory = directory
        self._writer = StoredWriter(directory / (self.id + PART_SUFFIX), packed)
        self._offsets = [0]

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def end_frame(self, _event: dict[str, Any]) -> None:
        self._writer.end_frame()
        self._offsets.append(self._writer.size)

    def finish(self, files: Iterable[ArchivedFile], result: dict[str, Any]) -> StoredPart:
        """Write the record of a part. ``files``: in the order of the tar; those not in the tar are passed over."""
        sha256 = self._writer.finish()
        members = part_members(files, self._offsets)
        record = PartRecord(self.id, self._writer.size, sha256, result["tar_size"], members)
        stored = store(self._directory / (self.id + RECORD_SUFFIX), [record.encode()])
        return StoredPart(self.id, self._writer.size, sha256, stored.size, stored.sha256)

    def discard(self) -> None:
        """Remove a part that holds no member."""
        self._writer.close()
        self._writer.path.unlink()

    def close(self) -> None:
        self._writer.close()


def unpack(source: Iterable[bytes], limit: int, name: str) -> Iterator[bytes]:
    """Unpack zstd frames that stand one after another. Raises DamageError beyond ``limit`` bytes of content."""
    require_zstandard()
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    frame: zstandard.ZstdDecompressionObj | None = None
    total = 0
    for piece in source:
        view = memoryview(piece)
        position = 0
        while position < len(view):
            if frame is None:
                frame = decompressor.decompressobj(write_size=1 << 18)
            # Small mouthfuls: a piece of zeros unpacks to some thousand times its size.
            mouthful = view[position : position + MOUTHFUL]
            try:
                plain = frame.decompress(mouthful)
            except zstandard.ZstdError as error:
                raise DamageError(f"{name} is damaged: {error}") from None
            position += len(mouthful)
            if frame.eof:
                position -= len(frame.unused_data)
                frame = None
            if plain:
                total += len(plain)
                if total > limit:
                    raise DamageError(f"{name} holds more than its record says")
                yield plain
    if frame is not None:
        raise DamageError(f"{name} is cut short")


def read_stored(path: Path, size: int = PIECE) -> Iterator[bytes]:
    """Yield a stored file in pieces of at most ``size`` bytes.

    Raises DamageError when it is missing, RepositoryError when it cannot be read.
    """
    with storage_reads(path), open(path, "rb", buffering=0) as stream:
        yield from pieces(stream, size)


@contextlib.contextmanager
def storage_reads(path: Path) -> Iterator[None]:
    """Turn an OSError while a stored file is read into DamageError where it is missing, else into RepositoryError."""
    try:
        yield
    except FileNotFoundError:
        raise DamageError(f"{path} is missing") from None
    except OSError as error:
        raise RepositoryError(describe_os_error(error)) from None


def checked(source: Iterable[bytes], size: int, sha256: str, name: str) -> Iterator[bytes]:
    """Pass pieces on and raise DamageError at their end unless size and SHA-256 are these."""
    digest = hashlib.sha256()
    found = 0
    for piece in source:
        digest.update(piece)
        found += len(piece)
        yield piece
    require_stored(name, (found, digest.hexdigest()), (size, sha256))


def require_stored(name: str, found: tuple[int, str], recorded: tuple[int, str]) -> None:
    """Raise DamageError unless size in bytes and SHA-256 of what is stored are the recorded ones."""
    if found[0] != recorded[0]:
        raise DamageError(f"{name} has {found[0]:,} bytes, its record says {recorded[0]:,}")
    if found[1] != recorded[1]:
        raise DamageError(f"{name} was changed: its SHA-256 is not the recorded one")


def load_record(path: Path, part: StoredPart) -> PartRecord:
    """Read a part's commit record and check it against the manifest. Raises DamageError."""
    text = b"".join(
        unpack(checked(read_stored(path), part.record_size, part.record_sha256, str(path)), MAX_RECORD_BYTES, str(path))
    )
    record = decode_record(text)
    if (record.part, record.size, record.sha256) != (part.id, part.size, part.sha256):
        raise DamageError(f"{path} is the record of another part than the manifest names")
    return record


def stored_size(path: Path) -> int | None:
    """Return the size of a stored file in bytes, or None when it is not there as a file."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_size if os.path.isfile(path) else None


Tick = Callable[[int], object]


def counted(source: Iterable[bytes], tick: Tick) -> Iterator[bytes]:
    """Pass pieces on and tell the size of each."""
    for piece in source:
        tick(len(piece))
        yield piece
