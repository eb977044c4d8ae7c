# SPDX-License-Identifier: GPL-3.0-or-later
"""The instances that are measured: media directories as Papermerge 2.0 lays them out, and the databases of them.

Papermerge makes the OCR text of a page when the document comes in, previews and hOCR when somebody looks at the page;
so few pages have them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.instances import MadeInstance

USERS = 5
#: Where a document's own file is, and what is made from it.
KINDS = ORIGINALS, DERIVED = b"docs/%b", b"results/%b"
#: Numbers below belong to the user's folder and to what else Papermerge makes by itself.
FIRST_DOCUMENT = 2
#: A preview in percent of its size and about so many bytes; the smallest one has no hOCR beside it.
PREVIEWS = {125: 150_000, 100: 100_000, 75: 65_000, 50: 35_000, 10: 4_000}
SMALLEST_PREVIEW = 10
HOCR_BYTES = (5_000, 35_000)
SMALLEST_PDF = 4_096
HOLE_HEAD = 64 << 10

#: Content is cut from buffers. A stamp in every block keeps what deduplicates from finding any block twice.
NOISE_BYTES = 32 << 20
BLOCK = 64 << 10
STAMP_BYTES = 32
WORDS = 600_000

PDF_HEAD, PDF_END = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", b"\n%%EOF\n"
JPEG_HEAD, JPEG_END = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00H\x00H\x00\x00", b"\xff\xd9"
TITLES = ("Rechnung", "Invoice", "Contract", "Kündigung", "Lohnsteuer", "Letter", "Gehaltsabrechnung Müller", "scan")


@dataclass(frozen=True)
class Shape:
    """What a tree is like at scale 1; see SHAPES.

    ``text_share``: of the documents, that many have pages of text instead of pictures. ``fullest``: share of the pages
    that one document has, in one directory. ``holes``: a document is a page of text and then a hole, which takes no
    room but is read, hashed and sent as any other bytes.
    """

    words: str
    documents: int
    pages: int
    viewed: int
    media_bytes: int
    text_bytes: tuple[int, int] = (500, 3_500)
    text_share: float = 0.0
    fullest: float = 0.0
    holes: bool = False


_ORDINARY = Shape("2.1 GB, hardly shrinks", 4_000, 46_883, 1_404, 2_140_000_000)
_SMALL = Shape("small files", 20_000, 980_000, 0, 0, (200, 1_500))
SHAPES = {
    "incompressible": _ORDINARY,
    "half-text": replace(_ORDINARY, words="2.1 GB, half of it text", text_share=0.5),
    "million": replace(_SMALL, words="1 million small files"),
    "million-one-directory": replace(_SMALL, words="1 million small files, half in one directory", fullest=0.5),
    "hundred-thousand": replace(_SMALL, words="100,000 small files", documents=2_000, pages=98_000),
    "large": Shape("20 GB, mostly holes", 2_000, 20_000, 0, 20_000_000_000, holes=True),
    "large-tenth": Shape("2 GB, mostly holes", 200, 2_000, 0, 2_000_000_000, holes=True),
}


@dataclass(frozen=True)
class Tree:
    """Counts of what was made; ``directories`` includes the media directory itself. ``example``: path of a document."""

    files: int
    directories: int
    media_bytes: int
    database_bytes: int
    example: str


def room_for(shape: Shape, scale: float) -> int:
    """Return about how many bytes a tree of that shape takes in memory, inodes and blocks included."""
    files = shape.documents + shape.pages + shape.viewed * 9
    text = shape.pages * sum(shape.text_bytes) // 2
    content = files * 4096 + shape.documents * HOLE_HEAD if shape.holes else max(shape.media_bytes, text)
    return int((content + files * 3500) * scale) + (64 << 20)


@dataclass(frozen=True)
class _Document:
    number: int
    user: int
    name: str
    pdf_bytes: int
    pages: int
    viewed: frozenset[int]
    text: bool
    hole: bool


class MadeTree:
    """An instance below ``root``: ``media`` and ``db/db.sqlite3``. Equal seeds make equal content.

    ``root`` may be another name of the directory than the one by which it is backed up.
    """

    def __init__(self, root: Path, shape: Shape, scale: float, seed: int) -> None:
        self._shape, self._scale, self._seed = shape, scale, seed
        self._chance = random.Random(seed)
        self._content = _Content(self._chance, shape)
        self.instance = MadeInstance(root)
        with closing(self.instance.connect()) as connection:
            connection.executemany(
                "insert into core_user (id, username) values (?, ?)",
                ((number, f"user{number}") for number in range(2, USERS + 1)),
            )
        documents = list(_documents(self._chance, shape, scale, FIRST_DOCUMENT))
        writer = self._write(documents)
        self._next = self._first_added = documents[-1].number + 1
        #: The directories of the documents that :meth:`grow` has added.
        self.grown: list[Path] = []
        middle = documents[len(documents) // 2]
        self.tree = Tree(
            writer.files, writer.directories, writer.bytes, self.instance.database.stat().st_size, _original(middle)
        )

    def grow(self, share: float) -> Tree:
        """Add documents, so many as are a share of the first ones, with all their files and rows; returns what came."""
        documents = list(_documents(self._chance, self._shape, self._scale * share, self._next))
        self._next = documents[-1].number + 1
        writer = self._write(documents)
        self.grown += [
            self.instance.media / os.fsdecode(kind % _folder(document)) for kind in KINDS for document in documents
        ]
        return Tree(writer.files, writer.directories, writer.bytes, 0, _original(documents[0]))

    def shrink(self) -> None:
        """Take away what :meth:`grow` has added."""
        for place in self.grown:
            shutil.rmtree(place)
        self.grown.clear()
        with closing(self.instance.connect()) as connection:
            connection.execute("begin")
            for table, column in (
                ("core_page", "document_id"),
                ("core_document", "basetreenode_ptr_id"),
                ("core_basetreenode", "id"),
            ):
                connection.execute(f"delete from {table} where {column} >= ?", (self._first_added,))
            connection.execute("commit")
        self._next = self._first_added

    def _write(self, documents: list[_Document]) -> _Writer:
        writer = _Writer(self.instance.media)
        for document in documents:
            _write_document(writer, self._content, self._chance, document)
        _fill_database(self.instance, self._content, documents)
        return writer


def _documents(chance: random.Random, shape: Shape, scale: float, first: int) -> Iterator[_Document]:
    count = max(1, round(shape.documents * scale))
    pages = [1] * count
    popular = [chance.expovariate(1.0) for _number in range(count)]
    if shape.fullest:
        popular[0] = sum(popular) * shape.fullest / (1 - shape.fullest)
    for index in chance.choices(range(count), popular, k=max(0, round(shape.pages * scale) - count)):
        pages[index] += 1
    owners = [index for index, number in enumerate(pages) for _page in range(number)]
    firsts = [0] * count
    for index in range(1, count):
        firsts[index] = firsts[index - 1] + pages[index - 1]
    viewed: dict[int, set[int]] = {}
    for place in chance.sample(range(len(owners)), min(len(owners), round(shape.viewed * scale))):
        viewed.setdefault(owners[place], set()).add(place - firsts[owners[place]] + 1)

    text = sum(pages) * sum(shape.text_bytes) // 2
    hocr = (len(PREVIEWS) - 1) * sum(HOCR_BYTES) // 2
    seen = sum(map(len, viewed.values())) * (hocr + sum(PREVIEWS.values()))
    weights = [chance.lognormvariate(0.0, 1.0) for _number in range(count)]
    unit = max(0.0, shape.media_bytes * scale - text - seen) / sum(weights)
    for index in range(count):
        title = f"{chance.choice(TITLES)} {chance.randrange(2009, 2022)}-{chance.randrange(1, 13):02}.pdf"
        yield _Document(
            number=first + index,
            user=index % USERS + 1,
            name=title,
            pdf_bytes=max(SMALLEST_PDF, int(weights[index] * unit)),
            pages=pages[index],
            viewed=frozenset(viewed.get(index, ())),
            text=index % 100 < shape.text_share * 100,
            hole=shape.holes,
        )


class _Content:
    """Bytes of every kind, as views into buffers."""

    def __init__(self, chance: random.Random, shape: Shape) -> None:
        self._chance = chance
        self._page_bytes = shape.text_bytes
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
        return [self._slice(self._text, self._page_bytes)]

    def prose(self, size: int, head: bytes, end: bytes) -> list[bytes | memoryview]:
        """Return pieces that shrink as text does, ``size`` bytes together with what they begin and end with."""
        pieces: list[bytes | memoryview] = [head]
        left = size - len(head) - len(end)
        while left > 0:
            piece = self._slice(self._text, (BLOCK // 4, BLOCK))[:left]
            pieces.append(piece)
            left -= len(piece)
        return [*pieces, end]

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
            self._made.add(path)
            try:
                os.mkdir(self._root + b"/" + path)
                self.directories += 1
            except FileExistsError:
                pass  # of documents that were there before
        return path

    def write(self, path: bytes, pieces: list[bytes | memoryview], hole_to: int = 0) -> None:
        """Write a new file; with ``hole_to`` it is that long, and what the pieces do not fill is a hole."""
        descriptor = os.open(self._root + b"/" + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            for first in range(0, len(pieces), 512):
                os.writev(descriptor, pieces[first : first + 512])
            if hole_to:
                os.ftruncate(descriptor, hole_to)
            self.bytes += os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        self.files += 1


def _folder(document: _Document) -> bytes:
    return b"user_%d/document_%d" % (document.user, document.number)


def _original(document: _Document) -> str:
    return os.fsdecode(ORIGINALS % _folder(document)) + "/" + document.name


def _write_document(writer: _Writer, content: _Content, chance: random.Random, document: _Document) -> None:
    originals = writer.directory(ORIGINALS % _folder(document))
    make = content.prose if document.text or document.hole else content.noise
    written = min(document.pdf_bytes, HOLE_HEAD) if document.hole else document.pdf_bytes
    pieces = make(written, PDF_HEAD, PDF_END)
    writer.write(originals + b"/" + document.name.encode("utf-8"), pieces, document.pdf_bytes if document.hole else 0)
    pages = writer.directory(DERIVED % _folder(document) + b"/pages")
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
