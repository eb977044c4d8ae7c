# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head of an archive of pg_dump --format=custom: which pg_restore it needs."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Iterator, Optional, Tuple

from ...errors import DamageError

#: How an archive begins; its version follows, in a byte for each number.
MAGIC = b"PGDMP"
#: The major version of pg_dump since which an archive has this version, which older pg_restores do not read.
ARCHIVE_MAJORS = (((1, 16), 17), ((1, 15), 16), ((0, 0), 12))
#: Since this major version pg_dump writes the schema public of an older server as one that is there already, and with
#: --no-owner older pg_restores make it all the same, which ends in an error.
PUBLIC_SCHEMA_MAJOR = 15
#: Where the compression became one byte instead of a number.
_COMPRESSION_BYTE = (1, 15)
_CREATION_NUMBERS = 7
#: Longer than any head: three short texts and a few numbers.
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class ArchiveHead:
    """Major versions. ``reader``: the oldest pg_restore that reads the archive. ``loader``: that loads it, too."""

    reader: int
    loader: int


def read_head(content: Iterator[bytes]) -> Tuple[ArchiveHead, Iterator[bytes]]:
    """Return what an archive's head says, and the content again. Raises DamageError for what is no archive."""
    head = b""
    for piece in content:
        head += piece
        if len(head) >= _HEAD_BYTES:
            break
    if not head.startswith(MAGIC) or len(head) < len(MAGIC) + 2:
        raise DamageError(
            "this is no dump that pg_dump --format=custom has made: it begins with {0!r}".format(head[:5])
        )
    version = (head[len(MAGIC)], head[len(MAGIC) + 1])
    reader = next(major for since, major in ARCHIVE_MAJORS if version >= since)
    server, dumped_by = _majors(head, version)
    return ArchiveHead(reader, max(reader, loader_major(dumped_by, server))), itertools.chain([head], content)


def loader_major(dumped_by: int, server: int) -> int:
    """Return the oldest major version whose pg_restore loads what this one's pg_dump has made of a server's database.

    0 for a version that nobody knows.
    """
    reader = next((major for _since, major in ARCHIVE_MAJORS if dumped_by >= major), ARCHIVE_MAJORS[-1][1])
    if dumped_by >= PUBLIC_SCHEMA_MAJOR > server > 0:
        return max(reader, PUBLIC_SCHEMA_MAJOR)
    return reader


def _majors(head: bytes, version: Tuple[int, int]) -> Tuple[int, int]:
    """Return the major versions of the server and of pg_dump; 0 for what cannot be read."""
    # After the version: its third number, the sizes of numbers and offsets, the format.
    numbers = _Numbers(head, len(MAGIC) + 6, head[len(MAGIC) + 3] if len(head) > len(MAGIC) + 3 else 0)
    try:
        if version >= _COMPRESSION_BYTE:
            numbers.position += 1
        else:
            numbers.number()
        for _number in range(_CREATION_NUMBERS):
            numbers.number()
        numbers.text()  # the database's name
        return _major(numbers.text()), _major(numbers.text())
    except IndexError:
        return 0, 0


def _major(text: Optional[bytes]) -> int:
    found = re.match(rb"(\d{1,3})", text or b"")
    return int(found.group(1)) if found else 0


class _Numbers:
    """Reads an archive's numbers, a byte for the sign before each, and its texts. Raises IndexError at the end."""

    def __init__(self, content: bytes, position: int, size: int) -> None:
        self._content = content
        self._size = size
        self.position = position

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if size < 0 or end > len(self._content):
            raise IndexError
        taken = self._content[self.position : end]
        self.position = end
        return taken

    def number(self) -> int:
        sign, *digits = self._take(1 + self._size)
        value = int.from_bytes(bytes(digits), "little")
        return -value if sign else value

    def text(self) -> Optional[bytes]:
        size = self.number()
        return None if size < 0 else self._take(size)
