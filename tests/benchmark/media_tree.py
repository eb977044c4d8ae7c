# SPDX-License-Identifier: GPL-3.0-or-later
"""The instance that is measured: a media directory as Papermerge 2.0 lays it out, and the database that belongs to it.

At scale 1: 63,519 files in 20,437 directories, 2.14 GB that hardly shrink. Papermerge makes the OCR text of a page when
the document comes in, previews and hOCR when somebody looks at the page; so few pages have them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.support.instances import MadeInstance

USERS = 5
DOCUMENTS = 4_000
PAGES = 46_883
VIEWED_PAGES = 1_404
MEDIA_BYTES = 2_140_000_000
#: A preview in percent of its size and about so many bytes; the smallest one has no hOCR beside it.
PREVIEWS = {125: 150_000, 100: 100_000, 75: 65_000, 50: 35_000, 10: 4_000}
SMALLEST_PREVIEW = 10
TEXT_BYTES = (500, 3_500)
HOCR_BYTES = (5_000, 35_000)
SMALLEST_PDF = 4_096

#: Content is cut from buffers. A stamp in every block keeps what deduplicates from finding any block twice.
NOISE_BYTES = 32 << 20
BLOCK = 64 << 10
STAMP_BYTES = 32
WORDS = 600_000

PDF_HEAD, PDF_END = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", b"\n%%EOF\n"
JPEG_HEAD, JPEG_END = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00H\x00H\x00\x00", b"\xff\xd9"
TITLES = ("Rechnung", "Invoice", "Contract", "Kündigung", "Lohnsteuer", "Letter", "Gehaltsabrechnung Müller", "scan")


@dataclass(frozen=True)
class Tree:
    """Counts of what was made; ``directories`` includes the media directory itself."""

    files: int
    directories: int
    media_bytes: int
    database_bytes: int


@dataclass(frozen=True)
class _Document:
    number: int
    user: int
    name: str
    pdf_bytes: int
    pages: int
    viewed: frozenset[int]


def make_tree(root: Path, scale: float, seed: int) -> Tree:
    """Make an instance below ``root``: ``media`` and ``db/db.sqlite3``. Equal seeds make equal content."""
    chance = random.Random(seed)
    instance = MadeInstance(root)
    content = _Content(chance)
    writer = _Writer(instance.media)
    documents = list(_documents(chance, scale))
    for document in documents:
        _write_document(writer, content, chance, document)
    _fill_database(instance, content, documents)
    return Tree(writer.files, writer.directories, writer.bytes, instance.database.stat().st_size)


def _documents(chance: random.Random, scale: float) -> Iterator[_Document]:
    count = max(1, round(DOCUMENTS * scale))
    pages = [1] * count
    popular = [chance.expovariate(1.0) for _number in range(count)]
    for index in chance.choices(range(count), popular, k=max(0, round(PAGES * scale) - count)):
        pages[index] += 1
    owners = [index for index, number in enumerate(pages) for _page in range(number)]
    firsts = [0] * count
    for index in range(1, count):
        firsts[index] = firsts[index - 1] + pages[index - 1]
    viewed: dict[int, set[int]] = {}
    for place in chance.sample(range(len(owners)), min(len(owners), round(VIEWED_PAGES * scale))):
        viewed.setdefault(owners[place], set()).add(place - firsts[owners[place]] + 1)

    text = sum(pages) * sum(TEXT_BYTES) // 2
    hocr = (len(PREVIEWS) - 1) * sum(HOCR_BYTES) // 2
    seen = sum(map(len, viewed.values())) * (hocr + sum(PREVIEWS.values()))
    weights = [chance.lognormvariate(0.0, 1.0) for _number in range(count)]
    unit = (MEDIA_BYTES * scale - text - seen) / sum(weights)
    for index in range(count):
        title = f"{chance.choice(TITLES)} {chance.randrange(2009, 2022)}-{chance.randrange(1, 13):02}.pdf"
        yield _Document(
            number=index + 2,
            user=index % USERS + 1,
            name=title,
            pdf_bytes=max(SMALLEST_PDF, int(weights[index] * unit)),
            pages=pages[index],
            viewed=frozenset(viewed.get(index, ())),
        )


class _Content:
    """Bytes of every kind, as views into buffers."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._noise = memoryview(chance.randbytes(NOISE_BYTES))
        letters = "aabcdeeeefghiijklmnnoprrsstttuvwyzäöü"
        vocabulary = ["".join(chance.choices(letters, k=chance.randrange(2, 13))) for _word in range(5000)]
        words = chance.choices(vocabulary, k=WORDS)
        self._text = memoryview(" ".join(words).encode("utf-8"))
        line = "<span class='ocrx_word' id='word_1_{}' title='bbox {} {} {} {}; x_wconf {}'>{}</span>\n"
        spans = []
        for number, word in enumerate(words[: WORDS // 10]):
            left, top = chance.randrange(2000), chance.randrange(3000)
            spans.append(line.format(number, left, top, left + 90, top + 40, chance.randrange(30, 99), word))
        self._hocr = memoryview("".join(spans).encode("utf-8"))

    def noise(self, size: int, head: bytes, end: bytes) -> list[bytes | memoryview]:
        """Return pieces that do not shrink, ``size`` bytes together with what they begin and end with."""
        pieces: list[bytes | memoryview] = [head]
        left = size - len(head) - len(end)
        place = self._chance.randrange(NOISE_BYTES - BLOCK)
        while left > 0:
            stamp = self._chance.randbytes(min(left, STAMP_BYTES))
            left -= len(stamp)
            length = min(left, BLOCK, NOISE_BYTES - place)
            pieces += [stamp, self._noise[place : place + length]]
            left -= length
            place = (place + length) % NOISE_BYTES
        return [*pieces, end]

    def text(self) -> list[bytes | memoryview]:
        """Return the OCR text of a page."""
        return [self._slice(self._text, TEXT_BYTES)]

    def hocr(self) -> list[bytes | memoryview]:
        """Return the hOCR of a page."""
        return [b"<?xml version='1.0'?>\n<html>\n", self._slice(self._hocr, HOCR_BYTES), b"</html>\n"]

    def snippet(self, number: int) -> str:
        """Return some words, for the database."""
        place = number * 97 % (len(self._text) - 400)
        return bytes(self._text[place : place + 200]).decode("utf-8", "replace")

    def _slice(self, buffer: memoryview, sizes: tuple[int, int]) -> memoryview:
        size = self._chance.randrange(*sizes)
        place = self._chance.randrange(len(buffer) - size)
        return buffer[place : place + size]


class _Writer:
    """Writes files below a directory and counts."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._made = {b""}
        self.files = 0
        self.directories = 1
        self.bytes = 0

    def directory(self, path: bytes) -> bytes:
        """Make a directory with its parents and return its path."""
        if path not in self._made:
            self.directory(path.rpartition(b"/")[0])
            os.mkdir(self._root + b"/" + path)
            self._made.add(path)
            self.directories += 1
        return path

    def write(self, path: bytes, pieces: list[bytes | memoryview]) -> None:
        descriptor = os.open(self._root + b"/" + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            for first in range(0, len(pieces), 512):
                self.bytes += os.writev(descriptor, pieces[first : first + 512])
        finally:
            os.close(descriptor)
        self.files += 1


def _write_document(writer: _Writer, content: _Content, chance: random.Random, document: _Document) -> None:
    of_user = b"user_%d/document_%d" % (document.user, document.number)
    originals = writer.directory(b"docs/" + of_user)
    writer.write(originals + b"/" + document.name.encode("utf-8"), content.noise(document.pdf_bytes, PDF_HEAD, PDF_END))
    pages = writer.directory(b"results/" + of_user + b"/pages")
    digits = len(str(document.pages))
    for page in range(1, document.pages + 1):
        number = b"%0*d" % (digits, page)
        writer.write(b"%b/page_%b.txt" % (pages, number), content.text())
        if page in document.viewed:
            for percent, size in PREVIEWS.items():
                place = writer.directory(b"%b/page_%b/%d" % (pages, number, percent))
                picture = content.noise(int(size * chance.uniform(0.7, 1.3)), JPEG_HEAD, JPEG_END)
                writer.write(b"%b/page-%b.jpg" % (place, number), picture)
                if percent != SMALLEST_PREVIEW:
                    writer.write(b"%b/page-%b.hocr" % (place, number), content.hocr())


def _fill_database(instance: MadeInstance, content: _Content, documents: list[_Document]) -> None:
    with closing(instance.connect()) as connection:
        connection.execute("pragma synchronous = off")
        connection.execute("begin")
        connection.executemany(
            "insert into core_user (id, username) values (?, ?)",
            ((number, f"user{number}") for number in range(2, USERS + 1)),
        )
        connection.executemany(
            "insert into core_basetreenode (id, title, user_id, parent_id) values (?, ?, ?, 1)",
            ((document.number, document.name, document.user) for document in documents),
        )
        connection.executemany(
            "insert into core_document values (?, ?, ?, ?, '', 0)",
            ((document.number, document.name, document.pdf_bytes, document.pages) for document in documents),
        )
        connection.executemany(
            "insert into core_page (number, page_count, text, document_id) values (?, ?, ?, ?)",
            (
                (page, document.pages, content.snippet(document.number * 1000 + page), document.number)
                for document in documents
                for page in range(1, document.pages + 1)
            ),
        )
        connection.execute("commit")
