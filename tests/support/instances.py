# SPDX-License-Identifier: GPL-3.0-or-later
"""Papermerge 2.0 instances without Papermerge: a media directory and a SQLite database with the tables that matter."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

VERSION = "2.0.2"
MARKER = "0039_auto_20210216_1014"
ORIGINAL = b"%PDF-1.4 an original\n"

_SCHEMA = """
create table django_migrations (id integer primary key autoincrement, app varchar(255), name varchar(255),
                                applied datetime);
create table core_user (id integer primary key autoincrement, username varchar(150) not null unique);
create table core_basetreenode (id integer primary key autoincrement, title varchar(200) not null,
                                user_id integer not null, parent_id integer);
create table core_folder (basetreenode_ptr_id integer not null primary key);
create table core_document (basetreenode_ptr_id integer not null primary key, file_name varchar(1024) not null,
                            size bigint not null, page_count integer not null, text text not null, version integer);
create table core_page (id integer primary key autoincrement, number integer not null, page_count integer not null,
                        text text not null, document_id integer not null);
create table core_tag (id integer primary key autoincrement, name varchar(100));
create table auth_group (id integer primary key autoincrement, name varchar(150));
"""


class MadeInstance:
    """An instance below ``root``: ``media`` and ``database``, with a user and a folder and no documents at first."""

    def __init__(self, root: Path, page_size: int = 4096, journal_mode: str = "delete") -> None:
        self.root = root
        self.media = root / "media"
        self.database = root / "db" / "db.sqlite3"
        self.media.mkdir(parents=True)
        self.database.parent.mkdir()
        with closing(self.connect()) as connection:
            connection.execute(f"pragma page_size = {page_size}")
            connection.execute(f"pragma journal_mode = {journal_mode}").fetchone()
            connection.executescript(_SCHEMA)
            connection.execute("insert into django_migrations (app, name) values ('core', ?)", (MARKER,))
            connection.execute("insert into django_migrations (app, name) values ('auth', '0099_other')")
            connection.execute("insert into core_user (username) values ('admin')")
            connection.execute("insert into core_basetreenode (title, user_id) values ('folder', 1)")
            connection.execute("insert into core_folder values (1)")

    @property
    def database_url(self) -> str:
        return "sqlite:///" + quote(str(self.database))

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database, isolation_level=None)

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        with closing(self.connect()) as connection:
            connection.execute(statement, values)

    def count(self, table: str) -> int:
        with closing(self.connect()) as connection:
            return int(connection.execute(f"select count(*) from {table}").fetchone()[0])

    def add_document(
        self,
        content: bytes | None = ORIGINAL,
        name: bytes = b"scan.pdf",
        version: int = 0,
        page_count: int = 1,
        user: int = 1,
    ) -> bytes:
        """Add a document as an upload does, the file first. Returns its path below the media directory.

        ``content`` None leaves the file out.
        """
        with closing(self.connect()) as connection:
            connection.execute("begin immediate")
            cursor = connection.execute(
                "insert into core_basetreenode (title, user_id) values ('document', ?)", (user,)
            )
            number = int(cursor.lastrowid or 0)
            folder = b"v%d/" % version if version else b""
            path = b"docs/user_%d/document_%d/%b%b" % (user, number, folder, name)
            if content is not None:
                self.write(path, content)
            # Names are bytes on disk; SQLite keeps whatever it is told is text.
            connection.execute(
                "insert into core_document values (?, cast(? as text), ?, ?, '', ?)",
                (number, name, len(content or b""), page_count, version),
            )
            connection.execute(
                "insert into core_page (number, page_count, text, document_id) values (1, 1, '', ?)", (number,)
            )
            connection.execute("commit")
        return path

    def path(self, relative: bytes) -> bytes:
        return os.path.join(os.fsencode(self.media), relative)

    def write(self, relative: bytes, content: bytes) -> None:
        """Write a file below the media directory, with its directories."""
        path = self.path(relative)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(content)


def files_below(root: Path | bytes) -> dict[bytes, tuple[bytes, int, int]]:
    """Return (content, mtime_ns, permissions) of every regular file below a directory, by relative path.

    Walks by descriptors, so that paths longer than PATH_MAX are no obstacle.
    """
    found: dict[bytes, tuple[bytes, int, int]] = {}

    def walk(descriptor: int, prefix: bytes) -> None:
        with os.scandir(descriptor) as entries:
            names = [os.fsencode(entry.name) for entry in entries]
        for name in names:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if status.st_mode & 0o170000 == 0o040000:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
                try:
                    walk(inner, prefix + name + b"/")
                finally:
                    os.close(inner)
            else:
                inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor)
                with os.fdopen(inner, "rb") as stream:
                    found[prefix + name] = (stream.read(), status.st_mtime_ns, status.st_mode & 0o777)

    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        walk(top, b"")
    finally:
        os.close(top)
    return found
