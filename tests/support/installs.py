# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of real Papermerge installs, where they lie beside this checkout.

A lone clone does not have them: tests that use them are skipped there, and say so. Where they lie elsewhere,
PAPERMERGE_BACKUP_REAL_INSTALLS names the directory.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.support.servers.mariadb import MariaServer
from tests.support.servers.postgres import PostgresServer

DATA = Path(
    os.environ.get("PAPERMERGE_BACKUP_REAL_INSTALLS")
    or Path(__file__).resolve().parents[3] / "shared" / "papermerge-data"
)
NAMES = ("2.0.2-sqlite", "2.1.9-postgresql", "3.2-mysql", "3.4.1-sqlite", "3.5.3-postgresql")

needs_installs = pytest.mark.skipif(not DATA.is_dir(), reason="the data of real installs are not beside this checkout")
"""For tests, and for pytest.param(…, marks=needs_installs)."""

_DJANGO_TABLES = {
    "users": "core_user",
    "nodes": "core_basetreenode",
    "folders": "core_folder",
    "documents": "core_document",
    "document_versions": "core_documentversion",
    "pages": "core_page",
    "tags": "core_tag",
    "tagged_nodes": "core_coloredtag",
    "kvstore_nodes": "core_kvstorenode",
    "kvstore_pages": "core_kvstorepage",
    "automates": "core_automate",
    "access": "core_access",
    "roles": "core_role",
    "groups": "auth_group",
}
_ORIGINALS = ("docs/", "docvers/")


@dataclasses.dataclass(frozen=True)
class RealInstall:
    """One data set and what its expected.txt says. Paths are bytes, relative to the media directory.

    `engine`: sqlite, postgresql or mysql. `counts`: rows by table. `expected`: the originals that must exist.
    `sha256`: of files in the media directory, as hexadecimal digits (2.0.2: of its originals only).
    """

    name: str
    directory: Path
    version: str
    engine: str
    marker: str
    counts: dict[str, int]
    expected: frozenset[bytes]
    sha256: dict[bytes, str]

    @property
    def dump(self) -> Path:
        """The database: a SQLite file, a custom dump of pg_dump, or what mysqldump wrote."""
        return self.directory / {"sqlite": "db.sqlite3", "postgresql": "papermerge.dump"}.get(
            self.engine, "papermerge.sql"
        )

    @property
    def plain_dump(self) -> Path:
        r"""The database as SQL; that of PostgreSQL begins with \restrict. SQLite has none."""
        return self.directory / "papermerge.sql"

    def unpack_media(self, where: Path) -> Path:
        """Put the media files into `where`, which is made, and return it."""
        where.mkdir(parents=True)
        with tarfile.open(self.directory / "media.tar.gz") as archive:
            for member in archive:
                member.name = member.name.removeprefix("./").removeprefix("media").lstrip("/") or "."
                archive.extract(member, where, filter="data")
        return where

    def load(
        self, into: PostgresServer | MariaServer | Path, name: str = "papermerge", password: str = "real install"
    ) -> str:
        """Load the database and return its URL.

        Into a server: a new database `name`, owned by the new role of that name and password. For SQLite, into a file.
        Raises ServerError.
        """
        if isinstance(into, Path):
            assert self.engine == "sqlite", f"{self.name} is not a SQLite database"
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.dump, into)
            into.chmod(0o644)
            return f"sqlite:///{into}"
        if isinstance(into, PostgresServer):
            assert self.engine == "postgresql", f"{self.name} is not a PostgreSQL database"
            into.create_role(name, password)
            into.create_database(name, name)
            into.load(self.dump, name, name)
        else:
            assert self.engine == "mysql", f"{self.name} is not a MariaDB database"
            into.create_user(name, password)
            into.create_database(name, name)
            into.load(self.dump, name)
        return into.url(name, name, password)


def real_install(name: str) -> RealInstall:
    """Return the data set of that name, one of NAMES."""
    directory = DATA / name
    version, _dash, engine = name.partition("-")
    counts: dict[str, int] = {}
    marker = ""
    expected: set[bytes] = set()
    sha256: dict[bytes, str] = {}
    for line in (directory / "expected.txt").read_text(encoding="utf-8").splitlines():
        hashed = re.fullmatch(r"([0-9a-f]{64})  (?:\./)?(.+)", line)
        if hashed:
            sha256[hashed[2].encode()] = hashed[1]
        elif line.startswith(_ORIGINALS):
            expected.add(line.encode())
        elif not line.startswith("#"):
            key, _equals, value = line.partition("=")
            if key in ("last_core_migration", "alembic_version"):
                marker = value
            else:
                counts[key if version >= "3.3" else _DJANGO_TABLES[key]] = int(value)
    return RealInstall(name, directory, version, engine, marker, counts, frozenset(expected), sha256)
