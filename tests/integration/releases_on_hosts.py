# SPDX-License-Identifier: GPL-3.0-or-later
"""A Papermerge of any release and engine, laid out on test hosts as installed, and what a restored one holds."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from tests.support.generated.instance import GeneratedInstance
from tests.support.generated.project import UNIT, write_project
from tests.support.hosts.databases import Engine, HostDatabases
from tests.support.hosts.host import Host
from tests.support.installs import RealInstall
from tests.support.instances import files_below
from tests.support.servers import mariadb, postgres

SERVERS: tuple[Engine, ...] = ("postgresql", "mysql")
PASSWORD = "of the source: p@ss/w%41'\"\\$é"
TARGET_PASSWORD = "of the target: {w}o:rd#2 ü"
ADMIN_PASSWORD = "of the administrator: @/%"
SQLITE_DIRECTORY = "/srv/papermerge/data"
MEDIA = "/srv/papermerge/media"
TARGET_SQLITE_DIRECTORY = "/var/lib/papermerge/database"
TARGET_MEDIA = "/var/lib/papermerge/files of documents"


@dataclasses.dataclass(frozen=True)
class Papermerge:
    """An instance that can be put on hosts, and all that is true of it, none of it by the code under test.

    `name` is that of its host. `dump`: the SQLite file, or what a server's client loads. `sha256`: of every file below
    `media`. `expected`: the files that rows of the database name, `expected_rows` rows that do.
    """

    name: str
    version: str
    engine: str
    marker: str
    media: Path
    dump: bytes
    counts: dict[str, int]
    sha256: dict[bytes, str]
    expected: frozenset[bytes]
    expected_rows: int

    @property
    def is_on_server(self) -> bool:
        return self.engine in SERVERS

    @property
    def originals(self) -> set[bytes]:
        """The files of documents, named by a row or not."""
        return {path for path in self.sha256 if path.split(b"/")[0] in (b"docs", b"docvers")}


def of_install(install: RealInstall, scratch: Path) -> Papermerge:
    """Return a real install. What expected.txt says of its files is true of the media that lie beside it."""
    media = install.unpack_media(scratch / "media")
    hashes = hashes_below(media)
    assert install.sha256.items() <= hashes.items()
    return Papermerge(
        name="real-" + install.name.replace(".", "-"),
        version=install.version,
        engine=install.engine,
        marker=install.marker,
        media=media,
        dump=install.dump.read_bytes(),
        counts=install.counts,
        sha256=hashes,
        expected=install.expected,
        expected_rows=len(install.expected),
    )


def of_generated(instance: GeneratedInstance, name: str, version: str | None = None) -> Papermerge:
    """Return a generated instance, as another version if told so."""
    return Papermerge(
        name=name,
        version=version or instance.version,
        engine=instance.engine,
        marker=instance.marker,
        media=instance.media,
        dump=instance.script or Path(instance.database).read_bytes(),
        counts=instance.counts,
        sha256=instance.sha256,
        expected=instance.expected,
        expected_rows=instance.expected_rows,
    )


def hashes_below(directory: Path) -> dict[bytes, str]:
    """Return the SHA-256 of every file below a directory, by relative path."""
    found = files_below(directory)
    return {path: hashlib.sha256(content).hexdigest() for path, (content, _time, _mode) in found.items()}


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a Papermerge is on a host. `admin_url`: an account that may make databases; "" where the owner may."""

    papermerge: Papermerge
    host: Host
    media: str
    database_url: str
    admin_url: str = ""

    @property
    def databases(self) -> HostDatabases:
        assert self.papermerge.engine in SERVERS
        return HostDatabases(self.host, "postgresql" if self.papermerge.engine == "postgresql" else "mysql")

    @property
    def database(self) -> str:
        """The database's name at its server, or its file on the host."""
        return f"/{self.database_url.partition('////')[2]}" if not self.papermerge.is_on_server else "papermerge"

    def inventory(self, **more: Any) -> dict[str, Any]:
        """Return the host's variables: how it is reached, and what is given."""
        return self.host.inventory("admin", ansible_become=True, **more)

    def hashes(self) -> dict[bytes, str]:
        """Return the SHA-256 of every file below the media directory, by the host's own sha256sum."""
        command = f"cd {shlex.quote(self.media)} && find . -type f -exec sha256sum --zero {{}} +"
        lines = self.host.run(command).stdout.split("\0")[:-1]
        return {os.fsencode(line[66:].removeprefix("./")): line[:64] for line in lines}

    def counts(self, tables: list[str] | None = None) -> dict[str, int]:
        """Return the number of rows of the tables, asked with the engine's own client."""
        if self.papermerge.is_on_server:
            return self.databases.counts(self.database, tables)
        if tables is None:
            tables = self._sqlite(
                "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
            ).splitlines()
        numbers = self._sqlite("".join(f'select count(*) from "{table}";' for table in tables)).split()
        return dict(zip(tables, map(int, numbers), strict=True))

    def _sqlite(self, sql: str) -> str:
        return self.host.run(["sqlite3", "-readonly", self.database], input=sql).stdout

    def has_nothing(self) -> bool:
        """Tell whether neither a media file nor a row is there."""
        if self.host.run(["find", self.media, "-type", "f"], check=False).stdout:
            return False
        if not self.papermerge.is_on_server:
            return self.host.run(["test", "-e", self.database], check=False).returncode != 0
        return self.database not in self.databases.names() or self.databases.counts(self.database) == {}


def install(
    papermerge: Papermerge,
    host: Host,
    scratch: Path,
    *drop_in: str,
    settings_in: str = "unit",
    password: str = PASSWORD,
) -> Site:
    """Put a Papermerge with its documents on a host. `drop_in`: lines of its service's own."""
    if papermerge.is_on_server:
        databases = _server(papermerge, host)
        url = databases.create("papermerge", "papermerge", password)
        databases.load("papermerge", papermerge.dump, "papermerge")
    else:
        url = f"sqlite:///{SQLITE_DIRECTORY}/db.sqlite3"
        host.run(f"mkdir -p {SQLITE_DIRECTORY} && chown papermerge: {SQLITE_DIRECTORY}")
        host.put(f"{SQLITE_DIRECTORY}/db.sqlite3", papermerge.dump, 0o640, "papermerge")
    _lay_out(papermerge, host, scratch, url, MEDIA, settings_in, drop_in)
    host.put_tree(papermerge.media, MEDIA, "papermerge")
    return Site(papermerge, host, MEDIA, url)


def install_empty(
    papermerge: Papermerge,
    host: Host,
    scratch: Path,
    *,
    with_admin: bool,
    password: str = TARGET_PASSWORD,
    admin_password: str = ADMIN_PASSWORD,
) -> Site:
    """Put a Papermerge of that release on a host, without documents, in other places than `install` does.

    On a server its role is there; the database is absent, and the role may make it, or an administrator may and the
    database is there, empty.
    """
    admin_url = ""
    if not papermerge.is_on_server:
        url = f"sqlite:///{TARGET_SQLITE_DIRECTORY}/db.sqlite3"
        host.run(f"mkdir -p {TARGET_SQLITE_DIRECTORY} && chown papermerge: {TARGET_SQLITE_DIRECTORY}")
    else:
        databases = _server(papermerge, host)
        url = databases.create("papermerge", "keeper", password)
        if with_admin or papermerge.engine == "mysql":
            admin_url = databases.url(_make_admin(databases, admin_password), "backup admin", admin_password)
        else:
            databases.drop("papermerge")
            databases.execute("alter role keeper createdb")
    _lay_out(papermerge, host, scratch, url, TARGET_MEDIA, "file", ())
    host.run(f"install -d -o papermerge -g papermerge {shlex.quote(TARGET_MEDIA)}")
    return Site(papermerge, host, TARGET_MEDIA, url, admin_url)


def _server(papermerge: Papermerge, host: Host) -> HostDatabases:
    databases = HostDatabases(host, "postgresql" if papermerge.engine == "postgresql" else "mysql")
    databases.start()
    return databases


def _make_admin(databases: HostDatabases, password: str) -> str:
    """Make an account that may make databases for others, and return the one that it connects to."""
    if databases.engine == "postgresql":
        name, secret = postgres.identifier("backup admin"), postgres.literal(password)
        databases.execute(f"create role {name} login createdb password {secret}; grant keeper to {name}")
        return "postgres"
    account, secret = f"{mariadb.literal('backup admin')}@'%'", mariadb.literal(password)
    databases.execute(f"create user {account} identified by {secret}; grant all on *.* to {account} with grant option")
    return "mysql"


def _lay_out(
    papermerge: Papermerge,
    host: Host,
    scratch: Path,
    url: str,
    media: str,
    settings_in: str,
    drop_in: tuple[str, ...],
) -> None:
    scratch.mkdir(parents=True)
    root = scratch / "root"
    written = write_project(root, papermerge.version, database_url=url, media_root=media, settings_in=settings_in)
    if drop_in:
        more = root / f"{UNIT[1:]}.d/more.conf"
        more.parent.mkdir()
        more.write_text("[Service]\n" + "".join(f"{line}\n" for line in drop_in), encoding="utf-8")
    for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
        directory.chmod(0o755)  # of the host's own directories, some of these
    host.put_tree(root, "/")
    assert host.run(["test", "-d", written.directory], check=False).returncode == 0


@dataclasses.dataclass(frozen=True)
class Stored:
    """The newest snapshot of an instance, as it lies in the repository."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def classes(self) -> dict[str, int]:
        """Rows by class, those classes that have some."""
        return {name: count for name, count in self.manifest["proof"]["classes"].items() if count}

    @property
    def index(self) -> dict[bytes, str]:
        """SHA-256 of the media files by path, by zstd and json alone."""
        plain = subprocess.run(["zstd", "-dc", self.directory / "index.jsonl.zst"], capture_output=True, check=True)
        entries = [json.loads(line) for line in plain.stdout.splitlines()]
        return {
            base64.b64decode(entry["path_base64"]) if "path_base64" in entry else entry["path"].encode(): entry[
                "sha256"
            ]
            for entry in entries
        }


def stored(directory: Path) -> Stored:
    """Read a snapshot's directory."""
    return Stored(directory, json.loads((directory / "manifest.json").read_text(encoding="utf-8")))
