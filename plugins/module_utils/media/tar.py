# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tar of a part: POSIX pax, regular files only, names as bytes.

Format: IEEE Std 1003.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from ..errors import DamageError
from ..paths import MAX_PATH, shown

BLOCK = 512
#: Two blocks of zeros end an archive.
END_OF_ARCHIVE = bytes(2 * BLOCK)
#: A pax header holds a path, a size and a time: more than this is not ours.
MAX_PAX = MAX_PATH + 4096
MAX_OCTAL_7 = 0o7777777
MAX_OCTAL_11 = 0o77777777777


_ZEROS = bytes(BLOCK)
_NOT_ZEROS = "the archive has something else than zeros after a member"
Piece = Union[bytes, memoryview]


class Member(NamedTuple):
    path: bytes
    size: int


def padding(size: int) -> int:
    """Return the number of zero bytes after a member of ``size`` bytes."""
    return -size % BLOCK


def tar_bytes(header: bytes, size: int) -> int:
    """Return how many bytes a member with this header and content size takes in the tar."""
    return len(header) + size + padding(size)


#: A piece of a header that many files share, and the sum of its bytes, for the checksum.
_Fields = Tuple[bytes, int]


@lru_cache(maxsize=256)
def _owner_fields(mode: int, uid: int, gid: int) -> _Fields:
    fields = b"%07o\0%07o\0%07o\0" % (mode & 0o7777, uid, gid)
    return fields, sum(fields)


@lru_cache(maxsize=256)
def _name_fields(owner: str, group: str) -> _Fields:
    names = [name.encode("utf-8", "replace")[:31].ljust(32, b"\0") for name in (owner, group)]
    fields = bytes(100) + b"ustar\x0000" + b"".join(names) + b"%07o\0%07o\0" % (0, 0)
    return fields, sum(fields)


def _ustar(name: bytes, prefix: bytes, owner: _Fields, size: int, mtime: int, kind: bytes, names: _Fields) -> bytes:
    """Return one block. ``owner`` and ``names`` come from the two functions above."""
    numbers = b"%011o\0%011o\0" % (size, mtime)
    # The checksum is that of the block with eight spaces in its own place.
    checksum = sum(name) + owner[1] + sum(numbers) + 8 * 32 + kind[0] + names[1] + sum(prefix)
    return b"%b%b%b%06o\0 %b%b%b" % (
        name.ljust(100, b"\0"),
        owner[0],
        numbers,
        checksum,
        kind,
        names[0],
        prefix.ljust(167, b"\0"),
    )


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = b" %b=%b\n" % (key, value)
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d%b" % (length, body)


def _split(path: bytes) -> Optional[Tuple[bytes, bytes]]:
    if len(path) <= 100:
        return b"", path
    cut = path.find(b"/", max(len(path) - 101, 1))
    if 0 < cut <= 155 and len(path) - cut - 1 <= 100:
        return path[:cut], path[cut + 1 :]
    return None


def member_header(
    path: bytes,
    size: int,
    mode: int = 0o600,
    mtime: int = 0,
    uid: int = 0,
    gid: int = 0,
    owner: str = "",
    group: str = "",
) -> bytes:
    """Return the header of a regular file: one block, or a pax header and one block where a value does not fit.

    ``size`` in bytes, ``mtime`` in seconds since 1970. A name that is not UTF-8 and does not fit the block gets
    ``hdrcharset=BINARY``, as pax demands.
    """
    extended: List[bytes] = []
    split = _split(path)
    if split is None:
        try:
            path.decode("utf-8")
        except UnicodeDecodeError:
            extended.append(_pax_record(b"hdrcharset", b"BINARY"))
        extended.append(_pax_record(b"path", path))
        split = b"", path[-100:]
    if not (0 <= size <= MAX_OCTAL_11 and 0 <= mtime <= MAX_OCTAL_11 and max(uid, gid) <= MAX_OCTAL_7):
        size, mtime, uid, gid = _extend(extended, size, mtime, uid, gid)
    header = _ustar(split[1], split[0], _owner_fields(mode, uid, gid), size, mtime, b"0", _name_fields(owner, group))
    if not extended:
        return header
    body = b"".join(extended)
    pax = _ustar(b"././@PaxHeader", b"", _owner_fields(0o600, 0, 0), len(body), 0, b"x", _name_fields("", ""))
    return pax + body + bytes(padding(len(body))) + header


def _extend(extended: List[bytes], size: int, mtime: int, uid: int, gid: int) -> Tuple[int, int, int, int]:
    """Put values that do not fit a block into the extended header; returns what the block gets instead."""
    fitting = []
    for key, value, limit in (
        (b"size", size, MAX_OCTAL_11),
        (b"mtime", mtime, MAX_OCTAL_11),
        (b"uid", uid, MAX_OCTAL_7),
        (b"gid", gid, MAX_OCTAL_7),
    ):
        fits = 0 <= value <= limit
        if not fits:
            extended.append(_pax_record(key, b"%d" % value))
        fitting.append(value if fits else 0)
    return fitting[0], fitting[1], fitting[2], fitting[3]


def _sum(block: bytes) -> int:
    """Return the sum of the bytes of a block. Half of Adler-32 is a sum modulo 65,521, which 256 bytes do not reach."""
    return (zlib.adler32(block[:256], 0) & 0xFFFF) + (zlib.adler32(block[256:], 0) & 0xFFFF)


class TarReader:
    """Reads a tar as a stream, member after member, and refuses everything but regular files.

    ``read(n)`` returns exactly n bytes, or fewer at the end; ``some(n)``, for contents, at least one byte of n until
    the end; ``at_hand(n)`` the next n bytes, without reading them, if nothing has to be waited for, else None. A budget
    in bytes bounds what is read at all.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        budget: int,
        some: Optional[Callable[[int], Piece]] = None,
        at_hand: Optional[Callable[[int], Optional[Piece]]] = None,
    ) -> None:
        self._source = read
        self._some = some or read
        self._at_hand = at_hand or (lambda _length: None)
        self._budget = budget

    def _read(self, length: int) -> bytes:
        if length > self._budget:
            raise DamageError("the archive is longer than its record says")
        data = self._source(length)
        if len(data) < length:
            raise DamageError("the archive ends early")
        self._budget -= length
        return data

    def next_member(self) -> Optional[Member]:
        """Return the next member, or None at the end of the archive. The content must have been read."""
        pax: Dict[bytes, bytes] = {}
        while True:
            block = self._read(BLOCK)
            if not block[0] and block == _ZEROS:
                if self._read(BLOCK) != _ZEROS:
                    raise DamageError("the archive has a lone zero block")
                return None
            kind = self._check(block)
            size = self._number(block[124:136])
            if kind != b"x":
                break
            if pax or size > MAX_PAX:
                raise DamageError("the archive has an extended header that was not written by this collection")
            pax = self._records(self._read(size + padding(size))[:size])
        name = block[:100].partition(b"\0")[0]
        prefix = block[345:500].split(b"\0", 1)[0] if block[345] else b""
        path = prefix + b"/" + name if prefix else name
        if pax:
            path = pax.get(b"path", path)
        if kind not in (b"0", b"\0"):
            raise DamageError(
                "the archive holds something else than a regular file (type {0!r}): {1}".format(
                    kind.decode("ascii", "replace"), shown(path)
                )
            )
        if b"size" in pax:
            size = self._decimal(pax[b"size"])
        return Member(path, size)

    def at_once(self, path: bytes, size: int) -> Optional[Piece]:
        """Return the content of the next member if it is the one named, written as it mostly is, and all of it at hand.

        Otherwise return None, and nothing is read. The content may be a view of a buffer that is used again for what
        is read next. Raises DamageError for a wrong checksum or padding.
        """
        length = BLOCK + size + padding(size)
        if length > self._budget:
            return None
        found = self._at_hand(length)
        if found is None or not self._is_plain(bytes(found[:BLOCK]), path, size):
            return None
        self._budget -= length
        self._some(length)
        end = BLOCK + size
        if found[end:] != _ZEROS[: length - end]:
            raise DamageError(_NOT_ZEROS)
        return found[BLOCK:end]

    @classmethod
    def _is_plain(cls, block: bytes, path: bytes, size: int) -> bool:
        return (
            block[:100].rstrip(b"\0") == path
            and not block[345]
            and block[124:136] == b"%011o\0" % size
            and cls._check(block) == b"0"
        )

    def content(self, size: int, write: Callable[[Piece], object]) -> None:
        """Pass the content of the member just returned to ``write`` in pieces of at most 1 MiB."""
        for piece in self.pieces(size):
            write(piece)

    def pieces(self, size: int) -> Iterator[Piece]:
        """Yield the content of the member just returned in pieces of at most 1 MiB. It must be read to its end.

        A piece may be a view of a buffer that is used again for the next one.
        """
        if size > self._budget:
            raise DamageError("the archive is longer than its record says")
        self._budget -= size
        left = size
        while left:
            piece = self._some(min(left, 1 << 20))
            if not piece:
                raise DamageError("the archive ends early")
            left -= len(piece)
            yield piece
        filling = -size % BLOCK
        if filling and self._read(filling) != _ZEROS[:filling]:
            raise DamageError(_NOT_ZEROS)

    def finish(self) -> None:
        """Check that nothing follows the end of the archive."""
        if self._source(1):
            raise DamageError("the archive goes on after its end")

    @staticmethod
    def _check(block: bytes) -> bytes:
        found = _sum(block) - sum(block[148:156]) + 8 * 32
        if block[148:156] == b"%06o\0 " % found:
            return block[156:157]
        try:
            stored = int(block[148:156].rstrip(b"\0 ") or b"x", 8)
        except ValueError:
            stored = -1
        if stored != found:
            raise DamageError("the archive has a header with a wrong checksum")
        return block[156:157]

    @staticmethod
    def _number(field: bytes) -> int:
        digits = field.rstrip(b"\0 ") or b"0"
        # int() would take a sign, too: a negative size would give back what was used of the budget.
        if digits.isdigit():
            try:
                return int(digits, 8)
            except ValueError:
                pass
        raise DamageError("the archive has a header with a field that is not a number")

    @staticmethod
    def _decimal(value: bytes) -> int:
        if not value.isdigit() or len(value) > 19:
            raise DamageError("the archive has an extended header with a size that is not a number")
        return int(value)

    @staticmethod
    def _records(body: bytes) -> Dict[bytes, bytes]:
        found: Dict[bytes, bytes] = {}
        position = 0
        while position < len(body):
            space = body.find(b" ", position, position + 8)
            digits = body[position:space] if space > 0 else b""
            end = position + int(digits) if digits.isdigit() else 0
            if end <= space or end > len(body) or body[end - 1 : end] != b"\n":
                raise DamageError("the archive has a broken extended header")
            key, equals, value = body[space + 1 : end - 1].partition(b"=")
            if not equals:
                raise DamageError("the archive has a broken extended header")
            found[key] = value
            position = end
        return found
