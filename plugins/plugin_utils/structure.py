# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an original is what it says it is, by its structure: PDF, JPEG, PNG, TIFF.

That shows a file that is whole from its beginning to its end. Nothing is drawn: whether a person can read what is on
the page is not known afterwards.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zlib
from collections.abc import Callable

OTHER = "other"
#: How a file of a kind begins. A PDF may have something before it.
_BEGINNINGS = {
    "pdf": (b"%PDF-",),
    "jpeg": (b"\xff\xd8\xff",),
    "png": (b"\x89PNG\r\n\x1a\n",),
    "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
_SUFFIXES = {b".pdf": "pdf", b".jpg": "jpeg", b".jpeg": "jpeg", b".png": "png", b".tif": "tiff", b".tiff": "tiff"}
#: Bytes within which readers look for the header and the end of a PDF.
PDF_MARGIN = 1024
#: Directories of a TIFF, one a page: more than any scan has, less than a chain that bites its tail.
MAX_DIRECTORIES = 100_000


class BrokenError(Exception):
    """The file is not whole; the text says what is missing."""


def kind_of(path: bytes, content: mmap.mmap) -> str:
    """Return what a file says it is: by its first bytes, else by its name."""
    for kind, beginnings in _BEGINNINGS.items():
        if content[:8].startswith(beginnings):
            return kind
    if b"%PDF-" in content[:PDF_MARGIN]:
        return "pdf"
    return _SUFFIXES.get(os.path.splitext(path)[1].lower(), OTHER)


def examine(path: bytes, content: mmap.mmap) -> tuple[str, str]:
    """Return the kind of a file and what is wrong with it; nothing where it opens, or where its kind is not known."""
    kind = kind_of(path, content)
    try:
        if kind in _READERS:
            _READERS[kind](content)
    except BrokenError as error:
        return kind, str(error)
    except (struct.error, IndexError):
        return kind, "it ends too early"
    return kind, ""


def _read_pdf(content: mmap.mmap) -> None:
    begin = content[:PDF_MARGIN].find(b"%PDF-")
    if begin < 0:
        raise BrokenError("it does not begin as a PDF")
    tail = content[-PDF_MARGIN:]
    end = tail.rfind(b"%%EOF")
    found = re.findall(rb"startxref\s+(\d+)", tail[: max(end, 0)])
    if end < 0 or not found:
        raise BrokenError("the end of a PDF is missing")
    # Offsets count from the header, where something stands before it.
    for offset in (int(found[-1]), int(found[-1]) + begin):
        head = content[offset : offset + PDF_MARGIN].lstrip()
        if head.startswith(b"xref"):
            trailer = content.find(b"trailer", offset)
            if trailer < 0 or b"/Root" not in content[trailer : content.find(b"startxref", trailer)]:
                raise BrokenError("its cross-reference table has no trailer with a catalogue")
            return
        if re.match(rb"\d+\s+\d+\s+obj\b", head):
            if b"/XRef" not in head:
                raise BrokenError("its cross-reference stream is none")
            return
    raise BrokenError("its cross-reference table is not where the end says")


#: A marker that is none of the bytes of an image: not a stuffed zero, a restart or a filler.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


def _read_jpeg(content: mmap.mmap) -> None:
    if content[:2] != b"\xff\xd8":
        raise BrokenError("it does not begin as a JPEG")
    place, frame, scans = 2, False, 0
    while True:
        found = _JPEG_MARKER.search(content, place)
        if found is None:
            raise BrokenError("the end of the JPEG is missing")
        if not scans and content[place : found.start()].strip(b"\xff"):
            raise BrokenError("there are bytes between the segments of the JPEG")
        marker, place = content[found.start() + 1], found.end()
        if marker == 0xD9:
            break
        (length,) = struct.unpack(">H", content[place : place + 2])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _height, width = struct.unpack(">HH", content[place + 3 : place + 7])
            frame = width > 0
        scans += marker == 0xDA
        place += length
    if not frame or not scans:
        raise BrokenError("the JPEG holds no image")


def _read_png(content: mmap.mmap) -> None:
    place = 8
    names: list[bytes] = []
    if content[:8] != _BEGINNINGS["png"][0]:
        raise BrokenError("it does not begin as a PNG")
    while not names or names[-1] != b"IEND":
        (length,) = struct.unpack(">I", content[place : place + 4])
        body = content[place + 4 : place + 8 + length]
        (checksum,) = struct.unpack(">I", content[place + 8 + length : place + 12 + length])
        if zlib.crc32(body) != checksum:
            raise BrokenError("a checksum of the PNG is wrong")
        names.append(body[:4])
        place += 12 + length
    if names[0] != b"IHDR" or b"IDAT" not in names:
        raise BrokenError("the PNG holds no image")


#: Tags of a TIFF: where the pieces of the image are, and their sizes; as strips or as tiles.
_TIFF_PIECES = ((273, 279), (324, 325))
_TIFF_SIZES = {3: "H", 4: "I", 16: "Q"}


def _read_tiff(content: mmap.mmap) -> None:
    beginning = content[:4]
    if beginning not in _BEGINNINGS["tiff"]:
        raise BrokenError("it does not begin as a TIFF")
    order = "<" if beginning[:1] == b"I" else ">"
    # BigTIFF has eight bytes where the older form has four.
    wide = b"+" in beginning
    word, count_format, head = ("Q", "Q", 8) if wide else ("I", "H", 4)

    def number(letter: str, place: int) -> int:
        return int(struct.unpack_from(order + letter, content, place)[0])

    width, count_width = struct.calcsize(word), struct.calcsize(count_format)

    def values(entry: int) -> list[int]:
        letter = _TIFF_SIZES.get(number("H", entry + 2))
        count = number(word, entry + 4)
        if letter is None or count * struct.calcsize(letter) > len(content):
            raise BrokenError("a directory of the TIFF cannot be read")
        place = entry + 4 + width
        if count * struct.calcsize(letter) > width:
            place = number(word, place)
        return list(struct.unpack_from(f"{order}{count}{letter}", content, place))

    directory, seen = number(word, head), 0
    while directory:
        seen += 1
        if seen > MAX_DIRECTORIES:
            raise BrokenError("the directories of the TIFF have no end")
        entries: dict[int, int] = {}
        count = number(count_format, directory)
        size = 4 + 2 * width
        for place in range(directory + count_width, directory + count_width + count * size, size):
            entries[number("H", place)] = place
        for offsets, sizes in _TIFF_PIECES:
            if offsets in entries and sizes in entries:
                for offset, length in zip(values(entries[offsets]), values(entries[sizes]), strict=True):
                    if offset + length > len(content):
                        raise BrokenError("a piece of the image lies beyond the end of the TIFF")
                break
        else:
            raise BrokenError("a page of the TIFF holds no image")
        directory = number(word, directory + count_width + count * size)
    if not seen:
        raise BrokenError("the TIFF has no page")


_READERS: dict[str, Callable[[mmap.mmap], None]] = {
    "pdf": _read_pdf,
    "jpeg": _read_jpeg,
    "png": _read_png,
    "tiff": _read_tiff,
}
