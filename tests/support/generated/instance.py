# SPDX-License-Identifier: GPL-3.0-or-later
"""Small instances of every release line on every engine, known by construction."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from tests.support.generated import early, later, middle
from tests.support.generated.builder import Builder
from tests.support.generated.content import plan_documents
from tests.support.generated.engines import load, mysql_script, postgres_script, stored_text, write_sqlite
from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer

#: One with everything that URLs, settings files, SQL and shells treat as theirs.
PASSWORD = "p@ss:w/o rd%41'\"\\$&#?=[é]"
LARGE_TEXT = 1 << 20


@dataclasses.dataclass(frozen=True)
class Line:
    """`versions` and their schema markers, the default first."""

    engines: tuple[str, ...]
    versions: dict[str, str]
    build: Callable[[Builder], None]


LINES = {
    "1.x": Line(("sqlite", "postgresql", "mysql"), {"1.5.5": "0034_auto_20201201_1116"}, early.build),
    "2.0": Line(("sqlite", "postgresql", "mysql"), {"2.0.2": "0039_auto_20210216_1014"}, early.build),
    "2.1": Line(
        ("sqlite", "postgresql", "mysql"),
        {
            "2.1.9": "0009_remove_basetreenode_unique title per parent_and_more",
            "2.1.5": "0009_remove_basetreenode_unique title per parent_and_more",
            "2.1.0": "0003_alter_basetreenode_polymorphic_ctype_and_more",
        },
        middle.build,
    ),
    "3.0-3.2": Line(
        ("sqlite", "postgresql", "mysql"),
        {"3.2": "0001_initial", "3.1": "0001_initial", "3.0.3": "0001_initial"},
        middle.build,
    ),
    "3.3": Line(("sqlite", "postgresql"), {"3.3.1": "f0e0da122a9a"}, later.build),
    "3.4": Line(("sqlite", "postgresql"), {"3.4.1": "bafd773c8533"}, later.build),
    # From 3.5.2 on, Papermerge itself cannot make a SQLite database.
    "3.5": Line(
        ("postgresql", "sqlite"),
        {"3.5.3": "50ef5a403d27", "3.5.2": "b2350127890a", "3.5.1": "2118951c4d90", "3.5.0": "2118951c4d90"},
        later.build,
    ),
    "3.6": Line(("postgresql",), {"3.6.0": "bb19aac50bca"}, later.build),
}
#: Every (line, engine) that there is, for parametrize.
COMBINATIONS = tuple((name, engine) for name, line in LINES.items() for engine in line.engines)


@dataclasses.dataclass(frozen=True)
class GeneratedInstance:
    """An instance and all that is true of it. Paths are bytes, relative to `media`.

    `database` is the SQLite file, or the name at the server, which is also that of the role that owns it; `script` is
    what psql or MariaDB's client runs to make the same again elsewhere (b"" for SQLite). `database_url` is "" when no
    server was given. `marker` is the last migration of core or the alembic version.

    `counts`: rows of every table. `ids`: the values of the key column of each table, as a query prints them.
    `expected`: files that must exist because a row says so, `expected_rows` rows that say so (two may name one file).
    `never_uploaded`: rows without a file. `not_computable`: older versions whose paths the database does not know.
    `orphan_rows`: version rows of deleted documents, which belong to no node any more.
    `unprocessed`: files of rows with page_count 0, as 3.6 leaves them until a worker has looked at an upload.
    `unnamed`: original files that no row names, `derived`: files that Papermerge can make again. `sha256` has every
    file in `media`, as hexadecimal digits.
    """

    line: str
    engine: str
    version: str
    marker: str
    media: Path
    database: str
    database_url: str
    password: str
    script: bytes
    counts: dict[str, int]
    ids: dict[str, tuple[str, ...]]
    expected: frozenset[bytes]
    expected_rows: int
    never_uploaded: int
    not_computable: int
    orphan_rows: int
    unprocessed: frozenset[bytes]
    unnamed: frozenset[bytes]
    derived: frozenset[bytes]
    sha256: dict[bytes, str]


def generate(
    line: str,
    engine: str,
    where: Path,
    seed: int = 1,
    *,
    documents: int = 0,
    server: PostgresServer | MariaServer | None = None,
    name: str = "papermerge",
    password: str = PASSWORD,
    version: str | None = None,
    large_text: int = LARGE_TEXT,
) -> GeneratedInstance:
    """Make an instance of a line of LINES on "sqlite", "postgresql" or "mysql".

    Below `where`, which is made: the directory media, and for SQLite the file db.sqlite3. With a server, the database
    `name` in it, which must not exist, owned by the role `name` with that password. `documents`: at least so many (one
    of each sort and one for each troublesome name are always there). `version`: another one of the line. `large_text`:
    characters of the longest text. The same seed and arguments make the same instance, `where` and server apart.

    Raises ValueError for an engine that the release does not support, ServerError when the server says no.
    """
    release = LINES[line]
    if version is None:
        version = "3.5.1" if (line, engine) == ("3.5", "sqlite") else next(iter(release.versions))
    unsupported = engine == "sqlite" and version in ("3.5.2", "3.5.3")
    if engine not in release.engines or version not in release.versions or unsupported:
        raise ValueError(f"there is no Papermerge {version} of {line} on {engine}")
    rng = random.Random(f"{line} {engine} {version} {seed}")
    plans = plan_documents(rng, documents, processes_later=line == "3.6")
    builder = Builder(line, engine, version, release.versions[version], rng, plans, large_text)
    release.build(builder)
    builder.add_site_tables()

    media = where / "media"
    media.mkdir(parents=True)
    write_files(media, builder.files)
    script, database, url = b"", name, ""
    if engine == "sqlite":
        path = where / "db.sqlite3"
        write_sqlite(builder.database, path)
        database, url, password = str(path), "sqlite:///" + quote(str(path)), ""
    elif engine == "postgresql":
        script = postgres_script(builder.database, builder.types, builder.program)
    else:
        script = mysql_script(builder.database)
    if server is not None:
        url = load(server, name, password, script)
    return GeneratedInstance(
        line=line,
        engine=engine,
        version=version,
        marker=release.versions[version],
        media=media,
        database=database,
        database_url=url,
        password=password,
        script=script,
        counts=builder.database.counts(),
        ids={
            table: tuple(stored_text(value, engine) for value in builder.database.keys(table))
            for table in builder.database.tables
        },
        expected=frozenset(builder.expected),
        expected_rows=len(builder.expected),
        never_uploaded=builder.never_uploaded,
        not_computable=builder.not_computable,
        orphan_rows=builder.orphan_rows,
        unprocessed=frozenset(builder.unprocessed),
        unnamed=frozenset(builder.unnamed),
        derived=frozenset(builder.derived),
        sha256={path: hashlib.sha256(content).hexdigest() for path, content in builder.files.items()},
    )


def write_files(directory: Path, files: dict[bytes, bytes]) -> None:
    """Write files by their relative paths."""
    made: set[bytes] = set()
    for relative, content in files.items():
        path = os.path.join(os.fsencode(directory), relative)
        parent = os.path.dirname(path)
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        with open(path, "wb") as stream:
            stream.write(content)
