# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep using the database and the media of a Papermerge 3.5 on PostgreSQL as Papermerge does, until SIGTERM.

Rows and files are written in Papermerge 3.5's order: an upload writes its files first and then commits their rows; a
page operation commits the new version's row first (of size 0) and then writes its file; the next upload takes over a
version of size 0 and overwrites its file in place, or leaves it beside one of another name; a deletion leaves files.

Argument: {"rate", "seed", "log", "media", "documents": about how many to keep}; DATABASE_URL in the environment. It
prints and logs as every writer does.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
from psycopg2.extras import register_uuid

#: Files are written in two halves; in between they are short, as a large one is for longer.
HALF_SECONDS = (0.0, 0.12)
#: Between a page operation's commit and its file.
LATE_SECONDS = (0.0, 0.6)
_BEGIN, _END = b"%PDF-1.4 of version ", b"\n%%EOF\n"


def content_of(version: uuid.UUID, rng: random.Random) -> bytes:
    """Return a file that says which version it belongs to and whether it is whole."""
    body = str(version).encode() + b"\n" + rng.randbytes(rng.randrange(200, 30_000))
    return _BEGIN + body + hashlib.sha256(body).hexdigest().encode() + _END


def is_whole(content: bytes, version: str) -> bool:
    """Tell whether a file is one that :func:`content_of` made for this version, from its first byte to its last."""
    if not (content.startswith(_BEGIN + version.encode()) and content.endswith(_END)):
        return False
    body, digest = content[len(_BEGIN) : -64 - len(_END)], content[-64 - len(_END) : -len(_END)]
    return hashlib.sha256(body).hexdigest().encode() == digest


def path_of_version(version: uuid.UUID | str, name: str) -> str:
    text = str(version)
    return f"docvers/{text[:2]}/{text[2:4]}/{text}/{name}"


@dataclass
class Document:
    """``versions``: ids, oldest first. ``takes_over``: the newest has size 0, so that the next upload is put there."""

    node: uuid.UUID
    name: str
    pages: int = 0
    versions: list[uuid.UUID] = field(default_factory=list)
    takes_over: bool = True

    @property
    def newest(self) -> uuid.UUID:
        return self.versions[-1]


class ModelWriter:
    """The documents that the writer made, and what it does with them."""

    def __init__(self, url: str, media: Path, seed: int, documents: int) -> None:
        self._dice = random.Random(seed)
        self._media = media
        self._wanted = documents
        self._known: list[Document] = []
        self._made = 0
        register_uuid()  # type: ignore[no-untyped-call]
        self._connection = psycopg2.connect(url)
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute("select id, home_folder_id from users order by username limit 1")
            self._user, home = cursor.fetchone() or (None, None)
            self._folders = [home] + [self._node(cursor, f"written during a backup {seed}", "folder", home)]
            cursor.execute("insert into folders (node_id) values (%s)", (self._folders[1],))

    def step(self) -> tuple[str, Document]:
        """Do one thing; return its name and the document."""
        new = [self.upload_pdf, self.upload_image, self.create_only]
        if len(self._known) < 4:
            choices = new
        else:
            choices = [self.page_operation, self.page_operation, self.interrupted_page_operation, self.upload_again]
            choices += [self.upload_again, self.rename, self.move, self.delete]
            choices += [self.delete] * 3 if len(self._known) > self._wanted else new
        operation = self._dice.choice(choices)
        return operation.__name__, operation()

    # What a user does

    def create_only(self) -> Document:
        """A document for which nothing has been uploaded yet."""
        self._made += 1
        document = Document(uuid.uuid4(), f"scan {self._made} äöü.pdf")
        with self._connection, self._connection.cursor() as cursor:
            self._node(cursor, document.name, "document", self._folders[0], document.node)
            cursor.execute(
                "insert into documents (node_id, ocr, ocr_status) values (%s, false, 'UNKNOWN')", (document.node,)
            )
            self._version(cursor, document, None, 0)
        self._known.append(document)
        return document

    def upload_pdf(self) -> Document:
        document = self.create_only()
        self._upload(document, document.name)
        return document

    def upload_image(self) -> Document:
        """What is no PDF becomes two versions: the original and the PDF made of it."""
        document = self.create_only()
        original, image = document.newest, document.name.replace(".pdf", ".jpg")
        converted = uuid.uuid4()
        self._write(original, image)
        self._write(converted, image + ".pdf")
        with self._connection, self._connection.cursor() as cursor:
            self._fill(cursor, document, original, image, 1)
            self._version(cursor, document, image + ".pdf", 1, converted)
            cursor.execute("update document_versions set size = 1000 where id = %s", (converted,))
        document.name, document.pages, document.takes_over = image + ".pdf", 1, False
        return document

    def upload_again(self) -> Document:
        """The next upload goes to a version of size 0 if there is one: in place, or under another name."""
        document = self._dice.choice(self._known)
        other = self._dice.random() < 0.5
        self._upload(document, f"again {self._made} {document.name}"[:80] if other else document.name)
        return document

    def page_operation(self) -> Document:
        document = self._pick_with_pages()
        self._commit_page_operation(document)
        time.sleep(self._dice.uniform(*LATE_SECONDS))
        self._write(document.newest, document.name)
        return document

    def interrupted_page_operation(self) -> Document:
        """Papermerge ends before it has written the file, and the next upload brings another name."""
        document = self._pick_with_pages()
        self._commit_page_operation(document)
        time.sleep(self._dice.uniform(*LATE_SECONDS))
        self._made += 1
        self._upload(document, f"instead {self._made}.pdf")
        return document

    def rename(self) -> Document:
        document = self._dice.choice(self._known)
        self._made += 1
        self._execute("update nodes set title = %s where id = %s", f"renamed {self._made}", document.node)
        return document

    def move(self) -> Document:
        document = self._dice.choice(self._known)
        self._execute("update nodes set parent_id = %s where id = %s", self._dice.choice(self._folders), document.node)
        return document

    def delete(self) -> Document:
        document = self._dice.choice(self._known)
        self._execute("delete from nodes where id = %s", document.node)
        self._known.remove(document)
        return document

    # What it is made of

    def _pick_with_pages(self) -> Document:
        return self._dice.choice([document for document in self._known if document.pages] or [self.upload_pdf()])

    def _upload(self, document: Document, name: str) -> None:
        pages = self._dice.randint(1, 3)
        version = document.newest if document.takes_over else uuid.uuid4()
        self._write(version, name)
        with self._connection, self._connection.cursor() as cursor:
            if document.takes_over:
                self._fill(cursor, document, version, name, pages)
            else:
                self._version(cursor, document, name, pages, version)
                cursor.execute("update document_versions set size = 1000 where id = %s", (version,))
        document.name, document.pages, document.takes_over = name, pages, False

    def _commit_page_operation(self, document: Document) -> None:
        document.pages = max(1, document.pages - 1)
        with self._connection, self._connection.cursor() as cursor:
            self._version(cursor, document, document.name, document.pages)
        document.takes_over = True

    def _execute(self, statement: str, *values: object) -> None:
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(statement, values)

    def _node(
        self,
        cursor: psycopg2.extensions.cursor,
        title: str,
        ctype: str,
        parent: uuid.UUID,
        node: uuid.UUID | None = None,
    ) -> uuid.UUID:
        node = node or uuid.uuid4()
        cursor.execute(
            "insert into nodes (id, title, ctype, lang, user_id, parent_id, created_at, updated_at)"
            " values (%s, %s, %s, 'deu', %s, %s, now(), now())",
            (node, title, ctype, self._user, parent),
        )
        return node

    def _version(
        self,
        cursor: psycopg2.extensions.cursor,
        document: Document,
        name: str | None,
        pages: int,
        version: uuid.UUID | None = None,
    ) -> None:
        version = version or uuid.uuid4()
        cursor.execute(
            "insert into document_versions (id, number, file_name, document_id, lang, size, page_count)"
            " values (%s, %s, %s, %s, 'deu', 0, %s)",
            (version, len(document.versions) + 1, name, document.node, pages),
        )
        self._pages(cursor, version, pages)
        document.versions.append(version)

    def _fill(
        self, cursor: psycopg2.extensions.cursor, document: Document, version: uuid.UUID, name: str, pages: int
    ) -> None:
        cursor.execute(
            "update document_versions set file_name = %s, size = 1000, page_count = %s where id = %s",
            (name, pages, version),
        )
        self._pages(cursor, version, pages)

    def _pages(self, cursor: psycopg2.extensions.cursor, version: uuid.UUID, pages: int) -> None:
        for number in range(1, pages + 1):
            cursor.execute(
                "insert into pages (id, number, page_count, lang, document_version_id) values (%s, %s, %s, 'deu', %s)",
                (uuid.uuid4(), number, pages, version),
            )

    def _write(self, version: uuid.UUID, name: str) -> None:
        path = self._media / path_of_version(version, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content_of(version, self._dice)
        with path.open("wb", buffering=0) as stream:
            stream.write(content[: len(content) // 2])
            time.sleep(self._dice.uniform(*HALF_SECONDS))
            stream.write(content[len(content) // 2 :])


def main() -> None:
    request = json.loads(sys.argv[1])
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    writer = ModelWriter(os.environ["DATABASE_URL"], Path(request["media"]), request["seed"], request["documents"])
    operations: Counter[str] = Counter()
    print("ready", flush=True)
    with open(request["log"], "a", encoding="utf-8") as log:
        due = time.monotonic()
        while not stopped:
            began = time.time()
            name, document = writer.step()
            operations[name] += 1
            entry = {"began": began, "time": time.time(), "operation": name, "document": str(document.node)}
            log.write(json.dumps(entry) + "\n")
            log.flush()
            due = max(due + 1 / request["rate"], time.monotonic() - 1)
            while not stopped and time.monotonic() < due:
                time.sleep(min(0.05, max(0, due - time.monotonic())))
    print(json.dumps({"operations": operations}), flush=True)


if __name__ == "__main__":
    main()
