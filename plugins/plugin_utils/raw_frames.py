# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is stored without being compressed: it can be sent as it lies in the file, and nobody has to unpack it.

Format: RFC 8878, 3.1.1. A part holds frames of raw blocks where a compressor would gain nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ansible_collections.papermerge.backup.plugins.module_utils.durable import PIECE
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError
from ansible_collections.papermerge.backup.plugins.module_utils.media.raw import MOST_BLOCKS, Extent, raw_extents
from ansible_collections.papermerge.backup.plugins.module_utils.snapshot.part import PartRecord
from ansible_collections.papermerge.backup.plugins.plugin_utils.stored import Tick, storage_reads, unpack
from ansible_collections.papermerge.backup.plugins.plugin_utils.transport.session import FilePiece

#: A part of which less than this share is raw is sent as it is stored: the target unpacks it as well as we.
_MOSTLY = 0.9


class RawFrames:
    """A part seen as stretches of whole frames, of which those made of raw blocks alone need no unpacking.

    A context manager. Raises DamageError when the part is missing, RepositoryError when it cannot be read.
    """

    def __init__(self, path: Path, record: PartRecord) -> None:
        self._path = path
        self._record = record
        with storage_reads(path):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._size = os.fstat(self._descriptor).st_size
            starts = record.frame_offsets
            with storage_reads(path):
                self._stretches = list(self._look(starts))
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> RawFrames:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)

    @property
    def prevail(self) -> bool:
        """Whether nearly all of the part is raw."""
        raw = sum(end - start for start, end, extents in self._stretches if extents is not None)
        return raw >= _MOSTLY * self._size

    def content(self, tick: Tick) -> Iterator[bytes | FilePiece]:
        """Yield the part's tar. ``tick`` is told the stored sizes."""
        for start, end, extents in self._stretches:
            if extents is None:
                yield from unpack(self._read(start, end), self._record.tar_size, str(self._path))
            else:
                for together in _together(extents):
                    yield FilePiece(self._descriptor, together)
            tick(end - start)

    def _look(self, starts: list[int]) -> Iterator[tuple[int, int, list[Extent] | None]]:
        room = MOST_BLOCKS
        for start, end in zip(starts, [*starts[1:], self._size], strict=True):
            extents = raw_extents(self._descriptor, start, end, room)
            room -= len(extents or ())
            yield start, end, extents

    def _read(self, start: int, end: int) -> Iterator[bytes]:
        with storage_reads(self._path):
            while start < end:
                piece = os.pread(self._descriptor, min(PIECE, end - start), start)
                if not piece:
                    raise DamageError(f"{self._path} is cut short")
                yield piece
                start += len(piece)


def _together(extents: Iterable[Extent]) -> Iterator[list[Extent]]:
    """Gather extents to pieces of about the size that one frame to an agent holds."""
    pending: list[Extent] = []
    size = 0
    for extent in extents:
        pending.append(extent)
        size += extent.size
        if size >= PIECE:
            yield pending
            pending, size = [], 0
    if pending:
        yield pending
