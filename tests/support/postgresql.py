# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL engine in a test's hands: databases of a test's own, dumps, both ways to talk to a server."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg2

from ansible_collections.papermerge.backup.plugins.module_utils.database.engine import Dump
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace, parse_database_url
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.dump import PostgresDatabase
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.programs import (
    APPLICATION,
    client_of,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.session import (
    PsqlSession,
    Psycopg2Session,
    Session,
)
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import (
    ReleaseLine,
    release_line_named,
)
from tests.support.servers.postgres import PostgresServer, identifier

#: What URLs, shells and SQL treat as theirs.
PASSWORD = "s3cr:t/@ %41'\"\\$&#?=[é]"
#: A Papermerge 2.0 with the tables that matter, and another one.
TABLES = """
create table django_migrations (id serial primary key, app text, name text);
create table core_user (id serial primary key, username text not null unique);
create table core_basetreenode (id serial primary key, title text, user_id int references core_user, parent_id int);
create table core_folder (basetreenode_ptr_id int primary key);
create table core_document (basetreenode_ptr_id int primary key references core_basetreenode, file_name text not null,
                            page_count int not null, text text, version int);
create table core_page (id serial primary key, document_id int, text text);
insert into django_migrations (app, name) values ('core', '0039_auto_20210216_1014'), ('auth', '0099_other');
insert into core_user (username) values ('admin');
"""
LINE: ReleaseLine = release_line_named("2.0")
TAKE_DOCUMENT = (
    "with n as (insert into core_basetreenode (title, user_id) values ('document', 1) returning id)"
    " insert into core_document select id, 'scan.pdf', 1, '', 0 from n returning basetreenode_ptr_id"
)


@dataclass(frozen=True)
class OwnDatabase:
    """A database of a test's own with a role of the same name, by way of TCP and a password."""

    server: PostgresServer
    name: str
    password: str = PASSWORD

    @property
    def url(self) -> str:
        return self.server.url(self.name, self.name, self.password)

    @property
    def place(self) -> DatabasePlace:
        return parse_database_url(self.url, "a test")

    @property
    def database(self) -> PostgresDatabase:
        return PostgresDatabase(self.place, "a test")

    def execute(self, sql: str) -> str:
        """Run SQL as the superuser."""
        return self.server.execute(sql, self.name)

    def as_owner(self, sql: str) -> str:
        return self.server.execute(sql, self.name, role=self.name)

    def add_document(self, media: Path | None = None) -> int:
        number = int(self.as_owner(TAKE_DOCUMENT))
        if media is not None:
            path = media / "docs" / "user_1" / f"document_{number}" / "scan.pdf"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"%%PDF-1.4 %d\n" % number)
        return number

    def alter_role(self, settings: str) -> None:
        self.server.execute(f"alter role {identifier(self.name)} {settings}")


def make_database(server: PostgresServer, tables: str = TABLES, options: str = "", attributes: str = "") -> OwnDatabase:
    """Make a database with Papermerge's tables, for a server that the test itself has started."""
    own = OwnDatabase(server, f"papermerge_{secrets.token_hex(4)}")
    server.create_role(own.name, PASSWORD, attributes)
    server.create_database(own.name, own.name, options)
    if tables:
        own.as_owner(tables)
    return own


@contextmanager
def own_database(
    server: PostgresServer, tables: str = TABLES, options: str = "", attributes: str = ""
) -> Iterator[OwnDatabase]:
    """Make a database on a server of many tests: it and what restores have put beside it go with its role."""
    own = make_database(server, tables, options, attributes)
    try:
        yield own
    finally:
        remove_role(server, own.name)


def remove_role(server: PostgresServer, role: str) -> None:
    """Remove a role with all its databases."""
    query = f"select datname from pg_database where pg_get_userbyid(datdba) = '{role}'"
    for (name,) in server.rows(query):
        server.drop_database(name)
    server.execute(f"drop owned by {identifier(role)}; drop role {identifier(role)}")


WAYS: dict[str, Callable[[DatabasePlace], Session]] = {
    "psycopg2": lambda place: Psycopg2Session(place, place.name),
    "psql": lambda place: PsqlSession(place, client_of(place), str(client_of(place).find("psql"))),
}


def start_dump(own: OwnDatabase, line: ReleaseLine = LINE) -> AbstractContextManager[Dump]:
    """Return the context of a dump that needs no workspace."""

    def no_workspace(_parent: str, _size: int) -> Callable[[str], str]:
        raise AssertionError("a server's dump needs no room on the host")

    return own.database.dump(line, no_workspace, lambda _done, _total: None)


def write_dump(dump: Dump, to: Path) -> Path:
    to.write_bytes(b"".join(dump.content()))
    return to


def our_sessions(server: PostgresServer, wait: float = 5.0) -> list[tuple[str, ...]]:
    """Return the server's sessions of ours and of its client programs, when they have had time to end."""
    query = (
        "select datname, application_name, state, query from pg_stat_activity where backend_type = 'client backend'"
        f" and application_name in ('{APPLICATION}', 'pg_dump', 'pg_restore') and pid <> pg_backend_pid()"
    )
    end = time.monotonic() + wait
    while (found := server.rows(query)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def connect(own: OwnDatabase, database: str = "") -> psycopg2.extensions.connection:
    """Return a connection of the application."""
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=own.server.port,
        user=own.name,
        password=own.password,
        dbname=database or own.name,
        application_name="gunicorn",
    )
    connection.autocommit = True
    return connection


def other_place(place: DatabasePlace, **changes: object) -> DatabasePlace:
    return replace(place, **changes)  # type: ignore[arg-type]
