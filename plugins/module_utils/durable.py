# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are on disk when we say so, and that nobody else can read."""

from __future__ import annotations

import os
from typing import BinaryIO, Iterator, List, Optional, Union

Piece = Union[bytes, memoryview]
StrPath = Union[str, "os.PathLike[str]"]

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
PIECE = 1 << 20
#: What Linux takes in one call.
_PIECES_AT_ONCE = 1024


def open_private(path: StrPath) -> BinaryIO:
    """Open a new file for writing with mode 0600 from the moment it exists. Raises FileExistsError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
    return os.fdopen(descriptor, "w+b")


def make_private_directory(path: StrPath) -> None:
    """Make one directory with mode 0700. Raises FileExistsError."""
    os.mkdir(path, PRIVATE_DIRECTORY)


def sync_file(stream: BinaryIO) -> None:
    """Flush a file and wait until its content is on disk."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_directory(path: StrPath) -> None:
    """Wait until a directory's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: StrPath, content: bytes) -> None:
    """Write a new private file and wait until it is on disk (its directory has still to be synced)."""
    with open_private(path) as stream:
        stream.write(content)
        sync_file(stream)


def pieces(stream: BinaryIO, size: int = PIECE) -> Iterator[bytes]:
    """Yield a file's content in pieces of at most ``size`` bytes."""
    while True:
        piece = stream.read(size)
        if not piece:
            return
        yield piece


def write_pieces(descriptor: int, pieces: List[Piece]) -> None:
    """Write pieces one after another to a descriptor, without joining them."""
    for start in range(0, len(pieces), _PIECES_AT_ONCE):
        some = pieces[start : start + _PIECES_AT_ONCE]
        written = os.writev(descriptor, some)
        for piece in some:
            if written >= len(piece):
                written -= len(piece)
                continue
            view = memoryview(piece)[written:]
            written = 0
            while view:
                view = view[os.write(descriptor, view) :]


class ExactReader:
    """Reads of an exact length from pieces that arrive as they like; a shorter answer means the end.

    A piece may be a view of a buffer that is used again for the next one.
    """

    def __init__(self, source: Iterator[Piece]) -> None:
        self._source = source
        self._piece = memoryview(b"")

    def some(self, length: int) -> Union[bytes, memoryview]:
        """Return at least one byte and at most so many, uncopied; nothing at the end."""
        while not self._piece:
            piece = next(self._source, None)
            if piece is None:
                return b""
            self._piece = memoryview(piece)
        taken = self._piece[:length]
        self._piece = self._piece[length:]
        return taken

    def at_hand(self, length: int) -> Optional[memoryview]:
        """Return exactly so many bytes, uncopied and still to be read, if the present piece has them, else None."""
        return self._piece[:length] if length <= len(self._piece) else None

    def read(self, length: int) -> bytes:
        if length <= len(self._piece):
            taken = bytes(self._piece[:length])
            self._piece = self._piece[length:]
            return taken
        parts = [bytes(self._piece)]
        missing = length - len(self._piece)
        self._piece = memoryview(b"")
        while missing:
            piece = next(self._source, None)
            if piece is None:
                break
            view = memoryview(piece)
            parts.append(bytes(view[:missing]))
            self._piece = view[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)
