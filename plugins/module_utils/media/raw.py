# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts that hold raw blocks alone: where their content lies in the file, and reading it from there.

Format: RFC 8878, 3.1.1.
"""

from __future__ import annotations

import os
from typing import Iterator, List, NamedTuple, Optional

from ..errors import DamageError
from .frames import BLOCK_BYTES, RAW_HEADER

_BLOCK_HEADER_BYTES = 3
#: Blocks of which the places are kept. Whole ones fill 8 GiB; a part of tiny ones is left to a reader of zstd.
MOST_BLOCKS = 1 << 16
#: Content that is read at once: it stays in the processor's cache while it is hashed and written.
_WINDOW = 4 * BLOCK_BYTES
#: Linux takes 1,024 pieces in one call, and each stretch has a gap before it.
_STRETCHES_AT_ONCE = 500
CUT_SHORT = "a stored file became shorter while it was read"


class Extent(NamedTuple):
    """A stretch of a file, in bytes."""

    offset: int
    size: int


def raw_extents(descriptor: int, start: int, end: int, most: int = MOST_BLOCKS) -> Optional[List[Extent]]:
    """Return where the contents of the raw blocks lie between two ends of frames, None unless there is nothing else.

    Also None for more than ``most`` blocks. Raises OSError.
    """
    extents: List[Extent] = []
    position = start
    while position < end:
        head = os.pread(descriptor, len(RAW_HEADER) + _BLOCK_HEADER_BYTES, position)
        if head[: len(RAW_HEADER)] != RAW_HEADER:
            return None
        position += len(RAW_HEADER)
        last = False
        while not last:
            block = int.from_bytes(os.pread(descriptor, _BLOCK_HEADER_BYTES, position), "little")
            last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            position += _BLOCK_HEADER_BYTES
            if kind or size > BLOCK_BYTES or position + size > end or len(extents) == most:
                return None
            if size:
                extents.append(Extent(position, size))
            elif not last:
                return None
            position += size
    return extents


def read_extents(descriptor: int, extents: List[Extent]) -> Iterator[memoryview]:
    """Yield the content of raw blocks, in views of a buffer that is used again for the next one.

    Blocks that follow each other are read together. Raises DamageError when the file has become shorter.
    """
    window = memoryview(bytearray(_WINDOW))
    gap = memoryview(bytearray(len(RAW_HEADER) + 2 * _BLOCK_HEADER_BYTES))
    position = 0
    while position < len(extents):
        start = end = extents[position].offset
        into: List[memoryview] = []
        filled = 0
        for offset, size in extents[position : position + _STRETCHES_AT_ONCE]:
            if offset - end > len(gap) or filled + size > _WINDOW:
                break
            into += [gap[: offset - end], window[filled : filled + size]]
            filled += size
            end = offset + size
            position += 1
        if os.preadv(descriptor, into, start) < end - start:
            _fill(descriptor, into, start)
        yield window[:filled]


def _fill(descriptor: int, into: List[memoryview], start: int) -> None:
    """Read again what one call did not bring, piece by piece."""
    for view in into:
        while view:
            count = os.preadv(descriptor, [view], start)
            if not count:
                raise DamageError(CUT_SHORT)
            start += count
            view = view[count:]
