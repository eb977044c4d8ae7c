# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files that open: one of each kind whose structure a drill knows."""

from __future__ import annotations

import struct
import zlib

#: One page, without anything on it.
_OBJECTS = (
    b"<< /Type /Catalog /Pages 2 0 R >>",
    b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] >>",
)


def pdf() -> bytes:
    """A PDF: header, one page, cross-reference table, trailer."""
    text, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(_OBJECTS, 1):
        offsets.append(len(text))
        text += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1)
    tail = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(offsets) + 1, len(text))
    return text + head + table + tail


def png() -> bytes:
    """A PNG of one grey pixel."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    )


def jpeg() -> bytes:
    """The structure of a progressive JPEG: two scans, with stuffed bytes and a restart marker in them."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    frame = segment(0xC2, struct.pack(">BHHB", 8, 1, 1, 1) + b"\1\x11\0")
    scan = segment(0xDA, b"\1\1\0\0\x3f\0")
    return (
        b"\xff\xd8" + segment(0xE0, b"JFIF\0") + frame + scan + b"\1\xff\0\2\xff\xd0\3" + scan + b"\4\5" + b"\xff\xd9"
    )


def tiff(order: str = "<") -> bytes:
    """A TIFF of one white pixel, in the byte order of struct's letter."""
    fields = ((256, 1), (257, 1), (273, 8), (279, 1))
    directory = struct.pack(order + "H", len(fields))
    directory += b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in fields)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return head + struct.pack(order + "I", 12) + b"\xff\0\0\0" + directory + struct.pack(order + "I", 0)
